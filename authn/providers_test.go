package authn

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"sallyport/configs"
	"sallyport/internal/refusal"
)

// withPartner is a rig whose people may also sign in at a second provider, "partner".
func withPartner(t *testing.T, change ...func(*company)) (*rig, *company) {
	partner := newCompany(t)
	for _, f := range change {
		f(partner)
	}
	r := newRig(t, func(c *configs.Config) {
		c.Provider.Name = "staff"
		other := c.Provider
		other.Name, other.Issuer, other.CA, other.ClientSecret, other.Groups = "partner", partner.URL, partner.ca, "env:AUTHN_TEST_PARTNER", []string{"oncall"}
		c.Providers = []configs.Provider{other}
		t.Setenv("AUTHN_TEST_PARTNER", partner.secret)
	})
	partner.redirect = r.server.URL + "/oauth/callback/partner"
	return r, partner
}

// choose goes to a provider's form by the page that asks for one.
func (b *browser) choose(p page, name string) page {
	b.r.t.Helper()
	p = b.goOn(p)
	if !strings.Contains(p.text, "Where do you sign in?") || !strings.Contains(p.text, ">staff<") || !strings.Contains(p.text, ">partner<") {
		b.r.t.Fatalf("no choice at %s: %s\n%s", p.Request.URL, p.Status, p.text)
	}
	q := p.Request.URL.Query()
	q.Set("provider", name)
	return b.get(b.r.server.URL + p.Request.URL.Path + "?" + q.Encode())
}

// answerOf is where the provider sends the browser back to, which does not go there.
func (b *browser) answerOf(c *company, form page) *url.URL {
	b.r.t.Helper()
	found := requestField.FindStringSubmatch(form.text)
	if found == nil {
		b.r.t.Fatalf("no form of the provider at %s: %s\n%s", form.Request.URL, form.Status, form.text)
	}
	follow := b.CheckRedirect
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	defer func() { b.CheckRedirect = follow }()
	return must(b.post(c.URL+"/signin", url.Values{"request": {found[1]}, "person": {"alice"}}).Location())(b.r.t)
}

func (r *rig) in(c *company, name string) Identity {
	r.t.Helper()
	b, f := r.browser(), r.flow()
	code := r.code(b.get(b.answerOf(c, b.choose(b.get(f.address()), name)).String()))
	token := must(f.config.Exchange(r.oauthContext(), code, oauth2.VerifierOption(f.verifier)))(r.t)
	return must(r.Bearer(r.t.Context(), token.AccessToken))(r.t)
}

// TestSeveralProviders: people choose where they sign in, and are who they are there only.
func TestSeveralProviders(t *testing.T) {
	r, partner := withPartner(t)
	staffs, partners := r.in(r.company, "staff"), r.in(partner, "partner")
	if staffs.Issuer != r.company.URL || partners.Issuer != partner.URL || staffs.Subject != "alice" || partners.Subject != "alice" || staffs.Key() == partners.Key() {
		t.Fatalf("%s and %s", staffs.Key(), partners.Key())
	}
	if !slices.Equal(staffs.Groups, []string{"engineers", "oncall"}) || !slices.Equal(partners.Groups, []string{"oncall"}) {
		t.Errorf("groups: %v at the first, %v at the one that may name only oncall", staffs.Groups, partners.Groups)
	}

	// What one says of its people says nothing of the other's of the same name.
	token := partner.signed("logout+jwt", partner.logout())
	if status, _ := r.tell(token); status != http.StatusBadRequest {
		t.Errorf("a logout token at another provider's address: %d", status)
	}
	if status, _ := r.form(pathLogout+"/nobody", url.Values{"logout_token": {token}}); status != http.StatusNotFound {
		t.Errorf("at nobody's: %d", status)
	}
	if status, body := r.form(pathLogout+"/partner", url.Values{"logout_token": {token}}); status != http.StatusOK {
		t.Errorf("at its own: %d %v", status, body)
	}
	refused(t, r.Standing(t.Context(), partners), refusal.NotAuthenticated)
	if err := r.Standing(t.Context(), staffs); err != nil {
		t.Errorf("the other's: %v", err)
	}
	b := r.browser()
	if p := b.choose(b.get(r.flow().address()), "nobody"); p.StatusCode != http.StatusForbidden {
		t.Errorf("a provider that there is not: %s", p.Status)
	}
}

