package authn

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"sallyport/internal/refusal"
)

// heard notes what a rig tells of changed groups.
func (r *rig) heard() (last func() []string) {
	var groups []string
	r.OnChange(func(_ context.Context, who Identity) error {
		groups = who.Groups
		return nil
	})
	return func() []string { return groups }
}

func (r *rig) groups(access string) []string {
	r.t.Helper()
	return must(r.Bearer(r.t.Context(), access))(r.t).Groups
}

// TestGroupsAreRenewed: what the provider says of groups when it is asked again counts at once, wherever it says it; who listens is
// told of lost groups and gained ones, and it is audited.
func TestGroupsAreRenewed(t *testing.T) {
	for name, set := range map[string]func(c *company, groups []string){
		"in ID tokens": func(c *company, groups []string) {
			c.again = true
			c.claims["alice"]["groups"] = groups
			if groups == nil {
				delete(c.claims["alice"], "groups") // as many providers say "none"
			}
		},
		"in userinfo": func(c *company, groups []string) {
			delete(c.claims["alice"], "groups")
			c.userinfo = func(info map[string]any) {
				if groups != nil {
					info["groups"] = groups
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.stand()
			r.company.set(func(c *company) {
				c.refresh, c.closed = true, map[string]bool{}
				set(c, []string{"engineers", "oncall"})
			})
			heard := r.heard()
			_, token := r.signedIn("alice")
			who := must(r.Bearer(t.Context(), token.AccessToken))(t)
			for _, now := range [][]string{{"engineers", "oncall"}, {"engineers"}, {"engineers", "leads"}, nil, {"engineers"}} {
				r.company.set(func(c *company) { set(c, now) })
				r.advance(vouchEvery)
				if err := r.Standing(t.Context(), who); err != nil {
					t.Fatal(err)
				}
				if got := r.groups(token.AccessToken); !slices.Equal(got, now) {
					t.Fatalf("%v, while the provider says %v", got, now)
				}
				if got := heard(); !slices.Equal(got, now) && len(now) != 2 {
					t.Errorf("who listens knows %v, not %v", got, now)
				}
			}
			events := r.events("groups.changed")
			if len(events) != 4 || events[1].Fields["gained"] != "leads" || events[1].Fields["lost"] != "" || events[2].Fields["lost"] != "engineers, leads" {
				t.Errorf("%+v", events)
			}
		})
	}
}

// TestNextRequestKnowsTheGroups: without a session that asks, a request to the API does.
func TestNextRequestKnowsTheGroups(t *testing.T) {
	r, _, access := vouchedRig(t)
	r.company.set(func(c *company) {
		c.again = true
		c.claims["alice"]["groups"] = []string{"engineers", "oncall", "leads"}
	})
	if got := r.groups(access); slices.Contains(got, "leads") {
		t.Errorf("within %s: %v", vouchEvery, got)
	}
	r.advance(vouchEvery)
	if got := r.groups(access); !slices.Contains(got, "leads") {
		t.Errorf("a gained group does not count: %v", got)
	}
	// While the provider is down, what is known counts for what opens nothing; who is closed is out.
	r.company.set(func(c *company) { c.down = true })
	r.advance(vouchEvery)
	if got := r.groups(access); !slices.Contains(got, "leads") {
		t.Errorf("while the provider is down: %v", got)
	}
	r.company.set(func(c *company) { c.down, c.closed["alice"] = false, true })
	r.advance(vouchEvery)
	_, err := r.Bearer(t.Context(), access)
	refused(t, err, refusal.IdentityDisabled)
}

// TestSilenceAboutGroups: a provider that names groups in the ID token of a sign-in only, and answers a refresh without one, takes
// nothing away.
func TestSilenceAboutGroups(t *testing.T) {
	r, who, access := vouchedRig(t)
	for range 3 {
		r.advance(vouchEvery)
		if err := r.Standing(t.Context(), who); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.groups(access); !slices.Equal(got, []string{"engineers", "oncall"}) {
		t.Errorf("%v", got)
	}
}

// TestOldSignInBringsNothingBack: a provider that repeats for as long as a sign-in lasts what it said at it does not give back by an
// older one what a newer one has lost.
func TestOldSignInBringsNothingBack(t *testing.T) {
	r, who, _ := vouchedRig(t)
	r.company.set(func(c *company) {
		c.again, c.frozen = true, true
		c.claims["alice"]["groups"] = []string{"engineers"}
	})
	r.advance(time.Second)
	_, token := r.signedIn("alice")
	for range 3 {
		r.advance(vouchEvery)
		if err := r.Standing(t.Context(), who); err != nil { // by the older one
			t.Fatal(err)
		}
		if got := r.groups(token.AccessToken); !slices.Equal(got, []string{"engineers"}) {
			t.Fatalf("%v", got)
		}
	}
}

// TestSpentTokenIsReplacedWhateverElseFails: the provider gave the next refresh token, and then its userinfo failed, or it named
// groups that can't be taken: nothing is known, which ends nothing yet, and asking goes on with the next one.
func TestSpentTokenIsReplacedWhateverElseFails(t *testing.T) {
	r, who, access := vouchedRig(t)
	r.company.set(func(c *company) {
		c.again = true
		c.claims["alice"]["groups"] = []string{"engineers", ""}
	})
	r.advance(vouchEvery)
	for range 3 {
		r.advance(vouchAgain)
		if err := r.Standing(t.Context(), who); !errors.Is(err, ErrUnvouched) || refusal.Of(err) != nil {
			t.Fatalf("%v", err)
		}
	}
	if got := r.groups(access); !slices.Equal(got, []string{"engineers", "oncall"}) {
		t.Errorf("%v", got)
	}
	r.company.set(func(c *company) { c.claims["alice"]["groups"] = []string{"engineers"} })
	r.advance(vouchAgain)
	if err := r.Standing(t.Context(), who); err != nil {
		t.Fatal(err)
	}
	if got := r.groups(access); !slices.Equal(got, []string{"engineers"}) {
		t.Errorf("%v", got)
	}
}
