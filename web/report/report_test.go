package report

import (
	"slices"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/grant"
	"sallyport/internal/store"
	"sallyport/recorder/transparency"
	"sallyport/recorder/verify"
	"sallyport/session"
	"sallyport/web/api"
)

var (
	begin = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	alice = authn.Identity{Issuer: "https://idp", Subject: "1", Name: "Alice", Kind: authn.Human}
	bob   = authn.Identity{Issuer: "https://idp", Subject: "2", Name: "Bob", Kind: authn.Human}
	job   = authn.Identity{Issuer: "https://ci", Subject: "3", Name: "deploy", Kind: authn.Workload}
)

func facts() Facts {
	vote := func(who authn.Identity) grant.Ballot {
		return grant.Ballot{Votes: []grant.Vote{{Issuer: who.Issuer, Subject: who.Subject, Name: who.Name, Approve: true}}}
	}
	at := func(hours int) time.Time { return begin.Add(time.Duration(hours) * time.Hour) }
	return Facts{
		From: begin, To: begin.Add(30 * 24 * time.Hour),
		Grants: []grant.Grant{
			{ID: "g-1", State: grant.Ended, Identity: alice, Account: "app", Target: "orders", Ballot: vote(bob), Needed: 1, Requested: at(1), From: at(2), EndedAt: at(3), EndReason: grant.EndRevoked},
			{ID: "g-2", State: grant.Active, Identity: bob, Account: "app", Target: "orders", Ballot: vote(bob), Needed: 1, Requested: at(1), From: at(2), Duration: 48 * time.Hour},
			{ID: "g-3", State: grant.Denied, Identity: alice, Account: "root", Target: "web-1", Requested: at(1)},
			{ID: "g-4", State: grant.Ended, Identity: job, Account: "deploy", Target: "web-1", Policy: "pipelines", Requested: at(4), From: at(4), EndedAt: at(5)},
		},
		Sessions: []session.Info{
			{ID: "s-1", Protocol: "postgres", Identity: alice, Account: "app", Target: "orders", Grant: "g-1", Started: at(2), Ended: at(3), EndReason: "grant_revoked"},
			{ID: "s-2", Protocol: "ssh", Identity: job, Account: "deploy", Target: "web-1", Grant: "g-4", Started: at(4), Ended: at(5), EndReason: session.EndCrashed},
		},
		Events: []store.AuditEvent{
			{Number: 7, Time: at(1), Kind: "session.refused", Outcome: "recorder_failed", Actor: "x"},
			{Number: 8, Time: at(2), Kind: "recording.replayed", Outcome: "ok", ActorName: "Carol"},
			{Number: 9, Time: at(3), Kind: "config.reloaded", Outcome: "ok", Actor: "system"},
			{Number: 10, Time: at(3), Kind: "recordings.else", Outcome: "ok", Actor: "system"},
			{Number: 11, Time: at(4), Kind: "policy.confirmed", Outcome: "ok", ActorName: "Bob", Fields: map[string]string{"policy_set": "b", "before": "a"}},
			{Number: 12, Time: at(4), Kind: "policy.loaded", Outcome: "ok", Actor: "system", Fields: map[string]string{"policy_set": "b", "before": "a", "added": "x", "widens": "x"}},
			{Number: 13, Time: at(5), Kind: "policy.loaded", Outcome: "ok", Actor: "system", Fields: map[string]string{"policy_set": "c", "before": "b", "changed": "x", "widens": "x"}},
			{Number: 14, Time: at(6), Kind: "policy.loaded", Outcome: "ok", Actor: "system", Fields: map[string]string{"policy_set": "b", "before": "c", "removed": "x"}},
			{Number: 15, Time: at(6), Kind: "grant.break_glass", Outcome: "ok", ActorName: "Alice", Grant: "g-1"},
			{Number: 16, Time: at(7), Kind: "grant.reviewed", Outcome: "ok", ActorName: "Bob", Grant: "g-1"},
			{Number: 17, Time: at(7), Kind: "recording.archived", Outcome: "ok", Session: "s-1", Actor: "system"},
			{Number: 18, Time: at(7), Kind: "archive.behind", Outcome: "failed", Actor: "system"},
		},
		Offers: func(who authn.Identity) ([]grant.Offer, error) {
			if who.Key() != alice.Key() {
				return nil, nil
			}
			return []grant.Offer{{Account: "app", Target: "orders", Policy: "engineers"}, {Account: "app", Target: "billing", Policy: "engineers"}}, nil
		},
		Done: map[string]Done{"s-1": {Count: 4, First: []string{"SELECT 1"}}, "s-2": {Unread: "the recording is locked"}},
		Check: &verify.Report{
			Recordings: []verify.File{{Session: "s-1", State: verify.Sealed, Level: "synced"}, {Session: "s-2", State: verify.Damaged, Level: "written"}},
			Purged:     []verify.Purged{{Session: "s-0", Time: at(1), Leaf: 3}, {Session: "s-00", Time: begin.Add(-time.Hour)}},
			Log: &verify.Ledger{Origin: "gateway.example/log", Problems: []verify.Finding{{Kind: verify.Gone, Session: "s-9", What: "gone"}},
				Cosigned: []transparency.Cosignature{{Witness: "w", Time: at(9)}}},
		},
	}
}

