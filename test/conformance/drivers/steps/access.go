package steps

import (
	"context"
	"errors"
	"fmt"
)

// Pool is a driver's pool of four connections.
type Pool struct {
	// Use runs a statement on one of them.
	Use func(context.Context) error
	// UseAtOnce uses all of them at the same time and gives their process ids.
	UseAtOnce func(context.Context) (map[int]bool, error)
	// Sleep has one of them sleep for a minute and calls asleep first, with its process id. It returns what the sleeper was told.
	Sleep func(ctx context.Context, asleep func(pid int)) error
	// Event is what a server process waits for; empty: nothing.
	Event func(ctx context.Context, pid int) (string, error)
	// Gone is nil for an error that says that the session has ended.
	Gone func(error) error
	// Refused is nil for an error that says that there is no access.
	Refused func(error) error
}

// Ends is what a pool sees when the account's access ends under it and is given back.
func (p Pool) Ends(ctx context.Context) error {
	before, err := p.UseAtOnce(ctx)
	if err != nil {
		return err
	}
	var ended chan error
	told := p.Sleep(ctx, func(pid int) {
		ended = make(chan error, 1)
		go func() {
			ended <- WhenAsleep(func() (string, error) { return p.Event(ctx, pid) }, func() error { return Access(ctx, "end") })
		}()
	})
	if ended == nil {
		return told
	}
	if err := errors.Join(p.Gone(told), <-ended); err != nil {
		return err
	}
	refused := 0
	for range 5 {
		err := p.Use(ctx)
		if err == nil {
			return errors.New("the pool works without access")
		}
		if p.Refused(err) == nil {
			refused++
		}
	}
	if refused == 0 {
		return errors.New("nobody was refused")
	}
	if err := Access(ctx, "renew"); err != nil {
		return err
	}
	if err := p.Use(ctx); err != nil {
		return err
	}
	after, err := p.UseAtOnce(ctx)
	for pid := range before {
		if after[pid] {
			err = errors.Join(err, fmt.Errorf("backend %d is there again", pid))
		}
	}
	return err
}

// WhenAsleep acts once a server process is in pg_sleep; event is what it waits for.
func WhenAsleep(event func() (string, error), act func() error) error {
	for {
		switch now, err := event(); {
		case err != nil:
			return err
		case now == "PgSleep":
			return act()
		}
	}
}
