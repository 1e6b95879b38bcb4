package authn

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/internal/refusal"
)

var purpose = Purpose{Protocol: "PostgreSQL", Account: "app", Target: "orders", Client: "psql"}

func newHoldRig(t *testing.T) *rig {
	return newRig(t, func(c *configs.Config) { c.Credentials.SSHKey = configs.Duration(time.Hour) })
}

// waited is what came of a connection's wait.
type waited struct {
	who Identity
	err error
}

// wait waits in the background.
func (r *rig) wait(h *Hold) <-chan waited {
	got := make(chan waited, 1)
	go func() {
		who, err := h.Wait(context.WithoutCancel(r.t.Context()))
		got <- waited{who, err}
	}()
	return got
}

// came is what came of it, or ends the test.
func (r *rig) came(got <-chan waited) waited {
	r.t.Helper()
	select {
	case w := <-got:
		return w
	case <-time.After(time.Minute):
		r.t.Fatal("the connection waits on")
		return waited{}
	}
}

// confirming goes with a browser from a wait's link to the form that asks for the code.
func (b *browser) confirming(h *Hold, person string) (page, string) {
	b.r.t.Helper()
	p := b.get(h.Link())
	at := strings.Index(p.text, `href="/oauth/wait/login`)
	if at < 0 {
		b.r.t.Fatalf("%s: %s", p.Status, p.text)
	}
	link, _, _ := strings.Cut(p.text[at+len(`href="`):], `"`)
	p = b.fill(b.get(b.r.server.URL+link), person)
	found := confirmField.FindStringSubmatch(p.text)
	if found == nil {
		b.r.t.Fatalf("no confirmation at %s: %s\n%s", p.Request.URL, p.Status, p.text)
	}
	return p, found[1]
}

func answer(token, code, decision string) url.Values {
	return url.Values{"confirm": {token}, "code": {code}, "decision": {decision}}
}

func TestHeldConnectionGetsItsPerson(t *testing.T) {
	r := newHoldRig(t)
	h := must(r.Hold(purpose, somewhere))(t)
	got := r.wait(h)
	b := r.browser()
	p, token := b.confirming(h, "alice")
	for _, want := range []string{"Alice Engineer", "app@orders", "PostgreSQL", "192.0.2.7", "psql", "127.0.0.1"} {
		if !strings.Contains(p.text, want) {
			t.Errorf("the page does not show %q:\n%s", want, p.text)
		}
	}
	if strings.Contains(p.text, h.Code()) || strings.Contains(h.Link(), h.Code()) {
		t.Fatal("the code that only the terminal shows stands on the page, or in the link")
	}
	if len(r.events("login.succeeded")) != 0 {
		t.Fatal("signed in before the code was typed")
	}
	typed := strings.ToLower(strings.ReplaceAll(h.Code(), "-", " "))
	if p := b.post(r.server.URL+pathHoldConfirm, answer(token, typed, "approve")); p.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", p.Status, p.text)
	}
	w := r.came(got)
	if w.err != nil || w.who.Subject != "alice" || w.who.Method != promptSignIn || w.who.Credential == "" || w.who.Expires.IsZero() {
		t.Fatalf("%+v", w)
	}
	if e := r.events("login.succeeded"); len(e) != 1 || e[0].Fields["client"] != "192.0.2.7" || e[0].Fields["for"] != "app@orders" || e[0].Client != "127.0.0.1" {
		t.Fatalf("%+v", e)
	}
	// Once: neither the link nor the form is good again.
	if p := b.get(h.Link()); p.StatusCode != http.StatusNotFound {
		t.Fatalf("the link again: %s", p.Status)
	}
	if p := b.post(r.server.URL+pathHoldConfirm, answer(token, h.Code(), "approve")); p.StatusCode != http.StatusForbidden {
		t.Fatalf("the form again: %s", p.Status)
	}
}

// Whoever sends somebody a link can't know what the code's guesses are worth: three, and the wait is over.
func TestHeldConnectionsCodeCantBeGuessed(t *testing.T) {
	r := newHoldRig(t)
	h := must(r.Hold(purpose, somewhere))(t)
	got := r.wait(h)
	b := r.browser()
	p, _ := b.confirming(h, "alice")
	for try := 1; try <= maxCodeTries; try++ {
		token := confirmField.FindStringSubmatch(p.text)
		if token == nil {
			t.Fatalf("try %d: %s", try, p.text)
		}
		p = b.post(r.server.URL+pathHoldConfirm, answer(token[1], "BBB-BBB", "approve"))
	}
	if w := r.came(got); !refusal.Is(w.err, refusal.NotAuthenticated) {
		t.Fatalf("%+v", w)
	}
	if len(r.events("login.succeeded")) != 0 || len(r.events("login.refused")) != 1 {
		t.Fatal("not as events")
	}
}

