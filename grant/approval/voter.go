package approval

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// Voter turns decisions that channels bring into votes. Safe for concurrent use.
type Voter struct {
	Store  *store.Store
	Grants *grant.Service
	// SignedIn is authn's: the person as they are signed in now.
	SignedIn func(ctx context.Context, issuer, subject, through string) (authn.Identity, error)
}

// Decision is somebody's word on a grant, as a channel brought it.
type Decision struct {
	Grant   string
	Approve bool
	Comment string
	// Round is what it is about, where the channel knows: see grant.WithRound.
	Round *int
	// Stage is the stage that it is about, where the channel knows; 0: it does not. See grant.WithStage.
	Stage int
	// Through names the channel, Account the account there, for the audit log.
	Through, Account string
	// ID, where the channel has one, is the same whenever this decision comes, and Digest is of what it says: it is noted with the vote,
	// in one transaction, for Received.
	ID     string
	Digest []byte
}

// ByEmail finds who is linked to an e-mail address, in any case of letters.
func (v *Voter) ByEmail(address string) (configs.LinkedPerson, bool) {
	for _, p := range v.Grants.People() {
		if p.Email != "" && strings.EqualFold(p.Email, address) {
			return p, true
		}
	}
	return configs.LinkedPerson{}, false
}

// BySlack finds who is linked to a member of a workspace.
func (v *Voter) BySlack(workspace, member string) (configs.LinkedPerson, bool) {
	for _, p := range v.Grants.People() {
		if p.Slack != "" && p.Slack == workspace+"/"+member {
			return p, true
		}
	}
	return configs.LinkedPerson{}, false
}

// Stranger refuses, and audits, a decision by an account that is linked to nobody.
func (v *Voter) Stranger(ctx context.Context, d Decision) error {
	r := refusal.New(refusal.NotPermitted, "that account is linked to nobody here").
		WithHint("ask the gateway's operator to link it, under approvals in the configuration; or decide with: sallyport approve, sallyport deny")
	return errors.Join(r, v.audit(ctx, d, "", r))
}

// Vote casts a linked person's vote, as they are signed in now.
func (v *Voter) Vote(ctx context.Context, p configs.LinkedPerson, d Decision) (grant.Grant, error) {
	who, err := v.SignedIn(ctx, p.Issuer, p.Subject, d.Through)
	if r := refusal.Of(err); r != nil {
		r = refusal.New(r.Code, "your vote does not count while you are not signed in at the gateway").WithDetail("%s", r.Message).
			WithHint("sign in with: sallyport login, and decide again")
		return grant.Grant{}, errors.Join(r, v.audit(ctx, d, p.Issuer+" "+p.Subject, r))
	}
	if err != nil {
		return grant.Grant{}, err
	}
	if d.Round != nil {
		ctx = grant.WithRound(ctx, *d.Round)
	}
	if d.Stage > 0 {
		ctx = grant.WithStage(ctx, d.Stage)
	}
	if d.ID != "" {
		ctx = grant.WithNote(ctx, func(tx *store.Tx, g grant.Grant) error { return receive(ctx, tx, d, g.ID, time.Now()) })
	}
	if d.Approve {
		return v.Grants.Approve(ctx, who, d.Grant, d.Comment)
	}
	return v.Grants.Deny(ctx, who, d.Grant, d.Comment)
}

// audit tells of a decision that did not get as far as the grants, which audit themselves.
func (v *Voter) audit(ctx context.Context, d Decision, actor string, r *refusal.Refusal) error {
	if actor == "" {
		actor = "unknown"
	}
	return v.Store.Audit(context.WithoutCancel(ctx), store.AuditEvent{
		Kind: "approval.refused", Actor: actor, Grant: clip(d.Grant), Outcome: string(r.Code), Reason: r.Message,
		Fields: map[string]string{"through": d.Through, "account": clip(d.Account)},
	})
}

func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 100)], "") }

// Received looks whether a decision under that id has counted before; of the same content, as its digest says. It refuses
// where the same id was something else.
func Received(ctx context.Context, s *store.Store, channel, id string, digest []byte) (grantID string, before bool, err error) {
	var known []byte
	err = s.Read().QueryRowContext(ctx, `SELECT digest, grant_id FROM decisions_received WHERE channel = ? AND id = ?`, channel, id).Scan(&known, &grantID)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("look for a decision received before: %w", err)
	case !bytes.Equal(known, digest):
		return "", false, anotherDecision()
	}
	return grantID, true, nil
}

func anotherDecision() error {
	return refusal.New(refusal.Conflict, "another decision came under that id before").WithHint("give each decision an id of its own")
}

// receive notes that a decision has counted, and forgets those that are older than any that would be taken again.
func receive(ctx context.Context, tx *store.Tx, d Decision, grantID string, now time.Time) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM decisions_received WHERE created < ?`, now.Add(-24*time.Hour).UnixNano())
	if err != nil {
		return fmt.Errorf("forget old decisions: %w", err)
	}
	noted, err := tx.ExecContext(ctx, `INSERT INTO decisions_received (channel, id, digest, grant_id, created) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT DO NOTHING`, d.Through, d.ID, d.Digest, grantID, now.UnixNano())
	if err != nil {
		return fmt.Errorf("note a decision: %w", err)
	}
	if n, err := noted.RowsAffected(); err != nil || n == 0 { // another came under that id at the same time
		return errors.Join(anotherDecision(), err)
	}
	return nil
}
