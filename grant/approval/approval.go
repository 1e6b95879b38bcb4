// Package approval carries requests to those who decide, and their decisions back, beside the command line, the API and
// the console.
//
// What it promises:
//
//   - Nothing that happens to a grant waits for a channel, and no channel waits for another. What is to be told stands in
//     the store before the change it tells of is in force; it is told once per event and channel, in the order in which it
//     happened to a grant, and tried again, ever more rarely, for a day. Where the gateway dies between telling and noting
//     it, it is told again under the same id. What was given up stays, to be looked at and tried anew.
//   - One message that can't be told holds up no other grant's, and none brings the gateway down. A receiver that asks for
//     patience is left in peace until then, with all that waits for it.
//   - A channel carries a wish, the gateway decides: a decision that comes in is a vote of the one identity that the
//     configuration links to the account it came from, goes through grant.Approve and Deny like any other, and counts only
//     while that person is signed in at the gateway. Who asked never decides, whichever account they use.
//   - Nothing is ever approved because a channel is silent.
package approval

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/grant"
	"sallyport/internal/store"
)

// Notice is one event on its way to one channel.
type Notice struct {
	grant.Event
	// ID is the same at every attempt, and no other notice's on this channel: the receiver's key for what it has seen.
	ID string
	// Ref is what an earlier notice on the same grant left with Deliver.
	Ref string
}

// Channel is a way out. Its name is unique and stays: deliveries that wait are kept under it.
type Channel interface {
	Name() string
	// Wants says whether it is told of that kind of event.
	Wants(kind grant.EventKind) bool
	// Deliver tells. An error means that it is tried again, later, unless it is Permanent; RetryAfter says when. ref, if
	// not empty, is kept for the next notice on the same grant. It is called by one goroutine at a time.
	Deliver(ctx context.Context, n Notice) (ref string, err error)
}

// Permanent is an error that trying again won't mend.
type Permanent struct{ Err error }

func (e Permanent) Error() string { return e.Err.Error() }
func (e Permanent) Unwrap() error { return e.Err }

// RetryAfter is an error of a receiver that says when it wants to be asked again.
type RetryAfter struct {
	Err   error
	After time.Duration
}

func (e RetryAfter) Error() string { return e.Err.Error() }
func (e RetryAfter) Unwrap() error { return e.Err }

const (
	attemptTimeout = 20 * time.Second
	giveUp         = 24 * time.Hour      // after that a notice is dead
	keep           = 30 * 24 * time.Hour // what is over stays visible for that long
	keepRefs       = 12 * keep           // since it was last written to: longer than a grant lives
	batch          = 100
	maxError       = 300 // bytes of an error that are kept
)

// waits are how long the next attempt waits after the first, second, … that failed; then the last of them.
var waits = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour}

// Options configure Open.
type Options struct {
	Store    *store.Store
	Channels []Channel
	Log      *slog.Logger
	Now      func() time.Time // there for tests; default: the system's
}

// Notifier moves what happened to grants out through the channels. Safe for concurrent use.
type Notifier struct {
	store    *store.Store
	channels []Channel
	log      *slog.Logger
	now      func() time.Time

	stop    context.CancelFunc
	stopped sync.WaitGroup
	lanes   map[string]*lane // by channel
	life    int64            // how often the store was brought back from a backup
}

// lane is what is known of the way to one channel.
type lane struct {
	wake  chan struct{} // has room for one
	quiet atomic.Int64  // until when its receiver has asked for patience, in nanoseconds since 1970
}

//go:embed migrations/*.sql
var migrationFiles embed.FS

// Open prepares the notifier and starts it.
func Open(ctx context.Context, o Options) (*Notifier, error) {
	n, err := prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stop = stop
	n.stopped.Go(func() { n.distribute(background) })
	for _, c := range n.channels {
		n.stopped.Go(func() { n.serve(background, c) })
	}
	return n, nil
}