func TestHeldConnectionIsDenied(t *testing.T) {
	r := newHoldRig(t)
	h := must(r.Hold(purpose, somewhere))(t)
	got := r.wait(h)
	b := r.browser()
	_, token := b.confirming(h, "alice")
	if p := b.post(r.server.URL+pathHoldConfirm, answer(token, "", "deny")); p.StatusCode != http.StatusOK || !strings.Contains(p.text, "Not signed in") {
		t.Fatalf("%s %s", p.Status, p.text)
	}
	if w := r.came(got); !refusal.Is(w.err, refusal.NotAuthenticated) {
		t.Fatalf("%+v", w)
	}
	if e := r.events("login.refused"); len(e) != 1 || e[0].Actor != r.company.URL+" alice" {
		t.Fatalf("%+v", e)
	}
}

// A confirmation is good once, in the browser in which the person signed in, for the wait it was shown for; what was made
// for another step is none.
func TestHeldConnectionsConfirmationIsTheirs(t *testing.T) {
	r := newHoldRig(t)
	h := must(r.Hold(purpose, somewhere))(t)
	got := r.wait(h)
	b, thief := r.browser(), r.browser()
	_, token := b.confirming(h, "alice")
	thief.get(r.flow().address()) // has a cookie of its own
	confirm := r.server.URL + pathHoldConfirm
	f := r.flow()
	device := must(f.config.DeviceAuth(r.oauthContext()))(t)
	_, forDevice := b.confirmation(device.VerificationURIComplete, "alice")
	for name, p := range map[string]page{
		"another browser":        thief.post(confirm, answer(token, h.Code(), "approve")),
		"no cookie":              r.browser().post(confirm, answer(token, h.Code(), "approve")),
		"no secret":              b.post(confirm, answer("", h.Code(), "approve")),
		"by link":                b.get(confirm + "?" + answer(token, h.Code(), "approve").Encode()),
		"in the address":         b.post(confirm+"?"+answer(token, h.Code(), "approve").Encode(), nil),
		"the link as the secret": b.post(confirm, answer(strings.Split(h.Link(), "id=")[1], h.Code(), "approve")),
		"a device's secret":      b.post(confirm, answer(forDevice, h.Code(), "approve")),
		"as a state":             b.get(r.server.URL + "/oauth/callback?code=x&state=" + token),
	} {
		if p.StatusCode/100 != 4 {
			t.Errorf("%s: %s %s", name, p.Status, p.text)
		}
	}
	if p := b.post(r.server.URL+"/oauth/device/confirm", answer(token, "", "approve")); p.StatusCode != http.StatusForbidden {
		t.Errorf("a wait's secret approved a device: %s", p.Status)
	}
	if len(r.events("login.succeeded")) != 0 {
		t.Fatal("somebody was signed in")
	}
	select {
	case w := <-got:
		t.Fatalf("it ended: %+v", w)
	default:
	}
	if p := b.post(confirm, answer(token, h.Code(), "approve")); p.StatusCode/100 != 4 {
		t.Fatalf("after all that, the secret was used up by its presentation to another form: %s", p.Status)
	}
	_, token = b.confirming(h, "alice")
	if p := b.post(confirm, answer(token, h.Code(), "approve")); p.StatusCode != http.StatusOK {
		t.Fatalf("the real one: %s %s", p.Status, p.text)
	}
	if w := r.came(got); w.err != nil {
		t.Fatal(w.err)
	}
}

