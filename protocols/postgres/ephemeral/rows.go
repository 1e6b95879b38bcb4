package ephemeral

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/configs"
	"sallyport/internal/store"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// The states of a role. A row leaves dropping only by going.
const (
	making   = "making"   // it may be there
	made     = "made"     // it was seen to be there
	dropping = "dropping" // its grant is over
)

// row is a role as it stands in the store.
type row struct {
	name, grant, target, account string
	state                        string
	made, ended                  time.Time
	attempts                     int
	next, alarmed                time.Time
	problem                      string
}

// load reads the rows and the gateway's own tag, which it makes at the first start.
func (r *Roles) load(ctx context.Context) error {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	if err := r.Store.Migrate(ctx, "ephemeral", files); err != nil {
		return err
	}
	err = r.Store.Do(ctx, func(tx *store.Tx) error {
		err := tx.QueryRow(`SELECT tag FROM ephemeral_self WHERE one = 1`).Scan(&r.tag)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		var random [5]byte
		if _, err := rand.Read(random[:]); err != nil {
			return err
		}
		r.tag = strings.ToLower(base32.StdEncoding.EncodeToString(random[:]))
		_, err = tx.Exec(`INSERT INTO ephemeral_self (one, tag) VALUES (1, ?)`, r.tag)
		return err
	})
	if err != nil {
		return fmt.Errorf("the gateway's tag: %w", err)
	}
	all, err := r.Store.Read().QueryContext(ctx, `SELECT name, grant_id, target, account, state, made, ended, attempts, next, alarmed, error FROM ephemeral_roles`)
	if err != nil {
		return err
	}
	defer all.Close()
	for all.Next() {
		var one row
		var times [4]int64
		if err := all.Scan(&one.name, &one.grant, &one.target, &one.account, &one.state, &times[0], &times[1], &one.attempts, &times[2], &times[3], &one.problem); err != nil {
			return err
		}
		one.made, one.ended, one.alarmed = fromMillis(times[0]), fromMillis(times[1]), fromMillis(times[3])
		r.rows[one.name] = &one // what was to wait is tried at once after a start
	}
	return all.Err()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// grantID is what a grant's id looks like; nothing else comes into a role's name.
var grantID = regexp.MustCompile(`^g-([a-z0-9]{1,40})$`)

// name is the role of a grant.
func (r *Roles) name(grant string) (string, error) {
	id := grantID.FindStringSubmatch(grant)
	if id == nil {
		return "", fmt.Errorf("%q is no grant's id", grant)
	}
	return r.prefix() + id[1], nil
}

func (r *Roles) prefix() string { return configs.EphemeralPrefix + r.tag + "_" }

// grantOf is the grant of a role of this gateway.
func (r *Roles) grantOf(name string) (grant string, ours bool) {
	id, ours := strings.CutPrefix(name, r.prefix())
	grant = "g-" + id
	return grant, ours && grantID.MatchString(grant)
}

// intend writes the row before there is a role.
func (r *Roles) intend(ctx context.Context, name string, w Wanted) error {
	if known := r.row(name); known != nil {
		if known.state == dropping {
			return overRefusal(w.Grant)
		}
		return nil
	}
	one := row{name: name, grant: w.Grant, target: w.Target.Name, account: w.Account.Name, state: making, made: time.Now()}
	return r.insert(ctx, one, store.AuditEvent{Kind: "role.intended", Actor: w.Who.Key(), ActorName: w.Who.Label()})
}

// insert keeps a new row. What it tells of is in the same transaction.
func (r *Roles) insert(ctx context.Context, one row, event store.AuditEvent) error {
	err := r.Store.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO ephemeral_roles (name, grant_id, target, account, state, made, ended) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			one.name, one.grant, one.target, one.account, one.state, toMillis(one.made), toMillis(one.ended))
		if err != nil {
			return err
		}
		tx.AfterCommit(func() { r.put(one) })
		return tx.Audit(one.event(event))
	})
	if err != nil {
		return fmt.Errorf("keep that role %s is made: %w", one.name, err)
	}
	return nil
}

