package recorder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/recorder/format"
	"sallyport/recorder/lock"
	"sallyport/recorder/verify"
)

const canary = "canary-7f3a91"

// identity is an auditor's, of either kind.
type identity interface {
	age.Identity
	recipient() string
}

type classic struct{ *age.X25519Identity }

func (c classic) recipient() string { return c.Recipient().String() }

type hybrid struct{ *age.HybridIdentity }

func (h hybrid) recipient() string { return h.Recipient().String() }

func newIdentity(t testing.TB, postQuantum bool) identity {
	t.Helper()
	if postQuantum {
		i, err := age.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		return hybrid{i}
	}
	i, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return classic{i}
}

func openLocking(t testing.TB, dir string, level configs.Durability, recipients ...string) *Recorder {
	t.Helper()
	r, err := Open(t.Context(), Options{
		Dir: dir, Version: "test", Log: testLog(t), Config: configs.Recording{Durability: level, AllowVolatile: true},
		Index: filepath.Join(dir, "index.db"), Recipients: func(string) []string { return recipients },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(context.Background()) })
	return r
}

// expectNoPlaintext looks for the canary in every file of a state directory, the write-ahead log and the index included.
func expectNoPlaintext(t testing.TB, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // a log's segment that was not needed any more
			return nil
		}
		files++
		if bytes.Contains(content, []byte(canary)) {
			t.Errorf("%s has what was recorded, in the clear", path)
		}
		return err
	})
	if err != nil || files == 0 {
		t.Fatal(files, err)
	}
}

func openedTexts(t testing.TB, path string, who age.Identity) (texts []string, last string) {
	t.Helper()
	c, err := OpenCopy(path, nil, who)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for item, err := range c.Items(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		switch item.Kind {
		case ItemInput:
			texts = append(texts, item.Text)
		case ItemEnd:
			last = item.Reason
		case ItemNote:
			if item.Command == "damage" {
				t.Errorf("%s: %s", path, item.Text)
			}
		}
	}
	return texts, last
}