// TestDeviceAtAnotherProvider: the other ways to sign in ask too.
func TestDeviceAtAnotherProvider(t *testing.T) {
	r, partner := withPartner(t)
	h := must(r.Hold(purpose, somewhere))(t)
	got := r.wait(h)
	b := r.browser()
	p := b.choose(b.get(r.server.URL+pathHoldLogin+"?id="+h.link), "partner")
	p = b.get(b.answerOf(partner, p).String())
	found := confirmField.FindStringSubmatch(p.text)
	if found == nil {
		t.Fatalf("%s %s", p.Status, p.text)
	}
	if p := b.post(r.server.URL+pathHoldConfirm, answer(found[1], h.Code(), "approve")); p.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", p.Status, p.text)
	}
	if w := r.came(got); w.err != nil || w.who.Issuer != partner.URL {
		t.Errorf("%+v", w)
	}
}

// TestOneProviderIsDown: it stops those who choose it, and nobody else.
func TestOneProviderIsDown(t *testing.T) {
	r, partner := withPartner(t, func(c *company) { c.down = true })
	b := r.browser()
	if p := b.choose(b.get(r.flow().address()), "partner"); p.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("at the one that is down: %s", p.Status)
	}
	r.in(r.company, "staff")
	partner.set(func(c *company) { c.down = false })
	r.company.set(func(c *company) { c.down = true })
	r.advance(3e9) // a failed discovery is remembered for a moment
	r.in(partner, "partner")
}

// TestMixUp: an answer that another provider gave than the one that the sign-in went to is worth nothing (RFC 9700, section 4.4;
// RFC 9207), and its code is sent to nobody.
func TestMixUp(t *testing.T) {
	says := func(c *company) { c.iss = c.URL }
	for name, c := range map[string]struct {
		setup  func(r *rig, partner *company)
		change func(r *rig, partner *company, back *url.URL, q url.Values)
	}{
		"to the other's address": {change: func(_ *rig, _ *company, back *url.URL, _ url.Values) { back.Path = pathCallback }},
		"to nobody's address":    {change: func(_ *rig, _ *company, back *url.URL, _ url.Values) { back.Path = pathCallback + "/nobody" }},
		"the first by its name":  {change: func(_ *rig, _ *company, back *url.URL, _ url.Values) { back.Path = pathCallback + "/staff" }},
		"it says to be another": {change: func(r *rig, _ *company, _ *url.URL, q url.Values) {
			q.Set("iss", r.company.URL)
		}},
		"it says to be another, where it need not say": {
			setup:  func(_ *rig, p *company) { p.set(func(c *company) { c.iss = "" }) },
			change: func(r *rig, _ *company, _ *url.URL, q url.Values) { q.Set("iss", r.company.URL) },
		},
		"it says nothing, where it always does": {change: func(_ *rig, _ *company, _ *url.URL, q url.Values) { q.Del("iss") }},
		"it says to be both":                    {change: func(r *rig, _ *company, _ *url.URL, q url.Values) { q.Add("iss", r.company.URL) }},
		"another provider's error": {change: func(r *rig, _ *company, _ *url.URL, q url.Values) {
			q.Set("iss", r.company.URL)
			q.Del("code")
			q.Set("error", "access_denied")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r, partner := withPartner(t, says)
			if c.setup != nil {
				c.setup(r, partner)
			}
			b := r.browser()
			back := b.answerOf(partner, b.choose(b.get(r.flow().address()), "partner"))
			code := back.Query().Get("code")
			q := back.Query()
			c.change(r, partner, back, q)
			back.RawQuery = q.Encode()
			p := b.get(back.String())
			if to, err := p.Location(); err == nil && to.Query().Get("code") != "" {
				t.Fatalf("it was let in: %s", to)
			}
			if len(r.events("login.succeeded")) != 0 {
				t.Fatal("somebody is signed in")
			}
			partner.mu.Lock()
			_, unspent := partner.codes[code]
			partner.mu.Unlock()
			if !unspent {
				t.Error("the code was sent on")
			}
		})
	}
	// And the right answer is right.
	r, partner := withPartner(t, says)
	r.in(partner, "partner")
}
