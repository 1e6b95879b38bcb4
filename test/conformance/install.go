package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// packages are what the suites need from Debian. A machine that has a Node.js or a Java of its own keeps it.
var packages = []struct {
	name string
	has  string // a program that makes the package unnecessary
}{
	{name: "postgresql-" + packaged}, {name: "postgresql-contrib"}, {name: "libpq-dev"}, {name: "gcc", has: "gcc"}, {name: "bzip2", has: "bzip2"},
	{name: "dpkg-dev", has: "dpkg-source"}, {name: "python3-psycopg2"}, {name: "python3-psycopg"}, {name: "python3-psycopg-pool"}, {name: "python3-asyncpg"},
	{name: "nodejs", has: "node"}, {name: "npm", has: "npm"}, {name: "openssl", has: "openssl"},
	{name: "libpostgresql-jdbc-java"}, {name: "libhikaricp-java"}, {name: "openjdk-17-jdk-headless", has: "javac"},
}

// install brings what is missing and unpacks PostgreSQL's own source and the server's development files, both of exactly
// the version that is installed: headers of another minor version make modules that the server cannot load.
func install(ctx context.Context, b *bench) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("this run installs Debian's packages and sources and found no apt-get; run it on Debian 12")
	}
	var absent []string
	for _, p := range packages {
		if p.has != "" {
			if _, err := exec.LookPath(p.has); err == nil {
				continue
			}
		}
		if version, err := installed(ctx, p.name); err != nil || version == "" {
			absent = append(absent, p.name)
		}
	}
	if len(absent) > 0 {
		b.say("installing %s", strings.Join(absent, " "))
		if os.Getuid() != 0 {
			return fmt.Errorf("missing: %s; run as root once, or install them", strings.Join(absent, " "))
		}
		if err := apt(ctx, b, b.out, nil, "update"); err != nil {
			return err
		}
		if err := apt(ctx, b, b.out, nil, slices.Concat([]string{"install", "-y", "--no-install-recommends"}, absent)...); err != nil {
			return err
		}
	}
	if b.major != packaged {
		return b.bringNewer(ctx)
	}
	exact, err := installed(ctx, "postgresql-"+b.major)
	if err != nil {
		return err
	}
	b.bindir, b.libdir = "/usr/lib/postgresql/"+b.major+"/bin", "/usr/lib/postgresql/"+b.major+"/lib"
	b.version = regexp.MustCompile(`^[0-9]+\.[0-9]+`).FindString(exact)
	dir := filepath.Join(b.cache, exact)
	b.source, b.headers = filepath.Join(dir, "postgresql-"+b.version), filepath.Join(dir, "headers")
	if err := b.fetch(ctx, dir, exact); err != nil {
		return fmt.Errorf("bring PostgreSQL %s's source and headers: %w", exact, err)
	}
	return nil
}

// bringNewer unpacks a release that is not this Debian's, whole, and copies it to where the server's account can read it,
// which the cache may not be.
func (b *bench) bringNewer(ctx context.Context) error {
	b.say("PostgreSQL %s, beside what is installed", b.major)
	cached := filepath.Join(b.cache, "postgres-"+b.major)
	if err := tool(ctx, b.here, "../tools/newer-postgres", b.major, cached); err != nil {
		return err
	}
	version, err := os.ReadFile(filepath.Join(cached, "VERSION"))
	if err != nil {
		return err
	}
	tree := filepath.Join(b.out, "staged", "postgres-"+b.major)
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return err
	}
	if err := tool(ctx, b.out, "cp", "-a", filepath.Join(cached, "usr"), tree); err != nil {
		return err
	}
	b.bindir, b.libdir = filepath.Join(tree, "usr/lib/postgresql", b.major, "bin"), filepath.Join(tree, "usr/lib/postgresql", b.major, "lib")
	found, err := filepath.Glob(filepath.Join(tree, "usr/lib/*/ld-linux*.so.*"))
	if err != nil || len(found) == 0 {
		return fmt.Errorf("no loader came with PostgreSQL %s: %w", b.major, errors.Join(err, os.ErrNotExist))
	}
	b.loader = found[0]
	b.version, b.source, b.headers = strings.TrimSpace(string(version)), filepath.Join(cached, "source"), tree
	return nil
}

