package grant

import (
	"context"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/internal/refusal"
)

// TestSignInForEmergenciesAlone: who signed in with an enrolled key breaks the glass, sees and gives back what is theirs, and has nothing
// else: not what they hold or could have otherwise, nor a word in what others do.
func TestSignInForEmergenciesAlone(t *testing.T) {
	w := emergency(t)
	byKey := func(who authn.Identity) authn.Identity {
		who.Emergency, who.Known = "e-key", time.Now().Add(-time.Hour)
		return who
	}
	held, err := w.Request(t.Context(), alice, Ask{Target: "orders", Account: "app", Reason: "INC-42: slow checkout", Duration: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if held.State == Pending {
		if held, err = w.Approve(t.Context(), bob, held.ID, ""); err != nil {
			t.Fatal(err)
		}
	}
	others, err := w.Request(t.Context(), alice, Ask{Target: "web-1", Account: "deploy", Reason: "INC-42: look at the logs", Duration: 20 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for name, try := range map[string]func() error{
		"an ordinary request": func() error {
			_, err := w.Request(ctx, byKey(alice), Ask{Target: "orders", Account: "app", Reason: "INC-42: slow checkout", Duration: time.Hour})
			return err
		},
		"what the policies would say": func() error { _, err := w.Explain(ctx, byKey(alice), breaking); return err },
		"an approval":                 func() error { _, err := w.Approve(ctx, byKey(bob), others.ID, ""); return err },
		"a denial":                    func() error { _, err := w.Deny(ctx, byKey(bob), others.ID, "no"); return err },
		"a vote taken back":           func() error { _, err := w.Withdraw(ctx, byKey(bob), others.ID, ""); return err },
		"revoking":                    func() error { _, err := w.Revoke(ctx, byKey(bob), held.ID, "no"); return err },
		"more time":                   func() error { _, err := w.Extend(ctx, byKey(alice), held.ID, time.Minute, "more"); return err },
		"a review":                    func() error { _, err := w.Review(ctx, byKey(carol), held.ID, "fine"); return err },
		"the reviews":                 func() error { _, err := w.Reviews(ctx, byKey(carol), true); return err },
		"a permission":                func() error { return w.May(byKey(carol), ListGrants, "") },
	} {
		if err := try(); !refusal.Is(err, refusal.NotPermitted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.Lease(ctx, byKey(alice), "orders", "app"); !refusal.Is(err, refusal.NoGrant) {
		t.Errorf("an ordinary grant: %v", err)
	}
	if _, err := w.LeaseOrWait(ctx, byKey(alice), "orders", "owner", time.Minute, Ask{Reason: breaking.Reason}, func(Waiting) error { return nil }); !refusal.Is(err, refusal.NoGrant) {
		t.Errorf("waiting for one: %v", err)
	}
	if err := w.InUse(ctx, byKey(alice), held.ID); err == nil {
		t.Error("an ordinary grant is kept in use")
	}
	if _, err := w.Get(ctx, byKey(bob), held.ID); !refusal.Is(err, refusal.NotFound) {
		t.Errorf("another's grant: %v", err)
	}
	if offers, err := w.Offers(ctx, byKey(alice)); err != nil || len(offers) != 1 || !offers[0].BreakGlass {
		t.Errorf("they may ask for %+v, %v", offers, err)
	}

	g, err := w.Request(ctx, byKey(alice), breaking)
	if err != nil || g.State != Approved || g.Identity.Emergency == "" {
		t.Fatal(g, err)
	}
	l, err := w.Lease(context.WithoutCancel(ctx), byKey(alice), "orders", "owner")
	if err != nil || l.Live() != nil {
		t.Fatal(err)
	}
	if events := w.events("grant.break_glass"); len(events) != 1 || events[0].Fields["enrolled_key"] != "e-key" || events[0].Fields["groups_age"] == "0s" {
		t.Errorf("%+v", events)
	}
	if mine, _, err := w.Find(ctx, byKey(alice), Filter{}); err != nil || len(mine) != 3 {
		t.Errorf("%d grants, %v", len(mine), err)
	}
	if _, err := w.Release(ctx, byKey(alice), g.ID); err != nil {
		t.Error(err)
	}
	if l.Live() == nil {
		t.Error("it goes on")
	}
	for _, kind := range []string{"request.refused", "approve.refused", "session.refused"} {
		if len(w.events(kind)) == 0 {
			t.Errorf("no %s", kind)
		}
	}
}
