// Package jira tells the issue that a grant names what becomes of it: that access was given, by whom, and how it ended.
//
// A comment is written once per event: one whose answer got lost is looked for before it is written again. What the issue says
// is read as evidence, by package evidence; a comment is never a vote.
package jira

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/approval"
	"sallyport/grant/evidence"
	site "sallyport/grant/evidence/jira"
	"sallyport/grant/policy"
)

// Jira is one site. Safe for concurrent use.
type Jira struct {
	name string
	url  string // the gateway's
	site *site.Site
}

// Open prepares; nothing is asked of the site yet.
func Open(config configs.Jira, url string) (*Jira, error) {
	s, err := site.NewSite(config, nil, nil)
	return &Jira{"jira/" + config.Name, url, s}, err
}

// Name implements approval.Channel.
func (j *Jira) Name() string { return j.name }

// Wants implements approval.Channel.
func (j *Jira) Wants(kind grant.EventKind) bool {
	return kind == grant.EventDecided || kind == grant.EventStage || kind == grant.EventActive || kind == grant.EventEnded
}

// Deliver implements approval.Channel.
func (j *Jira) Deliver(ctx context.Context, n approval.Notice) (string, error) {
	if !j.site.Has(n.Grant.Ticket) {
		return "", nil // of no project that counts
	}
	err := j.site.Comment(ctx, n.Grant.Ticket, n.ID, j.text(n.Event))
	if busy, ok := errors.AsType[evidence.Busy](err); ok {
		return "", approval.RetryAfter{Err: err, After: busy.After}
	}
	if gone, ok := errors.AsType[site.Gone](err); ok {
		return "", approval.Permanent{Err: gone}
	}
	return "", err
}

// text is the comment.
func (j *Jira) text(e grant.Event) string {
	g := e.Grant
	who := fmt.Sprintf("%s, %s@%s (grant %s)", g.Identity.Label(), g.Account, g.Target, g.ID)
	at := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
	var text string
	switch {
	case e.What == "grant.extended":
		text = fmt.Sprintf("Extended for %s: until %s.", who, at(g.Until))
	case e.Kind == grant.EventStage:
		text = fmt.Sprintf("Not approved yet: %s waits for approval by %s (stage %d).", who, policy.Or(g.Asked()), g.Stage())
	case e.What == "grant.extension_denied":
		text = fmt.Sprintf("No more time for %s.", who)
	case e.What == "grant.reviewed":
		text = fmt.Sprintf("Reviewed by %s: what was done by %s.", e.Actor, who)
	case g.State == grant.Approved:
		text = fmt.Sprintf("Approved by %s: %s for %s. Reason: %s", strings.Join(g.By(), ", "), who, policy.Short(g.Duration), g.Reason)
	case g.State == grant.Active:
		text = fmt.Sprintf("Access began: %s, until %s.", who, at(g.Until))
	case g.State == grant.Ended:
		text = fmt.Sprintf("Access ended (%s): %s.", strings.ReplaceAll(g.EndReason, "_", " "), who)
		if g.From.IsZero() {
			text += " It was never used."
		}
	default:
		text = fmt.Sprintf("%s: %s.", strings.ToUpper(string(g.State)[:1])+string(g.State)[1:], who)
		if g.EndComment != "" {
			text += " " + g.EndComment
		}
	}
	return text + " " + j.url + "/console/requests/" + g.ID
}
