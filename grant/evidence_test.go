package grant

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/evidence/jira/jiratest"
	"sallyport/internal/refusal"
)

// hanging is a world in which ro@orders hangs on evidence.
func hanging(t *testing.T, e configs.Evidence, change func(c *configs.Config)) *world {
	t.Helper()
	if e.Every == 0 {
		e.Every = configs.Duration(30 * time.Second)
	}
	if e.Tolerance == 0 {
		e.Tolerance = configs.Duration(5 * time.Minute)
	}
	return with(t, func(c *configs.Config) {
		c.Evidence = []configs.Evidence{e}
		c.Policies[1].Evidence = []string{e.Name}
		if change != nil {
			change(c)
		}
	})
}

// pass lets time go by and the other systems be read.
func (w *world) hang(d time.Duration) {
	w.t.Helper()
	w.clocks.pass(d)
	if err := w.rereadEvidence(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func read(w *world, ticket string) (Grant, error) {
	return w.Request(w.t.Context(), alice, Ask{Target: "orders", Account: "ro", Reason: "look at it", Ticket: ticket})
}

// An incident grant rides on who is on call: it is given by that, capped by the shift, and ends when somebody else takes over.
func TestOnCall(t *testing.T) {
	file := filepath.Join(t.TempDir(), "oncall.yaml")
	duty := func(who string, until time.Time) {
		t.Helper()
		text := "shop:\n  subjects: [" + who + "]\n  until: " + until.Format(time.RFC3339) + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	begin := newClocks().now()
	duty("sub-bob", begin.Add(2*time.Hour))
	w := hanging(t, configs.Evidence{Name: "oncall", Kind: configs.KindOnCall, File: file, Key: "shop", Until: "until"}, func(c *configs.Config) {
		c.Policies[1].When = "identity.subject in evidence.oncall.subjects"
	})
	_, err := read(w, "")
	refused(t, err, refusal.NotPermitted, "its condition does not hold", "evidence.oncall.subjects")
	duty("sub-alice", begin.Add(2*time.Hour))
	w.hang(time.Minute)
	g, err := read(w, "")
	if err != nil {
		t.Fatal(err)
	}
	l := w.lease(alice, "ro", "orders")
	if got := l.Until(); !got.Equal(begin.Add(time.Minute + time.Hour)) {
		t.Errorf("until %s", got)
	}
	w.hang(10 * time.Minute)
	w.state(g.ID, Active, "")
	duty("sub-bob", begin.Add(2*time.Hour))
	w.hang(10 * time.Minute)
	w.state(g.ID, Ended, EndShiftOver)
	waitEnded(t, l)
	// A shift that ends before the grant would ends it.
	duty("sub-alice", begin.Add(40*time.Minute))
	w.hang(time.Minute)
	if _, err = read(w, ""); err != nil {
		t.Fatal(err)
	}
	if l = w.lease(alice, "ro", "orders"); !l.Until().Equal(begin.Add(40 * time.Minute)) {
		t.Errorf("until %s", l.Until())
	}
	w.hang(18*time.Minute + time.Second)
	if l.Live() == nil {
		t.Error("it outlives the shift")
	}
}

// The job's own system is asked: a job that is over has nothing any more; a system that does not answer is tolerated, not for
// ever; and what it never said lets nobody in.
func TestJobEvidence(t *testing.T) {
	var status atomic.Int32
	var body atomic.Value
	status.Store(http.StatusOK)
	body.Store(`{"state": "in_progress", "attempt": 1}`)
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.EscapedPath() != "/jobs/repo%3A7" && r.URL.EscapedPath() != "/jobs/repo:7" {
			t.Errorf("asked for %s", r.URL.EscapedPath())
		}
		if r.Header.Get("Authorization") != "Bearer ci-secret" {
			t.Error("asked without the token")
		}
		rw.WriteHeader(int(status.Load()))
		_, _ = rw.Write([]byte(body.Load().(string)))
	}))
	t.Cleanup(server.Close)
	t.Setenv("CI", "ci-secret")
	w := hanging(t, configs.Evidence{Name: "job", Kind: configs.KindJob, URL: server.URL + "/jobs/{subject}", Token: "env:CI"}, func(c *configs.Config) {
		c.Policies[1].When = `evidence.job.state == "in_progress" && evidence.job.attempt < 2`
	})
	ask := Ask{Target: "orders", Account: "ro", Reason: "deploy"}
	status.Store(http.StatusInternalServerError)
	_, err := w.Request(t.Context(), job, ask)
	refused(t, err, refusal.NotPermitted, "evidence job: it can't be read", "500")
	status.Store(http.StatusOK)
	w.hang(time.Minute)
	g, err := w.Request(t.Context(), job, ask)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.row(g.ID).Terms.Evidence["job"]["state"]; got != "in_progress" {
		t.Errorf("what was known was not kept: %v", got)
	}
	l, err := w.Lease(t.Context(), job, "orders", "ro")
	if err != nil {
		t.Fatal(err)
	}
	before := asked.Load()
	for range 20 {
		w.hang(time.Second)
	}
	if n := asked.Load() - before; n > 1 {
		t.Errorf("asked %d times in 20 seconds", n)
	}
	status.Store(http.StatusBadGateway) // away, for as long as is tolerated
	w.hang(4 * time.Minute)
	w.state(g.ID, Active, "")
	status.Store(http.StatusOK)
	w.hang(time.Minute)
	w.state(g.ID, Active, "")
	body.Store(`{"state": "completed", "attempt": 1}`)
	w.hang(time.Minute)
	w.state(g.ID, Ended, EndTaskCompleted)
	waitEnded(t, l)

	body.Store(`{"state": "in_progress", "attempt": 1}`)
	w.hang(time.Minute)
	if g, err = w.Request(t.Context(), job, ask); err != nil {
		t.Fatal(err)
	}
	if _, err = w.Lease(t.Context(), job, "orders", "ro"); err != nil {
		t.Fatal(err)
	}
	status.Store(http.StatusBadGateway)
	w.hang(time.Minute)
	w.hang(5 * time.Minute)
	w.state(g.ID, Ended, EndEvidenceLost)

	status.Store(http.StatusOK)
	w.hang(time.Minute)
	if g, err = w.Request(t.Context(), job, ask); err != nil {
		t.Fatal(err)
	}
	status.Store(http.StatusNotFound) // it knows of none: that is an answer
	w.hang(time.Minute)
	w.state(g.ID, Ended, EndTaskCompleted)
	status.Store(http.StatusOK)
	body.Store(`{"x": "` + strings.Repeat("x", 2<<20) + `"}`)
	w.hang(10 * time.Minute)
	_, err = w.Request(t.Context(), job, ask)
	refused(t, err, refusal.NotPermitted, "larger than")
}

