package slack

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/approval"
	"sallyport/grant/approval/slack/slacktest"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

const (
	provider = "https://login.example"
	testTime = time.Minute // generous: the machines that tests run on are busy
)

// world is a gateway's rooms as far as Slack needs them, with a Slack that is really spoken to.
type world struct {
	t        *testing.T
	ctx      context.Context
	server   *slacktest.Server
	store    *store.Store
	authn    *authn.Service
	grants   *grant.Service
	slack    *Slack
	notifier *approval.Notifier
	people   map[string]authn.Identity
	config   *configs.Config

	mu      sync.Mutex
	skipped time.Duration
}

// now is the time, set forward by skip.
func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.skipped)
}

func (w *world) skip(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.skipped += d
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Setenv("SLACK_APP", slacktest.AppToken)
	t.Setenv("SLACK_BOT", slacktest.BotToken)
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, people: map[string]authn.Identity{}}
	w.server = slacktest.New(
		slacktest.Member{ID: "U0ALICE"}, slacktest.Member{ID: "U0BOB"}, slacktest.Member{ID: "U0CAROL"}, slacktest.Member{ID: "U0DAVE"}, slacktest.Member{ID: "U0ERIN"},
		slacktest.Member{ID: "U0GUEST", Restricted: true}, slacktest.Member{ID: "U0MALLORY"}, slacktest.Member{ID: "U0GHOST"})
	t.Cleanup(w.server.Close)
	w.config = &configs.Config{
		State: t.TempDir(), URL: "https://gateway.example", Provider: configs.Provider{Issuer: provider, ClientID: "x"},
		Credentials: configs.Credentials{SignIn: configs.Duration(time.Hour), Certificate: configs.Duration(time.Hour)},
		Targets: []configs.Target{{Name: "orders", Kind: configs.KindPostgres, Labels: map[string]string{"env": "prod"},
			Accounts: []configs.Account{{Name: "app"}, {Name: "two"}, {Name: "owner"}, {Name: "auto"}, {Name: "staged"}}}},
		Roles: []configs.Role{{Name: "look", Accounts: []string{"app@orders"}, Limits: configs.RoleLimits{ReadOnly: true}}},
		Policies: []configs.Policy{
			{Name: "diagnose", Groups: []string{"engineers"}, Roles: []string{"look"}, MaxDuration: configs.Duration(time.Hour), MaxTotal: configs.Duration(3 * time.Hour),
				Approve: configs.Approve{Groups: []string{"leads"}}},
			{Name: "two", Groups: []string{"engineers"}, Accounts: []string{"two@orders"}, MaxDuration: configs.Duration(time.Hour), Approve: configs.Approve{Groups: []string{"leads"}, Count: 2}},
			{Name: "schema", Groups: []string{"engineers"}, Accounts: []string{"owner@orders"}, MaxDuration: configs.Duration(time.Hour),
				Approve: configs.Approve{Groups: []string{"security"}, Confirm: configs.ConfirmSignedIn}},
			{Name: "staged", Groups: []string{"engineers"}, Accounts: []string{"staged@orders"}, MaxDuration: configs.Duration(time.Hour),
				Approve: configs.Approve{Stages: []configs.Stage{{Name: "peer", Groups: []string{"leads"}, Count: 1}, {Name: "owners", Groups: []string{"security"}, Count: 1}}}},
			{Name: "auto", Groups: []string{"engineers"}, Accounts: []string{"auto@orders"}, MaxDuration: configs.Duration(time.Hour), Approve: configs.Approve{Auto: true}},
		},
	}
	log := slog.New(slog.DiscardHandler)
	var err error
	for _, name := range []string{"alice", "bob", "carol", "dave", "erin", "guest", "ghost"} {
		w.config.Approvals.People = append(w.config.Approvals.People, configs.LinkedPerson{Issuer: provider, Subject: "sub-" + name, Slack: slacktest.Workspace + "/U0" + strings.ToUpper(name)})
	}
	w.store = storetest.New(t, w.config.State)
	if w.authn, err = authn.Open(ctx, w.config, w.store, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.authn.Close(context.Background()) })
	if w.grants, err = grant.Open(ctx, w.config, w.store, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.grants.Close() })
	for name, groups := range map[string][]string{"alice": {"engineers", "leads"}, "bob": {"leads", "security"}, "carol": {"sales"}, "dave": {"leads"}, "guest": {"leads"}, "erin": {"security"}} {
		who := authn.Identity{Issuer: provider, Subject: "sub-" + name, Kind: authn.Human, Name: name, Email: name + "@example.com", Groups: groups}
		if w.people[name], err = w.authn.SignIn(ctx, who, ""); err != nil {
			t.Fatal(err)
		}
	}
	voter := &approval.Voter{Store: w.store, Grants: w.grants, SignedIn: w.authn.SignedIn}
	w.slack, err = Open(ctx, Options{
		Config: configs.Slack{Name: "ops", AppToken: "env:SLACK_APP", BotToken: "env:SLACK_BOT", Channel: "C0MAIN", API: w.server.API(),
			Channels: []configs.SlackChannel{{Groups: []string{"security"}, Channel: "C0SECURE"}}},
		URL: w.config.URL, Store: w.store, Voter: voter, Target: w.grants.Target, Now: w.now, Silence: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.slack.Close)
	if w.notifier, err = approval.Open(ctx, approval.Options{Store: w.store, Channels: []approval.Channel{w.slack}, Now: w.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.notifier.Close)
	return w
}

func (w *world) request(account, reason string) grant.Grant {
	w.t.Helper()
	g, err := w.grants.Request(w.ctx, w.people["alice"], grant.Ask{Target: "orders", Account: account, Reason: reason, Ticket: "OPS-1"})
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// until waits until the condition holds.
func (w *world) until(what string, condition func() bool) {
	w.t.Helper()
	if err := w.server.Until(w.ctx, condition); err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
}

// message waits for the latest message on a grant, of which the gateway has taken note too.
func (w *world) message(g grant.Grant, text string) (m slacktest.Message) {
	w.t.Helper()
	w.until("a message that says "+text, func() bool {
		for _, m = range w.server.Messages() {
			if strings.Contains(m.Blocks, g.ID) && strings.Contains(m.Text, text) {
				return true
			}
		}
		return false
	})
	w.noted(g, m)
	return m
}

// noted waits until the gateway has taken note of a message on a grant, which it does after Slack has answered.
func (w *world) noted(g grant.Grant, m slacktest.Message) {
	w.t.Helper()
	for {
		ref, err := approval.Ref(w.ctx, w.store, w.slack.Name(), g.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		if latest(ref) == m.Channel+" "+m.TS {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-w.ctx.Done():
			list, _ := w.notifier.List(context.WithoutCancel(w.ctx), true)
			w.t.Fatalf("the message %+v of grant %s was not noted: %q, %+v", m, g.ID, ref, list)
		}
	}
}

func user(name string) slacktest.From { return slacktest.From{User: "U0" + strings.ToUpper(name)} }

// form presses a button and waits for the form.
func (w *world) form(who string, m slacktest.Message, action string) slacktest.View {
	w.t.Helper()
	before := len(w.server.Views())
	if err := w.server.Click(w.ctx, user(who), m, action); err != nil {
		w.t.Fatal(err)
	}
	w.until("a form for "+who, func() bool { return len(w.server.Views()) > before })
	return w.server.Views()[before]
}

// turnedAway presses a button and waits for the whisper that says why not.
func (w *world) turnedAway(who slacktest.From, m slacktest.Message, action, value, why string) {
	w.t.Helper()
	before := len(w.server.Whispers())
	if err := w.server.ClickValue(w.ctx, who, m, action, value); err != nil {
		w.t.Fatal(err)
	}
	w.until("a whisper that says "+why, func() bool { return len(w.server.Whispers()) > before })
	if got := w.server.Whispers()[before]; !strings.HasPrefix(got, who.User+" ") || !strings.Contains(got, why) {
		w.t.Errorf("%s was told %q, want %q", who.User, got, why)
	}
}

func (w *world) submit(who string, v slacktest.View, comment string) string {
	w.t.Helper()
	said, err := w.server.Submit(w.ctx, user(who), v, comment)
	if err != nil {
		w.t.Fatal(err)
	}
	return said
}

func (w *world) state(g grant.Grant, want grant.State) grant.Grant {
	w.t.Helper()
	g, err := w.grants.Get(w.ctx, w.people["alice"], g.ID)
	if err != nil || g.State != want {
		w.t.Fatalf("grant %s is %s, want %s: %v", g.ID, g.State, want, err)
	}
	return g
}

// A request is asked with all that an approver needs, approved with a word, and its message follows it to the end.
func TestApproveInSlack(t *testing.T) {
	w := newWorld(t)
	g := w.request("app", "slow checkout <!channel> & co")
	m := w.message(g, "alice asks for app@orders for 1h")
	for _, what := range []string{"alice@example.com", "slow checkout \\u003c!channel\\u003e \\u0026 co", "read only", "role look", "postgres, env=prod", "OPS-1", "leads", "diagnose"} {
		if !strings.Contains(m.Blocks, what) {
			t.Errorf("the message does not say %s: %s", what, m.Blocks)
		}
	}
	if m.Channel != "C0MAIN" {
		t.Errorf("asked in %s", m.Channel)
	}
	v := w.form("bob", m, approveAction)
	if !strings.Contains(string(v.Raw), "slow checkout") {
		t.Errorf("the form does not say what it is about: %s", v.Raw)
	}
	if said := w.submit("bob", v, "go ahead"); !strings.Contains(said, "approved") {
		t.Error(said)
	}
	g = w.state(g, grant.Approved)
	if len(g.Votes) != 1 || g.Votes[0].Subject != "sub-bob" || g.Votes[0].Comment != "go ahead" {
		t.Errorf("%+v", g.Votes)
	}
	m = w.message(g, "approved by bob")
	if m.Button(approveAction) != "" || m.Button(denyAction) != "" {
		t.Error("the buttons are still there")
	}
	// Late, and twice: the form that is still open on another device.
	if said := w.submit("bob", v, "again"); !strings.Contains(said, "decided already") {
		t.Error(said)
	}
	if said := w.submit("dave", v, "me too"); !strings.Contains(said, "decided already") {
		t.Error(said)
	}
	if _, err := w.grants.Release(w.ctx, w.people["alice"], g.ID); err != nil {
		t.Fatal(err)
	}
	w.message(g, "withdrawn")
	if n := len(w.server.Messages()); n != 1 {
		t.Errorf("there are %d messages", n)
	}
}

func TestDenyInSlack(t *testing.T) {
	w := newWorld(t)
	g := w.request("owner", "drop it")
	m := w.message(g, "asks for owner@orders")
	if m.Channel != "C0SECURE" {
		t.Errorf("security was asked in %s", m.Channel)
	}
	if m.Button(approveAction) != "" {
		t.Error("there is a button that would not count")
	}
	// A click that was made up for it, with the form of the denial: the gateway does not take it as an approval.
	sealed := w.slack.seal(choice{Grant: g.ID, Round: 0, Approve: true})
	if err := w.server.ClickValue(w.ctx, user("bob"), m, approveAction, sealed); err != nil {
		t.Fatal(err)
	}
	w.until("the form", func() bool { return len(w.server.Views()) == 1 })
	if said := w.submit("bob", w.server.Views()[0], ""); !strings.Contains(said, "not approved by a click") {
		t.Error(said)
	}
	w.state(g, grant.Pending)
	v := w.form("bob", m, denyAction)
	if said := w.submit("bob", v, "not before the backup"); !strings.Contains(said, "denied") {
		t.Error(said)
	}
	if g = w.state(g, grant.Denied); g.EndComment != "not before the backup" {
		t.Errorf("%+v", g)
	}
	if m = w.message(g, "denied by bob"); !strings.Contains(m.Blocks, "not before the backup") {
		t.Error(m.Blocks)
	}
}

// Only linked, whole members of the workspace who are signed in and may approve have a vote.
func TestWhoseClickCounts(t *testing.T) {
	w := newWorld(t)
	g := w.request("app", "x")
	m := w.message(g, "asks for")
	value := m.Button(approveAction)
	w.turnedAway(user("mallory"), m, approveAction, value, "linked to nobody")
	w.turnedAway(slacktest.From{User: "U0BOB", Team: "T0OTHER"}, m, approveAction, value, "linked to nobody")
	w.turnedAway(user("guest"), m, approveAction, value, "a guest's")
	w.turnedAway(user("ghost"), m, approveAction, value, "not signed in")
	w.turnedAway(user("carol"), m, approveAction, value, "that you may see")
	w.turnedAway(user("bob"), m, approveAction, strings.Replace(value, g.ID, "g-222222", 1), "none of this gateway's")
	other := w.request("two", "other")
	w.turnedAway(user("bob"), m, approveAction, w.message(other, "two@orders").Button(approveAction), "not the latest message")
	w.server.SetMember(slacktest.Member{ID: "U0DAVE", Deleted: true})
	w.turnedAway(user("dave"), m, approveAction, value, "deactivated")
	// The one who asked opens the form, and has no vote.
	if said := w.submit("alice", w.form("alice", m, approveAction), "please"); !strings.Contains(said, "may not approve your own") {
		t.Error(said)
	}
	// Opened by bob, sent by somebody else.
	v := w.form("bob", m, approveAction)
	if said := w.submit("mallory", v, ""); !strings.Contains(said, "linked to nobody") {
		t.Error(said)
	}
	if err := w.authn.Revoke(w.ctx, w.people["bob"]); err != nil { // signed out meanwhile
		t.Fatal(err)
	}
	if said := w.submit("bob", v, ""); !strings.Contains(said, "not signed in") {
		t.Error(said)
	}
	w.state(g, grant.Pending)
}

// Two of two: the message counts along; the same person twice is one.
func TestQuorumInSlack(t *testing.T) {
	w := newWorld(t)
	g := w.request("two", "x")
	m := w.message(g, "asks for two@orders")
	first := w.form("bob", m, approveAction)
	if said := w.submit("bob", first, ""); !strings.Contains(said, "others have to") {
		t.Error(said)
	}
	if said := w.submit("bob", first, ""); !strings.Contains(said, "approved grant "+g.ID+" already") {
		t.Error(said)
	}
	w.until("the count", func() bool { return strings.Contains(w.message(g, "asks for").Blocks, "1 of 2 have approved: bob") })
	if said := w.submit("dave", w.form("dave", w.message(g, "asks for"), approveAction), ""); !strings.Contains(said, "approved") {
		t.Error(said)
	}
	w.state(g, grant.Approved)
}

// The people of each stage are asked when it opens, where they are asked; the messages of the stages before are kept up to date,
// and their buttons go.
func TestStagesInSlack(t *testing.T) {
	w := newWorld(t)
	g := w.request("staged", "x")
	first := w.message(g, "asks for staged@orders")
	if first.Channel != "C0MAIN" || !strings.Contains(first.Blocks, "Stage 1 of 2, peer: 0 of 1 have approved (asked now: leads)") ||
		!strings.Contains(first.Blocks, "(security, asked when the stages before are met)") || len(w.server.Messages()) != 1 {
		t.Fatalf("%+v", first)
	}
	early, late := w.form("bob", first, approveAction), w.form("dave", first, approveAction)
	if said := w.submit("dave", late, ""); !strings.Contains(said, "of security") {
		t.Error(said)
	}
	var second slacktest.Message
	w.until("the second stage's message", func() bool {
		for _, second = range w.server.Messages() {
			if second.Channel == "C0SECURE" && strings.Contains(second.Blocks, "Stage 2 of 2, owners: 0 of 1 have approved (asked now: security)") {
				return true
			}
		}
		return false
	})
	// Bob is in both stages' groups; what he was asked about was the first.
	if said := w.submit("bob", early, ""); !strings.Contains(said, "another stage") {
		t.Error(said)
	}
	w.until("the first message without buttons", func() bool {
		for _, m := range w.server.Messages() {
			if m.TS == first.TS {
				return strings.Contains(m.Blocks, "Stage 1 of 2, peer: 1 of 1 have approved: dave") && !strings.Contains(m.Blocks, approveAction)
			}
		}
		return false
	})
	w.noted(g, second)
	if said := w.submit("erin", w.form("erin", second, approveAction), ""); !strings.Contains(said, "approved") {
		t.Error(said)
	}
	w.state(g, grant.Approved)
	w.until("both messages at the end", func() bool {
		n := 0
		for _, m := range w.server.Messages() {
			if strings.Contains(m.Text, "approved") && !strings.Contains(m.Blocks, approveAction) {
				n++
			}
		}
		return n == 2
	})
}

// A word on the request must not be taken for one on the extension that came after it.
func TestStaleClicksOnExtensions(t *testing.T) {
	w := newWorld(t)
	g := w.request("app", "x")
	m := w.message(g, "asks for")
	old, late := w.form("bob", m, approveAction), w.form("dave", m, approveAction)
	w.submit("bob", old, "")
	if _, err := w.grants.Lease(w.ctx, w.people["alice"], "orders", "app"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.grants.Extend(w.ctx, w.people["alice"], g.ID, time.Hour, "not done"); err != nil {
		t.Fatal(err)
	}
	second := w.message(g, "asks for 1h more")
	if second.TS == m.TS || !strings.Contains(second.Blocks, "not done") {
		t.Errorf("nobody would notice: %+v", second)
	}
	if said := w.submit("dave", late, ""); !strings.Contains(said, "decided already") {
		t.Error(said)
	}
	w.turnedAway(user("bob"), m, approveAction, m.Button(approveAction), "not the latest message")
	until := w.state(g, grant.Active).Until
	w.submit("bob", w.form("bob", second, approveAction), "fine")
	if got := w.state(g, grant.Active).Until; !got.Equal(until.Add(time.Hour)) {
		t.Errorf("until %s, was %s", got, until)
	}
	w.message(g, "extended until")
}

// Connections end, acknowledgements get lost and clicks come twice: one vote is one vote.
func TestSlackIsUnreliable(t *testing.T) {
	w := newWorld(t)
	g := w.request("two", "x")
	m := w.message(g, "asks for")
	for _, reason := range []string{"warning", "refresh_requested", "too_many_websockets"} {
		opened := w.server.Opened()
		w.server.Disconnect(w.ctx, reason)
		w.until("another connection after "+reason, func() bool { return w.server.Opened() > opened })
	}
	v := w.form("bob", m, approveAction)
	w.server.LoseAcknowledgements(1)
	// The vote was cast, what it said got lost, and Slack sends it again.
	if said := w.submit("bob", v, ""); !strings.Contains(said, "already") {
		t.Error(said)
	}
	if g = w.state(g, grant.Pending); len(g.Votes) != 1 {
		t.Errorf("%+v", g.Votes)
	}
	var group sync.WaitGroup
	forms := []slacktest.View{w.form("dave", m, approveAction), w.form("dave", m, denyAction)}
	for i := range 6 { // both at once, from several devices
		group.Go(func() {
			if _, err := w.server.Submit(w.ctx, user("dave"), forms[i%2], "now"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	g, err := w.grants.Get(w.ctx, w.people["alice"], g.ID)
	if err != nil || g.State != grant.Approved && g.State != grant.Denied {
		t.Errorf("%+v, %v", g, err)
	}
}

// A gateway that dies after it sent a message, and before it noted which, sends it again. Of the first one, which it knows nothing of,
// the buttons go when somebody presses one; those of messages that it does know stay.
func TestMessageThatWasSentTwice(t *testing.T) {
	w := newWorld(t)
	g := w.request("two", "x")
	first := w.message(g, "asks for two@orders")
	other := w.request("app", "y")
	theirs := w.message(other, "asks for app@orders")
	w.notifier.Close()
	if err := w.store.Do(w.ctx, func(tx *store.Tx) error { // as if it had not got that far
		_, err := tx.ExecContext(w.ctx, `DELETE FROM notification_refs WHERE grant_id = ?`, g.ID)
		if err == nil {
			_, err = tx.ExecContext(w.ctx, `UPDATE notifications SET state = 'pending', done = 0 WHERE grant_id = ?`, g.ID)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.notifier, err = approval.Open(w.ctx, approval.Options{Store: w.store, Channels: []approval.Channel{w.slack}, Now: w.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.notifier.Close)
	w.until("another message", func() bool { return len(w.server.Messages()) == 3 })
	second := w.server.Messages()[2]
	w.noted(g, second)
	shown := func(m slacktest.Message) slacktest.Message {
		t.Helper()
		for _, now := range w.server.Messages() {
			if now.TS == m.TS {
				return now
			}
		}
		t.Fatalf("message %s is gone", m.TS)
		return m
	}
	w.turnedAway(user("bob"), first, approveAction, first.Button(approveAction), "not the latest message")
	if shown(first).Button(approveAction) == "" {
		t.Error("a message that has just been sent lost its buttons: it might be about to be noted")
	}
	w.skip(2 * settle)
	w.turnedAway(user("bob"), first, approveAction, first.Button(approveAction), "not the latest message")
	if m := shown(first); m.Button(approveAction) != "" || m.Button(denyAction) != "" || !strings.Contains(m.Text, "out of date") {
		t.Errorf("the first message is %+v", m)
	}
	w.turnedAway(user("bob"), theirs, approveAction, first.Button(approveAction), "not the latest message") // another's message
	for _, m := range []slacktest.Message{second, theirs} {
		if shown(m).Button(approveAction) == "" {
			t.Errorf("a message that counts lost its buttons: %+v", shown(m))
		}
	}
	w.form("bob", second, approveAction)
}

// Hours without Slack: nothing waits for it, and when it is back its messages come to say how things stand.
func TestSlackIsAway(t *testing.T) {
	w := newWorld(t)
	first := w.request("app", "before")
	w.message(first, "asks for app@orders")
	w.server.SetDown(true)
	if _, err := w.grants.Deny(w.ctx, w.people["bob"], first.ID, "by phone"); err != nil {
		t.Fatal(err)
	}
	second := w.request("two", "meanwhile")
	for range 12 { // as the attempts grow rarer
		w.skip(time.Hour)
		w.notifier.Wake()
	}
	w.server.SetDown(false)
	w.server.Limit(2, 1)
	// Whatever is due by then is told, each message in its order.
	tell := func(g grant.Grant, text string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; {
			w.skip(6 * time.Hour / 4)
			w.notifier.Wake()
			short, cancel := context.WithTimeout(w.ctx, 300*time.Millisecond)
			err := w.server.Until(short, func() bool {
				for _, m := range w.server.Messages() {
					if strings.Contains(m.Blocks, g.ID) && strings.Contains(m.Text, text) {
						return true
					}
				}
				return false
			})
			cancel()
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				list, _ := w.notifier.List(w.ctx, true)
				t.Fatalf("%v; %+v", err, list)
			}
		}
	}
	tell(first, "denied by bob")
	tell(second, "asks for two@orders")
	if n := len(w.server.Messages()); n != 2 {
		t.Errorf("there are %d messages: %+v", n, w.server.Messages())
	}
	w.until("a connection", func() bool { return w.server.Opened() > 1 })
}

func TestWhatThePolicyApprovesIsNotAsked(t *testing.T) {
	w := newWorld(t)
	auto := w.request("auto", "x")
	asked := w.request("app", "x")
	w.message(asked, "asks for app@orders") // told after the other
	for _, m := range w.server.Messages() {
		if strings.Contains(m.Blocks, auto.ID) {
			t.Errorf("asked about what nobody has to decide: %s", m.Text)
		}
	}
}

func TestTokensAreChecked(t *testing.T) {
	t.Setenv("A", "xoxb-wrong")
	t.Setenv("B", "xoxb-right")
	_, err := Open(t.Context(), Options{Config: configs.Slack{Name: "ops", AppToken: "env:A", BotToken: "env:B"}})
	if err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("%v", err)
	}
}

// An emergency is told loudly, though nobody has to approve it, and the message follows it.
func TestEmergencyIsTold(t *testing.T) {
	w := newWorld(t)
	w.config.Policies = append(w.config.Policies, configs.Policy{Name: "glass", Groups: []string{"engineers"}, Accounts: []string{"auto@orders"}, MaxDuration: configs.Duration(time.Hour),
		BreakGlass: true, Review: configs.Review{Groups: []string{"security"}, Within: configs.Duration(time.Hour)}, Approve: configs.Approve{Auto: true}})
	if err := w.grants.Reload(w.ctx, w.config); err != nil {
		t.Fatal(err)
	}
	w.server.SetDown(true) // it does not wait for Slack
	g, err := w.grants.Request(w.ctx, w.people["alice"], grant.Ask{Target: "orders", Account: "auto", Reason: "orders is down, INC-43, nobody answers", BreakGlass: true})
	if err != nil || g.State != grant.Approved {
		t.Fatal(g, err)
	}
	w.server.SetDown(false)
	w.skip(time.Minute)
	w.notifier.Wake()
	m := w.message(g, "EMERGENCY: alice has broken the glass for auto@orders")
	if !strings.Contains(m.Blocks, "INC-43") || m.Button(approveAction) != "" {
		t.Error(m.Blocks)
	}
	if _, err := w.grants.Release(w.ctx, w.people["alice"], g.ID); err != nil {
		t.Fatal(err)
	}
	w.message(g, "withdrawn")
}

// An alert is a message of its own, in the channel that is the gateway's, and nothing in it is a command to Slack.
func TestAlertInSlack(t *testing.T) {
	w := newWorld(t)
	alert := grant.Alert{Name: "night", Count: 1, Event: store.AuditEvent{Kind: "session.started", Actor: "i alice", Outcome: "ok", Reason: "<!channel> & all"}, To: []string{w.slack.Name()}}
	if err := w.store.Do(w.ctx, func(tx *store.Tx) error {
		if err := grant.Tell(w.ctx, tx, alert); err != nil {
			return err
		}
		return tx.Audit(store.AuditEvent{Kind: "alert.raised", Actor: "system"}) // which is what has the outbox looked at
	}); err != nil {
		t.Fatal(err)
	}
	w.until("the alert", func() bool {
		for _, m := range w.server.Messages() {
			if strings.Contains(m.Text, "Alert night: session.started by i alice") && strings.Contains(m.Text, "&lt;!channel&gt; &amp; all") && !strings.Contains(m.Text, "<!channel>") &&
				strings.Contains(m.Blocks, "\"type\":\"plain_text\",\"text\":\"\U0001F6A8 Alert night") && !strings.Contains(m.Blocks, "mrkdwn") {
				return true
			}
		}
		return false
	})
}

// Who has a key enrolled is told so themselves, beside the channel; nobody else is.
func TestOwnKeysInSlack(t *testing.T) {
	w := newWorld(t)
	var bob configs.LinkedPerson
	for _, p := range w.slack.voter.Grants.People() {
		if p.Subject == "sub-bob" {
			bob = p
		}
	}
	_, member, linked := strings.Cut(bob.Slack, "/")
	if !linked {
		t.Fatalf("%+v", w.slack.voter.Grants.People())
	}
	for _, actor := range []string{bob.Issuer + " nobody", bob.Issuer + " " + bob.Subject} {
		alert := grant.Alert{Name: "enrolled-key", Count: 1, Event: store.AuditEvent{Kind: "key.enrolled", Actor: actor, Outcome: "ok", Client: "192.0.2.7"}, To: []string{w.slack.Name()}}
		if err := w.store.Do(w.ctx, func(tx *store.Tx) error {
			if err := grant.Tell(w.ctx, tx, alert); err != nil {
				return err
			}
			return tx.Audit(store.AuditEvent{Kind: "alert.raised", Actor: "system"})
		}); err != nil {
			t.Fatal(err)
		}
	}
	w.until("he is told", func() bool {
		for _, m := range w.server.Messages() {
			if m.Channel == member && strings.Contains(m.Text, "A key was enrolled for you") && strings.Contains(m.Text, "192.0.2.7") {
				return true
			}
		}
		return false
	})
	own := 0
	for _, m := range w.server.Messages() {
		if strings.Contains(m.Text, "enrolled for you") {
			own++
		}
	}
	if own != 1 {
		t.Errorf("%d people are told", own)
	}
}

// Whatever people write, Slack takes the message and the form: of what is too long, as Slack counts, the beginning is shown.
func TestLongTextsInSlack(t *testing.T) {
	w := newWorld(t)
	g := w.request("app", strings.Repeat("\U0001F525", 950)+" *bold* <https://evil.example|go>")
	m := w.message(g, "asks for app@orders")
	if n := strings.Count(m.Blocks, "\U0001F525"); n < 700 || n > 750 {
		t.Errorf("%d of the reason's characters are shown", n)
	}
	if strings.Contains(m.Blocks, "mrkdwn") {
		t.Error("something in it is markup")
	}
	if said := w.submit("bob", w.form("bob", m, approveAction), strings.Repeat("\U0001F525", 450)); !strings.Contains(said, "approved") {
		t.Error(said)
	}
	w.message(g, "approved by bob")
	w.state(g, grant.Approved)
}

func TestClip(t *testing.T) {
	for text, want := range map[string]string{"abcde": "abcde", "abcdef": "abcd…", "a\U0001F525\U0001F525": "a\U0001F525\U0001F525", "ab\U0001F525\U0001F525": "ab\U0001F525…", "": "", "a\xffbcde": "a\xffbc…"} {
		if got := clip(text, 5); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}
