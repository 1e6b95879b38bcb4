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
	"sallyport/grant/persons"
	"sallyport/grant/sets"
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
	Confirmed bool // it comes into force with the next reload
	sets.Comparison
	// MadeBy is who made the change, as the configuration says (policy_changes.made_by); empty: it does not.
	MadeBy string
	// Rejected is who said no to it, and when; Comment is why. It does not come into force as it is.
	Rejected   string
	RejectedAt time.Time
	Comment    string
	before     string
}

// errHeld is why a set does not come into force.
func errHeld(h Held) error {
	if h.Rejected != "" {
		return refusal.New(refusal.Conflict, "the policies may widen access, and were rejected by %s", h.Rejected).
			WithDetail("they would widen: %s", strings.Join(h.Widens, ", ")).
			WithHint("change them, or put the old ones back; loaded again after that, they wait anew")
	}
	return refusal.New(refusal.Conflict, "the policies may widen access, and wait for a second person").
		WithDetail("they would widen: %s", strings.Join(h.Widens, ", ")).
		WithHint("somebody with the permission %s confirms them with: sallyport policy confirm %s", ConfirmPolicies, h.Revision[:12])
}

// Hold returns nil where a configuration's policies may come into force; else they are kept as those that wait, and the refusal
// says for what. Reload asks itself, too.
func (s *Service) Hold(ctx context.Context, c *configs.Config) error {
	body, revision, err := sets.Of(c)
	if err != nil {
		return err
	}
	now := s.rules.Load()
	return s.hold(ctx, now.body, now.revision, body, revision, c.PolicyChanges.MadeBy)
}

func (s *Service) hold(ctx context.Context, oldBody, before, body, after, madeBy string) error {
	if before == after {
		return s.putBack(ctx, before)
	}
	c, err := sets.Compare(oldBody, body)
	if err != nil {
		return err
	}
	if len(c.Widens) == 0 {
		return nil
	}
	h := Held{Comparison: c, Revision: after, before: before, Since: s.clock.stamp(), MadeBy: strings.TrimSpace(madeBy)}
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
		kept, err := json.Marshal(keptHeld{Widens: h.Widens, Changes: h.Changes, Differences: h.Differences, MadeBy: h.MadeBy})
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
		if h.MadeBy != "" {
			event.Fields["made_by"] = h.MadeBy
		}
		return tx.Audit(event)
	})
	return errors.Join(err, no)
}

