package authn

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
)

// What the provider says of how somebody proved themselves stays with the sign-in, and with all that hangs on it.
func TestStrengthStaysWithTheSignIn(t *testing.T) {
	r := newRig(t)
	proved := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	r.company.claims["alice"]["acr"] = "urn:example:strong"
	r.company.claims["alice"]["amr"] = []string{"pwd", "hwk"}
	r.company.claims["alice"]["auth_time"] = proved.Unix()
	_, token := r.signedIn("alice")
	who := must(r.Bearer(t.Context(), token.AccessToken))(t)
	if who.ACR != "urn:example:strong" || !slices.Equal(who.AMR, []string{"pwd", "hwk"}) || !who.AuthTime.Equal(proved) {
		t.Fatalf("%+v", who)
	}
	if e := r.events("login.succeeded"); len(e) != 1 || e[0].Fields["acr"] != "urn:example:strong" || e[0].Fields["amr"] != "pwd hwk" {
		t.Fatalf("%+v", e)
	}
	// A later sign-in that was weaker is one of its own.
	r.company.claims["alice"]["amr"], r.company.claims["alice"]["acr"] = []string{"pwd"}, nil
	_, weaker := r.signedIn("alice")
	if now := must(r.Bearer(t.Context(), weaker.AccessToken))(t); now.ACR != "" || !slices.Equal(now.AMR, []string{"pwd"}) {
		t.Fatalf("%+v", now)
	}
	if before := must(r.Bearer(t.Context(), token.AccessToken))(t); before.ACR != "urn:example:strong" {
		t.Fatalf("%+v", before)
	}
}

// The claims that the configuration names stay with the sign-in as texts, from the ID token or userinfo; those with several values, too
// long ones, and all others are left out.
func TestClaimsStayWithTheSignIn(t *testing.T) {
	r := newRig(t, func(c *configs.Config) {
		c.Provider.Claims = []string{"department", "level", "contractor", "city", "teams", "long", "absent"}
	})
	for name, value := range map[string]any{
		"department": "finance", "level": 3, "contractor": false, "teams": []string{"a", "b"}, "long": strings.Repeat("x", 300), "secret": "not asked for",
	} {
		r.company.claims["alice"][name] = value
	}
	r.company.userinfo = func(info map[string]any) { info["city"], info["department"] = "Bonn", "sales" }
	_, token := r.signedIn("alice")
	want := map[string]string{"department": "finance", "level": "3", "contractor": "false", "city": "Bonn"}
	if who := must(r.Bearer(t.Context(), token.AccessToken))(t); !maps.Equal(who.Claims, want) {
		t.Errorf("%q", who.Claims)
	}
	if e := r.events("login.succeeded"); len(e) != 1 || !strings.Contains(e[0].Fields["claims"], `"department":"finance"`) {
		t.Errorf("%+v", e)
	}
	// A later sign-in has its own.
	r.company.claims["alice"]["department"] = "legal"
	_, later := r.signedIn("alice")
	if who := must(r.Bearer(t.Context(), later.AccessToken))(t); who.Claims["department"] != "legal" {
		t.Errorf("%q", who.Claims)
	}
	if who := must(r.Bearer(t.Context(), token.AccessToken))(t); who.Claims["department"] != "finance" {
		t.Errorf("%q", who.Claims)
	}
}

func TestStrengthThatIsNoneIsRefused(t *testing.T) {
	for name, bad := range map[string]map[string]any{
		"amr is a text":       {"amr": "pwd"},
		"amr without an end":  {"amr": make([]string, 100)},
		"acr with an escape":  {"acr": "strong\x1b[2J"},
		"sid with a new line": {"sid": "a\nb"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			for k, v := range bad {
				r.company.claims["alice"][k] = v
			}
			b, f := r.browser(), r.flow()
			p := b.fill(b.get(f.address()), "alice")
			back, err := p.Location()
			if err != nil || back.Query().Get("error") != "access_denied" {
				t.Fatalf("%s %v %v", p.Status, back, err)
			}
		})
	}
}
