package grant

import (
	"strings"
	"testing"

	"sallyport/configs"
)

// withRole makes policy read give ro@* by a role.
func (w *world) withRole(limits configs.RoleLimits) {
	w.t.Helper()
	w.config = example()
	w.config.Roles = []configs.Role{{Name: "look", Accounts: []string{"ro@*"}, Limits: limits}}
	w.config.Policies[1].Accounts, w.config.Policies[1].Roles = nil, []string{"look"}
	if err := w.Reload(w.t.Context(), w.config); err != nil {
		w.t.Fatal(err)
	}
}

// A lease has the limits its grant was given with: a configuration read since narrows them at once and widens nothing.
func TestALeaseHasTheLimitsOfItsRole(t *testing.T) {
	w := newWorld(t)
	off := false
	w.withRole(configs.RoleLimits{SSH: configs.SSHLimits{Shell: &off}})
	g, err := w.Request(t.Context(), alice, Ask{Target: "orders", Account: "ro", Reason: "look"})
	if err != nil || g.Role != "look" {
		t.Fatal(g, err)
	}
	l, err := w.Lease(t.Context(), alice, "orders", "ro")
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Limits(); configs.On(got.SSH.Shell, true) || got.ReadOnly {
		t.Fatalf("%+v", got)
	}
	w.withRole(configs.RoleLimits{ReadOnly: true})
	if got := l.Limits(); configs.On(got.SSH.Shell, true) || !got.ReadOnly {
		t.Fatalf("after the role was changed: %+v", got)
	}
	w.stop()
	w.start()
	if l, err = w.Lease(t.Context(), alice, "orders", "ro"); err != nil {
		t.Fatal(err)
	}
	if got := l.Limits(); configs.On(got.SSH.Shell, true) || !got.ReadOnly {
		t.Fatalf("after a restart: %+v", got)
	}
	// Given directly now, which has no limits: that is another thing than what was decided.
	w.config = example()
	if err := w.Reload(t.Context(), w.config); err != nil {
		t.Fatal(err)
	}
	if _, why := l.Why(); !strings.Contains(why, "by itself now, no longer by role look") {
		t.Fatal(why)
	}
}

func TestOffersSayTheLimits(t *testing.T) {
	w := newWorld(t)
	w.withRole(configs.RoleLimits{ReadOnly: true, Guardrails: []string{"drop"}})
	offers, err := w.Offers(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range offers {
		if o.Account == "ro" && (o.Role != "look" || strings.Join(o.Limits, "; ") != "read only; not: drop") {
			t.Errorf("%+v", o)
		}
	}
	if len(offers) == 0 {
		t.Error("no offers")
	}
}
