package grant

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"sallyport/authn"
	"sallyport/internal/store"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

func migrations() fs.FS {
	f, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	return f
}

var (
	errNoRow = errors.New("no such grant")
	errStale = errors.New("the grant has changed meanwhile")
)

// queryer is a transaction or the pool for reading.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

const (
	columns = `id, version, state, identity, target, account, reason, policy, duration, needed, may_approve,
		requested, decide_by, activate_by, started, until, source, ticket, total, idle, extensions, extension, terms, ended_at, end_reason, ended_by, end_comment`
	isOpen = `state IN ('pending', 'approved', 'active')`
)

// load reads one grant.
func load(ctx context.Context, q queryer, id string) (Grant, error) {
	grants, err := query(ctx, q, 1, `WHERE id = ?`, id)
	if err != nil {
		return Grant{}, err
	}
	if len(grants) == 0 {
		return Grant{}, errNoRow
	}
	return grants[0], nil
}

// query reads up to limit grants with their votes; where is what follows FROM.
func query(ctx context.Context, q queryer, limit int, where string, args ...any) ([]Grant, error) {
	rows, err := q.QueryContext(ctx, `SELECT `+columns+` FROM grants `+where+` LIMIT ?`, append(args, limit)...)
	if err != nil {
		return nil, fmt.Errorf("read grants: %w", err)
	}
	defer rows.Close()
	var grants []Grant
	for rows.Next() {
		var g Grant
		var identity, mayApprove, extension, terms []byte
		var source string
		var requested, decideBy, activateBy, from, until, endedAt int64
		if err := rows.Scan(&g.ID, &g.Version, &g.State, &identity, &g.Target, &g.Account, &g.Reason, &g.Policy, &g.Duration,
			&g.Needed, &mayApprove, &requested, &decideBy, &activateBy, &from, &until, &source,
			&g.Ticket, &g.Total, &g.Idle, &g.Extensions, &extension, &terms, &endedAt, &g.EndReason, &g.EndedBy,
			&g.EndComment); err != nil {
			return nil, fmt.Errorf("read grants: %w", err)
		}
		if err := errors.Join(json.Unmarshal(identity, &g.Identity), json.Unmarshal(mayApprove, &g.MayApprove), json.Unmarshal(terms, &g.Terms)); err != nil {
			return nil, fmt.Errorf("read grant %s: %w", g.ID, err)
		}
		if len(extension) > 0 {
			if err := json.Unmarshal(extension, &g.Extension); err != nil {
				return nil, fmt.Errorf("read grant %s: %w", g.ID, err)
			}
		}
		if source != "" {
			if g.Source, err = netip.ParseAddr(source); err != nil {
				return nil, fmt.Errorf("read grant %s: %w", g.ID, err)
			}
		}
		g.Requested, g.DecideBy, g.ActivateBy = fromNano(requested), fromNano(decideBy), fromNano(activateBy)
		g.From, g.Until, g.EndedAt = fromNano(from), fromNano(until), fromNano(endedAt)
		grants = append(grants, g)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("read grants: %w", err)
	}
	if err := loadVotes(ctx, q, grants, `SELECT id FROM grants `+where+` LIMIT ?`, append(args, limit)...); err != nil {
		return nil, err
	}
	return grants, nil
}

