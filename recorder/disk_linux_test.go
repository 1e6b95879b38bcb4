package recorder

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
	"sallyport/recorder/format"
	"sallyport/recorder/transparency"
	"sallyport/recorder/verify"
)

// tinyDisk mounts a file system of that many MiB.
func tinyDisk(t *testing.T, size int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a tiny file system to fill")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=700", size)); err != nil {
		t.Skipf("no tiny file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{64 << 10, 4096, 1} { // to the last byte
		for err = nil; err == nil; {
			_, err = f.Write(bytes.Repeat([]byte{1}, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	levels(t, func(t *testing.T, level configs.Durability) {
		dir := tinyDisk(t, 6)
		other := t.TempDir() // the store has a disk of its own here: this test is about the log
		s := storetest.New(t, other)
		r, err := Open(t.Context(), Options{
			Dir: dir, Log: testLog(t), Store: s,
			Config: configs.Recording{Durability: level, AllowVolatile: true, Reserve: 1 << 20},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close(t.Context())
		var recs []*Recording
		for i := range 20 {
			rec := begin(t, r, fmt.Sprint("s", i))
			if err := rec.Record(t.Context(), said("before")); err != nil {
				t.Fatal(err)
			}
			recs = append(recs, rec)
		}
		filler := filepath.Join(dir, "filler")
		fill(t, filler)

		if err := r.Ready(); !refusal.Is(err, refusal.RecorderFailed) || !strings.Contains(err.Error(), "full") {
			t.Errorf("ready on a full disk: %v", err)
		}
		if _, err := r.Begin(t.Context(), header("new"), ""); !refusal.Is(err, refusal.RecorderFailed) {
			t.Errorf("a session began on a full disk: %v", err)
		}
		for _, rec := range recs {
			// Longer than what is left of the file's last page, so that it needs room.
			if err := rec.Record(t.Context(), said(strings.Repeat("x", 8<<10))); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("record on a full disk: %v", err)
			}
			select {
			case <-rec.Failed():
			default:
				t.Fatal("a recording that failed does not say so")
			}
			if err := rec.Record(t.Context(), said("again")); err == nil {
				t.Fatal("a recording that failed goes on")
			}
			if err := rec.End(format.End{Reason: "recorder_failed", Detail: strings.Repeat("d", 4000)}); err != nil {
				t.Fatalf("no room for the ending: %v", err)
			}
		}
		for i := range recs {
			session := fmt.Sprint("s", i)
			if got := texts(t, r, session); len(got) != 1 || got[0] != "before" || ending(t, r, session) != "recorder_failed" {
				t.Errorf("%s: %q, ended %q", session, got, ending(t, r, session))
			}
		}
		// The control plane goes on: its events wait, and are moved when there is room.
		if err := s.Audit(t.Context(), store.AuditEvent{Kind: "grant.revoked", Actor: "x", Reason: strings.Repeat("y", 16<<10)}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the mover meets the full disk", func() bool { return r.audit.failure() != nil })
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		eventually(t, "there is room again", func() bool { return r.Ready() == nil })
		revoked := 0 // each once; beside it stand those of the disk's watch, if it looked meanwhile
		for i, e := range collect(t, r.Audit(t.Context(), AuditFilter{})) {
			if e.Kind == "grant.revoked" {
				revoked++
			}
			if e.Number != uint64(i+1) || e.Kind != "grant.revoked" && e.Kind != "recorder.disk" {
				t.Errorf("audit log: event %d is number %d, %s", i, e.Number, e.Kind)
			}
		}
		if revoked != 1 {
			t.Errorf("the event stands in the audit log %d times", revoked)
		}
		rec := begin(t, r, "after")
		if err := rec.Record(t.Context(), said("room again")); err != nil {
			t.Fatal(err)
		}
		if err := rec.End(format.End{Reason: "done"}); err != nil {
			t.Fatal(err)
		}
		if report, err := r.Verify(t.Context()); err != nil || !report.Whole {
			report.WriteTo(t.Output())
			t.Errorf("after a full disk the log is not whole: %v", err)
		}
	})
}

// TestFailedSync is run again by strace, which fails the sync that Record waits for.
func TestFailedSync(t *testing.T) {
	if dir := os.Getenv("SALLYPORT_TEST_SYNC"); dir != "" {
		failedSync(t, dir)
		return
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed; it makes a sync fail")
	}
	// The thread that syncs is not known: every sync after the 8 of the measuring at the start fails.
	dir := t.TempDir()
	command := exec.Command(strace, "-f", "-qq", "-e", "trace=fdatasync", "-e", "signal=none", "-e", "inject=fdatasync:error=EIO:when=1+",
		"-o", filepath.Join(dir, "strace"), os.Args[0], "-test.run", "^TestFailedSync$", "-test.v")
	command.Env = append(os.Environ(), "SALLYPORT_TEST_SYNC="+dir)
	out, err := command.CombinedOutput()
	if strings.Contains(string(out), "ptrace") && strings.Contains(string(out), "not permitted") {
		t.Skip("strace may not trace here")
	}
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func failedSync(t *testing.T, dir string) {
	r := &Recorder{hardware: system(), Options: Options{Dir: dir, Log: testLog(t), Config: configs.Recording{Durability: configs.Synced, AllowVolatile: true}},
		paths: map[string]string{}, live: map[string]*Recording{}}
	if err := r.prepare(); err != nil { // all of Open but the measuring, whose syncs would fail
		t.Fatal(err)
	}
	rec := begin(t, r, "s1")
	if err := rec.Record(t.Context(), said("a command")); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a failed sync was not told: %v", err)
	}
	for range 3 {
		if err := rec.Record(t.Context(), said("again")); !errors.Is(err, syscall.EIO) {
			t.Fatalf("after a failed sync: %v", err)
		}
	}
	if err := rec.End(format.End{Reason: "recorder_failed"}); !errors.Is(err, syscall.EIO) {
		t.Fatalf("an ending after a failed sync: %v", err)
	}
	if err := r.Ready(); !refusal.Is(err, refusal.RecorderFailed) {
		t.Fatalf("ready after a failed sync: %v", err)
	}
	if _, err := r.Begin(t.Context(), header("s2"), ""); !refusal.Is(err, refusal.RecorderFailed) {
		t.Fatalf("a session began after a failed sync: %v", err)
	}
	if report, err := verify.Check(dir, verify.Options{}); err != nil || report.Recordings[0].State != verify.Open {
		t.Fatalf("%+v, %v", report, err)
	}
}

func TestFileSizeLimit(t *testing.T) {
	r := openRecorder(t, t.TempDir(), configs.Written)
	rec := begin(t, r, "s1")
	if err := rec.Record(t.Context(), said("before")); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	lowered := limit
	lowered.Cur = uint64(rec.safe.Load()) + 4096
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &lowered); err != nil {
		t.Skip(err)
	}
	err := rec.Record(t.Context(), said(strings.Repeat("x", 64<<10))) // written in part
	if back := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); back != nil {
		t.Fatal(back)
	}
	if !errors.Is(err, syscall.EFBIG) {
		t.Fatalf("over the limit: %v", err)
	}
	if err := rec.End(format.End{Reason: "recorder_failed"}); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, r, "s1"); len(got) != 1 || ending(t, r, "s1") != "recorder_failed" {
		t.Errorf("%q, ended %q", got, ending(t, r, "s1"))
	}
}

// Where there is no room for its leaf no session begins, and nothing is left of it; what is owed is written as soon as
// there is room.
func TestFullDiskOfTheLog(t *testing.T) {
	dir, small := t.TempDir(), tinyDisk(t, 1)
	if err := os.Symlink(small, filepath.Join(dir, transparency.Folder)); err != nil {
		t.Fatal(err)
	}
	r := bound(t, dir, nil)
	defer unbind(t, r)
	rec := begin(t, r, "before")
	filler := filepath.Join(small, "filler")
	fill(t, filler)
	begun := 0
	for ; begun < 100; begun++ { // the last page of the tail may have room
		if _, err := r.Begin(t.Context(), header(fmt.Sprint("s", begun)), ""); err != nil {
			if refusal.Of(err) == nil || refusal.Of(err).Code != refusal.RecorderFailed || !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			break
		}
	}
	if begun == 100 || r.has(fmt.Sprint("s", begun)) {
		t.Fatalf("%d sessions began on a full disk", begun)
	}
	if err := rec.End(format.End{Reason: "done"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what was owed is bound", func() bool {
		kinds := leavesOf(t, r.Ledger, "before")
		return kinds[len(kinds)-1] == transparency.Close
	})
	end(t, begin(t, r, fmt.Sprint("s", begun)))
	checkBound(t, dir)
}
