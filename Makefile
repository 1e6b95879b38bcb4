# Sallyport. `make` alone lists what there is.

export PATH := $(PATH):/usr/local/go/bin
GO ?= go
export GOFLAGS ?= -buildvcs=auto
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 30s
# What test/rig says of it.
RACE := $(shell cat test/rig/race.flags)
LINT := $(GO) tool -modfile=internal/tools/go.mod golangci-lint

.DEFAULT_GOAL := help
.PHONY: help player build test tested story demo lint fuzz bench browser conformance release storage store

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

player: ## the console's terminal player, from npm; without Node.js the console is built without it
	@if command -v npm >/dev/null; then test/tools/console-player; \
	else echo "npm is not installed: the console is built without the terminal player"; fi

build: player ## build bin/sallyport and bin/sallyport-verify, static (GOOS=darwin or windows: the client for those)
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/sallyport$$($(GO) env GOEXE) ./cmd/sallyport
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/sallyport-verify$$($(GO) env GOEXE) ./cmd/sallyport-verify

release: player ## dist/VERSION: static binaries for Linux, macOS, Windows, Debian packages, a container file, SHA256SUMS
	GO="$(GO)" internal/tools/release/build $(VERSION)

demo: ## everything on this machine: build, install what is missing, run `sallyport demo` until Ctrl-C
	@test/tools/install-missing authorities initdb sshd psql ssh
	@$(MAKE) --no-print-directory build
	@exec bin/sallyport demo

test: player ## all tests, with the race detector and real servers
	@test/tools/install-missing authorities initdb sshd psql ssh scp pgbench gcc chromium curl
	@# With -trimpath, as `make build` has it, everything is compiled once for both.
	CGO_ENABLED=0 $(GO) vet -trimpath ./...
	CGO_ENABLED=0 $(GO) build -trimpath ./...
	CGO_ENABLED=0 $(GO) run -trimpath ./test/tools/elsewhere darwin windows -- ./cmd/sallyport ./cmd/sallyport-verify
	@$(MAKE) --no-print-directory -j 2 tested story

# The tests in test/ take longest and wait most, so they come first, and more packages run at a time than there are processors.
tested:
	GORACE=atexit_sleep_ms=50 CGO_ENABLED=1 SALLYPORT_TEST_RUN=$$$$ test/tools/with-postgres $(GO) test $(RACE) -vet=off -p $$((2 * $$(getconf _NPROCESSORS_ONLN))) -timeout 14m \
		./test/... $$($(GO) list ./... | grep -v '^sallyport/test')

story:
	@$(MAKE) --no-print-directory browser BROWSER='-run "TestStory|TestPicturesOfTheDocumentation"'

lint: ## golangci-lint, as pinned in internal/tools/go.mod
	$(LINT) run ./...

fuzz: ## every fuzz target for FUZZTIME (30s)
	@set -e; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "== $$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

store: ## the rooms' own tests once more, with their store on PostgreSQL
	@test/tools/install-missing initdb sshd psql ssh
	SALLYPORT_TEST_STORE=postgres test/tools/with-postgres $(GO) test -count=1 -timeout 20m ./authn/... ./grant/... ./session/... ./recorder/... ./web/... ./protocols/...

storage: ## the archive of recordings against a real S3-compatible store (versitygw)
	cd test/storage && $(GO) test -count=1 ./...

bench: build ## Go benchmarks, then PostgreSQL side by side with PgBouncer, HAProxy, …; BENCHFLAGS="-rounds 2 -copy 100" is shorter; SSH beside a jump host; and how soon revoked access is gone
	@test/tools/install-missing initdb sshd psql ssh pgbench pgbouncer haproxy
	$(GO) run ./test/bench/recorder $(RECORDERBENCHFLAGS)
	$(GO) test -run '^$$' -bench . -benchmem ./...
	SALLYPORT_TEST_STORE=postgres test/tools/with-postgres $(GO) test -run '^$$' -bench Admission ./grant
	SALLYPORT_LONG=1 $(GO) test -count=1 -timeout 30m -v -run TestThreeThousandGrants ./protocols/postgres/ephemeral
	$(GO) run ./test/bench/postgres -sallyport bin/sallyport $(BENCHFLAGS)
	$(GO) run ./test/bench/ssh -sallyport bin/sallyport $(SSHBENCHFLAGS)
	test/tools/with-rig --no-target-log -- $(GO) run ./test/bench/grants $(GRANTSBENCHFLAGS)

browser: build ## the console in a real browser, against the demo; pictures of its pages go to test/browser/pictures and docs/pictures
	@test/tools/install-missing initdb sshd psql ssh scp chromium curl pgbench
	@test/tools/axe
	cd test/browser && CGO_ENABLED=0 SALLYPORT_BIN=$(CURDIR)/bin/sallyport $(GO) test -trimpath -count=1 $(BROWSER) ./...

conformance: build browser store ## other people's tests and stock programs through the gateway, compared with a straight connection
	@test/tools/install-missing initdb sshd psql ssh pgbench gcc
	test/tools/with-rig -- test/conformance/stock
	test/tools/newer-psql 18 && test/tools/newer-psql 19
	$(GO) test -count=1 -run 'TestPsqlSignsInNatively' ./test/e2e
	dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && chmod 755 "$$dir" && cp -a "$$(test/tools/newer-postgres 18)/usr" "$$dir" && \
		SALLYPORT_TEST_POSTGRES_BIN=$$dir/usr/lib/postgresql/18/bin $(GO) test -count=1 ./protocols/postgres/ephemeral
	@test/tools/install-missing rsync ansible alembic git
	test/tools/with-rig -- test/conformance/run
	cd test/conformance/powerloss && $(GO) test -count=1 ./...
	@$(MAKE) --no-print-directory storage
	cd test/conformance && $(GO) run . -sallyport ../../bin/sallyport
	cd test/conformance && $(GO) run . -sallyport ../../bin/sallyport -postgres 18
	cd test/conformance/acme && $(GO) test -count=1 ./...
	test/tools/with-rig --durability written --no-target-log -- $(GO) run -C test/conformance ./ssh $(SSHCONFORMANCEFLAGS)