// What somebody asks with fills its own place in the question and no other: no parameter is added, and none replaced.
func TestRequestsAddNothingToTheQuestion(t *testing.T) {
	var asked atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.RequestURI())
		if q := r.URL.Query(); len(q) == 2 && len(q["id"]) == 1 && len(q["project"]) == 1 && q.Get("project") == "prod" && q.Get("id") == "1" {
			_, _ = rw.Write([]byte(`{"state": "approved"}`))
			return
		}
		if r.URL.Query()["project"][0] != "prod" { // the project of whoever asks, who approves of everything in it
			_, _ = rw.Write([]byte(`{"state": "approved"}`))
			return
		}
		rw.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(server.Close)
	w := hanging(t, configs.Evidence{Name: "job", Kind: configs.KindTicket, URL: server.URL + "/tickets?id={ticket}&project=prod"}, func(c *configs.Config) {
		c.Policies[1].When = `evidence.job.state == "approved"`
	})
	for _, ticket := range []string{"1&project=sandbox", "1;project=sandbox", "1#", "{subject}", "1&id=2"} {
		_, err := w.Request(t.Context(), job, Ask{Target: "orders", Account: "ro", Reason: "deploy", Ticket: ticket})
		if !refusal.Is(err, refusal.NotPermitted) {
			t.Errorf("with ticket %s it asks for %s: %v", ticket, asked.Load(), err)
		}
		w.hang(time.Minute)
	}
	if _, err := w.Request(t.Context(), job, Ask{Target: "orders", Account: "ro", Reason: "deploy", Ticket: "1"}); err != nil {
		t.Error(err)
	}
}