// event is an audit event about the role.
func (one row) event(e store.AuditEvent) store.AuditEvent {
	e.Target, e.Account, e.Grant = one.target, one.account, one.grant
	if e.Actor == "" {
		e.Actor = "system"
	}
	if e.Fields == nil {
		e.Fields = map[string]string{}
	}
	e.Fields["role"] = one.name
	return e
}

// row is a copy of what is known of a role; nil: nothing.
func (r *Roles) row(name string) *row {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.rows[name]
	if known == nil {
		return nil
	}
	one := *known
	return &one
}

func (r *Roles) put(one row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows[one.name] = &one
}

// errMoved: somebody else has changed the row meanwhile.
var errMoved = errors.New("the role is another's business by now")

// move changes a row from one state to another, if it still is in that; the event may be empty.
func (r *Roles) move(ctx context.Context, from string, to row, event store.AuditEvent) error {
	return r.Store.Do(ctx, func(tx *store.Tx) error {
		done, err := tx.Exec(`UPDATE ephemeral_roles SET state = ?, ended = ?, attempts = ?, next = ?, alarmed = ?, error = ? WHERE name = ? AND state = ?`,
			to.state, toMillis(to.ended), to.attempts, toMillis(to.next), toMillis(to.alarmed), to.problem, to.name, from)
		if err := changed(done, err); err != nil {
			return err
		}
		tx.AfterCommit(func() { r.put(to) })
		if event.Kind == "" {
			return nil
		}
		return tx.Audit(to.event(event))
	})
}

func changed(done sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := done.RowsAffected()
	if err == nil && n != 1 {
		err = errMoved
	}
	return err
}

// made notes that the role was seen. Where the grant was over meanwhile it is refused, and the keeper drops it.
func (r *Roles) made(ctx context.Context, name string, w Wanted) error {
	one := r.row(name)
	if one == nil || one.state == dropping {
		return overRefusal(w.Grant)
	}
	if one.state == making {
		from := one.state
		one.state = made
		err := r.move(ctx, from, *one, store.AuditEvent{
			Kind: "role.made", Actor: w.Who.Key(), ActorName: w.Who.Label(), Fields: map[string]string{"member_of": strings.Join(w.Account.MemberOf, ", ")},
		})
		if errors.Is(err, errMoved) {
			return overRefusal(w.Grant)
		}
		if err != nil {
			return fmt.Errorf("keep that role %s was made: %w", name, err)
		}
	}
	if _, running := r.Running(w.Grant); !running {
		return overRefusal(w.Grant)
	}
	return nil
}

// gone forgets a role that is not there any more, and says what came of it.
func (r *Roles) gone(ctx context.Context, one row, left residue) error {
	return r.Store.Do(ctx, func(tx *store.Tx) error {
		done, err := tx.Exec(`DELETE FROM ephemeral_roles WHERE name = ? AND state = ?`, one.name, dropping)
		if err := changed(done, err); err != nil {
			return err
		}
		tx.AfterCommit(func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.rows, one.name)
			delete(r.locks, one.name)
		})
		fields := left.fields()
		fields["over_since"] = one.ended.UTC().Format(time.RFC3339Nano)
		fields["attempts"] = strconv.Itoa(one.attempts + 1)
		return tx.Audit(one.event(store.AuditEvent{Kind: "role.dropped", Fields: fields}))
	})
}

// pending is called with mu held.
func (r *Roles) pending() (all []Pending) {
	for _, one := range r.rows {
		if one.state != dropping {
			continue
		}
		next := one.next
		if away := r.later[one.target].until; away.After(next) {
			next = away
		}
		all = append(all, Pending{
			Role: one.name, Grant: one.grant, Target: one.target, Account: one.account, Ended: one.ended,
			Attempts: one.attempts, Next: next, Stuck: !one.alarmed.IsZero(), Error: one.problem,
		})
	}
	slices.SortFunc(all, func(a, b Pending) int {
		if c := a.Ended.Compare(b.Ended); c != 0 {
			return c
		}
		return strings.Compare(a.Role, b.Role)
	})
	return all
}

// pause is how long to wait after so many tries.
func (t times) pause(tries int) time.Duration {
	most := int(math.Log2(float64(t.most / t.first)))
	return min(t.most, t.first<<min(max(tries-1, 0), most+1))
}
