package authn

import (
	"slices"
	"testing"
	"time"
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