func TestLockedRecording(t *testing.T) {
	for _, postQuantum := range []bool{false, true} {
		t.Run(fmt.Sprintf("postquantum=%t", postQuantum), func(t *testing.T) {
			levels(t, func(t *testing.T, level configs.Durability) {
				auditor := newIdentity(t, postQuantum)
				dir := t.TempDir()
				r := openLocking(t, dir, level, auditor.recipient())
				rec := begin(t, r, "s1")
				record := func(n int) {
					if err := rec.Record(t.Context(), said(fmt.Sprint(canary, n, strings.Repeat("x", 3000)))); err != nil {
						t.Fatal(err)
					}
				}
				record(1)
				// Who watches sees it while it lives, and its end.
				_, events, err := r.Follow(t.Context(), "s1")
				if err != nil {
					t.Fatal(err)
				}
				seen, done := make(chan string, 10), make(chan error, 1)
				go func() {
					defer close(seen)
					for e, err := range events {
						if err != nil {
							done <- err
							return
						}
						seen <- string(e.Data)
					}
					done <- nil
				}()
				if got := <-seen; !strings.HasPrefix(got, canary+"1") {
					t.Errorf("a watcher sees %.40q", got)
				}
				record(2)
				if got := <-seen; !strings.HasPrefix(got, canary+"2") {
					t.Errorf("a watcher sees %.40q", got)
				}
				expectNoPlaintext(t, dir)
				record(3)
				key := rec.key
				end(t, rec)
				if <-seen; !strings.Contains(<-seen, "reason") {
					t.Error("a watcher does not see the ending")
				}
				if err := <-done; err != nil {
					t.Error("a watcher:", err)
				}
				for deadline := time.Now().Add(20 * time.Second); key.Hold(); time.Sleep(time.Millisecond) {
					key.Release()
					if time.Now().After(deadline) {
						t.Fatal("the key is still there")
					}
				}

				// From now on the gateway cannot read it, and says so.
				_, itemsErr := r.Items(t.Context(), "s1")
				_, fromErr := r.ItemsFrom(t.Context(), "s1", time.Second)
				for _, err := range []error{itemsErr, fromErr, r.Export(t.Context(), "s1", "jsonl", &bytes.Buffer{}, ExportOptions{})} {
					if !refusal.Is(err, refusal.Locked) {
						t.Errorf("reading says %v", err)
					}
				}
				matches, locked := 0, 0
				for _, err := range r.Search(t.Context(), Query{Text: "canary"}) {
					if refusal.Is(err, refusal.Locked) {
						locked++
					} else {
						matches++
					}
				}
				if matches != 0 || locked != 1 {
					t.Errorf("a search finds %d matches, %d locked recordings", matches, locked)
				}
				if err := r.Close(context.Background()); err != nil {
					t.Fatal(err)
				}
				expectNoPlaintext(t, dir)

				// The auditor can, with what the gateway hands out as it is stored; nobody else.
				r = openLocking(t, dir, level, auditor.recipient())
				if err := r.packer.settled(t.Context()); err != nil {
					t.Fatal(err)
				}
				copied := filepath.Join(t.TempDir(), "s1.srec")
				var stored bytes.Buffer
				if err := r.Export(t.Context(), "s1", Stored, &stored, ExportOptions{}); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(copied, stored.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				texts, last := openedTexts(t, copied, auditor)
				if len(texts) != 3 || !strings.HasPrefix(texts[2], canary+"3") || last == "unfinished" {
					t.Errorf("the auditor reads %d events, ended %q", len(texts), last)
				}
				if _, err := OpenCopy(copied, nil, newIdentity(t, postQuantum)); !errors.Is(err, lock.ErrNotForYou) {
					t.Errorf("somebody else's identity: %v", err)
				}
				if _, err := OpenCopy(copied, nil); !refusal.Is(err, refusal.Locked) {
					t.Errorf("no identity: %v", err)
				}
				report, err := verify.Check(dir, verify.Options{})
				if err != nil || len(report.Recordings) != 1 || report.Recordings[0].State != verify.Sealed || len(report.Recordings[0].Problems) > 0 {
					t.Errorf("verify without a key: %+v, %v", report, err)
				}
			})
		})
	}
}

// After a kill -9 at any place what was acknowledged is there, for who has the identity, and the recording is ended, by a
// gateway that can't read it.
func TestLockedKillStorm(t *testing.T) {
	levels(t, func(t *testing.T, level configs.Durability) {
		auditor := newIdentity(t, false)
		t.Setenv("SALLYPORT_TEST_RECIPIENT", auditor.recipient())
		dir := t.TempDir()
		acknowledged := map[string]map[int]bool{}
		for round, place := range []string{halfWritten, afterWrite, ""} {
			storm(t, dir, level, round, place, acknowledged)
		}
		r := openLocking(t, dir, level)
		for session, numbers := range acknowledged {
			texts, last := openedTexts(t, pathOf(r, session), auditor)
			for n := range numbers {
				if !slices.ContainsFunc(texts, func(text string) bool { return strings.HasPrefix(text, strconv.Itoa(n)+" ") }) {
					t.Errorf("%s: event %d was acknowledged and is gone", session, n)
				}
			}
			if last != reasonCrashed {
				t.Errorf("%s ended %q", session, last)
			}
		}
	})
}

func TestRecordingThatCannotBeLockedIsNotBegun(t *testing.T) {
	r := openLocking(t, t.TempDir(), configs.Written, "age1nonsense")
	if _, err := r.Begin(t.Context(), header("s1"), ""); !refusal.Is(err, refusal.RecorderFailed) {
		t.Errorf("it was begun: %v", err)
	}
}

func TestWithoutRecipientsNothingChanges(t *testing.T) {
	r := openLocking(t, t.TempDir(), configs.Written)
	rec := begin(t, r, "s1")
	if rec.Header().Lock != nil || rec.key != nil {
		t.Error("it is locked")
	}
	end(t, rec)
	if got := texts(t, r, "s1"); len(got) != 0 {
		t.Error(got)
	}
	if _, err := format.NewKey(nil); err == nil {
		t.Error("an empty key is a key")
	}
}
