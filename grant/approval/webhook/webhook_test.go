package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/approval"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

const provider = "https://login.example"

// receiver is the other system: a real server that checks what it gets and answers as it was told.
type receiver struct {
	*httptest.Server
	t      *testing.T
	mu     sync.Mutex
	got    []message
	answer func(n int) (status int, retryAfter string) // of the n-th message; nil: all is well
	came   chan struct{}
}

func newReceiver(t *testing.T, secret string) *receiver {
	r := &receiver{t: t, came: make(chan struct{}, 1000)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			t.Error(err)
		}
		id, at := q.Header.Get("webhook-id"), q.Header.Get("webhook-timestamp")
		if want := Sign([]byte(secret), id, at, body); q.Header.Get("webhook-signature") != want {
			t.Errorf("signature %s, want %s", q.Header.Get("webhook-signature"), want)
		}
		if q.Header.Get("webhook-key-id") != "2026a" || q.Method != http.MethodPost {
			t.Errorf("%s with key %s", q.Method, q.Header.Get("webhook-key-id"))
		}
		var m message
		if err := json.Unmarshal(body, &m); err != nil || m.ID != id {
			t.Errorf("%s: %v", body, err)
		}
		r.mu.Lock()
		seen := slices.ContainsFunc(r.got, func(other message) bool { return other.ID == m.ID }) // as a receiver does
		if !seen {
			r.got = append(r.got, m)
		}
		status, after := http.StatusNoContent, ""
		if r.answer != nil {
			status, after = r.answer(len(r.got))
		}
		r.mu.Unlock()
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		if !seen {
			r.came <- struct{}{}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// kinds are what came, in order.
func (r *receiver) kinds() (kinds []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.got {
		kinds = append(kinds, m.Type)
	}
	return kinds
}

func (r *receiver) wait(n int) {
	r.t.Helper()
	deadline := time.After(time.Minute)
	for range n {
		select {
		case <-r.came:
		case <-deadline:
			r.t.Fatalf("after a minute there came %v", r.kinds())
		}
	}
}

// world is a gateway's rooms as far as webhooks need them.
type world struct {
	t      *testing.T
	store  *store.Store
	authn  *authn.Service
	grants *grant.Service
	hook   *Webhook
	people map[string]authn.Identity
	now    func() time.Time
}

func newWorld(t *testing.T, url string, change ...func(*configs.Config)) *world {
	t.Helper()
	t.Setenv("OUT", "out-secret")
	t.Setenv("IN", "in-secret")
	ctx := t.Context()
	c := &configs.Config{
		State: t.TempDir(), URL: "https://gateway.example", Provider: configs.Provider{Issuer: provider, ClientID: "x"},
		Credentials: configs.Credentials{SignIn: configs.Duration(time.Hour), Certificate: configs.Duration(time.Hour)},
		Targets:     []configs.Target{{Name: "orders", Kind: configs.KindPostgres, Accounts: []configs.Account{{Name: "app"}}}},
		Policies: []configs.Policy{{Name: "write", Groups: []string{"engineers"}, Accounts: []string{"app@orders"}, MaxDuration: configs.Duration(time.Hour),
			Approve: configs.Approve{Groups: []string{"leads"}}}},
	}
	for _, name := range []string{"alice", "bob", "carol", "ghost"} {
		c.Approvals.People = append(c.Approvals.People, configs.LinkedPerson{Issuer: provider, Subject: "sub-" + name, Email: name + "@example.com"})
	}
	for _, f := range change {
		f(c)
	}
	w := &world{t: t, people: map[string]authn.Identity{}, now: time.Now}
	log := slog.New(slog.DiscardHandler)
	var err error
	w.store = storetest.New(t, c.State)
	if w.authn, err = authn.Open(ctx, c, w.store, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.authn.Close(context.Background()) })
	if w.grants, err = grant.Open(ctx, c, w.store, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.grants.Close() })
	if err := approval.Migrate(ctx, w.store); err != nil {
		t.Fatal(err)
	}
	for name, groups := range map[string][]string{"alice": {"engineers", "leads"}, "bob": {"leads"}, "carol": {"sales"}, "erin": {"security"}} {
		who := authn.Identity{Issuer: provider, Subject: "sub-" + name, Kind: authn.Human, Name: name, Email: name + "@example.com", Groups: groups}
		if w.people[name], err = w.authn.SignIn(ctx, who, ""); err != nil {
			t.Fatal(err)
		}
	}
	voter := &approval.Voter{Store: w.store, Grants: w.grants, SignedIn: w.authn.SignedIn}
	w.hook, err = Open(ctx, Options{
		Config: configs.Webhook{Name: "chatops", URL: url, KeyID: "2026a", Secret: "env:OUT", DecisionSecret: "env:IN", Events: configs.Events},
		URL:    c.URL, Store: w.store, Voter: voter, Now: func() time.Time { return w.now() },
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) request(name string) grant.Grant {
	w.t.Helper()
	g, err := w.grants.Request(w.t.Context(), w.people[name], grant.Ask{Target: "orders", Account: "app", Reason: "INC-42", Ticket: "OPS-1"})
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// decide sends a decision, signed now.
func (w *world) decide(id, body string) (grant.Grant, error) {
	at := strconv.FormatInt(w.now().Unix(), 10)
	return w.hook.Receive(w.t.Context(), Headers{id, at, Sign([]byte("in-secret"), id, at, []byte(body))}, []byte(body))
}

func vote(g grant.Grant, decision, name string) string {
	return fmt.Sprintf(`{"grant": %q, "decision": %q, "email": "%s@example.com", "comment": "by phone"}`, g.ID, decision, name)
}

func (w *world) refused(err error, code refusal.Code) {
	w.t.Helper()
	if r := refusal.Of(err); r == nil || r.Code != code {
		w.t.Errorf("%v, want %s", err, code)
	}
}

func TestDecisions(t *testing.T) {
	w := newWorld(t, "https://nowhere.example")
	g := w.request("alice")
	_, err := w.decide("d1", vote(g, "approve", "alice"))
	w.refused(err, refusal.NotPermitted) // one's own
	_, err = w.decide("d2", vote(g, "approve", "carol"))
	w.refused(err, refusal.NotPermitted) // no approver
	_, err = w.decide("d3", vote(g, "approve", "mallory"))
	w.refused(err, refusal.NotPermitted) // linked to nobody
	_, err = w.decide("d4", vote(g, "approve", "ghost"))
	if r := refusal.Of(err); r == nil || r.Code == refusal.NotPermitted { // linked, but never signed in
		t.Error(err)
	}
	for _, body := range []string{`{}`, `{"grant": "g", "decision": "maybe", "email": "bob@example.com"}`, vote(g, "approve", "bob")[1:], `{"by": "bob", ` + vote(g, "approve", "bob")[1:]} {
		_, err = w.decide("d5", body)
		w.refused(err, refusal.Invalid)
	}
	if now, err := w.grants.Get(t.Context(), w.people["alice"], g.ID); err != nil || now.State != grant.Pending || len(now.Votes) != 0 {
		t.Fatalf("%+v %v", now, err)
	}

	g, err = w.decide("d6", vote(g, "approve", "BOB"))
	if err != nil || g.State != grant.Approved || len(g.Votes) != 1 || g.Votes[0].Subject != "sub-bob" || g.Votes[0].Comment != "by phone" {
		t.Fatalf("%+v %v", g, err)
	}
	// The same again counts once and has the same answer; another word under the same id has none.
	if again, err := w.decide("d6", vote(g, "approve", "BOB")); err != nil || again.Version != g.Version {
		t.Errorf("%+v %v", again, err)
	}
	_, err = w.decide("d6", vote(g, "deny", "bob"))
	w.refused(err, refusal.Conflict)
	// A late one is harmless.
	_, err = w.decide("d7", vote(g, "deny", "bob"))
	w.refused(err, refusal.Conflict)

	// Who has signed out has no vote.
	if _, err := w.grants.Release(t.Context(), w.people["alice"], g.ID); err != nil {
		t.Fatal(err)
	}
	g = w.request("alice")
	if err := w.authn.Revoke(t.Context(), w.people["bob"]); err != nil {
		t.Fatal(err)
	}
	_, err = w.decide("d8", vote(g, "approve", "bob"))
	w.refused(err, refusal.NotAuthenticated)

	events, err := w.store.Outbox(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, e := range events {
		count[e.Kind]++
		if e.Kind == "grant.approved" && (e.Actor != provider+" sub-bob" || e.Fields["credential"] != "webhook/chatops") {
			t.Errorf("%+v", e)
		}
	}
	if count["approval.refused"] != 3 || count["approve.refused"] != 2 || count["grant.approved"] != 1 {
		t.Errorf("%v", count)
	}
}

// A decision that is sent several times at once counts once, and all have the same answer.
func TestSentTwiceAtOnce(t *testing.T) {
	w := newWorld(t, "https://nowhere.example")
	for _, word := range []string{"approve", "deny"} {
		g := w.request("alice")
		var sent sync.WaitGroup
		answers, errs := make([]grant.Grant, 8), make([]error, 8)
		for i := range answers {
			sent.Go(func() { answers[i], errs[i] = w.decide("once-"+word, vote(g, word, "bob")) })
		}
		sent.Wait()
		for i, err := range errs {
			if err != nil || answers[i].ID != g.ID || answers[i].Version != g.Version+1 || len(answers[i].Votes) != 1 {
				t.Errorf("%s: %+v %v", word, answers[i], err)
			}
		}
		if word == "approve" {
			if _, err := w.grants.Release(t.Context(), w.people["alice"], g.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A vote and the note that it has counted are there together or not at all: whatever happens between them, the same message has the same
// answer in the end.
func TestAVoteAndItsNoteAreOne(t *testing.T) {
	w := newWorld(t, "https://nowhere.example")
	g := w.request("alice")
	if _, err := w.decide("d1", vote(g, "deny", "bob")); err != nil {
		t.Fatal(err)
	}
	run := func(statement string) {
		t.Helper()
		if err := w.store.Do(t.Context(), func(tx *store.Tx) error { _, err := tx.ExecContext(t.Context(), statement); return err }); err != nil {
			t.Fatal(err)
		}
	}
	run(`CREATE UNIQUE INDEX only_one ON decisions_received (channel)`) // so that another can't be noted
	g = w.request("alice")
	if _, err := w.decide("d2", vote(g, "approve", "bob")); err == nil {
		t.Fatal("what was not noted counts")
	}
	if now, err := w.grants.Get(t.Context(), w.people["alice"], g.ID); err != nil || now.State != grant.Pending || len(now.Votes) > 0 {
		t.Fatalf("%+v %v", now, err)
	}
	run(`DROP INDEX only_one`)
	if now, err := w.decide("d2", vote(g, "approve", "bob")); err != nil || now.State != grant.Approved {
		t.Fatalf("%+v %v", now, err)
	}
}

// Where approving asks for a fresh proof (step_up), another system's word for somebody whose proof is old does not count.
func TestDecisionsTakeAFreshProof(t *testing.T) {
	w := newWorld(t, "https://nowhere.example", func(c *configs.Config) {
		c.Targets[0].Labels = map[string]string{"env": "production"}
		c.StepUp = []configs.StepUp{
			{For: []string{configs.Approving}, Labels: map[string]string{"env": "production"}, Within: configs.Duration(15 * time.Minute)},
			{For: []string{configs.Approving}, Labels: map[string]string{"env": "test"}, Within: configs.Duration(time.Nanosecond)},
		}
	})
	g := w.request("alice")
	proven := func(at time.Time) {
		who := authn.Identity{Issuer: provider, Subject: "sub-bob", Kind: authn.Human, Name: "bob", Email: "bob@example.com", Groups: []string{"leads"}, AuthTime: at}
		if _, err := w.authn.SignIn(t.Context(), who, ""); err != nil {
			t.Fatal(err)
		}
	}
	_, err := w.decide("s1", vote(g, "approve", "bob")) // the provider did not say when
	w.refused(err, refusal.StepUp)
	proven(time.Now().Add(-time.Hour))
	_, err = w.decide("s2", vote(g, "approve", "bob"))
	w.refused(err, refusal.StepUp)
	proven(time.Now())
	if g, err = w.decide("s3", vote(g, "approve", "bob")); err != nil || g.State != grant.Approved {
		t.Errorf("%+v %v", g, err)
	}
}

func TestSignatures(t *testing.T) {
	w := newWorld(t, "https://nowhere.example")
	g := w.request("alice")
	body := vote(g, "approve", "bob")
	now := time.Now().Unix()
	at := func(seconds int64) string { return strconv.FormatInt(seconds, 10) }
	good := func(id, at, body string) string { return Sign([]byte("in-secret"), id, at, []byte(body)) }
	for name, h := range map[string]Headers{
		"nothing":         {},
		"no signature":    {"a", at(now), ""},
		"other secret":    {"a", at(now), Sign([]byte("out-secret"), "a", at(now), []byte(body))},
		"other id":        {"b", at(now), good("a", at(now), body)},
		"other time":      {"a", at(now + 1), good("a", at(now), body)},
		"other body":      {"a", at(now), good("a", at(now), body+" ")},
		"old":             {"a", at(now - 400), good("a", at(now-400), body)},
		"of the future":   {"a", at(now + 400), good("a", at(now+400), body)},
		"odd time":        {"a", "+" + at(now), good("a", "+"+at(now), body)},
		"moved dots":      {"a." + at(now), at(now), good("a."+at(now), at(now), body)},
		"too many":        {"a", at(now), strings.Repeat("v1,x ", 5) + good("a", at(now), body)},
		"version":         {"a", at(now), "v2" + good("a", at(now), body)[2:]},
		"very long id":    {strings.Repeat("a", 201), at(now), good(strings.Repeat("a", 201), at(now), body)},
		"a part of it":    {"a", at(now), good("a", at(now), body)[:10]},
		"base64 of empty": {"a", at(now), "v1,"},
	} {
		_, err := w.hook.Receive(t.Context(), h, []byte(body))
		if r := refusal.Of(err); r == nil || r.Code != refusal.NotAuthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now, err := w.grants.Get(t.Context(), w.people["alice"], g.ID); err != nil || now.State != grant.Pending {
		t.Fatal(now, err)
	}
	if g, err := w.hook.Receive(t.Context(), Headers{"a", at(now), "v1,other " + good("a", at(now), body)}, []byte(body)); err != nil || g.State != grant.Approved {
		t.Error(g, err)
	}
	w.hook.decisions = nil
	_, err := w.decide("z", body)
	w.refused(err, refusal.NotAuthenticated)
}

// What happens to a grant is told in its order, once, also through an outage of hours, a restart and answers of all sorts.
func TestDeliveries(t *testing.T) {
	r := newReceiver(t, "out-secret")
	w := newWorld(t, r.URL)
	open := func() *approval.Notifier {
		n, err := approval.Open(t.Context(), approval.Options{Store: w.store, Channels: []approval.Channel{w.hook}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	g := w.request("alice")
	n := open()
	r.wait(1)
	if g, err := w.decide("d1", vote(g, "approve", "bob")); err != nil || g.State != grant.Approved {
		t.Fatal(g, err)
	}
	r.wait(1)
	n.Close()
	l, err := w.grants.Lease(t.Context(), w.people["alice"], "orders", "app")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Return()
	if _, err := w.grants.Release(t.Context(), w.people["alice"], g.ID); err != nil {
		t.Fatal(err)
	}
	n = open()
	r.wait(2)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if list, err := n.List(t.Context(), false); err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v still wait, %v", list, err)
		} else if len(list) == 0 {
			break
		}
	}
	n.Close()
	if want := []string{"grant.requested", "grant.approved", "grant.active", "grant.ended"}; !slices.Equal(r.kinds(), want) {
		t.Fatalf("%v, want %v", r.kinds(), want)
	}
	ids := map[string]bool{}
	sequence := 0
	for _, m := range r.got {
		if ids[m.ID] || m.Sequence < sequence || m.Grant.ID != g.ID || m.Grant.Ticket != "OPS-1" || m.Gateway != "https://gateway.example" {
			t.Errorf("%+v", m)
		}
		ids[m.ID], sequence = true, m.Sequence
	}
	if list, err := n.List(t.Context(), true); err != nil || len(list) != 4 || list[0].State != "delivered" || list[0].Attempts != 1 {
		t.Errorf("%+v %v", list, err)
	}
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		status    int
		after     string
		permanent bool
		wait      time.Duration
	}{
		{status: 204}, {status: 200}, {status: 500}, {status: 404}, {status: 302},
		{status: 410, permanent: true},
		{status: 429, after: "77", wait: 77 * time.Second},
		{status: 503, after: "3", wait: 3 * time.Second},
		{status: 429, after: "soon"},
	} {
		r := newReceiver(t, "out-secret")
		r.answer = func(int) (int, string) { return tt.status, tt.after }
		w := newWorld(t, r.URL)
		_, err := w.hook.Deliver(t.Context(), approval.Notice{ID: "x", Event: grant.Event{Kind: grant.EventEnded, What: "grant.ended"}})
		_, permanent := errors.AsType[approval.Permanent](err)
		after, _ := errors.AsType[approval.RetryAfter](err)
		if (err == nil) != (tt.status/100 == 2) || permanent != tt.permanent || after.After != tt.wait || len(r.kinds()) != 1 {
			t.Errorf("%d: %#v after %v", tt.status, err, r.kinds())
		}
	}
}

// An alert is signed and told like anything else, and is about no grant.
func TestAlertByWebhook(t *testing.T) {
	t.Setenv("ALERT_SECRET", "alert secret")
	r := newReceiver(t, "alert secret")
	w, err := Open(t.Context(), Options{Config: configs.Webhook{Name: "ops", URL: r.URL, KeyID: "2026a", Secret: "env:ALERT_SECRET"}, URL: "https://gateway.example"})
	if err != nil {
		t.Fatal(err)
	}
	n := approval.Notice{ID: "alert:night-7", Event: grant.Event{Kind: grant.EventAlert, What: "alert.night", Alert: &grant.Alert{Name: "night", Count: 3, Key: "i alice"}}}
	if _, err := w.Deliver(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	r.wait(1)
	if m := r.got[0]; m.Kind != "alert" || m.Type != "alert.night" || m.Grant != nil || m.Alert == nil || m.Alert.Key != "i alice" || m.Gateway != "https://gateway.example" {
		t.Errorf("%+v", m)
	}
}

// What is sent says which of its stages waits; that another one is open is an event of its own.
func TestStagesByWebhook(t *testing.T) {
	r := newReceiver(t, "out-secret")
	w := newWorld(t, r.URL, func(c *configs.Config) {
		c.Policies[0].Approve = configs.Approve{Stages: []configs.Stage{{Name: "peer", Groups: []string{"leads"}, Count: 1}, {Name: "owners", Groups: []string{"security"}, Count: 1}}}
	})
	n, err := approval.Open(t.Context(), approval.Options{Store: w.store, Channels: []approval.Channel{w.hook}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	g := w.request("alice")
	if g, err := w.decide("d1", vote(g, "approve", "bob")); err != nil || g.State != grant.Pending {
		t.Fatal(g, err)
	}
	_, err = w.decide("d2", vote(g, "approve", "bob"))
	w.refused(err, refusal.Conflict)
	if _, err := w.grants.Approve(t.Context(), w.people["erin"], g.ID, ""); err != nil {
		t.Fatal(err)
	}
	r.wait(3)
	r.mu.Lock()
	defer r.mu.Unlock()
	var told []string
	for _, m := range r.got {
		if m.Version != version || len(m.Stages) != 2 {
			t.Fatalf("%+v", m)
		}
		told = append(told, string(m.Kind)+" "+m.Stages[0].State+" "+m.Stages[1].State+" "+strings.Join(append(m.Stages[0].By, m.Stages[1].By...), ","))
	}
	if want := []string{"requested open waiting ", "stage met open bob", "decided met met bob,erin"}; !slices.Equal(told, want) {
		t.Errorf("%q, want %q", told, want)
	}
}

// A word on the request that comes late is none on the extension that was asked for since; the message says what a word has to name.
func TestLateDecisions(t *testing.T) {
	r := newReceiver(t, "out-secret")
	w := newWorld(t, r.URL, func(c *configs.Config) { c.Policies[0].MaxTotal = configs.Duration(3 * time.Hour) })
	n, err := approval.Open(t.Context(), approval.Options{Store: w.store, Channels: []approval.Channel{w.hook}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	g := w.request("alice")
	if g, err := w.decide("d1", `{"stage": 2, `+vote(g, "approve", "bob")[1:]); refusal.Of(err) == nil {
		t.Fatalf("a stage that there is not: %+v %v", g, err)
	}
	if g, err := w.decide("d2", `{"stage": 1, "round": 0, `+vote(g, "approve", "bob")[1:]); err != nil || g.State != grant.Approved {
		t.Fatal(g, err)
	}
	l, err := w.grants.Lease(t.Context(), w.people["alice"], "orders", "app")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Return()
	asked, err := w.grants.Extend(t.Context(), w.people["alice"], g.ID, time.Hour, "not done")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"approve", "deny"} {
		_, err = w.decide("late-"+word, vote(g, word, "bob"))
		w.refused(err, refusal.Conflict)
	}
	r.wait(4)
	r.mu.Lock()
	last := r.got[len(r.got)-1]
	rounds := ""
	for _, m := range r.got {
		if rounds += m.Type + " "; m.Round != nil {
			rounds += strconv.Itoa(*m.Round) + " "
		}
	}
	r.mu.Unlock()
	if want := "grant.requested 0 grant.approved grant.active grant.extension_requested 1 "; rounds != want {
		t.Fatalf("%s, want %s", rounds, want)
	}
	longer, err := w.decide("d3", fmt.Sprintf(`{"round": %d, "stage": %d, %s`, *last.Round, last.Stage, vote(g, "approve", "bob")[1:]))
	if err != nil || !longer.Until.Equal(asked.Until.Add(time.Hour)) {
		t.Errorf("%+v %v", longer, err)
	}
}
