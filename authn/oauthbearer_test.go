package authn

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"sallyport/internal/refusal"
)

// purposeToken is a token that psql got for alice.
func (r *rig) purposeToken(scope string) string {
	r.t.Helper()
	status, device := r.form("/oauth/device_authorization", url.Values{"client_id": {PostgresClient}, "scope": {scope}})
	if status != http.StatusOK {
		r.t.Fatalf("%d %v", status, device)
	}
	b := r.browser()
	p, token := b.confirmation(r.server.URL+"/oauth/device?user_code="+device["user_code"].(string), "alice")
	if !strings.Contains(p.text, strings.TrimPrefix(scope, "pg:")) {
		r.t.Fatalf("the confirmation does not say what for:\n%s", p.text)
	}
	b.post(r.server.URL+"/oauth/device/confirm", url.Values{"confirm": {token}, "decision": {"approve"}})
	status, got := r.form("/oauth/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {PostgresClient}, "device_code": {device["device_code"].(string)}})
	if status != http.StatusOK || got["refresh_token"] != nil || got["id_token"] != nil || got["expires_in"].(float64) > purposeLife.Seconds() {
		r.t.Fatalf("%d %v", status, got)
	}
	return got["access_token"].(string)
}

func TestPurposeTokenIsForOnePurposeOnce(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	token := r.purposeToken("pg:app@orders")
	refused(t, err2(r.Bearer(ctx, token)), refusal.NotAuthenticated) // it opens no API
	if status, body := r.form("/oauth/revoke", url.Values{"client_id": {"sallyport-cli"}, "token": {token}}); status/100 == 5 {
		t.Fatal(body)
	}
	refused(t, err2(r.PurposeToken(ctx, token, "app", "payments")), refusal.NotPermitted)
	refused(t, err2(r.PurposeToken(ctx, token, "postgres", "orders")), refusal.NotPermitted)
	who := must(r.PurposeToken(ctx, token, "app", "orders"))(t)
	if who.Subject != "alice" || who.Method != oauthToken || who.Credential == "" {
		t.Fatalf("%+v", who)
	}
	refused(t, err2(r.PurposeToken(ctx, token, "app", "orders")), refusal.NotAuthenticated)

	token = r.purposeToken("pg:app@orders")
	var all sync.WaitGroup
	taken := make(chan bool, 8)
	for range cap(taken) {
		all.Go(func() { taken <- err2(r.PurposeToken(ctx, token, "app", "orders")) == nil })
	}
	all.Wait()
	n := 0
	for range cap(taken) {
		if <-taken {
			n++
		}
	}
	if n != 1 {
		t.Fatalf("of %d at once, %d got in", cap(taken), n)
	}

	token = r.purposeToken("pg:app@orders")
	if err := r.Disable(ctx, who.Key()); err != nil {
		t.Fatal(err)
	}
	refused(t, err2(r.PurposeToken(ctx, token, "app", "orders")), refusal.IdentityDisabled)
	if err := r.Enable(ctx, who.Key()); err != nil {
		t.Fatal(err)
	}
	late := r.purposeToken("pg:app@orders")
	r.advance(purposeLife)
	refused(t, err2(r.PurposeToken(ctx, late, "app", "orders")), refusal.CredentialExpired)
}

func TestPurposeTokenIsPsqlsOnly(t *testing.T) {
	foreign := newRig(t).purposeToken("pg:app@orders")
	r := newRig(t)
	_, token := r.signedIn("alice")
	for name, bad := range map[string]string{
		"the command line's": token.AccessToken, "refresh": token.RefreshToken, "empty": "", "garbage": "a.b.c", "long": strings.Repeat("a", maxToken+1),
		"another gateway's": foreign,
	} {
		if _, err := r.PurposeToken(t.Context(), bad, "app", "orders"); !refusal.Is(err, refusal.NotAuthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, scope := range []string{"", "openid", "pg:", "pg:app", "pg:app@orders openid", "pg:app@orders pg:app@payments", "pg:a b@orders", "pg:app@<b>", "pg:app@" + strings.Repeat("a", 100)} {
		if status, body := r.form("/oauth/device_authorization", url.Values{"client_id": {PostgresClient}, "scope": {scope}}); status != http.StatusBadRequest || body["error"] != "invalid_scope" {
			t.Errorf("scope %q: %d %v", scope, status, body)
		}
	}
	// The command line's client gets none for a purpose, and psql's client no code.
	status, device := r.form("/oauth/device_authorization", url.Values{"client_id": {"sallyport-cli"}, "scope": {"pg:app@orders openid"}})
	if status != http.StatusOK {
		t.Fatal(device)
	}
	if p := r.browser().get(r.server.URL + "/oauth/device?user_code=" + device["user_code"].(string)); strings.Contains(p.text, "app@orders") {
		t.Errorf("a scope of another client counts:\n%s", p.text)
	}
	f := r.flow()
	f.config.ClientID = PostgresClient
	if p := r.browser().get(f.address()); p.StatusCode != http.StatusBadRequest {
		t.Errorf("psql's client was sent to %s: %s", p.Request.URL, p.Status)
	}
	// What a device of one client was approved for is not another's.
	_, device = r.form("/oauth/device_authorization", url.Values{"client_id": {PostgresClient}, "scope": {"pg:app@orders"}})
	b := r.browser()
	_, confirm := b.confirmation(r.server.URL+"/oauth/device?user_code="+device["user_code"].(string), "alice")
	b.post(r.server.URL+"/oauth/device/confirm", url.Values{"confirm": {confirm}, "decision": {"approve"}})
	if status, body := r.poll(device["device_code"].(string)); status != http.StatusBadRequest {
		t.Fatalf("the command line took psql's: %d %v", status, body)
	}
}

func TestMetadataUnderBothNames(t *testing.T) {
	r := newRig(t)
	a, b := r.browser().get(r.server.URL+pathDiscovery), r.browser().get(r.server.URL+pathMetadata)
	if a.text != b.text || !strings.Contains(a.text, `"device_authorization_endpoint"`) || len(a.text) > 256<<10 {
		t.Fatalf("%s\n%s", a.text, b.text)
	}
}
