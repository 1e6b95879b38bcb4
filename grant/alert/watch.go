package alert

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/store"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

const (
	batch = 500
	retry = 5 * time.Second
)

// Options configure Open.
type Options struct {
	Config *configs.Config
	Store  *store.Store
	// Audit are the events above a number that are in memory no more, from the audit log.
	Audit func(ctx context.Context, after uint64) iter.Seq2[store.AuditEvent, error]
	Log   *slog.Logger
}

// Watcher looks at events as they are committed. Safe for concurrent use.
type Watcher struct {
	Options
	stop    context.CancelFunc
	stopped sync.WaitGroup

	// Its goroutine's own: the last event that it has looked at, how many of them are not noted in the store, and what it has
	// raised that is not there yet.
	at      uint64
	unnoted int
	raised  []grant.Alert

	mu    sync.Mutex
	rules *Rules
}

// Open starts to look, from where it stopped; where it never looked, from now on.
func Open(ctx context.Context, o Options) (*Watcher, error) {
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	if err := o.Store.Migrate(ctx, "alert", migrations); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	w := &Watcher{Options: o}
	if err := w.Reload(o.Config); err != nil {
		return nil, err
	}
	at, found, err := w.cursor(ctx)
	if err != nil {
		return nil, err
	}
	w.at = at
	if !found {
		w.at = o.Store.Latest()
		if err := o.Store.Do(ctx, func(tx *store.Tx) error { return note(ctx, tx, w.at) }); err != nil {
			return nil, err
		}
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	w.stopped.Go(func() { w.run(running) })
	return w, nil
}

// Reload takes the alerts of another configuration, which count from nothing; one with mistakes (configs.Problems) changes
// nothing.
func (w *Watcher) Reload(c *configs.Config) error {
	rules, err := Compile(c)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules = rules
	return nil
}

// Close stops it. What it has not looked at it does after the next start.
func (w *Watcher) Close() {
	w.stop()
	w.stopped.Wait()
}

func (w *Watcher) run(ctx context.Context) {
	for {
		committed := w.Store.Committed()
		wait, again := committed, (<-chan time.Time)(nil)
		if err := w.look(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			w.Log.Error("look at events for alerts; it is tried again", "error", err)
			wait, again = nil, time.After(retry)
		}
		select {
		case <-ctx.Done():
			return
		case <-wait:
		case <-again:
		}
	}
}

// look looks at all that it has not looked at.
func (w *Watcher) look(ctx context.Context) error {
	if len(w.raised) > 0 {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	for e, err := range w.after(ctx, w.at) {
		if err != nil {
			return err
		}
		w.mu.Lock() // a reload waits for it, and nobody else
		w.raised = append(w.raised, w.rules.Look(e)...)
		w.mu.Unlock()
		w.at = e.Number
		w.unnoted++
		// Where nothing is raised the place is noted now and then only: what is looked at again after a restart has raised
		// nothing, and is counted anew.
		if len(w.raised) > 0 || w.unnoted >= batch {
			if err := w.flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush puts what was raised into the outbox, and notes how far it has looked. Where it fails, what was raised stays.
func (w *Watcher) flush(ctx context.Context) error {
	err := w.Store.Do(ctx, func(tx *store.Tx) error {
		for _, a := range w.raised {
			if err := grant.Tell(ctx, tx, a); err != nil {
				return err
			}
			if err := tx.Audit(store.AuditEvent{
				Kind: "alert.raised", Actor: "system", Target: a.Event.Target, Account: a.Event.Account, Grant: a.Event.Grant, Session: a.Event.Session,
				Reason: a.Text(), Fields: map[string]string{"alert": a.Name, "event": strconv.FormatUint(a.Event.Number, 10), "count": strconv.Itoa(a.Count)},
			}); err != nil {
				return err
			}
		}
		return note(ctx, tx, w.at)
	})
	if err == nil {
		w.raised, w.unnoted = nil, 0
	}
	return err
}

// after are the events above a number, from memory where they are there.
func (w *Watcher) after(ctx context.Context, number uint64) iter.Seq2[store.AuditEvent, error] {
	recent, whole := w.Store.Recent(number)
	if !whole {
		return w.Audit(ctx, number)
	}
	return func(yield func(store.AuditEvent, error) bool) {
		for _, e := range recent {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (w *Watcher) cursor(ctx context.Context) (number uint64, found bool, err error) {
	err = w.Store.Read().QueryRowContext(ctx, `SELECT number FROM alert_cursor WHERE id = 1`).Scan(&number)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read how far alerts have looked: %w", err)
	}
	return number, true, nil
}

func note(ctx context.Context, tx *store.Tx, number uint64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO alert_cursor (id, number) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET number = excluded.number`, int64(number))
	if err != nil {
		return fmt.Errorf("note how far alerts have looked: %w", err)
	}
	return nil
}
