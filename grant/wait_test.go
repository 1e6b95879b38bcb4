package grant

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/internal/refusal"
)

type waitedFor struct {
	lease *Lease
	err   error
}

// waiting begins a wait in the background; said hears what it is told.
func (w *world) waiting(ctx context.Context, account, target string, within time.Duration, ask Ask) (said <-chan Waiting, got <-chan waitedFor) {
	words, end := make(chan Waiting, 100), make(chan waitedFor, 1)
	go func() {
		l, err := w.LeaseOrWait(ctx, alice, target, account, within, ask, func(now Waiting) error {
			words <- now
			return nil
		})
		end <- waitedFor{l, err}
	}()
	return words, end
}

func next1[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// A connection that waits files what it was told to ask for, says who can approve, and goes on when they do.
func TestWaitForApproval(t *testing.T) {
	w := newWorld(t)
	said, got := w.waiting(t.Context(), "app", "orders", time.Minute, Ask{Reason: "a stuck order"})
	now := next1(t, said)
	if now.Grant.State != Pending || now.Grant.Reason != "a stuck order" || !strings.Contains(now.Text(), "leads") {
		t.Fatalf("%+v", now)
	}
	if _, err := w.Approve(t.Context(), bob, now.Grant.ID, ""); err != nil {
		t.Fatal(err)
	}
	v := next1(t, got)
	if v.err != nil || v.lease.Live() != nil || v.lease.Grant.ID != now.Grant.ID {
		t.Fatalf("%+v", v)
	}
	if len(w.watchers.waiting)+len(w.watchers.of) != 0 {
		t.Fatal("something of the wait is left")
	}
}

// With nothing to ask with, it waits for the request as well, wherever that is filed.
func TestWaitForRequest(t *testing.T) {
	w := newWorld(t)
	said, got := w.waiting(t.Context(), "ro", "orders", time.Minute, Ask{})
	if now := next1(t, said); now.Grant.ID != "" || len(now.MayAsk) != 1 || now.Target != "orders" {
		t.Fatalf("%+v", now)
	}
	if _, err := w.Request(t.Context(), alice, Ask{Target: "orders", Account: "ro", Reason: "from the page"}); err != nil {
		t.Fatal(err)
	}
	if v := next1(t, got); v.err != nil || v.lease.Live() != nil {
		t.Fatalf("%+v", v)
	}
}

func TestWaitEndsWithTheReason(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(w *world, id string) error
		word string
	}{
		"denied":    {func(w *world, id string) error { _, err := w.Deny(t.Context(), bob, id, "not today"); return err }, "not today"},
		"withdrawn": {func(w *world, id string) error { _, err := w.Release(t.Context(), alice, id); return err }, "taken back"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			said, got := w.waiting(t.Context(), "app", "orders", time.Minute, Ask{Reason: "a stuck order"})
			if err := c.end(w, next1(t, said).Grant.ID); err != nil {
				t.Fatal(err)
			}
			if v := next1(t, got); !refusal.Is(v.err, refusal.NoGrant) || !strings.Contains(v.err.Error(), c.word) {
				t.Fatalf("%v", v.err)
			}
		})
	}
	t.Run("nobody decides", func(t *testing.T) {
		w := newWorld(t)
		said, got := w.waiting(t.Context(), "app", "orders", 50*time.Millisecond, Ask{Reason: "a stuck order"})
		id := next1(t, said).Grant.ID
		v := next1(t, got)
		if !refusal.Is(v.err, refusal.NoGrant) || !strings.Contains(v.err.Error(), id) || !strings.Contains(v.err.Error(), "leads") {
			t.Fatal(v.err)
		}
		if g, err := w.Get(t.Context(), alice, id); err != nil || g.State != Pending { // the request stands
			t.Fatalf("%+v %v", g, err)
		}
	})
	t.Run("the client hangs up", func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		said, got := w.waiting(ctx, "app", "orders", time.Minute, Ask{Reason: "a stuck order"})
		next1(t, said)
		gone := errors.New("gone")
		cancel(gone)
		if v := next1(t, got); !errors.Is(v.err, gone) {
			t.Fatal(v.err)
		}
	})
}

// Where waiting can lead to nothing there is none, and nobody waits who was not told to.
func TestNoWaitWithoutHope(t *testing.T) {
	w := newWorld(t)
	never := func(Waiting) error { t.Error("it waited"); return nil }
	for _, c := range []struct {
		account, target string
		within          time.Duration
	}{{"owner", "orders", time.Minute}, {"nobody", "orders", time.Minute}, {"app", "nowhere", time.Minute}, {"app", "orders", 0}} {
		if l, err := w.LeaseOrWait(t.Context(), alice, c.target, c.account, c.within, Ask{}, never); err == nil {
			t.Fatalf("%+v: %+v", c, l)
		}
	}
	for range maxWaiting {
		said, _ := w.waiting(t.Context(), "app", "orders", time.Hour, Ask{})
		next1(t, said)
	}
	if _, err := w.LeaseOrWait(t.Context(), alice, "orders", "app", time.Hour, Ask{}, never); !refusal.Is(err, refusal.TooMany) {
		t.Fatal(err)
	}
}
