// Package report makes the auditors' reports out of what the gateway knows: who could and did get access, what sessions
// there were, whether their log is whole, and who should keep what they may.
//
// It promises that every figure is the number of rows of one of the report's tables and names them, so that whoever doubts a
// figure finds the grants, sessions, audit events or findings behind it. It reads nothing itself.
package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/authn"
	"sallyport/grant"
	"sallyport/internal/store"
	"sallyport/recorder/verify"
	"sallyport/session"
	"sallyport/web/api"
)

// The kinds of report.
const (
	Access    = "access"
	Sessions  = "sessions"
	Integrity = "integrity"
	Review    = "review"
)

// Kinds are all of them.
var Kinds = []string{Access, Sessions, Integrity, Review}

// Facts are what a report is made of: what there was at any time from From up to To.
type Facts struct {
	From, To time.Time
	Grants   []grant.Grant
	Sessions []session.Info
	Events   []store.AuditEvent // of the period
	// Offers are what somebody may ask for, by the policies as they are now.
	Offers func(authn.Identity) ([]grant.Offer, error)
	// Done is what each session did, by its id; for access only, and nil for who may not read recordings.
	Done map[string]Done
	// Check is the verification of the whole log; for integrity only.
	Check *verify.Report
}

// Make makes a report.
func Make(kind string, f Facts) (api.AuditReport, error) {
	r := api.AuditReport{Kind: kind, Title: titles[kind], From: f.From.UTC(), To: f.To.UTC(), Clauses: clauses[kind], Figures: []api.Figure{}}
	b := builder{&r}
	switch kind {
	case Access:
		b.access(f)
	case Sessions:
		b.sessions(f)
	case Integrity:
		b.integrity(f)
	case Review:
		if err := b.review(f); err != nil {
			return r, err
		}
	default:
		return r, fmt.Errorf("there is no report %q", kind)
	}
	return r, nil
}

var titles = map[string]string{
	Access: "Access that was asked for, decided and used", Sessions: "Sessions and who looked at them",
	Integrity: "Integrity of the session log", Review: "Review of access rights",
}

// builder adds to a report.
type builder struct{ *api.AuditReport }

// table adds a table.
func (b builder) table(title string, columns ...string) *api.ReportTable {
	b.Tables = append(b.Tables, api.ReportTable{Title: title, Columns: columns, Rows: [][]string{}})
	return &b.Tables[len(b.Tables)-1]
}

// count adds a figure: the rows of a table, made before, for which the condition holds.
func (b builder) count(name string, t api.ReportTable, counts func(row map[string]string) bool) {
	f := api.Figure{Name: name, Table: t.Title, Records: []string{}}
	for _, row := range t.Rows {
		named := map[string]string{}
		for i, column := range t.Columns {
			named[column] = row[i]
		}
		if counts(named) {
			f.Value++
			f.Records = append(f.Records, row[0])
		}
	}
	b.Figures = append(b.Figures, f)
}

func all(map[string]string) bool { return true }

