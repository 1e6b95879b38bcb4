package approval

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// Notification is how the delivery of one event to one channel stands.
type Notification struct {
	ID       string
	Channel  string
	Kind     grant.EventKind
	Grant    string
	State    string // pending, delivered or dead
	Attempts int
	NextTry  time.Time // zero unless pending
	Error    string    // of the last attempt
	Created  time.Time
	Done     time.Time

	number int64 // of its event
}

// List returns deliveries, newest first, up to a thousand: those that wait or were given up, or all that are kept.
func (n *Notifier) List(ctx context.Context, all bool) ([]Notification, error) {
	where := `WHERE state <> 'delivered'`
	if all {
		where = ``
	}
	rows, err := n.store.Read().QueryContext(ctx, `SELECT `+columns+` FROM notifications `+where+` ORDER BY event DESC, channel LIMIT 1000`)
	if err != nil {
		return nil, fmt.Errorf("list notifications: %w", err)
	}
	return n.read(rows)
}

const columns = `event, channel, kind, grant_id, state, attempts, next_try, error, created, done`

// read reads rows of those columns, and closes them.
func (n *Notifier) read(rows *sql.Rows) ([]Notification, error) {
	defer rows.Close()
	list := []Notification{}
	for rows.Next() {
		var x Notification
		var next, created, done int64
		if err := rows.Scan(&x.number, &x.Channel, &x.Kind, &x.Grant, &x.State, &x.Attempts, &next, &x.Error, &created, &done); err != nil {
			return nil, fmt.Errorf("list notifications: %w", err)
		}
		x.ID = n.idOf(x.Grant, x.number)
		x.Created = time.Unix(0, created).UTC()
		if done > 0 {
			x.Done = time.Unix(0, done).UTC()
		} else {
			x.NextTry = time.Unix(0, next).UTC()
		}
		list = append(list, x)
	}
	return slices.Clip(list), rows.Err()
}

// mostRetried bounds how many are named at a time, and mostAgain how many are tried anew because of it.
const mostRetried, mostAgain = 100, 1000

// Again says which notifications are to be tried at once and for another day.
type Again struct {
	IDs     []string // these, or
	GivenUp bool     // all that were given up
	Channel string   // of this channel only; empty: of any
}

// Retry has notifications tried anew: those that wait at once, and those that were given up as if they had just come, each with
// what was given up on the same grant and channel after it, so that its story is told in its order. A receiver's wish for
// patience is over. The event is audited with how many they are, in the same transaction. They are returned as they stand then, a
// thousand at most, oldest first; it refuses where there are none.
func (n *Notifier) Retry(ctx context.Context, a Again, event store.AuditEvent) (again []Notification, err error) {
	if len(a.IDs) > mostRetried {
		return nil, refusal.New(refusal.Invalid, "those are %d notifications, and %d may be named at a time", len(a.IDs), mostRetried)
	}
	if len(a.IDs) == 0 == !a.GivenUp {
		return nil, refusal.New(refusal.Invalid, "it is not said which notifications are to be tried again").WithHint("name them by their ids, or say: all that were given up")
	}
	if _, known := n.lanes[a.Channel]; !known && a.Channel != "" {
		return nil, refusal.New(refusal.NotFound, "there is no channel %.64q", a.Channel).WithHint("sallyport notifications shows their names")
	}
	err = n.store.Do(ctx, func(tx *store.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT `+columns+` FROM notifications WHERE state <> 'delivered' ORDER BY event, channel`)
		if err != nil {
			return fmt.Errorf("look for notifications: %w", err)
		}
		waiting, err := n.read(rows)
		if err != nil {
			return err
		}
		again = nil
		type story struct{ channel, grant string }
		told := map[story]bool{}
		for _, x := range waiting {
			of := story{x.Channel, x.Grant}
			if a.Channel != "" && x.Channel != a.Channel || n.lanes[x.Channel] == nil ||
				!(a.GivenUp && x.State == "dead" || slices.Contains(a.IDs, x.ID) || told[of] && x.State == "dead") {
				continue
			}
			if len(again) == mostAgain {
				break
			}
			told[of] = true
			now := n.now()
			if _, err := tx.ExecContext(ctx, `UPDATE notifications SET state = 'pending', next_try = ?, retried = ?, attempts = 0, done = 0 WHERE event = ? AND channel = ?`,
				now.UnixNano(), now.UnixNano(), x.number, x.Channel); err != nil {
				return fmt.Errorf("try notification %s again: %w", x.ID, err)
			}
			x.State, x.Attempts, x.NextTry, x.Done = "pending", 0, now.UTC(), time.Time{}
			again = append(again, x)
		}
		if len(again) == 0 {
			return refusal.New(refusal.NotFound, "no such notification waits or was given up").WithHint("see them with: sallyport notifications")
		}
		event.Fields = map[string]string{"notifications": fmt.Sprint(len(again))}
		if a.Channel != "" {
			event.Fields["channel"] = a.Channel
		}
		if len(a.IDs) > 0 {
			event.Fields["ids"] = strings.Join(a.IDs, " ")
		}
		return tx.Audit(event)
	})
	if err != nil {
		return nil, err
	}
	for _, x := range again {
		n.lanes[x.Channel].quiet.Store(0)
	}
	n.Wake()
	return again, nil
}

// Depth is how many notifications are in each state but delivered, by the kind of the channel ("slack") and the state.
func (n *Notifier) Depth(ctx context.Context) (map[[2]string]int, error) {
	depth := map[[2]string]int{}
	for name := range n.lanes { // a zero is a word, too
		kind, _, _ := strings.Cut(name, "/")
		depth[[2]string{kind, "pending"}], depth[[2]string{kind, "dead"}] = 0, 0
	}
	rows, err := n.store.Read().QueryContext(ctx, `SELECT channel, state, count(*) FROM notifications WHERE state <> 'delivered' GROUP BY channel, state`)
	if err != nil {
		return nil, fmt.Errorf("count notifications: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var channel, state string
		var count int
		if err := rows.Scan(&channel, &state, &count); err != nil {
			return nil, fmt.Errorf("count notifications: %w", err)
		}
		kind, _, _ := strings.Cut(channel, "/")
		depth[[2]string{kind, state}] += count
	}
	return depth, rows.Err()
}
