package grant

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport/authn"
	"sallyport/grant/policy"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// Review is the duty to look at what was done in an emergency.
type Review struct {
	Grant  Grant     `json:"grant"`
	Groups []string  `json:"groups"` // whose members may do it; never the holder
	Due    time.Time `json:"due"`
	Done   time.Time `json:"done,omitzero"`
	By     string    `json:"by,omitempty"`
	// Comment is what they said.
	Comment string `json:"comment,omitempty"`
}

// paused refuses an emergency to somebody whose last one nobody has looked at in time.
func (s *Service) paused(ctx context.Context, tx *store.Tx, who authn.Identity, g Grant) error {
	if !g.BreakGlass {
		return nil
	}
	r, found, err := s.overdueOf(ctx, tx, who)
	if err != nil {
		return fmt.Errorf("look for reviews that are overdue: %w", err)
	}
	if !found {
		return nil
	}
	return refusal.New(refusal.NotPermitted, "your right to break the glass is paused").
		WithDetail("what you did under grant %s was to be reviewed by %s", r.Grant.ID, when(r.Due)).
		WithHint("ask a member of %s to run: sallyport review %s", policy.Or(r.Groups), r.Grant.ID)
}

// overdueOf is the oldest review that nobody has done in time of what somebody did, by whichever of their identities.
func (s *Service) overdueOf(ctx context.Context, tx *store.Tx, who authn.Identity) (Review, bool, error) {
	rows, err := tx.QueryContext(ctx, `SELECT r.grant_id, r.reviewers, r.due, g.identity FROM grant_reviews r JOIN grants g ON g.id = r.grant_id
		WHERE r.done = 0 AND r.due <= ? ORDER BY r.due`, toNano(s.clock.stamp()))
	if err != nil {
		return Review{}, false, err
	}
	defer rows.Close()
	all := s.rules.Load().persons
	for rows.Next() {
		var r Review
		var groups, holder []byte
		var due int64
		if err := rows.Scan(&r.Grant.ID, &groups, &due, &holder); err != nil {
			return Review{}, false, err
		}
		if err := errors.Join(json.Unmarshal(groups, &r.Groups), json.Unmarshal(holder, &r.Grant.Identity)); err != nil {
			return Review{}, false, fmt.Errorf("the review of %s: %w", r.Grant.ID, err)
		}
		if r.Due = fromNano(due); all.Same(r.Grant.Identity, who) {
			return r, true, nil
		}
	}
	return Review{}, false, rows.Err()
}

// breakGlass makes the duty to review, and as much noise as there can be.
func (s *Service) breakGlass(ctx context.Context, tx *store.Tx, who authn.Identity, g Grant) error {
	p, ok := s.rules.Load().policy(g.Policy)
	if !ok {
		return errors.New("the policy is gone")
	}
	groups, err := json.Marshal(p.Policy.Review.Groups)
	if err != nil {
		return err
	}
	due := g.Requested.Add(p.Policy.Review.Within.D())
	if _, err := tx.ExecContext(ctx, `INSERT INTO grant_reviews (grant_id, issuer, subject, reviewers, due) VALUES (?, ?, ?, ?, ?)`,
		g.ID, who.Issuer, who.Subject, string(groups), toNano(due)); err != nil {
		return fmt.Errorf("note that grant %s is to be reviewed: %w", g.ID, err)
	}
	event := s.event("grant.break_glass", &who, g)
	event.Reason, event.Fields["review_by"] = g.Reason, due.Format(time.RFC3339)
	named := who.SignedIn
	if who.Emergency != "" {
		named, event.Fields["enrolled_key"] = who.Known, who.Emergency
		event.Reason += " (signed in with an enrolled key: the provider could not be asked)"
	}
	if age := g.Requested.Sub(named); !named.IsZero() {
		event.Fields["groups_age"] = age.Round(time.Second).String() // they are those of that sign-in at the provider, whatever it says now
	}
	return errors.Join(tx.Audit(event), announce(ctx, tx, event, g))
}

// Reviews are those that wait, oldest first, of grants that the identity may see; or all of them.
func (s *Service) Reviews(ctx context.Context, who authn.Identity, all bool) ([]Review, error) {
	if err := proven(who); err != nil {
		return nil, err
	}
	where := ` WHERE done = 0`
	if all {
		where = ``
	}
	rows, err := s.store.Read().QueryContext(ctx, `SELECT grant_id, reviewers, due, done, by_name, comment FROM grant_reviews`+where+` ORDER BY due LIMIT 1000`)
	if err != nil {
		return nil, fmt.Errorf("list reviews: %w", err)
	}
	defer rows.Close()
	var found []Review
	for rows.Next() {
		var r Review
		var groups []byte
		var due, done int64
		if err := rows.Scan(&r.Grant.ID, &groups, &due, &done, &r.By, &r.Comment); err != nil {
			return nil, fmt.Errorf("list reviews: %w", err)
		}
		if err := json.Unmarshal(groups, &r.Groups); err != nil {
			return nil, fmt.Errorf("list reviews: %w", err)
		}
		r.Due, r.Done = fromNano(due), fromNano(done)
		found = append(found, r)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("list reviews: %w", err)
	}
	visible := []Review{}
	for _, r := range found {
		g, err := load(ctx, s.store.Read(), r.Grant.ID)
		if err != nil {
			return nil, fmt.Errorf("list reviews: %w", err)
		}
		if r.Grant = g; s.sees(who, g) || policy.InAny(who.Groups, r.Groups) {
			visible = append(visible, r)
		}
	}
	return visible, nil
}