func is(column string, values ...string) func(map[string]string) bool {
	return func(row map[string]string) bool { return slices.Contains(values, row[column]) }
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// access is who got what, why, by whom.
func (b builder) access(f Facts) {
	used := map[string]int{}
	for _, s := range f.Sessions {
		used[s.Grant]++
	}
	t := b.table("Grants", "grant", "person", "kind", "access", "reason", "ticket", "policy", "requested", "state", "approved by", "from", "until", "ended", "why ended", "ended by",
		"sessions", "approved by requester", "granted longer than 24h")
	for _, g := range f.Grants {
		self, people := false, 0
		for _, v := range g.Votes {
			if v.Approve {
				people++
				self = self || v.Issuer == g.Identity.Issuer && v.Subject == g.Identity.Subject
			}
		}
		approvers := strings.Join(g.By(), ", ")
		t.Rows = append(t.Rows, []string{
			g.ID, g.Identity.Label(), string(g.Identity.Kind), g.Account + "@" + g.Target, g.Reason, g.Ticket, g.Policy, when(g.Requested), string(g.State), approvers,
			when(g.From), when(g.Until), when(g.EndedAt), g.EndReason, g.EndedBy, strconv.Itoa(used[g.ID]), yes(self), yes(g.Duration > 24*time.Hour),
		})
	}
	b.count("requests and grants", *t, all)
	b.count("given", *t, func(row map[string]string) bool { return row["from"] != "" })
	b.count("denied", *t, is("state", string(grant.Denied)))
	b.count("withdrawn or lapsed", *t, is("state", string(grant.Withdrawn), string(grant.Lapsed)))
	b.count("given by policy, without a second person", *t, func(row map[string]string) bool {
		return row["from"] != "" && strings.HasPrefix(row["approved by"], "policy ")
	})
	b.count("approved by the requester", *t, is("approved by requester", "yes"))
	b.count("longer than 24 hours", *t, is("granted longer than 24h", "yes"))
	b.count("revoked", *t, is("why ended", grant.EndRevoked))
	b.count("given and never used", *t, func(row map[string]string) bool { return row["from"] != "" && row["sessions"] == "0" })
	b.done(f)
	e := b.events("Refusals", f, func(e store.AuditEvent) bool {
		return e.Outcome != "ok" && (strings.HasPrefix(e.Kind, "session.refused") || strings.HasPrefix(e.Kind, "login.refused") || strings.HasPrefix(e.Kind, "grant.") ||
			strings.HasPrefix(e.Kind, "api.refused"))
	})
	b.count("refusals", e, all)
}

// events adds a table of audit events.
func (b builder) events(title string, f Facts, counts func(store.AuditEvent) bool) api.ReportTable {
	t := b.table(title, "event", "time", "kind", "actor", "client", "access", "grant", "session", "outcome", "reason")
	for _, e := range f.Events {
		if !counts(e) {
			continue
		}
		access := e.Target
		if e.Account != "" {
			access = e.Account + "@" + e.Target
		}
		actor := e.ActorName
		if actor == "" {
			actor = e.Actor
		}
		t.Rows = append(t.Rows, []string{strconv.FormatUint(e.Number, 10), when(e.Time), e.Kind, actor, e.Client, access, e.Grant, e.Session, e.Outcome, e.Reason})
	}
	return *t
}

func kinds(prefixes ...string) func(store.AuditEvent) bool {
	return func(e store.AuditEvent) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return e.Kind == p || strings.HasPrefix(e.Kind, p+".") })
	}
}

// sessions is what there was, and who looked at it.
func (b builder) sessions(f Facts) {
	t := b.table("Sessions", "session", "person", "kind", "protocol", "access", "grant", "reason", "approved by", "client", "started", "ended", "why ended", "detail")
	for _, s := range f.Sessions {
		ended := s.EndReason
		if s.Live {
			ended = "live"
		}
		t.Rows = append(t.Rows, []string{
			s.ID, s.Identity.Label(), string(s.Identity.Kind), s.Protocol, s.Account + "@" + s.Target, s.Grant, s.Reason, strings.Join(s.Approvers, ", "), s.Client,
			when(s.Started), when(s.Ended), ended, s.EndDetail,
		})
	}
	sessions := *t
	b.count("sessions", sessions, all)
	for _, protocol := range []string{"postgres", "ssh"} {
		b.count("of "+protocol, sessions, is("protocol", protocol))
	}
	b.count("by workloads", sessions, is("kind", string(authn.Workload)))
	b.count("cut because the grant ended", sessions, func(row map[string]string) bool { return strings.HasPrefix(row["why ended"], "grant_") })
	b.count("killed by somebody", sessions, is("why ended", session.EndKilled))
	b.count("cut because they could not be recorded", sessions, is("why ended", session.EndRecorderFailed))
	b.count("ended by the gateway's death", sessions, is("why ended", session.EndCrashed))
	b.count("live", sessions, is("why ended", "live"))
	refused := b.events("Refused sessions", f, kinds("session.refused"))
	b.count("refused", refused, all)
	looked := b.events("Who looked at recordings and the audit log", f, kinds("recording.replayed", "recording.verified", "recording.exported", "recording.searched", "recording.watched",
		"sessions.watched", "evidence.exported", "audit.read", "report.made"))
	b.count("readings of recordings and of the audit log", looked, all)
}

