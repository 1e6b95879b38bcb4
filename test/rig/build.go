package rig

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// builds are the binaries of this test process, by what was built and how.
var builds = struct {
	sync.Mutex
	paths map[string]string
	dir   string
}{paths: map[string]string{}}

// Binary builds the sallyport binary with those build tags, once a test process; it is built as for a release.
func Binary(t testing.TB, tags string) string {
	t.Helper()
	return Program(t, "sallyport/cmd/sallyport", "-tags", tags)
}

// raceFlags are what builds and tests with the race detector take, one on each line; `make test` takes them too. The detector
// looks at everything but SQLite's C code, which was translated into Go, keeps its own memory and locks, and under it takes most of
// the tests' time. Take no package out that has generic or inlined code of others in it, such as sync's maps: the linker keeps one copy
// of that for the whole program, and where it is the one without the detector, races are missed or seen where there are none.
//
//go:embed race.flags
var raceFlags string

// Checked is Binary with the race detector in it, where the tests have it; what it finds in the gateway fails the test.
func Checked(t testing.TB) string {
	t.Helper()
	if raceDetector {
		return build(t, "sallyport/cmd/sallyport", os.Environ(), strings.Fields(raceFlags)...)
	}
	return Binary(t, "")
}

// Verifier builds the auditor's binary, sallyport-verify, once a test process.
func Verifier(t testing.TB) string {
	t.Helper()
	return Program(t, "sallyport/cmd/sallyport-verify")
}

// Program builds any program that the test's module knows, without cgo, once a test process.
func Program(t testing.TB, program string, flags ...string) string {
	t.Helper()
	// As the Makefile builds, so that what it has compiled serves here too.
	return build(t, program, append(os.Environ(), "CGO_ENABLED=0"), append([]string{"-trimpath"}, flags...)...)
}

func build(t testing.TB, program string, environment []string, flags ...string) string {
	t.Helper()
	// Go gives the results of an earlier run where a test asks for nothing that is other now. It knows nothing of what is built here,
	// so it is asked for the run's own number, which `make test` gives.
	_ = os.Getenv("SALLYPORT_TEST_RUN")
	builds.Lock()
	defer builds.Unlock()
	key := program + " " + strings.Join(flags, " ")
	if path := builds.paths[key]; path != "" {
		return path
	}
	if builds.dir == "" {
		dir, err := os.MkdirTemp("", "build-*")
		if err != nil {
			t.Fatal(err)
		}
		builds.dir = dir
	}
	path := filepath.Join(builds.dir, filepath.Base(program)+"-"+strconv.Itoa(len(builds.paths)))
	cmd := exec.Command("go", append(append([]string{"build", "-o", path}, flags...), program)...)
	cmd.Env = environment
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	builds.paths[key] = path
	return path
}