// prepare is Open without starting.
func prepare(ctx context.Context, o Options) (*Notifier, error) {
	if err := Migrate(ctx, o.Store); err != nil {
		return nil, err
	}
	n := &Notifier{store: o.Store, channels: o.Channels, log: o.Log, now: o.Now, stop: func() {}, lanes: map[string]*lane{}}
	if n.now == nil {
		n.now = time.Now
	}
	if err := o.Store.Read().QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM restored`).Scan(&n.life); err != nil {
		return nil, fmt.Errorf("read whether the store was restored: %w", err)
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	for _, c := range o.Channels {
		if n.lanes[c.Name()] != nil {
			return nil, fmt.Errorf("two channels are named %s", c.Name())
		}
		n.lanes[c.Name()] = &lane{wake: make(chan struct{}, 1)}
	}
	return n, nil
}

// Migrate makes the tables.
func Migrate(ctx context.Context, s *store.Store) error {
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	return s.Migrate(ctx, "approval", migrations)
}

// Close stops it; what was not told yet is told after the next start.
func (n *Notifier) Close() {
	n.stop()
	n.stopped.Wait()
}

// Wake makes it look at once what is due: after the clock was set, or because a receiver is known to be back.
func (n *Notifier) Wake() {
	for _, l := range n.lanes {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// distribute writes down, for each event, which channels are to be told.
func (n *Notifier) distribute(ctx context.Context) {
	for {
		committed := n.store.Committed()
		wait := time.Hour
		if err := n.take(ctx); err != nil && ctx.Err() == nil {
			n.log.Error("take what happened to grants to those who are told", "error", err)
			wait = waits[0]
		}
		select {
		case <-ctx.Done():
			return
		case <-committed:
		case <-time.After(wait):
		}
	}
}

// take moves events from the grants' outbox to the channels' queues, in one transaction.
func (n *Notifier) take(ctx context.Context) error {
	var waiting int
	if err := n.store.Read().QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 FROM grant_events LIMIT 1) AS one`).Scan(&waiting); err != nil {
		return err
	}
	for more := waiting > 0; more; {
		var events []grant.Event
		var unread []error
		now := n.now().UnixNano()
		err := n.store.Do(ctx, func(tx *store.Tx) (err error) {
			if events, unread, err = grant.TakeEvents(ctx, tx, batch); err != nil {
				return err
			}
			for _, e := range events {
				body, err := json.Marshal(e)
				if err != nil {
					return err
				}
				for _, c := range n.channels {
					if !wants(c, e) {
						continue
					}
					if _, err := tx.ExecContext(ctx, `INSERT INTO notifications (event, channel, kind, grant_id, body, state, next_try, created)
						VALUES (?, ?, ?, ?, ?, 'pending', ?, ?)`, e.Number, c.Name(), e.Kind, e.About(), string(body), now, now); err != nil {
						return fmt.Errorf("queue event %d for %s: %w", e.Number, c.Name(), err)
					}
				}
			}
			if _, err = tx.ExecContext(ctx, `DELETE FROM notifications WHERE state <> 'pending' AND done < ?`, now-int64(keep)); err == nil {
				_, err = tx.ExecContext(ctx, `DELETE FROM notification_refs WHERE created < ?`, now-int64(keepRefs))
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, err := range unread {
			n.log.Error("an event can't be read, and nobody is told of it", "error", err)
		}
		more = len(events)+len(unread) == batch
		n.Wake()
	}
	return nil
}

// wants says whether a channel is told of an event: an alarm goes to all, an alert to those that it names.
func wants(c Channel, e grant.Event) bool {
	if e.Alert != nil {
		return slices.Contains(e.Alert.To, c.Name())
	}
	return c.Wants(e.Kind) || e.Kind == grant.EventAlarm
}

// serve tells one channel what there is to tell.
func (n *Notifier) serve(ctx context.Context, c Channel) {
	for {
		next, err := n.deliver(ctx, c)
		wait := next.Sub(n.now())
		if err != nil {
			if ctx.Err() == nil {
				n.log.Error("deliver notifications", "channel", c.Name(), "error", err)
			}
			wait = waits[0]
		} else if next.IsZero() {
			wait = time.Hour
		}
		select {
		case <-ctx.Done():
			return
		case <-n.lanes[c.Name()].wake:
		case <-time.After(max(wait, 100*time.Millisecond)):
		}
	}
}

// isHead is true of the oldest delivery n that waits for a channel and grant; the others wait for it.
const isHead = `NOT EXISTS (SELECT 1 FROM notifications e
	WHERE e.channel = n.channel AND e.grant_id = n.grant_id AND e.event < n.event AND e.state = 'pending')`

// pending is one delivery to be tried.
type pending struct {
	notice   Notice
	grant    string // what it is about
	attempts int
	since    int64 // from when on it is tried for giveUp
	unread   error // why what was kept of it can't be read
}

// deliver tries everything that is due on a channel, and says when the next will be; zero: nothing waits.
func (n *Notifier) deliver(ctx context.Context, c Channel) (next time.Time, err error) {
	quiet := func() (until time.Time, now bool) {
		until = time.Unix(0, n.lanes[c.Name()].quiet.Load())
		return until, n.now().Before(until)
	}
	for ctx.Err() == nil {
		if _, now := quiet(); now {
			break
		}
		due, err := n.due(ctx, c.Name())
		if err != nil {
			return next, err
		}
		if len(due) == 0 {
			break
		}
		for _, p := range due {
			if err := n.attempt(ctx, c, p); err != nil {
				return next, err
			}
			if _, now := quiet(); now {
				break
			}
		}
	}
	var at *int64
	if err := n.store.Read().QueryRowContext(ctx, `SELECT min(n.next_try) FROM notifications n WHERE n.channel = ? AND n.state = 'pending' AND `+isHead, c.Name()).Scan(&at); err != nil {
		return next, fmt.Errorf("look when to try again: %w", err)
	}
	if at != nil {
		next = time.Unix(0, *at)
		if until, now := quiet(); now && until.After(next) {
			next = until
		}
	}
	return next, nil
}

// due are deliveries whose time has come, of each grant the oldest that waits.
func (n *Notifier) due(ctx context.Context, channel string) ([]pending, error) {
	rows, err := n.store.Read().QueryContext(ctx, `SELECT n.event, n.grant_id, n.body, n.attempts, CASE WHEN n.retried > n.created THEN n.retried ELSE n.created END, coalesce(r.ref, '') FROM notifications n
		LEFT JOIN notification_refs r ON r.channel = n.channel AND r.grant_id = n.grant_id
		WHERE n.channel = ? AND n.state = 'pending' AND n.next_try <= ? AND `+isHead+`
		ORDER BY n.event LIMIT ?`, channel, n.now().UnixNano(), batch)
	if err != nil {
		return nil, fmt.Errorf("look what is to be told: %w", err)
	}
	defer rows.Close()
	var due []pending
	for rows.Next() {
		var p pending
		var body []byte
		var number int64
		if err := rows.Scan(&number, &p.grant, &body, &p.attempts, &p.since, &p.notice.Ref); err != nil {
			return nil, fmt.Errorf("look what is to be told: %w", err)
		}
		p.unread = json.Unmarshal(body, &p.notice.Event)
		p.notice.Number = number
		p.notice.ID = n.idOf(p.grant, number)
		due = append(due, p)
	}
	return due, rows.Err()
}

// idOf is a notification's id. A store that was brought back from a backup gives numbers again that it gave before, for other events,
// which receivers must not take for those: so their ids are others.
func (n *Notifier) idOf(grantID string, number int64) string {
	if n.life > 0 {
		return fmt.Sprintf("%s-%d-%d", grantID, n.life, number)
	}
	return fmt.Sprintf("%s-%d", grantID, number)
}

// tell has a channel tell. What can't be read it is not asked to, and where it panics that is a failure like others: what somebody
// else's system answers must not end the gateway.
func (n *Notifier) tell(ctx context.Context, c Channel, p pending) (ref string, failed error) {
	if p.unread != nil {
		return "", Permanent{fmt.Errorf("what was kept of it can't be read: %w", p.unread)}
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			n.log.Error("a channel panicked", "channel", c.Name(), "notification", p.notice.ID, "cause", cause, "stack", string(debug.Stack()))
			ref, failed = "", errors.New("the channel failed in a way that it should not; the gateway's log says more")
		}
	}()
	return c.Deliver(ctx, p.notice)
}

// attempt tells once, and writes down how it went.
func (n *Notifier) attempt(ctx context.Context, c Channel, p pending) error {
	ref, failed := n.tell(ctx, c, p)
	if failed != nil && ctx.Err() != nil {
		return ctx.Err() // the gateway stops: that says nothing about the receiver
	}
	now := n.now()
	state, done, next, text := "delivered", now.UnixNano(), int64(0), ""
	if failed != nil {
		text = shown(failed)
		wait := waits[min(p.attempts, len(waits)-1)]
		wait += time.Duration((rand.Float64()*0.4 - 0.2) * float64(wait)) // so that not all come at once
		if r, ok := errors.AsType[RetryAfter](failed); ok {
			wait = min(max(r.After, time.Second), waits[len(waits)-1])
			n.lanes[c.Name()].quiet.Store(now.Add(wait).UnixNano())
		}
		state, done, next = "pending", 0, now.Add(wait).UnixNano()
		_, permanent := errors.AsType[Permanent](failed)
		if permanent || now.Sub(time.Unix(0, p.since)) > giveUp {
			state, done = "dead", now.UnixNano()
		}
		n.log.Warn("a notification was not delivered", "channel", c.Name(), "notification", p.notice.ID, "attempt", p.attempts+1, "state", state, "error", text)
	}
	ctx = context.WithoutCancel(ctx) // what was told is noted, also while the gateway stops
	return n.store.Do(ctx, func(tx *store.Tx) error {
		// Where somebody has asked meanwhile that it be tried anew (Retry), this failure is one of before that.
		_, err := tx.ExecContext(ctx, `UPDATE notifications SET state = ?, attempts = attempts + 1, next_try = ?, error = ?, done = ?
			WHERE event = ? AND channel = ? AND (attempts = ? OR ? = 'delivered')`, state, next, text, done, p.notice.Number, c.Name(), p.attempts, state)
		if err == nil && failed == nil && ref != "" {
			_, err = tx.ExecContext(ctx, `INSERT INTO notification_refs (channel, grant_id, ref, created) VALUES (?, ?, ?, ?)
				ON CONFLICT (channel, grant_id) DO UPDATE SET ref = excluded.ref, created = excluded.created`, c.Name(), p.grant, ref, now.UnixNano())
		}
		if err != nil {
			return fmt.Errorf("note how notification %s went: %w", p.notice.ID, err)
		}
		return nil
	})
}

// shown is an error without the address it is about, which may have a secret in it, and not longer than is of use.
func shown(err error) string {
	if at, ok := errors.AsType[*url.Error](err); ok {
		err = at.Err
	}
	text := err.Error()
	return text[:min(len(text), maxError)]
}

// Ref is what the latest delivery on a grant to a channel has left; empty: nothing.
func Ref(ctx context.Context, s *store.Store, channel, grantID string) (ref string, err error) {
	err = s.Read().QueryRowContext(ctx, `SELECT ref FROM notification_refs WHERE channel = ? AND grant_id = ?`, channel, grantID).Scan(&ref)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("look for what was told of grant %s: %w", grantID, err)
	}
	return ref, nil
}

// Noted reports whether a message, as a channel's ref names it, is what some delivery has left.
func Noted(ctx context.Context, s *store.Store, channel, message string) (noted bool, err error) {
	var n int
	err = s.Read().QueryRowContext(ctx, `SELECT count(*) FROM notification_refs WHERE channel = ? AND ref LIKE ?`, channel, "%"+message+"%").Scan(&n)
	if err != nil {
		return false, fmt.Errorf("look for a message that was sent: %w", err)
	}
	return n > 0, nil
}