// integrity is whether the log is whole, and what was done about it.
func (b builder) integrity(f Facts) {
	t := b.table("Recordings and audit files", "session", "file", "state", "ending", "durability", "started", "blocks", "bytes", "problems")
	if f.Check != nil {
		for _, files := range [][]verify.File{f.Check.Recordings, f.Check.Audit.Files} {
			for _, file := range files {
				t.Rows = append(t.Rows, []string{
					file.Session, file.Path, string(file.State), file.Ending, file.Level, when(file.Started), strconv.FormatUint(file.Blocks, 10), strconv.FormatInt(file.Bytes, 10),
					strconv.Itoa(len(file.Problems)),
				})
			}
		}
	}
	files := *t
	b.count("recordings and audit files there are", files, all)
	b.count("damaged or torn", files, is("state", string(verify.Damaged), string(verify.Torn)))
	b.count("kept at level written", files, is("durability", "written"))
	t = b.table("Findings", "number", "kind", "session", "what")
	find := func(kind, session, what string) {
		t.Rows = append(t.Rows, []string{strconv.Itoa(len(t.Rows) + 1), kind, session, what})
	}
	if c := f.Check; c != nil {
		for _, m := range c.Missing {
			find("missing", m.Session, "the audit log says that it was begun, and there is no recording")
		}
		for _, m := range c.Audit.Missing {
			find("audit_missing", "", "audit events "+m.String()+" are missing")
		}
		if c.Log == nil {
			find("log_missing", "", "there is no log over all recordings")
		} else {
			for _, p := range c.Log.Problems {
				find(p.Kind, p.Session, p.What)
			}
		}
	}
	findings := *t
	b.count("findings", findings, all)
	t = b.table("The log over all recordings", "item", "value")
	if f.Check != nil && f.Check.Log != nil {
		l := f.Check.Log
		t.Rows = append(t.Rows, []string{"origin", l.Origin}, []string{"public key", l.Key}, []string{"leaves", strconv.FormatInt(l.Leaves, 10)},
			[]string{"signed", strconv.FormatInt(l.Signed, 10)}, []string{"witnessed", strconv.FormatInt(l.Witnessed, 10)})
		for _, c := range l.Cosigned {
			t.Rows = append(t.Rows, []string{"cosigned by " + c.Witness, when(c.Time)})
		}
		for _, n := range l.NotProven {
			t.Rows = append(t.Rows, []string{"not proven", n})
		}
	}
	t = b.table("Purged recordings", "session", "purged", "leaf", "sha256")
	if f.Check != nil {
		for _, p := range f.Check.Purged {
			if !p.Time.Before(f.From) && p.Time.Before(f.To) {
				t.Rows = append(t.Rows, []string{p.Session, when(p.Time), strconv.FormatInt(p.Leaf, 10), p.SHA256})
			}
		}
	}
	purged := *t
	b.count("purged in the period", purged, all)
	t = b.table("Recordings destroyed before their time", "session", "destroyed", "by", "reason", "leaf", "sha256")
	if f.Check != nil {
		for _, s := range f.Check.Shredded {
			if s.Time.IsZero() || !s.Time.Before(f.From) && s.Time.Before(f.To) {
				t.Rows = append(t.Rows, []string{s.Session, when(s.Time), s.By, s.Reason, strconv.FormatInt(s.Leaf, 10), s.SHA256})
			}
		}
	}
	b.count("destroyed before their time in the period", *t, all)
	acts := b.events("Retention, holds, keys and configuration", f, kinds("recording.purged", "recording.shredded", "recording.held", "recording.released", "authority", "config"))
	b.count("acts on retention, keys and configuration", acts, all)
	elsewhere := b.events("The archive: what went there, and when it was behind", f, kinds("recording.archived", "archive"))
	b.count("recordings that were archived in the period", elsewhere, is("kind", "recording.archived"))
	b.count("times that the archive was behind", elsewhere, is("kind", "archive.behind"))
	outages := b.events("Sessions that were refused because they could not be recorded", f, func(e store.AuditEvent) bool {
		return e.Kind == "session.refused" && e.Outcome == "recorder_failed"
	})
	b.count("refused for want of a safe record", outages, all)
}