// A restart while the other system is away ends nothing at once, and lets nobody in.
func TestEvidenceAfterARestart(t *testing.T) {
	up := true
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		if !up {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = rw.Write([]byte(`{"ok": true}`))
	}))
	t.Cleanup(server.Close)
	w := hanging(t, configs.Evidence{Name: "change", Kind: configs.KindTicket, URL: server.URL}, func(c *configs.Config) { c.Policies[1].When = "evidence.change.ok" })
	g, err := read(w, "")
	if err != nil {
		t.Fatal(err)
	}
	w.lease(alice, "ro", "orders")
	w.stop()
	up = false
	w.start()
	w.hang(time.Minute)
	w.state(g.ID, Active, "")
	_, err = w.Lease(t.Context(), alice, "orders", "ro")
	refused(t, err, refusal.NoGrant, "evidence change: it can't be read")
	w.hang(6 * time.Minute)
	w.state(g.ID, Ended, EndEvidenceLost)
}

// tickets is a world in which ro@orders hangs on an issue in Jira that alice was given and one of the leads has approved, as they are
// known now.
func tickets(t *testing.T, approved ...string) (*world, *jiratest.Server) {
	t.Helper()
	server := jiratest.New()
	t.Cleanup(server.Close)
	t.Setenv("JIRA", jiratest.Token)
	e := configs.Evidence{Name: "ticket", Kind: configs.KindTicket, Jira: "acme", ApprovedStatus: approved}
	if len(approved) > 0 {
		e.ApprovedBy = []string{"leads"}
	}
	w := hanging(t, e, func(c *configs.Config) {
		c.Approvals.Jira = []configs.Jira{{Name: "acme", URL: server.URL, User: jiratest.User, Token: "env:JIRA", Projects: []string{"OPS"}}}
		for _, who := range []authn.Identity{alice, bob, carol, dave} {
			c.Approvals.People = append(c.Approvals.People, configs.LinkedPerson{Issuer: who.Issuer, Subject: who.Subject, Jira: "acc-" + strings.ToLower(who.Name)})
		}
		c.Policies[1].When = `evidence.ticket.category == "indeterminate" && evidence.ticket.assignee in ["", identity.subject]`
	})
	w.known = map[string]authn.Identity{alice.Key(): alice, bob.Key(): bob, carol.Key(): carol}
	w.current = func(_ context.Context, who authn.Identity) (authn.Identity, error) {
		w.knownMu.Lock()
		defer w.knownMu.Unlock()
		now, ok := w.known[who.Key()]
		if !ok {
			return now, refusal.New(refusal.NotFound, "never signed in")
		}
		return now, nil
	}
	w.groups = func(ctx context.Context, who authn.Identity) ([]string, error) {
		now, err := w.current(ctx, who)
		if err != nil {
			return nil, nil //nolint:nilerr // as authn's: none where they never signed in
		}
		return now.Groups, nil
	}
	w.restart()
	return w, server
}

func (w *world) knows(who authn.Identity) {
	w.knownMu.Lock()
	defer w.knownMu.Unlock()
	w.known[who.Key()] = who
}

// A ticketed grant: the issue is read, not typed, and its end is the grant's.
func TestGrantEndsWithItsTicket(t *testing.T) {
	w, server := tickets(t)
	now := w.clocks.now()
	server.Move("OPS-42", "In Progress", "indeterminate", "acc-bob", now)
	server.Move("WEB-1", "In Progress", "indeterminate", "acc-bob", now)
	server.Assign("OPS-42", "acc-bob")
	for ticket, says := range map[string]string{
		"": "names no ticket", "OPS-41": "there is no issue OPS-41", "WEB-1": "is no issue of OPS", "OPS-42/../x": "is no issue of OPS",
		"OPS-42": "evidence.ticket.assignee in",
	} {
		_, err := read(w, ticket)
		refused(t, err, refusal.NotPermitted, says)
	}
	server.Assign("OPS-42", "acc-alice")
	w.hang(time.Minute)
	g, err := read(w, "OPS-42")
	if err != nil {
		t.Fatal(err)
	}
	l := w.lease(alice, "ro", "orders")
	server.Limit(1)
	w.hang(time.Minute)
	w.state(g.ID, Active, "")
	server.Move("OPS-42", "Done", "done", "acc-bob", now)
	w.hang(time.Minute)
	w.state(g.ID, Ended, EndTicketClosed)
	waitEnded(t, l)
	if _, why := l.Why(); !strings.Contains(why, "OPS-42 is closed (Done)") {
		t.Error(why)
	}
}