// loadVotes fills in the votes; ids is the query that found the grants.
func loadVotes(ctx context.Context, q queryer, grants []Grant, ids string, args ...any) error {
	place := make(map[string]int, len(grants))
	for i, g := range grants {
		if g.Needed > 0 || g.Extension != nil {
			place[g.ID] = i
		}
	}
	if len(place) == 0 {
		return nil
	}
	rows, err := q.QueryContext(ctx, `SELECT grant_id, round, stage, issuer, subject, name, email, memberships, approve, comment, time
		FROM grant_votes WHERE grant_id IN (`+ids+`) ORDER BY time, issuer, subject`, args...)
	if err != nil {
		return fmt.Errorf("read votes: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var v Vote
		var id, email string
		var groups []byte
		var at int64
		var round int
		if err := rows.Scan(&id, &round, &v.Stage, &v.Issuer, &v.Subject, &v.Name, &email, &groups, &v.Approve, &v.Comment, &at); err != nil {
			return fmt.Errorf("read votes: %w", err)
		}
		who := authn.Identity{Issuer: v.Issuer, Subject: v.Subject, Name: v.Name, Email: email}
		if err := json.Unmarshal(groups, &who.Groups); err != nil {
			return fmt.Errorf("read the votes on %s: %w", id, err)
		}
		i, wanted := place[id]
		switch {
		case !wanted:
		case round == 0:
			grants[i].cast(v.stage(), who, v.Approve, v.Comment, fromNano(at))
		case grants[i].Extension != nil && round == grants[i].Extensions:
			grants[i].Extension.cast(v.stage(), who, v.Approve, v.Comment, fromNano(at))
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read votes: %w", err)
	}
	return nil
}

// insert writes a new grant.
func insert(ctx context.Context, tx *store.Tx, g Grant) error {
	identity, err := json.Marshal(g.Identity)
	if err != nil {
		return err
	}
	mayApprove, err := json.Marshal(g.MayApprove)
	if err != nil {
		return err
	}
	terms, err := json.Marshal(g.Terms)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO grants (issuer, subject, `+columns+`)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		g.Identity.Issuer, g.Identity.Subject, g.ID, g.Version, g.State, string(identity), g.Target, g.Account, g.Reason,
		g.Policy, g.Duration, g.Needed, string(mayApprove), toNano(g.Requested), toNano(g.DecideBy), toNano(g.ActivateBy),
		toNano(g.From), toNano(g.Until), addressText(g.Source), g.Ticket, g.Total, g.Idle, g.Extensions, "", string(terms), toNano(g.EndedAt),
		g.EndReason, g.EndedBy, g.EndComment)
	if err != nil {
		return fmt.Errorf("write grant %s: %w", g.ID, err)
	}
	return nil
}

// save makes one transition: g takes the place of old if the row is still as old was, else errStale. It returns g with
// its new version.
func save(ctx context.Context, tx *store.Tx, old, g Grant) (Grant, error) {
	if !slices.Contains(ways[old.State], g.State) {
		return Grant{}, fmt.Errorf("grant %s cannot go from %s to %s", g.ID, old.State, g.State)
	}
	if old.State == Active && (!g.From.Equal(old.From) || !g.Until.Equal(old.Until) && !extended(old, g)) {
		return Grant{}, fmt.Errorf("grant %s: its time is set once", g.ID)
	}
	extension := ""
	if g.Extension != nil {
		kept := *g.Extension
		kept.Ballot = Ballot{} // has rows of its own
		text, err := json.Marshal(kept)
		if err != nil {
			return Grant{}, err
		}
		extension = string(text)
	}
	result, err := tx.ExecContext(ctx, `UPDATE grants SET version = version + 1, state = ?, activate_by = ?, started = ?,
		until = ?, extensions = ?, extension = ?, ended_at = ?, end_reason = ?, ended_by = ?, end_comment = ? WHERE id = ? AND version = ? AND `+isOpen,
		g.State, toNano(g.ActivateBy), toNano(g.From), toNano(g.Until), g.Extensions, extension, toNano(g.EndedAt), g.EndReason, g.EndedBy, g.EndComment,
		old.ID, old.Version)
	if err != nil {
		return Grant{}, fmt.Errorf("write grant %s: %w", g.ID, err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return Grant{}, errors.Join(errStale, err)
	}
	g.Version = old.Version + 1
	if g.Needed > 0 {
		err = saveVotes(ctx, tx, g.ID, 0, g.Ballot)
	}
	switch {
	case g.Extension != nil:
		err = errors.Join(err, saveVotes(ctx, tx, g.ID, g.Extensions, g.Extension.Ballot))
	case g.settled != nil:
		err = errors.Join(err, saveVotes(ctx, tx, g.ID, g.Extensions, *g.settled))
		g.settled = nil
	}
	return g, err
}

// extended reports whether g is an active grant made longer, as far as it may be.
func extended(old, g Grant) bool {
	return g.State == Active && g.Extension == nil && g.Extensions > 0 && g.Until.After(old.Until) && !g.Until.After(g.From.Add(g.Total))
}

// saveVotes writes the votes that count in a round; those that no longer do stand in the audit log only.
func saveVotes(ctx context.Context, tx *store.Tx, id string, round int, b Ballot) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM grant_votes WHERE grant_id = ? AND round = ?`, id, round); err != nil {
		return fmt.Errorf("write the votes on %s: %w", id, err)
	}
	for _, v := range b.Votes {
		groups, err := json.Marshal(b.voters[v.key()])
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO grant_votes (grant_id, round, stage, issuer, subject, name, email, memberships, approve, comment, time)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, id, round, v.stage()+1, v.Issuer, v.Subject, v.Name, b.addresses[v.key()], string(groups), number(v.Approve), v.Comment, toNano(v.Time)); err != nil {
			return fmt.Errorf("write a vote on %s: %w", id, err)
		}
	}
	return nil
}

// pendingOf counts the requests of an identity that wait for approval.
func pendingOf(ctx context.Context, tx *store.Tx, who authn.Identity) (n int, err error) {
	err = tx.QueryRowContext(ctx, `SELECT count(*) FROM grants WHERE issuer = ? AND subject = ? AND state = 'pending'`,
		who.Issuer, who.Subject).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count requests: %w", err)
	}
	return n, nil
}

// loadHigh and saveHigh keep the clock's high-water mark, which only rises.
func loadHigh(ctx context.Context, db *sql.DB) (time.Time, error) {
	var high int64
	if err := db.QueryRowContext(ctx, `SELECT high FROM grant_clock WHERE id = 1`).Scan(&high); err != nil {
		return time.Time{}, fmt.Errorf("read the latest time seen: %w", err)
	}
	return fromNano(high), nil
}

func saveHigh(ctx context.Context, tx *store.Tx, high time.Time) error {
	if _, err := tx.ExecContext(ctx, `UPDATE grant_clock SET high = ? WHERE id = 1 AND high < ?`, toNano(high), toNano(high)); err != nil {
		return fmt.Errorf("write the latest time seen: %w", err)
	}
	return nil
}

// number is how a yes stands in a column of numbers.
func number(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func toNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