// review is who may have what, and whether they used it: for somebody to say whether they should keep it.
func (b builder) review(f Facts) error {
	type key struct{ person, access string }
	type row struct {
		name, kind, policies string
		eligible             bool
		asked, granted, used int
		grants               []string
		last                 time.Time
	}
	rows, people := map[key]*row{}, map[string]authn.Identity{}
	at := func(who authn.Identity, access string) *row {
		k := key{who.Key(), access}
		if rows[k] == nil {
			rows[k] = &row{name: who.Label(), kind: string(who.Kind)}
		}
		people[who.Key()] = who // the last is as they were last seen
		return rows[k]
	}
	for _, g := range f.Grants {
		r := at(g.Identity, g.Account+"@"+g.Target)
		r.asked++
		r.grants = append(r.grants, g.ID)
		if !g.From.IsZero() {
			r.granted++
		}
	}
	for _, s := range f.Sessions {
		r := at(s.Identity, s.Account+"@"+s.Target)
		r.used++
		if s.Started.After(r.last) {
			r.last = s.Started
		}
	}
	for _, who := range people {
		offers, err := f.Offers(who)
		if err != nil {
			return err
		}
		for _, o := range offers {
			r := at(who, o.Account+"@"+o.Target)
			r.eligible = true
			if !strings.Contains(r.policies, o.Policy) {
				r.policies = strings.TrimPrefix(r.policies+", "+o.Policy, ", ")
			}
		}
	}
	t := b.table("Access rights", "right", "person", "kind", "access", "may ask for it now", "by policies", "asked", "granted", "sessions", "last used", "grants", "keep (yes/no)", "reviewed by", "date")
	order := make([]key, 0, len(rows))
	for k := range rows {
		order = append(order, k)
	}
	slices.SortFunc(order, func(a, b key) int {
		return strings.Compare(rows[a].name+"\x00"+a.person+"\x00"+a.access, rows[b].name+"\x00"+b.person+"\x00"+b.access)
	})
	for i, k := range order {
		r := rows[k]
		t.Rows = append(t.Rows, []string{
			strconv.Itoa(i + 1), r.name, r.kind, k.access, yes(r.eligible), r.policies, strconv.Itoa(r.asked), strconv.Itoa(r.granted), strconv.Itoa(r.used), when(r.last),
			strings.Join(r.grants, " "), "", "", "",
		})
	}
	rights := *t
	b.count("rights of people who asked for or used something in the period", rights, all)
	b.count("may be asked for and were not used", rights, func(row map[string]string) bool { return row["may ask for it now"] == "yes" && row["sessions"] == "0" })
	b.count("were used and may not be asked for any more", rights, func(row map[string]string) bool { return row["may ask for it now"] == "no" && row["sessions"] != "0" })
	b.count("of workloads", rights, is("kind", string(authn.Workload)))
	changes := b.events("Changes of policies, authorities and credentials", f, kinds("config", "policy", "authority", "credential.revoked", "identity"))
	b.count("changes", changes, all)
	b.policies(f)
	emergencies := b.events("What was done in emergencies, and who looked at it", f, kinds("grant.break_glass", "grant.reviewed", "grant.review_overdue"))
	b.count("accesses in an emergency", emergencies, is("kind", "grant.break_glass"))
	b.count("looked at afterwards by somebody else", emergencies, is("kind", "grant.reviewed"))
	b.count("not looked at in time", emergencies, is("kind", "grant.review_overdue"))
	return nil
}

// policies is which sets of policies came into force, what was other in them, and who confirmed them.
func (b builder) policies(f Facts) {
	confirmed := map[string]store.AuditEvent{} // by set
	t := b.table("Changes of policies, and who confirmed them", "event", "in force since", "policy set", "before", "added", "removed", "changed", "may widen access", "confirmed by", "confirmed")
	for _, e := range f.Events {
		set := e.Fields["policy_set"]
		switch {
		case e.Kind == "policy.confirmed" && e.Outcome == "ok":
			confirmed[set] = e
		case e.Kind == "policy.loaded":
			by, at := "", ""
			if c, ok := confirmed[set]; ok && c.Fields["before"] == e.Fields["before"] {
				by, at = c.ActorName, when(c.Time)
				delete(confirmed, set) // it was for this once
			}
			t.Rows = append(t.Rows, []string{
				strconv.FormatUint(e.Number, 10), when(e.Time), set, e.Fields["before"], e.Fields["added"], e.Fields["removed"], e.Fields["changed"], e.Fields["widens"], by, at,
			})
		}
	}
	b.count("changes of policies", *t, all)
	b.count("changes of policies that a second person confirmed", *t, func(row map[string]string) bool { return row["confirmed by"] != "" })
	b.count("changes of policies that may widen access and nobody confirmed", *t, func(row map[string]string) bool {
		return row["may widen access"] != "" && row["confirmed by"] == "" && row["before"] != ""
	})
}
