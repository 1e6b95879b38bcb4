package approval

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

// line is a channel whose receiver does as the test says.
type line struct {
	name string
	wait []grant.EventKind // nil: all
	fail error
	// panics is what makes it panic.
	panics string
	during func() // what happens while it tells
	asked  int
	got    []string
	refs   []string
	ids    []string
}

func (l *line) Name() string { return l.name }
func (l *line) Wants(kind grant.EventKind) bool {
	return l.wait == nil || slices.Contains(l.wait, kind)
}
func (l *line) Deliver(_ context.Context, n Notice) (string, error) {
	l.asked++
	if l.during != nil {
		l.during()
	}
	if l.fail != nil {
		return "", l.fail
	}
	what := n.Grant.Account + " " + strings.TrimPrefix(n.What, "grant.")
	if l.panics == what {
		panic("as told")
	}
	l.ids = append(l.ids, n.ID)
	l.got = append(l.got, what)
	l.refs = append(l.refs, n.Ref)
	return fmt.Sprintf("%s/%d", l.name, len(l.got)), nil
}

type bench struct {
	*Notifier
	t      *testing.T
	grants *grant.Service
	clock  time.Time
}

func newBench(t *testing.T, channels ...Channel) *bench {
	t.Helper()
	db := storetest.New(t, t.TempDir())
	b := &bench{t: t, clock: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	var err error
	b.grants, err = grant.Open(t.Context(), &configs.Config{
		Targets: []configs.Target{{Name: "orders", Accounts: []configs.Account{{Name: "a"}, {Name: "b"}}}},
		Policies: []configs.Policy{{Name: "p", Groups: []string{"eng"}, Accounts: []string{"*@*"}, MaxDuration: configs.Duration(time.Hour),
			Approve: configs.Approve{Groups: []string{"leads"}}}},
	}, db, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.grants.Close() })
	b.Notifier, err = prepare(t.Context(), Options{Store: db, Channels: channels, Now: func() time.Time { return b.clock }})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// restart opens the notifier anew.
func (b *bench) restart() {
	b.t.Helper()
	again, err := prepare(b.t.Context(), Options{Store: b.store, Channels: b.channels, Now: b.now})
	if err != nil {
		b.t.Fatal(err)
	}
	b.Notifier = again
}

var eng = authn.Identity{Issuer: "i", Subject: "s", Kind: authn.Human, Name: "Ann", Groups: []string{"eng"}}

func (b *bench) request(account string) string {
	b.t.Helper()
	g, err := b.grants.Request(b.t.Context(), eng, grant.Ask{Target: "orders", Account: account, Reason: "x"})
	if err != nil {
		b.t.Fatal(err)
	}
	return g.ID
}

func (b *bench) withdraw(id string) {
	b.t.Helper()
	if _, err := b.grants.Release(b.t.Context(), eng, id); err != nil {
		b.t.Fatal(err)
	}
}

// run lets everything happen that is due.
func (b *bench) run() (next time.Time) {
	b.t.Helper()
	if err := b.take(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	for _, c := range b.channels {
		n, err := b.deliver(b.t.Context(), c)
		if err != nil {
			b.t.Fatal(err)
		}
		if !n.IsZero() && (next.IsZero() || n.Before(next)) {
			next = n
		}
	}
	return next
}

// One channel that is down for hours holds up neither the other nor the order in which each grant's story is told.
func TestOutage(t *testing.T) {
	up, down := &line{name: "up"}, &line{name: "down", fail: errors.New("nobody is there")}
	b := newBench(t, up, down)
	first := b.request("a")
	b.run()
	b.withdraw(first)
	second := b.request("b")
	for range 40 { // some nine hours
		next := b.run()
		if next.IsZero() || next.Before(b.clock) {
			t.Fatalf("nothing waits, at %s: %s", b.clock, next)
		}
		if b.clock = next; b.clock.Sub(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)) > 9*time.Hour {
			break
		}
	}
	if want := []string{"a requested", "a withdrawn", "b requested"}; !slices.Equal(up.got, want) {
		t.Errorf("up: %v", up.got)
	}
	if want := []string{"", "up/1", ""}; !slices.Equal(up.refs, want) {
		t.Errorf("refs %q", up.refs)
	}
	list, err := b.List(t.Context(), false)
	if err != nil || len(list) != 3 || list[0].Channel != "down" || list[0].State != "pending" || list[0].Error != "nobody is there" {
		t.Fatalf("%+v %v", list, err)
	}
	if n := list[2].Attempts; n < 5 || n > 12 {
		t.Errorf("%d attempts in nine hours", n)
	}
	down.fail = nil
	for next := b.clock; !next.IsZero(); next = b.run() {
		b.clock = next
	}
	told := slices.Clone(down.got)
	if slices.Sort(told); len(told) != 3 || slices.Index(down.got, "a requested") > slices.Index(down.got, "a withdrawn") {
		t.Errorf("down: %v", down.got)
	}
	b.withdraw(second)
	b.run()
	if len(up.got) != 4 || len(down.got) != 4 {
		t.Errorf("%v %v", up.got, down.got)
	}
}

func TestGivingUp(t *testing.T) {
	l := &line{name: "l", fail: RetryAfter{errors.New("busy"), 3 * time.Hour}}
	b := newBench(t, l)
	id := b.request("a")
	start := b.clock
	if next := b.run(); next.Sub(start) != 3*time.Hour {
		t.Errorf("next after %s", next.Sub(start))
	}
	for next := b.clock; !next.IsZero(); next = b.run() {
		b.clock = next
	}
	if spent := b.clock.Sub(start); spent < giveUp || spent > giveUp+4*time.Hour {
		t.Errorf("given up after %s", spent)
	}
	list, err := b.List(t.Context(), false)
	if err != nil || len(list) != 1 || list[0].State != "dead" {
		t.Fatalf("%+v %v", list, err)
	}
	// A dead one holds up nothing, and one that is hopeless is not tried again. An address is not kept: it may be secret.
	l.fail = Permanent{&url.Error{Op: "Post", URL: "https://hooks.example/SECRET", Err: errors.New("gone")}}
	b.withdraw(id)
	b.clock = b.clock.Add(3 * time.Hour) // for which it had asked
	if next := b.run(); !next.IsZero() {
		t.Errorf("tried again at %s", next)
	}
	if list, err = b.List(t.Context(), false); err != nil || len(list) != 2 || list[0].Attempts != 1 || strings.Contains(list[0].Error, "SECRET") {
		t.Fatalf("%+v %v", list, err)
	}
	b.clock = b.clock.Add(keep + time.Hour)
	l.fail = nil
	b.request("b")
	b.run()
	if list, err = b.List(t.Context(), true); err != nil || len(list) != 1 {
		t.Errorf("%+v %v", list, err)
	}
}

// Without a channel, or for one that wants other things, nothing is kept.
func TestNobodyWants(t *testing.T) {
	l := &line{name: "l", wait: []grant.EventKind{grant.EventActive}}
	b := newBench(t, l)
	b.request("a")
	b.run()
	var left int
	if err := b.store.Read().QueryRow(`SELECT (SELECT count(*) FROM grant_events) + (SELECT count(*) FROM notifications)`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d rows are left, %v", left, err)
	}
	if _, err := prepare(t.Context(), Options{Store: b.store, Channels: []Channel{l, l}}); err == nil {
		t.Error("two channels of one name")
	}
}

// An alert goes to the channels that it names, whatever else they want, once, and one that waits holds up no grant's story.
func TestAlertsGoWhereTheyAreToldTo(t *testing.T) {
	named, other := &line{name: "named", wait: []grant.EventKind{grant.EventEnded}}, &line{name: "other"}
	b := newBench(t, named, other)
	named.fail = errors.New("nobody is there")
	alert := grant.Alert{Name: "night", Count: 1, Event: store.AuditEvent{Kind: "session.started", Time: b.clock, Actor: "i alice"}, To: []string{"named"}}
	if err := b.store.Do(t.Context(), func(tx *store.Tx) error { return grant.Tell(t.Context(), tx, alert) }); err != nil {
		t.Fatal(err)
	}
	next := b.run()
	id := b.request("a")
	b.withdraw(id)
	named.fail = nil
	b.run()
	if want := []string{"a withdrawn"}; !slices.Equal(named.got, want) {
		t.Errorf("before the next try: %v", named.got)
	}
	b.clock = next
	b.run()
	b.run()
	if want := []string{"a withdrawn", " alert.night"}; !slices.Equal(named.got, want) {
		t.Errorf("named: %v", named.got)
	}
	if want := []string{"a requested", "a withdrawn"}; !slices.Equal(other.got, want) {
		t.Errorf("other: %v", other.got)
	}
	list, err := b.List(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(list, func(n Notification) bool {
		return n.Grant == "alert:night" && strings.HasPrefix(n.ID, "alert:night-") && n.State == "delivered" && n.Attempts == 2
	}) {
		t.Errorf("%+v", list)
	}
}

// A receiver that asks for patience has it for all that waits for it, not only for the message that it said so to.
func TestPatienceIsForTheWholeChannel(t *testing.T) {
	l, other := &line{name: "l", fail: RetryAfter{errors.New("busy"), time.Hour}}, &line{name: "other"}
	b := newBench(t, l, other)
	b.request("a")
	b.request("b")
	start := b.clock
	if next := b.run(); next.Sub(start) != time.Hour || l.asked != 1 {
		t.Errorf("asked %d times, and again after %s", l.asked, next.Sub(start))
	}
	if len(other.got) != 2 {
		t.Errorf("the other was told of %v", other.got)
	}
	b.clock = start.Add(30 * time.Minute)
	b.run()
	if l.fail = nil; l.asked != 1 {
		t.Errorf("asked %d times before its time", l.asked)
	}
	b.clock = start.Add(time.Hour)
	b.run()
	if want := []string{"a requested", "b requested"}; !slices.Equal(l.got, want) {
		t.Errorf("%v", l.got)
	}
}

// What can't be read, or makes a channel panic, is one message's trouble: all others are told, and the gateway goes on.
func TestPoison(t *testing.T) {
	l := &line{name: "l", panics: "a requested"}
	b := newBench(t, l)
	b.request("a")
	for _, statement := range []string{
		`INSERT INTO grant_events (grant_id, body) VALUES ('g-222222', 'no JSON')`,
		`INSERT INTO notifications (event, channel, kind, grant_id, body, state, next_try, created) VALUES (0, 'l', 'requested', 'g-333333', '{"grant": 7}', 'pending', 0, 0)`,
	} {
		if err := b.store.Do(t.Context(), func(tx *store.Tx) error { _, err := tx.ExecContext(t.Context(), statement); return err }); err != nil {
			t.Fatal(err)
		}
	}
	b.request("b")
	b.run()
	if want := []string{"b requested"}; !slices.Equal(l.got, want) {
		t.Errorf("%v", l.got)
	}
	list, err := b.List(t.Context(), false)
	if err != nil || len(list) != 2 || list[0].State != "pending" || list[0].Attempts != 1 || list[1].ID != "g-333333-0" || list[1].State != "dead" || !strings.Contains(list[1].Error, "can't be read") {
		t.Fatalf("%+v %v", list, err)
	}
	l.panics = ""
	b.clock = b.clock.Add(time.Minute)
	b.run()
	if want := []string{"b requested", "a requested"}; !slices.Equal(l.got, want) {
		t.Errorf("%v", l.got)
	}
}

// A gateway that dies after it told, and before it noted that, tells again under the same id; one that dies before leaves nothing
// untold.
func TestDyingBetweenTellingAndNoting(t *testing.T) {
	l := &line{name: "l"}
	b := newBench(t, l)
	id := b.request("a")
	if err := b.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	due, err := b.due(t.Context(), "l")
	if err != nil || len(due) != 1 {
		t.Fatal(due, err)
	}
	if _, err := l.Deliver(t.Context(), due[0].notice); err != nil { // and here it dies
		t.Fatal(err)
	}
	b.restart()
	b.run()
	b.run()
	if len(l.ids) != 2 || l.ids[0] != l.ids[1] || !strings.HasPrefix(l.ids[0], id+"-") {
		t.Errorf("told as %q", l.ids)
	}
}

// A store that was brought back from a backup gives numbers again that it gave before; what it tells under them is something else to
// those who are told.
func TestIDsAfterARestore(t *testing.T) {
	l := &line{name: "l"}
	b := newBench(t, l)
	id := b.request("a")
	b.run()
	if err := b.store.MarkRestored(t.Context(), b.clock.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	b.restart()
	if err := b.store.Do(t.Context(), func(tx *store.Tx) error { // as the backup has it
		_, err := tx.ExecContext(t.Context(), `UPDATE notifications SET state = 'pending', done = 0`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	b.run()
	if len(l.ids) != 2 || l.ids[1] != id+"-1-"+strings.TrimPrefix(l.ids[0], id+"-") {
		t.Fatalf("told as %q", l.ids)
	}
	if list, err := b.List(t.Context(), true); err != nil || len(list) != 1 || list[0].ID != l.ids[1] {
		t.Errorf("%+v %v", list, err)
	}
}

// What was given up can be tried anew, for another day, with what came after it on the same grant; and no more than was named.
func TestRetry(t *testing.T) {
	l, other := &line{name: "slack/l", fail: errors.New("nobody is there")}, &line{name: "webhook/other", fail: Permanent{errors.New("gone")}}
	b := newBench(t, l, other)
	first := b.request("a")
	b.run()
	b.withdraw(first)
	b.request("b")
	for next := b.run(); !next.IsZero(); next = b.run() {
		b.clock = next
	}
	count := func(want map[[2]string]int) {
		t.Helper()
		if got, err := b.Depth(t.Context()); err != nil || !maps.Equal(got, want) {
			t.Errorf("%v %v, want %v", got, err, want)
		}
	}
	count(map[[2]string]int{{"slack", "pending"}: 0, {"slack", "dead"}: 3, {"webhook", "pending"}: 0, {"webhook", "dead"}: 3})
	retry := func(a Again) ([]Notification, error) {
		return b.Retry(t.Context(), a, store.AuditEvent{Kind: "notifications.retried", Actor: "i carol"})
	}
	for _, wrong := range []Again{{}, {IDs: []string{first + "-1"}, GivenUp: true}, {IDs: []string{"g-222222-1"}}, {GivenUp: true, Channel: "nowhere"}, {IDs: make([]string, 101)}} {
		if list, err := retry(wrong); refusal.Of(err) == nil {
			t.Errorf("%+v: %+v %v", wrong, list, err)
		}
	}
	list, err := b.List(t.Context(), false)
	if err != nil || len(list) != 6 {
		t.Fatalf("%+v %v", list, err)
	}
	oldest := list[len(list)-1].ID
	again, err := retry(Again{IDs: []string{oldest}, Channel: "slack/l"})
	if err != nil || len(again) != 2 || again[0].ID != oldest || again[0].State != "pending" || again[1].Grant != first {
		t.Fatalf("%+v %v", again, err)
	}
	count(map[[2]string]int{{"slack", "pending"}: 2, {"slack", "dead"}: 1, {"webhook", "pending"}: 0, {"webhook", "dead"}: 3})
	retried := b.clock
	b.run() // it fails, and is not given up at once
	count(map[[2]string]int{{"slack", "pending"}: 2, {"slack", "dead"}: 1, {"webhook", "pending"}: 0, {"webhook", "dead"}: 3})
	l.fail = nil
	for b.clock = retried.Add(giveUp / 2); ; {
		next := b.run()
		if next.IsZero() {
			break
		}
		b.clock = next
	}
	if want := []string{"a requested", "a withdrawn"}; !slices.Equal(l.got, want) {
		t.Errorf("%v", l.got)
	}
	other.fail = nil
	if again, err = retry(Again{GivenUp: true}); err != nil || len(again) != 4 {
		t.Fatalf("%+v %v", again, err)
	}
	b.run()
	count(map[[2]string]int{{"slack", "pending"}: 0, {"slack", "dead"}: 0, {"webhook", "pending"}: 0, {"webhook", "dead"}: 0})
	events, err := b.store.Outbox(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(slices.DeleteFunc(events, func(e store.AuditEvent) bool { return e.Kind != "notifications.retried" || e.Actor != "i carol" })); n != 2 {
		t.Errorf("%d retries are audited", n)
	}
}

// Who asks that something be tried anew while its last try is under way is not answered by that try's failure.
func TestRetryDuringTheLastTry(t *testing.T) {
	l := &line{name: "slack/l", fail: errors.New("nobody is there")}
	b := newBench(t, l)
	b.request("a")
	b.run()
	list, err := b.List(t.Context(), false)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v %v", list, err)
	}
	b.clock = b.clock.Add(giveUp + time.Hour)
	l.during = func() {
		l.during = nil
		if _, err := b.Retry(t.Context(), Again{IDs: []string{list[0].ID}}, store.AuditEvent{Kind: "notifications.retried", Actor: "i carol"}); err != nil {
			t.Error(err)
		}
	}
	b.run()
	if list, err = b.List(t.Context(), false); err != nil || len(list) != 1 || list[0].State != "pending" {
		t.Fatalf("%+v %v", list, err)
	}
	l.fail = nil
	b.clock = list[0].NextTry
	if b.run(); len(l.got) != 1 {
		t.Errorf("%q", l.got)
	}
}
