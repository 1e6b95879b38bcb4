package grant

import (
	"context"
	"strings"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
)

// TestLostGroup: what was given for a group ends when the group is gone, at once where somebody says so and within a minute where
// nobody does; what another group gives goes on, and so does what others hold.
func TestLostGroup(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, *world, authn.Identity){
		"told": func(t *testing.T, w *world, who authn.Identity) {
			if err := w.IdentityChanged(t.Context(), who); err != nil {
				t.Fatal(err)
			}
		},
		"found": func(_ *testing.T, w *world, _ authn.Identity) { w.pass(judgeEvery) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			now := map[string][]string{}
			w.standing = func(authn.Identity) error { return nil }
			w.current = func(_ context.Context, who authn.Identity) (authn.Identity, error) {
				if groups, ok := now[who.Key()]; ok {
					who.Groups = groups
				}
				return who, nil
			}
			w.restart()
			both := alice
			both.Groups = []string{"engineers", "deployers"}
			write, read, others := w.approved(both, "app", "orders"), w.approved(both, "ro", "orders"), w.approved(person("eve", "engineers"), "app", "orders")
			pending := w.request(both, "deploy", "web-1")
			lease, kept := w.lease(both, "app", "orders"), w.lease(both, "ro", "orders")

			both.Groups = []string{"deployers", "leads"}
			now[both.Key()] = both.Groups
			lose(t, w, both)
			w.state(write.ID, Ended, EndPolicyRemoved)
			select {
			case <-lease.Ended():
			case <-time.After(time.Minute):
				t.Fatal("the lease goes on")
			}
			if reason, sentence := lease.Why(); reason != EndPolicyRemoved || !strings.Contains(sentence, "engineers") {
				t.Errorf("%s: %s", reason, sentence)
			}
			if err := kept.Live(); err != nil {
				t.Errorf("what another group gives: %v", err)
			}
			w.state(read.ID, Active, "")
			w.state(others.ID, Approved, "")
			w.state(pending.ID, Pending, "")
			if e := w.events("grant.ended"); len(e) != 1 || e[0].Fields["end_reason"] != EndPolicyRemoved {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestGroupThatIsForbidden: a gained group can take away too.
func TestGroupThatIsForbidden(t *testing.T) {
	w := newWorld(t)
	w.config.Policies = append(w.config.Policies, configs.Policy{Name: "leavers", Effect: "forbid", Groups: []string{"leavers"}, Accounts: []string{"*@*"}})
	w.restart()
	g := w.approved(alice, "app", "orders")
	lease := w.lease(alice, "app", "orders")
	leaver := alice
	leaver.Groups = append([]string{"leavers"}, alice.Groups...)
	if err := w.IdentityChanged(t.Context(), leaver); err != nil {
		t.Fatal(err)
	}
	w.state(g.ID, Ended, EndForbidden)
	if lease.Live() == nil {
		t.Error("the lease goes on")
	}
}