// The link is dead when the connection is gone, so that nobody can keep one for a better moment.
func TestHeldConnectionThatLeaves(t *testing.T) {
	r := newHoldRig(t)
	h := must(r.Hold(purpose, somewhere))(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client hung up")
	b := r.browser()
	_, token := b.confirming(h, "alice")
	cancel(gone)
	if _, err := h.Wait(ctx); !errors.Is(err, gone) {
		t.Fatal(err)
	}
	if p := b.post(r.server.URL+pathHoldConfirm, answer(token, h.Code(), "approve")); p.StatusCode != http.StatusForbidden {
		t.Fatalf("%s %s", p.Status, p.text)
	}
	if p := b.get(h.Link()); p.StatusCode != http.StatusNotFound {
		t.Fatal(p.Status)
	}
	if len(r.events("login.succeeded")) != 0 || len(r.waits.byID)+len(r.waits.source)+len(r.waits.byKey) != 0 {
		t.Fatal("something is left of it")
	}
}

// TestJoiningAWaitThatIsLeft: who comes with the same key just while the last one leaves is not told that the connection which waited
// is gone, but waits.
func TestJoiningAWaitThatIsLeft(t *testing.T) {
	r := newHoldRig(t)
	with := purpose
	with.Key = newKey(t)
	first := must(r.Hold(with, somewhere))(t)
	first.mu.Lock()
	first.waiters-- // as leave does, before it ends the wait
	first.mu.Unlock()
	second := must(r.Hold(with, somewhere))(t)
	first.finish(Identity{}, errors.New("gone"))
	if first.held == second.held {
		t.Fatal("it joined what was about to end")
	}
	got := r.wait(second)
	b := r.browser()
	_, confirm := b.confirming(second, "alice")
	r.post(b, confirm, second)
	if came := r.came(got); came.err != nil {
		t.Fatal(came.err)
	}
	if r.waits.byKey[keyOf(with.Key, sourceOf(somewhere))] != nil {
		t.Error("the key still leads to a wait")
	}
	r.waits.exit(first.source)
}

func TestHoldsAreBounded(t *testing.T) {
	r := newHoldRig(t)
	var all []*Hold
	for range maxSourceHolds {
		all = append(all, must(r.Hold(purpose, somewhere))(t))
	}
	refused(t, err2(r.Hold(purpose, somewhere)), refusal.TooMany)
	other := must(r.Hold(purpose, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 8)}))(t) // others still may
	all[0].leave()
	all = append(all[1:], must(r.Hold(purpose, somewhere))(t), other)
	for i := 9; len(all) < maxHolds; i++ {
		all = append(all, must(r.Hold(purpose, &net.TCPAddr{IP: net.IPv4(198, 51, 100, byte(i))}))(t))
	}
	refused(t, err2(r.Hold(purpose, &net.TCPAddr{IP: net.IPv4(203, 0, 113, 1)})), refusal.TooMany)
	for _, h := range all {
		h.leave()
	}
	if len(r.waits.byID)+len(r.waits.source) != 0 {
		t.Fatal("something is left")
	}
}

// Connections that wait together take no more room than others: with one key of its own a stranger would otherwise fill the
// gateway with connections that have proven nothing.
func TestConnectionsThatWaitTogetherAreBounded(t *testing.T) {
	r := newHoldRig(t)
	var all []*Hold
	enter := func(from net.Addr) error {
		for {
			key := newKey(t)
			for range maxWaiters {
				h, err := r.Hold(Purpose{Protocol: "SSH", Account: "deploy", Target: "web-1", Key: key}, from)
				if err != nil {
					return err
				}
				if all = append(all, h); len(all) > 2*maxHeld {
					return nil
				}
			}
		}
	}
	refused(t, enter(somewhere), refusal.TooMany)
	if len(all) != maxSourceHeld {
		t.Errorf("%d connections of one source wait", len(all))
	}
	for i := 9; i < 30; i++ {
		refused(t, enter(&net.TCPAddr{IP: net.IPv4(198, 51, 100, byte(i))}), refusal.TooMany)
	}
	if len(all) != maxHeld {
		t.Errorf("%d connections wait", len(all))
	}
	for _, h := range all {
		h.leave()
	}
	if r.waits.held+len(r.waits.heldOf)+len(r.waits.byID)+len(r.waits.source)+len(r.waits.byKey) != 0 {
		t.Fatal("something is left")
	}
}

// A wait is one person's: who types the right code later, or as one try too many, is not signed in, and the key is not theirs.
func TestHeldConnectionIsOnePersons(t *testing.T) {
	r := newHoldRig(t)
	key := newKey(t)
	h := must(r.Hold(Purpose{Protocol: "SSH", Account: "deploy", Target: "web-1", Key: key}, somewhere))(t)
	got := r.wait(h)
	mallory, alice := r.browser(), r.browser()
	_, first := mallory.confirming(h, "bob")
	_, second := alice.confirming(h, "alice")
	if !h.take() { // alice's answer, on its way
		t.Fatal("it was taken before")
	}
	if p := mallory.post(r.server.URL+pathHoldConfirm, answer(first, h.Code(), "approve")); p.StatusCode != http.StatusForbidden {
		t.Errorf("%s %s", p.Status, p.text)
	}
	if _, err := r.UserKey(t.Context(), key, somewhere); !errors.Is(err, ErrUnboundKey) || len(r.events("login.succeeded")) != 0 {
		t.Errorf("the key came to stand for somebody else: %v", err)
	}
	h.taken = false
	for range maxCodeTries { // at the same time: none has been answered
		h.mu.Lock()
		h.tries++
		h.mu.Unlock()
	}
	if p := alice.post(r.server.URL+pathHoldConfirm, answer(second, h.Code(), "approve")); p.StatusCode != http.StatusOK || !strings.Contains(p.text, "Not signed in") {
		t.Errorf("%s %s", p.Status, p.text)
	}
	if w := r.came(got); !refusal.Is(w.err, refusal.NotAuthenticated) {
		t.Errorf("%+v", w)
	}
}

func newKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return must(ssh.NewPublicKey(public))(t)
}

// A key stands for the person who signed in while it waited: from that source, for a time, until it is taken away.
func TestKeyStandsForItsPerson(t *testing.T) {
	r := newHoldRig(t)
	key := newKey(t)
	if _, err := r.UserKey(t.Context(), key, somewhere); !errors.Is(err, ErrUnboundKey) {
		t.Fatal(err)
	}
	forKey := Purpose{Protocol: "SSH", Account: "deploy", Target: "web-1", Key: key}
	first := must(r.Hold(forKey, somewhere))(t)
	second := must(r.Hold(forKey, somewhere))(t) // ten forks of one program are one sign-in
	if first.Link() != second.Link() || first.Code() != second.Code() {
		t.Fatal("two links for one key")
	}
	if elsewhere := must(r.Hold(forKey, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 8)}))(t); elsewhere.Link() == first.Link() {
		t.Fatal("one link for two sources")
	} else {
		elsewhere.leave()
	}
	a, b := r.wait(first), r.wait(second)
	browser := r.browser()
	p, token := browser.confirming(first, "alice")
	if !strings.Contains(p.text, strings.ReplaceAll(ssh.FingerprintSHA256(key), "+", "&#43;")) || !strings.Contains(p.text, "1h") {
		t.Fatalf("the page does not say which key, and for how long:\n%s", p.text)
	}
	browser.post(r.server.URL+pathHoldConfirm, answer(token, first.Code(), "approve"))
	for _, w := range []waited{r.came(a), r.came(b)} {
		if w.err != nil || w.who.Subject != "alice" || w.who.Method != sshKey {
			t.Fatalf("%+v", w)
		}
	}
	who := must(r.UserKey(t.Context(), key, somewhere))(t)
	if who.Subject != "alice" || who.Method != sshKey || time.Until(who.Expires) > time.Hour {
		t.Fatalf("%+v", who)
	}
	if _, err := r.UserKey(t.Context(), key, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 8)}); !errors.Is(err, ErrUnboundKey) {
		t.Fatalf("from elsewhere: %v", err)
	}
	if _, err := r.UserKey(t.Context(), newKey(t), somewhere); !errors.Is(err, ErrUnboundKey) {
		t.Fatalf("another key: %v", err)
	}
	list := must(r.Keys(t.Context(), who))(t)
	if len(list) != 1 || list[0].ID != who.Credential || list[0].Fingerprint != ssh.FingerprintSHA256(key) || list[0].Source != "192.0.2.7" {
		t.Fatalf("%+v", list)
	}
	bob := Identity{Issuer: r.company.URL, Subject: "bob"}
	refused(t, r.RevokeCredential(t.Context(), bob, who.Credential), refusal.NotFound)
	if err := r.RevokeCredential(t.Context(), who, who.Credential); err != nil {
		t.Fatal(err)
	}
	if _, err := r.UserKey(t.Context(), key, somewhere); !errors.Is(err, ErrUnboundKey) {
		t.Fatalf("revoked: %v", err)
	}
	if list := must(r.Keys(t.Context(), who))(t); len(list) != 0 {
		t.Fatalf("%+v", list)
	}

	again := func() {
		t.Helper()
		h := must(r.Hold(forKey, somewhere))(t)
		got := r.wait(h)
		_, token := browser.confirming(h, "alice")
		browser.post(r.server.URL+pathHoldConfirm, answer(token, h.Code(), "approve"))
		if w := r.came(got); w.err != nil {
			t.Fatal(w.err)
		}
	}
	again()
	if err := r.Revoke(t.Context(), who); err != nil { // logout
		t.Fatal(err)
	}
	if _, err := r.UserKey(t.Context(), key, somewhere); !errors.Is(err, ErrUnboundKey) {
		t.Fatalf("after logout: %v", err)
	}
	again()
	r.advance(time.Hour)
	if _, err := r.UserKey(t.Context(), key, somewhere); !errors.Is(err, ErrUnboundKey) {
		t.Fatalf("after its time: %v", err)
	}
	r.advance(-time.Hour) // the provider's clock stands still in this test
	again()
	if err := r.Disable(t.Context(), who.Key()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.UserKey(t.Context(), key, somewhere); err == nil {
		t.Fatal("a disabled person's key is good")
	}
	h := must(r.Hold(forKey, somewhere))(t)
	got := r.wait(h)
	_, token = browser.confirming(h, "alice")
	browser.post(r.server.URL+pathHoldConfirm, answer(token, h.Code(), "approve"))
	if w := r.came(got); !refusal.Is(w.err, refusal.IdentityDisabled) {
		t.Fatalf("%+v", w)
	}
}