// putBack forgets a change from the set in force that was rejected: the files are again as that has them, so whoever loads the change
// after that asks anew.
func (s *Service) putBack(ctx context.Context, revision string) error {
	h, err := held(ctx, s.store.Read())
	if err != nil || h.Rejected == "" || h.before != revision {
		return err
	}
	return s.store.Do(ctx, func(tx *store.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM policy_held WHERE before = ? AND after = ?`, h.before, h.Revision); err != nil {
			return fmt.Errorf("forget rejected policies: %w", err)
		}
		return nil
	})
}

// keptHeld is what is kept of a change.
type keptHeld struct {
	Widens      []string
	Changes     map[string]string
	Differences []sets.Change `json:",omitempty"`
	MadeBy      string        `json:",omitempty"`
	Rejected    string        `json:",omitempty"`
	RejectedAt  time.Time     `json:",omitzero"`
	Comment     string        `json:",omitempty"`
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
	h.Since, h.Confirmed, h.Widens, h.Changes, h.Differences = fromNano(since), subject != "", kept.Widens, kept.Changes, kept.Differences
	h.MadeBy, h.Rejected, h.RejectedAt, h.Comment = kept.MadeBy, kept.Rejected, kept.RejectedAt, kept.Comment
	return h, nil
}

// HeldPolicies is the set that waits, if one does.
func (s *Service) HeldPolicies(ctx context.Context) (h Held, waits bool, err error) {
	h, err = held(ctx, s.store.Read())
	return h, h.Revision != "" && h.before == s.rules.Load().revision, err
}

// ConfirmPolicies lets the set that waits come into force with the next reload. revision is its hash, or the first twelve
// characters or more, so that nobody confirms another one than they have seen. Who made the change, as far as that is said, can't.
func (s *Service) ConfirmPolicies(ctx context.Context, who authn.Identity, revision string) (Held, error) {
	return s.decidePolicies(ctx, who, revision, "confirm", func(tx *store.Tx, h *Held) (store.AuditEvent, error) {
		if h.Rejected != "" {
			return store.AuditEvent{}, refusal.New(refusal.Conflict, "%s has rejected these policies, at %s", h.Rejected, when(h.RejectedAt)).
				WithHint("put the old ones back and load them, then these again: they wait anew")
		}
		if h.Confirmed {
			return store.AuditEvent{}, nil
		}
		h.Confirmed = true
		_, err := tx.ExecContext(ctx, `UPDATE policy_held SET issuer = ?, subject = ? WHERE id = 1`, who.Issuer, who.Subject)
		return s.event("policy.confirmed", &who, Grant{}), err
	})
}

// RejectPolicies has the set that waits, or was confirmed and is not in force yet, never come into force as it is: it takes other files, or
// the old ones and these again. revision is as for ConfirmPolicies, and who may is the same.
func (s *Service) RejectPolicies(ctx context.Context, who authn.Identity, revision, comment string) (Held, error) {
	return s.decidePolicies(ctx, who, revision, "reject", func(tx *store.Tx, h *Held) (store.AuditEvent, error) {
		if h.Rejected != "" {
			return store.AuditEvent{}, nil
		}
		comment, err := clean("comment", comment)
		if err != nil {
			return store.AuditEvent{}, err
		}
		h.Confirmed, h.Rejected, h.RejectedAt, h.Comment = false, who.Label(), s.clock.stamp(), comment
		kept, err := json.Marshal(keptHeld{h.Widens, h.Changes, h.Differences, h.MadeBy, h.Rejected, h.RejectedAt, h.Comment})
		if err != nil {
			return store.AuditEvent{}, err
		}
		_, err = tx.ExecContext(ctx, `UPDATE policy_held SET body = ?, issuer = '', subject = '' WHERE id = 1`, string(kept))
		event := s.event("policy.rejected", &who, Grant{})
		event.Reason = comment
		return event, err
	})
}

// decidePolicies is what confirming and rejecting have in common: who may, and of what. An event without a kind says that nothing changed.
func (s *Service) decidePolicies(ctx context.Context, who authn.Identity, revision, verb string, decide func(*store.Tx, *Held) (store.AuditEvent, error)) (Held, error) {
	s.reloading.Lock() // a set comes into force before it, or after: what was rejected does not
	defer s.reloading.Unlock()
	var h Held
	err := s.May(who, ConfirmPolicies, "")
	if err == nil && who.Kind != authn.Human {
		err = refusal.New(refusal.NotPermitted, "only people may %s policies", verb)
	}
	if err == nil {
		err = s.meet(ctx)
	}
	if err == nil {
		err = s.store.Do(ctx, func(tx *store.Tx) (err error) {
			if h, err = held(ctx, tx); err != nil {
				return err
			}
			if h.Revision == "" || h.before != s.rules.Load().revision || len(revision) < 12 || !strings.HasPrefix(h.Revision, revision) {
				return refusal.New(refusal.Conflict, "no such set of policies waits").WithHint("see what does with: sallyport policy held")
			}
			if h.ofTheirs(s.rules.Load().persons, who) {
				return refusal.New(refusal.NotPermitted, "you made this change, so another has to %s it", verb).
					WithDetail("the configuration says that it is %s's (policy_changes.made_by)", h.MadeBy).
					WithHint("somebody else with the permission %s can", ConfirmPolicies)
			}
			event, err := decide(tx, &h)
			if err != nil || event.Kind == "" {
				return err
			}
			event.Fields = map[string]string{"policy_set": h.Revision, "before": h.before, "widens": strings.Join(h.Widens, ", ")}
			if h.MadeBy != "" {
				event.Fields["made_by"] = h.MadeBy
			}
			return tx.Audit(event)
		})
	}
	return h, s.refused(ctx, "policy."+verb+"_refused", who, Grant{}, err)
}

// ofTheirs reports whether the change is said to be somebody's own: by e-mail address, subject, or issuer and subject, of any of their
// identities.
func (h Held) ofTheirs(all *persons.Persons, who authn.Identity) bool {
	return h.MadeBy != "" && slices.ContainsFunc(all.Identities(who), func(one authn.Identity) bool {
		return h.MadeBy == one.Key() || h.MadeBy == one.Subject || strings.EqualFold(h.MadeBy, one.Email)
	})
}

// remember keeps the set of policies that comes into force, and audits how it differs from the one before.
func (s *Service) remember(ctx context.Context, r *rules) error {
	return s.store.Do(ctx, func(tx *store.Tx) error {
		var before, old string
		if err := tx.QueryRowContext(ctx, `SELECT hash FROM policy_current WHERE id = 1`).Scan(&before); err != nil {
			return fmt.Errorf("read which policies were in force: %w", err)
		}
		if before == r.revision {
			return nil
		}
		err := tx.QueryRowContext(ctx, `SELECT body FROM policy_sets WHERE hash = ?`, before).Scan(&old)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("read the policies that were in force: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO policy_sets (hash, body, loaded) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
			r.revision, r.body, toNano(s.clock.stamp())); err != nil {
			return fmt.Errorf("keep the policies: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE policy_current SET hash = ? WHERE id = 1`, r.revision); err != nil {
			return fmt.Errorf("keep which policies are in force: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM policy_held WHERE after = ?`, r.revision); err != nil {
			return fmt.Errorf("keep which policies are in force: %w", err)
		}
		event := store.AuditEvent{Time: s.clock.stamp(), Kind: "policy.loaded", Actor: system, Fields: map[string]string{"policy_set": r.revision}}
		if before != "" {
			event.Fields["before"] = before
		}
		changes, err := sets.Difference(old, r.body)
		if err != nil {
			return err
		}
		maps.Copy(event.Fields, changes)
		return tx.Audit(event)
	})
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
	body, after, err := sets.Of(c)
	if err != nil {
		return err
	}
	no := s.hold(ctx, oldBody, before, body, after, c.PolicyChanges.MadeBy)
	if refusal.Of(no) == nil {
		return no
	}
	old, err := sets.Read(oldBody)
	if err != nil {
		return err
	}
	rules, err := index(old.In(c), s.clock.stamp, nil, s.linked)
	if err != nil {
		return fmt.Errorf("go on with the policies that were in force: %w", err)
	}
	s.rules.Store(rules)
	s.log.Error("the policies that were in force stay", "error", no)
	if rules.revision == before {
		return nil
	}
	// Without the targets that have changed it is another set, from which the one that waits has to come.
	if no := s.hold(ctx, rules.body, rules.revision, body, after, c.PolicyChanges.MadeBy); refusal.Of(no) == nil {
		return no
	}
	return nil
}
