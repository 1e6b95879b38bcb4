package evidence

import (
	"context"
	"fmt"
	"testing"
	"time"

	"sallyport/configs"
)

// source says what it is asked, once it is let.
type source struct{ begun, let chan struct{} }

func (s source) Read(ctx context.Context, about About) (Reading, error) {
	s.begun <- struct{}{}
	select {
	case <-s.let:
	case <-ctx.Done():
		return Reading{}, ctx.Err()
	}
	return Reading{Data: map[string]any{"ticket": about.Ticket}}, nil
}

func reader(t *testing.T, s Source, before *Reader) *Reader {
	t.Helper()
	c := &configs.Config{Evidence: []configs.Evidence{{Name: "ticket", Kind: configs.KindTicket, Jira: "acme", Every: configs.Duration(time.Minute), Tolerance: configs.Duration(time.Minute)}}}
	r, err := New(c, func(configs.Evidence) (Source, error) { return s, nil }, time.Now, before)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What an earlier configuration's reader still reads, a later one looks at, neither in the other's way.
func TestReadWhileTheConfigurationChanges(t *testing.T) {
	s := source{make(chan struct{}), make(chan struct{})}
	old := reader(t, s, nil)
	about := About{Ticket: "OPS-1"}
	done := make(chan struct{})
	go func() {
		defer close(done)
		old.Learn(t.Context(), []string{"ticket"}, about)
	}()
	<-s.begun
	now := reader(t, s, old)
	close(s.let)
	for f := now.Known("ticket", about); ; f = now.Known("ticket", about) {
		if f.Missing == "" && f.Data["ticket"] == "OPS-1" {
			break
		}
		select {
		case <-done:
			if f = now.Known("ticket", about); f.Missing != "" {
				t.Fatalf("%+v", f)
			}
		default:
		}
	}
	<-done
}

// However many are read, none is forgotten before it was looked at by who asked for it.
func TestRoomForOneThatIsBeingRead(t *testing.T) {
	s := source{make(chan struct{}), make(chan struct{})}
	r := reader(t, s, nil)
	for i := range maxKept {
		r.known[key{"ticket", About{Ticket: fmt.Sprint("OLD-", i)}}] = &reading{last: time.Now().Add(-time.Hour)}
	}
	for _, ticket := range []string{"OPS-1", "OPS-2"} {
		go r.Learn(t.Context(), []string{"ticket"}, About{Ticket: ticket})
		<-s.begun
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ticket := range []string{"OPS-1", "OPS-2"} {
		if r.known[key{"ticket", About{Ticket: ticket}}] == nil {
			t.Errorf("%s is forgotten while it is read", ticket)
		}
	}
	if len(r.known) != maxKept {
		t.Errorf("%d readings are kept", len(r.known))
	}
}