// Review says that somebody has looked at what was done under a grant that was taken in an emergency. It is never the holder,
// nor done by a click elsewhere.
func (s *Service) Review(ctx context.Context, who authn.Identity, id, comment string) (Grant, error) {
	if err := proven(who); err != nil {
		return Grant{}, err
	}
	id = canonical(id)
	comment, err := clean("comment", comment)
	if err := errors.Join(err, s.meet(ctx)); err != nil {
		return Grant{}, err
	}
	g := Grant{ID: id}
	err = s.store.Do(ctx, func(tx *store.Tx) error {
		var groups []byte
		var names []string
		var done int64
		err := tx.QueryRowContext(ctx, `SELECT reviewers, done FROM grant_reviews WHERE grant_id = ?`, id).Scan(&groups, &done)
		if errors.Is(err, sql.ErrNoRows) {
			return noSuch(id)
		}
		if err != nil {
			return fmt.Errorf("look for a review of grant %s: %w", id, err)
		}
		if g, err = load(ctx, tx, id); err != nil {
			return err
		}
		if err := json.Unmarshal(groups, &names); err != nil {
			return err
		}
		if p, ok := s.rules.Load().policy(g.Policy); ok && p.BreakGlass { // who may now, and could then
			names = slices.DeleteFunc(names, func(n string) bool { return !slices.Contains(p.Policy.Review.Groups, n) })
		}
		asked, started := s.rules.Load().persons.Own(g.Identity, who)
		switch {
		case asked || started:
			return refusal.New(refusal.NotPermitted, "you may not review what you did yourself").WithHint("ask a member of %s to run: sallyport review %s", policy.Or(names), id)
		case who.Kind != authn.Human || !policy.InAny(who.Groups, names):
			return refusal.New(refusal.NotPermitted, "you may not review grant %s", id).WithDetail("members of %s may", policy.Or(names)).WithHint("ask one of them to run: sallyport review %s", id)
		case who.Method == authn.LinkedAccount:
			return refusal.New(refusal.NotPermitted, "grant %s is not reviewed by a click elsewhere", id).WithHint("run: sallyport review %s", id)
		case done != 0:
			return refusal.New(refusal.Conflict, "grant %s has been reviewed already", id)
		case !g.State.Over():
			return refusal.New(refusal.Conflict, "grant %s is still open", id).WithDetail("%s", s.describe(g)).WithHint("review it when it is over, or end it with: sallyport revoke %s", id)
		case comment == "":
			return refusal.New(refusal.Invalid, "say what you have found").WithHint("run: sallyport review %s --comment \"…\"", id)
		}
		now := s.clock.stamp()
		if _, err := tx.ExecContext(ctx, `UPDATE grant_reviews SET done = ?, by_issuer = ?, by_subject = ?, by_name = ?, comment = ? WHERE grant_id = ? AND done = 0`,
			toNano(now), who.Issuer, who.Subject, who.Label(), comment, id); err != nil {
			return fmt.Errorf("note a review of grant %s: %w", id, err)
		}
		event := s.event("grant.reviewed", &who, g)
		event.Reason = comment
		return errors.Join(tx.Audit(event), announce(ctx, tx, event, g))
	})
	if err != nil {
		return Grant{}, s.refused(ctx, "review.refused", who, g, err)
	}
	return g, nil
}

// overdue tells of reviews that nobody has done in time.
func (s *Service) overdue(ctx context.Context) error {
	var waiting int
	now := toNano(s.clock.stamp())
	if err := s.store.Read().QueryRowContext(ctx, `SELECT count(*) FROM grant_reviews WHERE done = 0 AND told = 0 AND due <= ?`, now).Scan(&waiting); err != nil || waiting == 0 {
		return err
	}
	return s.store.Do(ctx, func(tx *store.Tx) error {
		rows, err := tx.QueryContext(ctx, `UPDATE grant_reviews SET told = 1 WHERE done = 0 AND told = 0 AND due <= ? RETURNING grant_id`, now)
		if err != nil {
			return err
		}
		ids, err := idsOf(rows)
		if err != nil {
			return err
		}
		for _, id := range ids {
			g, err := load(ctx, tx, id)
			if err != nil {
				return err
			}
			event := s.event("grant.review_overdue", nil, g)
			event.Reason = "what was done under it was to be reviewed by now; the right of " + g.Identity.Label() + " to break the glass is paused"
			if err := errors.Join(tx.Audit(event), announce(ctx, tx, event, g)); err != nil {
				return err
			}
		}
		return nil
	})
}

// idsOf reads rows of one id each, and closes them.
func idsOf(rows *sql.Rows) (ids []string, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}