// The proof is the transition: who made it, that they may approve now, and that it was neither who asks nor who started the job.
func TestTicketApproval(t *testing.T) {
	w, server := tickets(t, "Approved")
	now := w.clocks.now()
	ask := func(who authn.Identity) (Grant, error) {
		t.Helper()
		w.hang(time.Minute)
		return w.Request(t.Context(), who, Ask{Target: "orders", Account: "ro", Reason: "look at it", Ticket: "OPS-7"})
	}
	refuse := func(who authn.Identity, says string) {
		t.Helper()
		_, err := ask(who)
		refused(t, err, refusal.NotPermitted, says)
	}
	at := 0
	move := func(status, by string) {
		at++
		server.Move("OPS-7", status, "indeterminate", by, now.Add(time.Duration(at)*time.Second))
	}
	move("In Progress", "acc-alice")
	refuse(alice, "OPS-7 is In Progress, not Approved")
	move("Approved", "acc-alice")
	refuse(alice, "by the one who asks")
	move("Approved", "acc-stranger")
	refuse(alice, "is linked to nobody here")
	move("Approved", "acc-carol")
	refuse(alice, "by somebody who is not in leads")
	move("Approved", "acc-dave") // a lead, who never signed in here: that is not known
	refuse(alice, "by somebody who is not in leads")
	twin := dave // an account of hers at another place
	twin.Email = "Alice@example.com"
	w.knows(twin)
	hers := alice
	hers.Email = "alice@example.com"
	refuse(hers, "by the one who asks")
	for range 120 { // so that the list that comes with the issue does not reach the newest
		move("In Progress", "acc-bob")
	}
	move("Approved", "acc-bob")
	mine := job
	mine.StartedBy = authn.Starter{Name: "bob", Person: bob.Subject}
	refuse(mine, "by the one who asks")
	mine.StartedBy = authn.Starter{}
	if _, err := ask(mine); err != nil {
		t.Error(err)
	}
	g, err := ask(alice)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.row(g.ID).Terms.Evidence["ticket"]["approver"]; got != bob.Subject {
		t.Errorf("approved by %v", got)
	}
	w.lease(alice, "ro", "orders")
	partner := person("partner", "engineers")
	partner.Issuer = "https://partner.example"
	w.config.Approvals.People[1].Also = []string{partner.Key()}
	if err := w.Reload(t.Context(), w.config); err != nil {
		t.Fatal(err)
	}
	refuse(partner, "by the one who asks")
	move("Approved", "acc-alice") // moved again, by herself
	w.hang(time.Minute)
	w.state(g.ID, Ended, EndTicketClosed)

	// It falls with who approved it, as a vote does.
	move("Approved", "acc-bob")
	if g, err = ask(alice); err != nil {
		t.Fatal(err)
	}
	w.lease(alice, "ro", "orders")
	w.hang(time.Minute)
	w.state(g.ID, Active, "")
	left := bob
	left.Groups = []string{"sales"}
	w.knows(left)
	w.hang(time.Minute)
	w.state(g.ID, Ended, EndTicketClosed)
}

// A status may be named by its id, which is the same in every language.
func TestTicketStatusByID(t *testing.T) {
	w, server := tickets(t, jiratest.StatusID("Freigegeben"))
	server.Move("OPS-7", "Freigegeben", "indeterminate", "acc-bob", w.clocks.now())
	if _, err := read(w, "OPS-7"); err != nil {
		t.Error(err)
	}
}