func figures(t *testing.T, kind string) map[string]int {
	t.Helper()
	r, err := Make(kind, facts())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Clauses) == 0 || len(r.Figures) == 0 || r.Title == "" {
		t.Errorf("%s says too little: %+v", kind, r)
	}
	values := map[string]int{}
	for _, f := range r.Figures {
		values[f.Name] = f.Value
		at := slices.IndexFunc(r.Tables, func(table api.ReportTable) bool { return table.Title == f.Table })
		if at < 0 || f.Value != len(f.Records) {
			t.Errorf("%s: the figure %q is not of a table, or not what its records are: %+v", kind, f.Name, f)
			continue
		}
		for _, record := range f.Records {
			if !slices.ContainsFunc(r.Tables[at].Rows, func(row []string) bool { return row[0] == record }) {
				t.Errorf("%s: %q counts %s, which is in no row", kind, f.Name, record)
			}
		}
	}
	for _, table := range r.Tables {
		for _, row := range table.Rows {
			if len(row) != len(table.Columns) {
				t.Errorf("%s: a row of %q has %d cells, want %d", kind, table.Title, len(row), len(table.Columns))
			}
		}
	}
	return values
}

// Every figure is the number of rows that it names, and these are the right ones.
func TestFiguresCountTheirRecords(t *testing.T) {
	for kind, want := range map[string]map[string]int{
		Access: {
			"requests and grants": 4, "given": 3, "denied": 1, "given by policy, without a second person": 1, "approved by the requester": 1,
			"longer than 24 hours": 1, "revoked": 1, "given and never used": 1, "refusals": 1,
			"sessions": 2, "sessions of which not all is known that was done": 1,
		},
		Sessions: {
			"sessions": 2, "of ssh": 1, "by workloads": 1, "cut because the grant ended": 1, "ended by the gateway's death": 1, "refused": 1,
			"readings of recordings and of the audit log": 1, "live": 0,
		},
		Integrity: {
			"recordings and audit files there are": 2, "damaged or torn": 1, "kept at level written": 1, "findings": 1, "purged in the period": 1,
			"acts on retention, keys and configuration": 1, "recordings that were archived in the period": 1, "times that the archive was behind": 1, "refused for want of a safe record": 1,
		},
		Review: {
			"rights of people who asked for or used something in the period": 5, "may be asked for and were not used": 1,
			"were used and may not be asked for any more": 1, "of workloads": 1, "changes": 5,
			"changes of policies": 3, "changes of policies that a second person confirmed": 1, "changes of policies that may widen access and nobody confirmed": 1,
			"accesses in an emergency": 1, "looked at afterwards by somebody else": 1, "not looked at in time": 0,
		},
	} {
		got := figures(t, kind)
		for name, value := range want {
			if v, there := got[name]; !there || v != value {
				t.Errorf("%s: %q is %d (there: %v), want %d", kind, name, v, there, value)
			}
		}
	}
	if _, err := Make("weather", Facts{}); err == nil {
		t.Error("a report that there is not was made")
	}
}