func installed(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", name).Output()
	version, ok := strings.CutPrefix(string(out), "installed ")
	if err != nil || !ok {
		return "", err
	}
	return version, nil
}

// fetch fills dir, unless an earlier run did. Each part is made aside and moved, so half a download is never taken for one.
func (b *bench) fetch(ctx context.Context, dir, exact string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(b.source); errors.Is(err, os.ErrNotExist) {
		b.say("fetching the source of PostgreSQL %s", exact)
		download, err := os.MkdirTemp(dir, "source-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(download)
		config, err := sourceApt(download)
		if err != nil {
			return err
		}
		if err := apt(ctx, b, download, config, "update"); err != nil {
			return err
		}
		if err := apt(ctx, b, download, config, "source", "--download-only", "postgresql-"+b.major+"="+exact); err != nil {
			return err
		}
		archive := filepath.Join(download, fmt.Sprintf("postgresql-%s_%s.orig.tar.bz2", b.major, b.version))
		if err := tool(ctx, download, "tar", "xjf", archive); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(download, "postgresql-"+b.version), b.source); err != nil {
			return err
		}
	}
	if _, err := os.Stat(b.headers); errors.Is(err, os.ErrNotExist) {
		// Unpacked and not installed: the package would bring a compiler of its own, which nothing here needs.
		download, err := os.MkdirTemp(dir, "headers-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(download)
		if err := apt(ctx, b, download, nil, "download", "postgresql-server-dev-"+b.major+"="+exact); err != nil {
			return err
		}
		found, err := filepath.Glob(filepath.Join(download, "*.deb"))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("expected one package in %s, found %d: %w", download, len(found), err)
		}
		unpacked := filepath.Join(download, "unpacked")
		if err := tool(ctx, download, "dpkg", "-x", found[0], unpacked); err != nil {
			return err
		}
		if err := os.Rename(unpacked, b.headers); err != nil {
			return err
		}
	}
	return nil
}

// sourceApt makes a private apt configuration in dir that asks the machine's own mirrors for sources, and leaves the
// system's configuration and lists alone.
func sourceApt(dir string) ([]string, error) {
	for _, sub := range []string{"sources", "lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	types := regexp.MustCompile(`(?m)^Types:.*$`)
	deb := regexp.MustCompile(`(?m)^deb\s`)
	for _, pattern := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			// Other publishers' files may have no sources, and none of them has PostgreSQL's.
			if !bytes.Contains(content, []byte("debian")) {
				continue
			}
			content = deb.ReplaceAll(types.ReplaceAll(content, []byte("Types: deb-src")), []byte("deb-src "))
			if err := os.WriteFile(filepath.Join(dir, "sources", filepath.Base(file)), content, 0o644); err != nil {
				return nil, err
			}
		}
	}
	config := fmt.Sprintf("Dir::Etc::sourcelist %q;\nDir::Etc::sourceparts %q;\nDir::State::lists %q;\nDir::Cache %q;\nAPT::Sandbox::User %q;\n",
		"/dev/null", filepath.Join(dir, "sources"), filepath.Join(dir, "lists"), filepath.Join(dir, "cache"), "root")
	file := filepath.Join(dir, "apt.conf")
	return []string{"APT_CONFIG=" + file}, os.WriteFile(file, []byte(config), 0o644)
}

func apt(ctx context.Context, b *bench, dir string, env []string, arguments ...string) error {
	run := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=300"}, arguments...)...)
	run.Dir = dir
	run.Env = append(append(os.Environ(), "DEBIAN_FRONTEND=noninteractive"), env...)
	out, err := run.CombinedOutput()
	if err != nil {
		return fmt.Errorf("apt-get %s: %w: %s", strings.Join(arguments, " "), err, tail(string(out)))
	}
	return nil
}

// tool runs a program of the harness's own (a compiler, an archiver), as ourselves.
func tool(ctx context.Context, dir, name string, arguments ...string) error {
	run := exec.CommandContext(ctx, name, arguments...)
	run.Dir = dir
	if out, err := run.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, tail(string(out)))
	}
	return nil
}
