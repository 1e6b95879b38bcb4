package recorder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/recorder/format"
)

// Whoever follows a recording sees all of it in order, from whenever they begin, up to its ending; nothing before it is
// safe.
func TestFollow(t *testing.T) {
	levels(t, func(t *testing.T, level configs.Durability) {
		r := openRecorder(t, t.TempDir(), level)
		rec := begin(t, r, "s1")
		const count = 300
		var all sync.WaitGroup
		for range 5 {
			_, events, err := r.Follow(t.Context(), "s1")
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				n, ended := 0, false
				for e, err := range events {
					if err != nil {
						t.Error(err)
						return
					}
					if safe := rec.safe.Load(); safe == 0 {
						t.Error("nothing is safe")
					}
					if ended = e.Type == format.TypeEnd; ended {
						continue
					}
					if string(e.Data) != fmt.Sprint("event ", n) {
						t.Errorf("%q where event %d should be", e.Data, n)
						return
					}
					n++
				}
				if n != count || !ended {
					t.Errorf("followed %d events, ended %v", n, ended)
				}
			})
		}
		for i := range count {
			e := said(fmt.Sprint("event ", i))
			var err error
			if rand.IntN(2) == 0 {
				err = rec.Note(e)
			} else {
				err = rec.Record(t.Context(), e)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := rec.End(format.End{Reason: "done"}); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		if r.Live("s1") {
			t.Error("it lives on")
		}
	})
}

// What is queued and not yet safe is not shown.
func TestFollowShowsOnlyWhatIsSafe(t *testing.T) {
	r := openRecorder(t, t.TempDir(), configs.Synced)
	rec := begin(t, r, "s1")
	ctx, cancel := context.WithCancel(t.Context())
	_, events, err := r.Follow(ctx, "s1")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string)
	go func() {
		defer close(seen)
		for e, err := range events {
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				return
			}
			seen <- string(e.Data)
		}
	}()
	if err := rec.Record(t.Context(), said("safe")); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "safe" {
		t.Fatalf("saw %q", got)
	}
	rec.mu.Lock() // somebody is writing, and the disk takes its time
	rec.busy = true
	if err := rec.add([]Event{said("on its way")}); err != nil {
		t.Fatal(err)
	}
	rec.grown.wake() // even if it is looked at
	rec.mu.Unlock()
	select {
	case got := <-seen:
		t.Fatalf("saw %q before it was safe", got)
	case <-time.After(50 * time.Millisecond): // nothing is waited for: it would have come at once
	}
	rec.mu.Lock()
	rec.busy = false
	rec.wake()
	rec.mu.Unlock()
	if err := rec.Record(t.Context(), said("later")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"on its way", "later"} {
		if got := <-seen; got != want {
			t.Fatalf("saw %q, want %q", got, want)
		}
	}
	cancel() // ends it at once, though nothing happens
	if _, more := <-seen; more {
		t.Error("it goes on after it was given up")
	}
}

func TestFollowOfWhatDoesNotLive(t *testing.T) {
	dir := t.TempDir()
	r := openRecorder(t, dir, configs.Written)
	if _, _, err := r.Follow(t.Context(), "nobody"); !refusal.Is(err, refusal.NotFound) {
		t.Errorf("nobody's: %v", err)
	}
	rec := begin(t, r, "s1")
	_, late, err := r.Follow(t.Context(), "s1") // ranged over when it is over
	if err != nil {
		t.Fatal(err)
	}
	if err := rec.Record(t.Context(), said("one")); err != nil {
		t.Fatal(err)
	}
	if err := rec.End(format.End{Reason: "done"}); err != nil {
		t.Fatal(err)
	}
	_, after, err := r.Follow(t.Context(), "s1")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := len(collect(t, late)), len(collect(t, after)); a != 2 || b != 2 {
		t.Errorf("%d and %d events", a, b)
	}
}
