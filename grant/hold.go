package grant

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// Where the policies in force ask for it (policy_changes.confirm), a set that may widen access waits until somebody with the
// permission policies.confirm confirms it; the old set stays. A confirmation is for one change, from one set to another, and is
// used up when that comes into force.

// Held is a set of policies that waits.
type Held struct {
	Revision  string // the set's
	Since     time.Time
	Confirmed bool     // it comes into force with the next reload
	Widens    []string // what of it may give somebody more
	Changes   map[string]string
	before    string
}

// errHeld is why a set does not come into force.
func errHeld(h Held) error {
	return refusal.New(refusal.Conflict, "the policies may widen access, and wait for a second person").
		WithDetail("they would widen: %s", strings.Join(h.Widens, ", ")).
		WithHint("somebody with the permission %s confirms them with: sallyport policy confirm %s", ConfirmPolicies, h.Revision[:12])
}

// Hold returns nil where a configuration's policies may come into force; else they are kept as those that wait, and the refusal
// says for what. Reload asks itself, too.
func (s *Service) Hold(ctx context.Context, c *configs.Config) error {
	body, revision, err := setOf(c)
	if err != nil {
		return err
	}
	now := s.rules.Load()
	return s.hold(ctx, now.body, now.revision, body, revision)
}

func (s *Service) hold(ctx context.Context, oldBody, before, body, after string) error {
	h, err := compare(oldBody, body)
	if err != nil {
		return err
	}
	if before == after || len(h.Widens) == 0 {
		return nil
	}
	h.Revision, h.before, h.Since = after, before, s.clock.stamp()
	var no error
	err = s.store.Do(ctx, func(tx *store.Tx) error {
		known, err := held(ctx, tx)
		if err != nil {
			return err
		}
		if known.Revision == after && known.before == before {
			if !known.Confirmed {
				no = errHeld(known)
			}
			return nil
		}
		no = errHeld(h)
		kept, err := json.Marshal(keptHeld{h.Widens, h.Changes})
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO policy_held (id, before, after, body, since) VALUES (1, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET before = excluded.before, after = excluded.after, body = excluded.body, since = excluded.since, issuer = '', subject = ''`,
			before, after, string(kept), toNano(h.Since)); err != nil {
			return fmt.Errorf("hold policies: %w", err)
		}
		event := store.AuditEvent{Time: h.Since, Kind: "policy.held", Actor: system, Fields: map[string]string{"policy_set": after, "before": before}}
		maps.Copy(event.Fields, h.Changes)
		event.Fields["widens"] = strings.Join(h.Widens, ", ")
		return tx.Audit(event)
	})
	return errors.Join(err, no)
}

// keptHeld is what is kept of the difference.
type keptHeld struct {
	Widens  []string
	Changes map[string]string
}

// compare says what a set would widen of one that asks for a second person; nothing where it does not.
func compare(oldBody, body string) (h Held, err error) {
	var old, now set
	if err := json.Unmarshal([]byte(oldBody), &old); err != nil {
		return h, fmt.Errorf("read a set of policies: %w", err)
	}
	if !old.Confirm {
		return h, nil
	}
	if err := json.Unmarshal([]byte(body), &now); err != nil {
		return h, fmt.Errorf("read a set of policies: %w", err)
	}
	h.Widens = widening(old, now)
	h.Changes, err = difference(oldBody, body)
	return h, err
}

// rowQueryer is a transaction or the pool for reading.
type rowQueryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// held is what waits; without a revision nothing does.
func held(ctx context.Context, q rowQueryer) (h Held, err error) {
	var body []byte
	var since int64
	var subject string
	err = q.QueryRowContext(ctx, `SELECT before, after, body, since, subject FROM policy_held WHERE id = 1`).Scan(&h.before, &h.Revision, &body, &since, &subject)
	if errors.Is(err, sql.ErrNoRows) {
		return Held{}, nil
	}
	if err != nil {
		return Held{}, fmt.Errorf("read which policies wait: %w", err)
	}
	var kept keptHeld
	if err := json.Unmarshal(body, &kept); err != nil {
		return Held{}, fmt.Errorf("read which policies wait: %w", err)
	}
	h.Since, h.Confirmed, h.Widens, h.Changes = fromNano(since), subject != "", kept.Widens, kept.Changes
	return h, nil
}

// HeldPolicies is the set that waits, if one does.
func (s *Service) HeldPolicies(ctx context.Context) (h Held, waits bool, err error) {
	h, err = held(ctx, s.store.Read())
	return h, h.Revision != "" && h.before == s.rules.Load().revision, err
}

// ConfirmPolicies lets the set that waits come into force with the next reload. revision is its hash, or the first twelve
// characters or more, so that nobody confirms another one than they have seen.
func (s *Service) ConfirmPolicies(ctx context.Context, who authn.Identity, revision string) (Held, error) {
	var h Held
	err := s.May(who, ConfirmPolicies, "")
	if err == nil && who.Kind != authn.Human {
		err = refusal.New(refusal.NotPermitted, "only people may confirm policies")
	}
	if err == nil {
		err = s.store.Do(ctx, func(tx *store.Tx) (err error) {
			if h, err = held(ctx, tx); err != nil {
				return err
			}
			if h.Revision == "" || h.before != s.rules.Load().revision || len(revision) < 12 || !strings.HasPrefix(h.Revision, revision) {
				return refusal.New(refusal.Conflict, "no such set of policies waits").WithHint("see what does with: sallyport policy held")
			}
			if h.Confirmed {
				return nil
			}
			h.Confirmed = true
			if _, err := tx.ExecContext(ctx, `UPDATE policy_held SET issuer = ?, subject = ? WHERE id = 1`, who.Issuer, who.Subject); err != nil {
				return fmt.Errorf("confirm policies: %w", err)
			}
			event := s.event("policy.confirmed", &who, Grant{})
			event.Fields = map[string]string{"policy_set": h.Revision, "before": h.before, "widens": strings.Join(h.Widens, ", ")}
			return tx.Audit(event)
		})
	}
	return h, s.refused(ctx, "policy.confirm_refused", who, Grant{}, err)
}

// asBefore is a configuration with the policies that a set has, on those of its targets that are as they were.
func asBefore(c *configs.Config, old set) *configs.Config {
	past := *c
	past.Policies, past.Roles, past.Permissions, past.Evidence, past.PolicyChanges.Confirm = old.Policies, old.Roles, old.Permissions, old.Evidence, old.Confirm
	past.Targets = slices.DeleteFunc(slices.Clone(c.Targets), func(t configs.Target) bool {
		return !slices.ContainsFunc(old.Targets, func(o target) bool { return same(o, seen(t)) })
	})
	return &past
}

// holdAtStart has the policies that were in force stay there where those of the configuration have to wait: stopping the gateway
// is no way around it. Targets that are not as they were are then not there.
func (s *Service) holdAtStart(ctx context.Context, c *configs.Config) error {
	var before, oldBody string
	err := s.store.Read().QueryRowContext(ctx, `SELECT c.hash, p.body FROM policy_current c JOIN policy_sets p ON p.hash = c.hash WHERE c.id = 1`).Scan(&before, &oldBody)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // the first set
	}
	if err != nil {
		return fmt.Errorf("read which policies were in force: %w", err)
	}
	body, after, err := setOf(c)
	if err != nil {
		return err
	}
	no := s.hold(ctx, oldBody, before, body, after)
	if refusal.Of(no) == nil {
		return no
	}
	var old set
	if err := json.Unmarshal([]byte(oldBody), &old); err != nil {
		return fmt.Errorf("read a set of policies: %w", err)
	}
	rules, err := index(asBefore(c, old), s.clock.stamp, nil)
	if err != nil {
		return fmt.Errorf("go on with the policies that were in force: %w", err)
	}
	s.rules.Store(rules)
	s.log.Error("the policies that were in force stay", "error", no)
	if rules.revision == before {
		return nil
	}
	// Without the targets that have changed it is another set, from which the one that waits has to come.
	if no := s.hold(ctx, rules.body, rules.revision, body, after); refusal.Of(no) == nil {
		return no
	}
	return nil
}
