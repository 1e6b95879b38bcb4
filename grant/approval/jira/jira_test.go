package jira

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/approval"
	"sallyport/grant/evidence/jira/jiratest"
)

func notice(what string, kind grant.EventKind, g grant.Grant, id string) approval.Notice {
	return approval.Notice{Event: grant.Event{Kind: kind, What: what, Grant: g, Actor: "Bob"}, ID: id}
}

// Each event is one comment, whatever happens to the answers; nothing in a reason is more than text.
func TestComments(t *testing.T) {
	server := jiratest.New()
	t.Cleanup(server.Close)
	t.Setenv("JIRA", jiratest.Token)
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	server.Move("OPS-42", "In Progress", "indeterminate", "x", now)
	j, err := Open(configs.Jira{Name: "acme", URL: server.URL + "/", User: jiratest.User, Token: "env:JIRA", Projects: []string{"OPS"}}, "https://gateway.example")
	if err != nil {
		t.Fatal(err)
	}
	g := grant.Grant{ID: "g-7k3mq2", State: grant.Approved, Identity: authn.Identity{Name: "Alice"}, Account: "app", Target: "orders", Ticket: "OPS-42",
		Reason: "look [~accountid:1] at it", Duration: time.Hour, Needed: 1, Ballot: grant.Ballot{Votes: []grant.Vote{{Name: "Bob", Approve: true}}}}
	approved := notice("grant.approved", grant.EventDecided, g, "g-7k3mq2-1")

	server.SetDown(true)
	if _, err := j.Deliver(t.Context(), approved); err == nil {
		t.Error("told nobody")
	}
	server.SetDown(false)
	server.Limit(1)
	_, err = j.Deliver(t.Context(), approved)
	if again, ok := errors.AsType[approval.RetryAfter](err); !ok || again.After != 7*time.Second {
		t.Errorf("%v", err)
	}
	server.LoseAnswers(1)
	if _, err := j.Deliver(t.Context(), approved); err == nil {
		t.Error("an answer that got lost passed for one")
	}
	for range 2 {
		if _, err := j.Deliver(t.Context(), approved); err != nil {
			t.Fatal(err)
		}
	}
	g.State, g.EndReason, g.From = grant.Ended, grant.EndReleased, now
	if _, err := j.Deliver(t.Context(), notice("grant.ended", grant.EventEnded, g, "g-7k3mq2-2")); err != nil {
		t.Fatal(err)
	}
	comments := server.Comments("OPS-42")
	if len(comments) != 2 || !strings.HasPrefix(comments[0], "Approved by Bob: Alice, app@orders (grant g-7k3mq2) for 1h. Reason: look [~accountid:1] at it") ||
		!strings.Contains(comments[1], "Access ended (released)") {
		t.Errorf("%q", comments)
	}
	// Approvals in stages: which waits, and who gave which.
	staged := g
	staged.State, staged.EndReason, staged.From, staged.Needed = grant.Pending, "", time.Time{}, 2
	staged.Stages = []grant.Stage{{Name: "peer", Groups: []string{"leads"}, Needed: 1}, {Name: "owners", Groups: []string{"dba"}, Needed: 1}}
	staged.Votes = []grant.Vote{{Issuer: "x", Subject: "bob", Name: "Bob", Approve: true, Stage: 1}}
	opened := notice("grant.voted", grant.EventStage, staged, "g-7k3mq2-5")
	staged.State, staged.Votes = grant.Approved, append(staged.Votes, grant.Vote{Issuer: "x", Subject: "erin", Name: "Erin", Approve: true, Stage: 2})
	for _, n := range []approval.Notice{opened, notice("grant.approved", grant.EventDecided, staged, "g-7k3mq2-6")} {
		if _, err := j.Deliver(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if comments := server.Comments("OPS-42"); len(comments) != 4 || !strings.Contains(comments[2], "waits for approval by dba (stage 2)") ||
		!strings.HasPrefix(comments[3], "Approved by Bob (stage 1 of 2, peer), Erin (stage 2 of 2, owners): ") {
		t.Errorf("%q", comments)
	}
	g.Ticket = "OPS-43"
	_, err = j.Deliver(t.Context(), notice("grant.ended", grant.EventEnded, g, "g-7k3mq2-3"))
	if _, permanent := errors.AsType[approval.Permanent](err); !permanent {
		t.Errorf("an issue that is not there: %v", err)
	}
	for _, other := range []string{"", "WEB-1", "../OPS-42", "OPS-42?x"} {
		g.Ticket = other
		if _, err := j.Deliver(t.Context(), notice("grant.ended", grant.EventEnded, g, "g-7k3mq2-4")); err != nil {
			t.Errorf("%q: %v", other, err)
		}
	}
	if j.Wants(grant.EventRequested) || !j.Wants(grant.EventEnded) {
		t.Error("it wants the wrong things")
	}
}
