package authn

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

var confirmField = regexp.MustCompile(`name="confirm" value="([^"]+)"`)

// poll asks for a device's token once.
func (r *rig) poll(code string) (int, map[string]any) {
	return r.form("/oauth/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {"sallyport-cli"}, "device_code": {code}})
}

// confirmation goes with a browser from the device's page to the form that asks for confirmation, and returns its secret.
func (b *browser) confirmation(address, person string) (page, string) {
	b.r.t.Helper()
	p := b.get(address)
	link := regexp.MustCompile(`href="(/oauth/device/login[^"]+)"`).FindStringSubmatch(p.text)
	if link == nil {
		b.r.t.Fatalf("%s: %s", p.Status, p.text)
	}
	p = b.fill(b.get(b.r.server.URL+link[1]), person)
	found := confirmField.FindStringSubmatch(p.text)
	if found == nil {
		b.r.t.Fatalf("no confirmation at %s: %s\n%s", p.Request.URL, p.Status, p.text)
	}
	return p, found[1]
}

func TestDeviceSignsIn(t *testing.T) {
	r := newRig(t)
	f := r.flow()
	device := must(f.config.DeviceAuth(r.oauthContext()))(t)
	if device.VerificationURI != r.server.URL+"/oauth/device" || device.Interval != int64(devicePoll/time.Second) {
		t.Fatalf("%+v", device)
	}
	b := r.browser()
	// Typed by hand, as people do.
	p, token := b.confirmation(device.VerificationURI+"?user_code="+strings.ToLower(strings.ReplaceAll(device.UserCode, "-", "")), "alice")
	for _, want := range []string{"Alice Engineer", "alice@example.com", device.UserCode, "127.0.0.1", "Go-http-client"} {
		if !strings.Contains(p.text, want) {
			t.Errorf("the confirmation does not show %q:\n%s", want, p.text)
		}
	}
	if status, body := r.poll(device.DeviceCode); status != http.StatusBadRequest || body["error"] != "authorization_pending" {
		t.Fatalf("before the confirmation: %d %v", status, body)
	}
	if len(r.events("login.succeeded")) != 0 {
		t.Fatal("signed in before the confirmation")
	}
	if p := b.post(r.server.URL+"/oauth/device/confirm", url.Values{"confirm": {token}, "decision": {"approve"}}); p.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", p.Status, p.text)
	}
	status, body := r.poll(device.DeviceCode)
	access, _ := body["access_token"].(string)
	if status != http.StatusOK || body["refresh_token"] == nil {
		t.Fatalf("%d %v", status, body)
	}
	if who := must(r.Bearer(t.Context(), access))(t); who.Subject != "alice" {
		t.Fatalf("%+v", who)
	}
	if status, body := r.poll(device.DeviceCode); status != http.StatusBadRequest || body["error"] == "authorization_pending" {
		t.Fatalf("a second time: %d %v", status, body)
	}
	if e := r.events("login.device"); len(e) != 1 || e[0].Fields["device"] != "127.0.0.1" {
		t.Fatalf("%+v", e)
	}
}

// The stock client library waits until the person has said yes.
func TestDeviceWaits(t *testing.T) {
	r := newRig(t)
	f := r.flow()
	device := must(f.config.DeviceAuth(r.oauthContext()))(t)
	got := make(chan error, 1)
	go func() {
		_, err := f.config.DeviceAccessToken(r.oauthContext(), device)
		got <- err
	}()
	b := r.browser()
	_, token := b.confirmation(device.VerificationURIComplete, "alice")
	b.post(r.server.URL+"/oauth/device/confirm", url.Values{"confirm": {token}, "decision": {"approve"}})
	select {
	case err := <-got:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("no token")
	}
}