// A system that does not answer delays no end that hangs on another.
func TestOneSystemThatHangsDelaysNoOther(t *testing.T) {
	var hangs atomic.Bool
	var over atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if hangs.Load() {
			<-r.Context().Done()
			over.Add(1)
			return
		}
		_, _ = rw.Write([]byte(`{"ok": true}`))
	}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	file := filepath.Join(t.TempDir(), "duty")
	duty := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	duty("on: true")
	every, tolerance := configs.Duration(30*time.Second), configs.Duration(time.Hour)
	w := with(t, func(c *configs.Config) {
		c.Evidence = []configs.Evidence{
			{Name: "change", Kind: configs.KindTicket, URL: server.URL + "/{subject}", Every: every, Tolerance: tolerance},
			{Name: "duty", Kind: configs.KindOnCall, File: file, Every: every, Tolerance: tolerance},
		}
		c.Policies[1].Evidence, c.Policies[1].When = []string{"change"}, "evidence.change.ok"
		c.Policies = append(c.Policies, configs.Policy{Name: "duty", Groups: []string{"leads"}, Accounts: []string{"owner@orders"}, MaxDuration: minutes(60),
			Evidence: []string{"duty"}, When: "evidence.duty.on", Approve: configs.Approve{Auto: true, Start: minutes(60)}})
	})
	const many = 6 * readers // so that it takes six times as long as one answer may
	for i := range many {
		if _, err := w.Request(t.Context(), person(fmt.Sprintf("p%d", i), "engineers"), Ask{Target: "orders", Account: "ro", Reason: "because"}); err != nil {
			t.Fatal(err)
		}
	}
	g, err := w.Request(t.Context(), bob, Ask{Target: "orders", Account: "owner", Reason: "because"})
	if err != nil {
		t.Fatal(err)
	}
	hangs.Store(true)
	duty("on: false")
	w.clocks.pass(2 * time.Minute)                                                                               // with that all of it is due
	for deadline := time.Now().Add(time.Minute); w.row(g.ID).State != Ended; time.Sleep(20 * time.Millisecond) { // looks again
		if time.Now().After(deadline) {
			t.Fatal("it outlives its shift")
		}
	}
	if n := over.Load(); n >= many {
		t.Errorf("it ended after %d of %d questions to the other system", n, many)
	}
	w.state(g.ID, Ended, EndShiftOver)
}

// A system that asks for patience is not asked again before, for whomever; and what it said last counts meanwhile.
func TestASystemsWishForPatience(t *testing.T) {
	var asked atomic.Int32
	var busy atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if busy.Load() {
			rw.Header().Set("Retry-After", "120")
			rw.WriteHeader(http.StatusTooManyRequests)
			return
		}
		_, _ = rw.Write([]byte(`{"ok": true}`))
	}))
	t.Cleanup(server.Close)
	w := hanging(t, configs.Evidence{Name: "change", Kind: configs.KindTicket, URL: server.URL + "/{subject}"}, func(c *configs.Config) { c.Policies[1].When = "evidence.change.ok" })
	g, err := read(w, "")
	if err != nil {
		t.Fatal(err)
	}
	busy.Store(true)
	w.hang(time.Minute)
	before := asked.Load()
	for range 5 {
		w.hang(20 * time.Second)
	}
	_, err = w.Request(t.Context(), dave, Ask{Target: "orders", Account: "ro", Reason: "because"})
	refused(t, err, refusal.NotPermitted, "asks to wait")
	if n := asked.Load() - before; n > 0 {
		t.Errorf("asked %d times within two minutes", n)
	}
	w.state(g.ID, Approved, "")
	busy.Store(false)
	w.hang(time.Minute)
	if asked.Load() == before {
		t.Error("it is never asked again")
	}
	w.hang(10 * time.Minute)
	w.state(g.ID, Approved, "")
}

func TestEvidenceIsDeclared(t *testing.T) {
	c := example()
	c.Evidence = []configs.Evidence{{Name: "job", File: "x"}}
	for when, says := range map[string]string{
		`evidence.job.x == 1`:                           `evidence "job"; name that`,
		`evidence["job"].x == 1`:                        `evidence "…"`,
		`evidence.exists(e, e == "job") || account==""`: `evidence "…"`,
	} {
		c.Policies[1].When, c.Policies[1].Evidence = when, nil
		if err := Check(c); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", when, err)
		}
	}
	c.Policies[1].When, c.Policies[1].Evidence = "evidence.job.x == 1 && 'a' in evidence.job.list", []string{"job"}
	if err := Check(c); err != nil {
		t.Error(err)
	}
}

func TestIdentityGone(t *testing.T) {
	gone := map[string]bool{}
	w := &world{t: t, dir: t.TempDir(), clocks: newClocks(), config: example()}
	w.standing = func(who authn.Identity) error {
		if gone[who.Key()] {
			return refusal.New(refusal.IdentityDisabled, "%s was disabled", who.Label())
		}
		return nil
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	active, waiting := w.approved(alice, "ro", "orders"), w.request(alice, "app", "orders")
	l := w.lease(alice, "ro", "orders")
	other := w.approved(dave, "ro", "orders")
	w.pass(2 * judgeEvery)
	w.state(active.ID, Active, "")
	gone[alice.Key()] = true
	w.pass(judgeEvery)
	w.state(active.ID, Ended, EndIdentityGone)
	w.state(waiting.ID, Denied, EndIdentityGone)
	w.state(other.ID, Approved, "")
	waitEnded(t, l)
}
