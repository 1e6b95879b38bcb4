package grant

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
)

func TestRequestRefusals(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name string
		who  authn.Identity
		ask  Ask
		code refusal.Code
		says []string
	}{
		{"nobody", authn.Identity{Groups: []string{"engineers"}}, Ask{Target: "orders", Account: "ro", Duration: 0, Reason: "because", Ticket: ""}, refusal.NotAuthenticated, nil},
		{"unknown target", alice, Ask{Target: "ordres", Account: "ro", Duration: 0, Reason: "because", Ticket: ""}, refusal.UnknownTarget, []string{`"ordres"`, "sallyport targets"}},
		{"unknown account", alice, Ask{Target: "orders", Account: "postgres", Duration: 0, Reason: "because", Ticket: ""}, refusal.UnknownAccount, []string{"orders", `"postgres"`, "sallyport targets"}},
		{"escapes", alice, Ask{Target: "\x1b[2J", Account: "ro", Duration: 0, Reason: "because", Ticket: ""}, refusal.UnknownTarget, []string{`"\x1b[2J"`}},
		{"no group", carol, Ask{Target: "orders", Account: "app", Duration: 0, Reason: "because", Ticket: ""}, refusal.NotPermitted, []string{"policy write: it is for members of engineers", "members of engineers may ask"}},
		{"no policy", alice, Ask{Target: "orders", Account: "owner", Duration: 0, Reason: "because", Ticket: ""}, refusal.NotPermitted, []string{"no policy speaks of it", "nobody may have owner@orders"}},
		{"too long", alice, Ask{Target: "orders", Account: "app", Duration: 3 * time.Hour, Reason: "because", Ticket: ""}, refusal.NotPermitted, []string{"3h is longer than the 1h it allows", "sallyport request app@orders --duration 30m"}},
		{"no reason", alice, Ask{Target: "orders", Account: "ro", Duration: 0, Reason: " \n", Ticket: ""}, refusal.NotPermitted, []string{"the reason has 0 of at least 1 characters"}},
		{"short reason", alice, Ask{Target: "orders", Account: "app", Duration: 0, Reason: "hm", Ticket: ""}, refusal.NotPermitted, []string{"the reason has 2 of at least 5 characters"}},
		{"nobody could approve", alice, Ask{Target: "web-1", Account: "root", Duration: 0, Reason: "because", Ticket: ""}, refusal.NotPermitted, []string{"policy stuck: nobody could approve it", "nobody may have root@web-1"}},
		{"long reason", alice, Ask{Target: "orders", Account: "ro", Duration: 0, Reason: strings.Repeat("ä", 1001), Ticket: ""}, refusal.Invalid, []string{"1000"}},
		{"control", alice, Ask{Target: "orders", Account: "ro", Duration: 0, Reason: "a\x1b[1mb", Ticket: ""}, refusal.Invalid, []string{"U+001B"}},
		{"direction", alice, Ask{Target: "orders", Account: "ro", Duration: 0, Reason: "a\u202eb", Ticket: ""}, refusal.Invalid, []string{"U+202E"}},
		{"no UTF-8", alice, Ask{Target: "orders", Account: "ro", Duration: 0, Reason: "a\xff", Ticket: ""}, refusal.Invalid, nil},
		{"negative", alice, Ask{Target: "orders", Account: "ro", Duration: -time.Minute, Reason: "because", Ticket: ""}, refusal.Invalid, nil},
		{"instant", alice, Ask{Target: "orders", Account: "ro", Duration: time.Millisecond, Reason: "because", Ticket: ""}, refusal.Invalid, nil},
		{"for ever", alice, Ask{Target: "orders", Account: "ro", Duration: 1<<63 - 1, Reason: "because", Ticket: ""}, refusal.NotPermitted, []string{"longer than the 8h"}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := w.Request(t.Context(), tt.who, tt.ask)
			refused(t, err, tt.code, tt.says...)
			if e := w.events("request.refused"); len(e) != i+1 || e[i].Outcome != string(tt.code) || e[i].Reason == "" {
				t.Errorf("audited: %+v", e)
			}
		})
	}
	if g, err := w.List(t.Context(), carol, true); err != nil || len(g) != 0 {
		t.Errorf("a refused request left something: %v %v", g, err)
	}
}