func TestDeviceDenied(t *testing.T) {
	r := newRig(t)
	f := r.flow()
	device := must(f.config.DeviceAuth(r.oauthContext()))(t)
	b := r.browser()
	_, token := b.confirmation(device.VerificationURIComplete, "alice")
	b.post(r.server.URL+"/oauth/device/confirm", url.Values{"confirm": {token}, "decision": {"deny"}})
	if status, body := r.poll(device.DeviceCode); status != http.StatusBadRequest || body["error"] != "access_denied" {
		t.Fatalf("%d %v", status, body)
	}
	if len(r.events("login.succeeded")) != 0 || len(r.events("login.refused")) != 1 {
		t.Fatal("not as events")
	}
	if p := b.get(device.VerificationURIComplete); p.StatusCode != http.StatusNotFound {
		t.Fatalf("the code can be tried again: %s", p.Status)
	}
}

// A confirmation is good once, in the browser in which the person signed in, with the secret from the form; and no
// request that another site can make is one.
func TestDeviceConfirmationIsTheirs(t *testing.T) {
	r := newRig(t)
	f := r.flow()
	device := must(f.config.DeviceAuth(r.oauthContext()))(t)
	b, thief := r.browser(), r.browser()
	_, token := b.confirmation(device.VerificationURIComplete, "alice")
	thief.get(f.address()) // has a cookie of its own
	confirm := r.server.URL + "/oauth/device/confirm"
	yes := func(token string) url.Values { return url.Values{"confirm": {token}, "decision": {"approve"}} }
	for name, p := range map[string]page{
		"another browser": thief.post(confirm, yes(token)),
		"no cookie":       r.browser().post(confirm, yes(token)),
		"no secret":       b.post(confirm, yes("")),
		"another secret":  b.post(confirm, yes(token+"A")),
		"by link":         b.get(confirm + "?" + yes(token).Encode()),
		"in the address":  b.post(confirm+"?"+yes(token).Encode(), nil),
		"as a state":      b.get(r.server.URL + "/oauth/callback?code=x&state=" + token),
	} {
		if p.StatusCode/100 != 4 {
			t.Errorf("%s: %s %s", name, p.Status, p.text)
		}
	}
	if status, body := r.poll(device.DeviceCode); status != http.StatusBadRequest || body["error"] != "authorization_pending" {
		t.Fatalf("%d %v", status, body)
	}
	if p := b.post(confirm, yes(token)); p.StatusCode != http.StatusOK {
		t.Fatalf("the real one: %s %s", p.Status, p.text)
	}
	if p := b.post(confirm, yes(token)); p.StatusCode != http.StatusForbidden {
		t.Fatalf("twice: %s", p.Status)
	}
}

func TestDeviceCodesAreBounded(t *testing.T) {
	r := newRig(t)
	f := r.flow()
	device := must(f.config.DeviceAuth(r.oauthContext()))(t)
	r.poll(device.DeviceCode)
	if status, body := r.poll(device.DeviceCode); status != http.StatusBadRequest || body["error"] != "slow_down" {
		t.Fatalf("polling at once: %d %v", status, body)
	}
	if status, body := r.poll("unknown"); status != http.StatusBadRequest || body["error"] != "access_denied" {
		t.Fatalf("unknown code: %d %v", status, body)
	}
	if status, _ := r.form("/oauth/device_authorization", url.Values{"client_id": {"other"}}); status/100 != 4 {
		t.Fatalf("another client: %d", status)
	}
	b := r.browser()
	_, token := b.confirmation(device.VerificationURIComplete, "alice")
	r.advance(deviceLife + time.Second)
	if p := b.post(r.server.URL+"/oauth/device/confirm", url.Values{"confirm": {token}, "decision": {"approve"}}); p.StatusCode != http.StatusForbidden {
		t.Fatalf("confirmed after its end: %s", p.Status)
	}
	if len(r.events("login.succeeded")) != 0 {
		t.Fatal("signed in after the end")
	}
	if err := r.purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.advance(2 * time.Minute)
	if err := r.purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"devices", "trips"} {
		var n int
		if err := r.store.Read().QueryRow(`SELECT count(*) FROM ` + table).Scan(&n); err != nil || n != 0 {
			t.Fatalf("%d rows left in %s, %v", n, table, err)
		}
	}
	for typed, want := range map[string]string{"bcdf-ghjk": "BCDF-GHJK", " bcdfghjk ": "BCDF-GHJK", "bcd": "", "BCDFGHJKL": "", strings.Repeat("b", 100): "", "AEIOU": ""} {
		if got := userCode(typed); got != want {
			t.Errorf("%q read as %q", typed, got)
		}
	}
}

