package recorder

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/configs"
	"sallyport/recorder/disk"
	"sallyport/recorder/format"
	"sallyport/recorder/verify"
)

// recordMuch records statements that pack well, some hundred KiB of them, and says which.
func recordMuch(t testing.TB, rec *Recording) (all []string) {
	t.Helper()
	for i := range 800 {
		text := fmt.Sprintf("SELECT id, total FROM orders WHERE customer = %d AND state = 'open' -- %s", i, strings.Repeat("x", i%300))
		if err := rec.Record(t.Context(), said(text)); err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	return all
}

func end(t testing.TB, rec *Recording) {
	t.Helper()
	if err := rec.End(format.End{Reason: "done"}); err != nil {
		t.Fatal(err)
	}
}

func look(t testing.TB, r *Recorder, session string) (format.Info, int64) {
	t.Helper()
	f, err := os.Open(pathOf(r, session))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	found, err := format.Look(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return found, info.Size()
}

func same(t testing.TB, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d texts instead of %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("text %d is %.80q instead of %.80q", i, got[i], want[i])
		}
	}
}

// What has ended is packed: smaller, read as before, followed, verified, and with the same chain.
func TestEndedRecordingsArePacked(t *testing.T) {
	levels(t, func(t *testing.T, level configs.Durability) {
		dir := t.TempDir()
		r := openRecorder(t, dir, level)
		rec := begin(t, r, "s1")
		want := recordMuch(t, rec)
		_, follow, err := r.Follow(t.Context(), "s1") // ranged over only after the file was exchanged
		if err != nil {
			t.Fatal(err)
		}
		small := begin(t, r, "small")
		if err := small.Record(t.Context(), said("x")); err != nil {
			t.Fatal(err)
		}
		end(t, small)
		end(t, rec)
		chain := rec.good.Chain
		if err := r.packer.settled(t.Context()); err != nil {
			t.Fatal(err)
		}
		info, size := look(t, r, "s1")
		if !info.Packed || !info.Sealed || info.Content != rec.good.Offset || size > info.Content/5 {
			t.Errorf("%d bytes of %d, packed %v", size, info.Content, info.Packed)
		}
		if info, _ := look(t, r, "small"); info.Packed {
			t.Error("what fits into a page was packed")
		}
		same(t, texts(t, r, "s1"), want)
		if reason := ending(t, r, "s1"); reason != "done" {
			t.Errorf("ended %q", reason)
		}
		followed := 0
		for e, err := range follow {
			if err != nil {
				t.Fatal(err)
			}
			if e.Type == format.TypeSaid {
				followed++
			}
		}
		if followed != len(want) {
			t.Errorf("followed %d of %d", followed, len(want))
		}
		report, err := verify.Check(dir, verify.Options{})
		if err != nil || !report.Whole || len(report.Recordings) != 2 || report.Recordings[0].Chain != fmt.Sprintf("%x", chain) {
			report.WriteTo(t.Output())
			t.Errorf("%v, the chain was %x", err, chain)
		}
		left, err := filepath.Glob(filepath.Join(dir, "recordings/*/*/*/*"+disk.Unborn))
		if err != nil || len(left) > 0 {
			t.Errorf("left over: %v, %v", left, err)
		}
	})
}

// A start packs what was not: an orderly end was too quick, or the gateway died.
func TestStartPacksWhatWasLeft(t *testing.T) {
	dir := t.TempDir()
	r := openRecorder(t, dir, configs.Synced)
	r.packer.work.close()
	rec := begin(t, r, "ended")
	want := recordMuch(t, rec)
	end(t, rec)
	recordMuch(t, begin(t, r, "open"))
	if err := r.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	r = openRecorder(t, dir, configs.Synced)
	if err := r.packer.settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	for session, reason := range map[string]string{"ended": "done", "open": "crashed"} {
		if info, _ := look(t, r, session); !info.Packed {
			t.Errorf("%s is not packed", session)
		}
		same(t, texts(t, r, session)[:len(want)], want)
		if got := ending(t, r, session); got != reason {
			t.Errorf("%s ended %q", session, got)
		}
	}
}

// What is damaged stays as it is.
func TestDamagedIsNotPacked(t *testing.T) {
	dir := t.TempDir()
	r := openRecorder(t, dir, configs.Written)
	r.packer.work.close()
	rec := begin(t, r, "s1")
	recordMuch(t, rec)
	end(t, rec)
	path := pathOf(r, "s1")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.pack(t.Context(), "s1"); err == nil {
		t.Error("it was packed")
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
		t.Errorf("it was changed: %v", err)
	}
	if _, err := os.Stat(path + disk.Unborn); err == nil {
		t.Error("something is left over")
	}
}

// packUntilKilled records in a session, says so once it has ended, and packs it, which is where it dies.
func packUntilKilled(dir string) {
	on := system()
	on.Segment = childSegment
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	r, err := open(context.Background(), Options{Dir: dir, Config: configs.Recording{Durability: configs.Synced, AllowVolatile: true}}, on)
	fail(err)
	rec, err := r.Begin(context.Background(), format.Header{Session: "s1", Protocol: "test"}, "")
	fail(err)
	other, err := r.Begin(context.Background(), format.Header{Session: "s2", Protocol: "test"}, "")
	fail(err)
	for n := range 300 {
		fail(rec.Record(context.Background(), Event{Type: format.TypeSaid, Data: fmt.Appendf(nil, "%d %s", n, strings.Repeat("x", n))}))
	}
	fail(other.Record(context.Background(), said("still open"))) // so that the log is still there
	fail(rec.End(format.End{Reason: "done"}))
	fmt.Println("ended")
	_ = r.packer.settled(context.Background())
	fmt.Println("packed")
	os.Exit(1)
}

// A gateway that is killed before or after the exchange has one form or the other, and its log does no harm to either.
func TestKilledWhilePacking(t *testing.T) {
	for _, place := range []string{packWritten, packSwapped} {
		t.Run(place, func(t *testing.T) {
			dir := t.TempDir()
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), "SALLYPORT_TEST_PACK_CHILD="+dir, "SALLYPORT_FAULTS=1", "SALLYPORT_CRASH_AT="+place)
			out, err := child.Output()
			if err == nil || string(out) != "ended\n" || child.ProcessState.String() != "signal: killed" {
				t.Fatalf("%q, %v", out, err)
			}
			if logs, _ := filepath.Glob(filepath.Join(dir, "wal", "*")); len(logs) == 0 {
				t.Fatal("there is no log to replay")
			}
			r := openRecorder(t, dir, configs.Synced)
			if err := r.packer.settled(t.Context()); err != nil {
				t.Fatal(err)
			}
			if info, _ := look(t, r, "s1"); !info.Packed {
				t.Error("it is not packed")
			}
			if got := texts(t, r, "s1"); len(got) != 300 || ending(t, r, "s1") != "done" {
				t.Errorf("%d texts, ended %q", len(got), ending(t, r, "s1"))
			}
			if got := texts(t, r, "s2"); len(got) != 2 || got[0] != "still open" { // and a note of the recovery
				t.Errorf("s2: %q", got)
			}
			if report, err := verify.Check(dir, verify.Options{}); err != nil || !report.Whole {
				report.WriteTo(t.Output())
				t.Errorf("not whole: %v", err)
			}
		})
	}
}