func TestReasonIsOneLine(t *testing.T) {
	w := newWorld(t)
	g, err := w.Request(t.Context(), alice, Ask{Target: "orders", Account: "ro", Reason: " two\nlines\u2028three\t👩‍👩‍👧 "})
	if err != nil || g.Reason != "two lines three 👩‍👩‍👧" {
		t.Fatalf("%q %v", g.Reason, err)
	}
}

func TestAutoApproval(t *testing.T) {
	w := newWorld(t)
	g := w.request(job, "ro", "orders")
	if g.State != Approved || g.Needed != 0 || g.Approvers()[0] != "policy read" || g.Identity.Kind != authn.Workload {
		t.Fatalf("%+v", g)
	}
	if e := w.events("grant.approved"); len(e) != 1 || e[0].Actor != "system" || e[0].Fields["policy_digest"] == "" {
		t.Errorf("%+v", e)
	}
	w.lease(job, "ro", "orders")
	if _, err := w.Lease(t.Context(), alice, "orders", "ro"); !refusal.Is(err, refusal.NoGrant) {
		t.Errorf("somebody else's grant let alice in: %v", err)
	}
}

func TestAutoWithApproversMeansTheApprovers(t *testing.T) {
	w := newWorld(t)
	w.config.Policies[0].Approve.Auto = true
	if err := w.Reload(t.Context(), w.config); err != nil {
		t.Fatal(err)
	}
	if g := w.request(alice, "app", "orders"); g.State != Pending {
		t.Fatalf("%+v", g)
	}
}

func TestDuplicate(t *testing.T) {
	w := newWorld(t)
	g := w.request(alice, "app", "orders")
	ask := Ask{Target: "orders", Account: "app", Reason: "because"}
	for _, says := range []string{"waits for approval by leads", "is approved", "is active until"} {
		_, err := w.Request(t.Context(), alice, ask)
		refused(t, err, refusal.Conflict, g.ID, says)
		if _, err := w.Approve(t.Context(), bob, g.ID, ""); err != nil {
			w.lease(alice, "app", "orders")
		}
	}
	w.request(dave, "app", "orders") // another person's is another
	if _, err := w.Release(t.Context(), alice, g.ID); err != nil {
		t.Fatal(err)
	}
	if again := w.request(alice, "app", "orders"); again.ID == g.ID {
		t.Fatal("an id was used twice")
	}
}

func TestTooManyPending(t *testing.T) {
	w := newWorld(t)
	for i := range maxPending + 1 {
		w.config.Targets[0].Accounts = append(w.config.Targets[0].Accounts, configs.Account{Name: "many-" + strconv.Itoa(i)})
	}
	w.config.Policies[0].Accounts = []string{"many-*@orders"}
	if err := w.Reload(t.Context(), w.config); err != nil {
		t.Fatal(err)
	}
	for i := range maxPending {
		w.request(alice, "many-"+strconv.Itoa(i), "orders")
	}
	ask := Ask{Target: "orders", Account: "many-" + strconv.Itoa(maxPending), Reason: "because"}
	_, err := w.Request(t.Context(), alice, ask)
	refused(t, err, refusal.TooMany, "sallyport release")
	if _, err := w.Request(t.Context(), dave, ask); err != nil {
		t.Errorf("alice's requests kept dave out: %v", err)
	}
}

func TestFirstPolicyThatAdmitsWinsWhole(t *testing.T) {
	w := newWorld(t)
	longer := w.config.Policies[0]
	longer.Name, longer.MaxDuration, longer.Approve.Groups = "long", minutes(240), []string{"security"}
	w.config.Policies = append(w.config.Policies, longer)
	if err := w.Reload(t.Context(), w.config); err != nil {
		t.Fatal(err)
	}
	for d, want := range map[time.Duration]string{time.Hour: "write", 61 * time.Minute: "long"} {
		g, err := w.Request(t.Context(), alice, Ask{Target: "orders", Account: "app", Duration: d, Reason: "because"})
		if err != nil || g.Policy != want || g.Duration != d {
			t.Fatalf("%s: %+v %v", d, g, err)
		}
		if want == "long" && (len(g.MayApprove) != 1 || g.MayApprove[0] != "security") {
			t.Errorf("approvers were merged: %v", g.MayApprove)
		}
		if _, err := w.Release(t.Context(), alice, g.ID); err != nil {
			t.Fatal(err)
		}
	}
}