func TestRefreshTokensRotate(t *testing.T) {
	r := newRig(t)
	f, first := r.signedIn("alice")
	renew := func(token string) (*oauth2.Token, error) {
		return f.config.TokenSource(r.oauthContext(), &oauth2.Token{RefreshToken: token}).Token()
	}
	second := must(renew(first.RefreshToken))(t)
	if second.RefreshToken == first.RefreshToken || second.RefreshToken == "" || second.AccessToken == first.AccessToken {
		t.Fatal("nothing new")
	}
	before := must(r.Bearer(t.Context(), first.AccessToken))(t)
	after := must(r.Bearer(t.Context(), second.AccessToken))(t)
	if !after.Expires.Equal(before.Expires) {
		t.Fatalf("refreshing moved the end of the sign-in from %s to %s", before.Expires, after.Expires)
	}
	if _, err := renew(first.RefreshToken); err == nil {
		t.Fatal("a refresh token was good twice")
	}
	// It is in two hands, so all of the family ends.
	if _, err := renew(second.RefreshToken); err == nil {
		t.Fatal("the family lives on")
	}
	for _, token := range []string{first.AccessToken, second.AccessToken} {
		if _, err := r.Bearer(t.Context(), token); err == nil {
			t.Fatal("the family lives on")
		}
	}
}

func TestTokensEndWithTheSignIn(t *testing.T) {
	r := newRig(t)
	f, token := r.signedIn("alice")
	r.advance(12 * time.Hour)
	refused(t, err2(r.Bearer(t.Context(), token.AccessToken)), "credential_expired")
	if _, err := f.config.TokenSource(r.oauthContext(), &oauth2.Token{RefreshToken: token.RefreshToken}).Token(); err == nil {
		t.Fatal("refreshed beyond the sign-in")
	}
}

func TestRevocation(t *testing.T) {
	r := newRig(t)
	_, token := r.signedIn("alice")
	who := must(r.Bearer(t.Context(), token.AccessToken))(t)
	revoke := func(token string) {
		t.Helper()
		if status, body := r.form("/oauth/revoke", url.Values{"client_id": {"sallyport-cli"}, "token": {token}}); status != http.StatusOK {
			t.Fatalf("%d %v", status, body)
		}
	}
	revoke("unknown")
	revoke(who.Credential) // its public id is no proof
	must(r.Bearer(t.Context(), token.AccessToken))(t)
	revoke(token.AccessToken)
	refused(t, err2(r.Bearer(t.Context(), token.AccessToken)), "not_authenticated")

	_, token = r.signedIn("alice")
	revoke(token.RefreshToken)
	refused(t, err2(r.Bearer(t.Context(), token.AccessToken)), "not_authenticated")
	if len(r.events("credential.revoked")) != 3 {
		t.Fatalf("%+v", r.events("credential.revoked"))
	}
}

func TestBearerRefusesWhatIsNoToken(t *testing.T) {
	r := newRig(t)
	_, token := r.signedIn("alice")
	foreign := newRig(t)
	_, other := foreign.signedIn("alice")
	raw, _ := token.Extra("id_token").(string)
	forged := must(r.issuer.Crypto().Encrypt("guess:" + identityID(r.company.URL, "alice")))(t)
	for name, bad := range map[string]string{
		"empty": "", "long": strings.Repeat("a", maxToken+1), "garbage": "a.b.c.d.e", "refresh": token.RefreshToken, "ID token": raw,
		"another gateway's": other.AccessToken, "cut": token.AccessToken[:len(token.AccessToken)-2], "unknown": forged,
	} {
		if _, err := r.Bearer(t.Context(), bad); err == nil {
			t.Errorf("%s: taken", name)
		} else {
			refused(t, err, "not_authenticated")
		}
	}
}
