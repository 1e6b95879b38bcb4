package authn

import (
	"bytes"
	"log/slog"
	"net/url"
	"strings"
	"testing"
)

// What strangers write in requests to the issuer stands in no log that anybody reads by default.
func TestStrangersTextIsNotLogged(t *testing.T) {
	var said bytes.Buffer
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	slog.SetDefault(slog.New(LibraryLog(slog.NewTextHandler(&said, nil))))
	r := newRig(t)
	b := r.browser()
	canary := "canary-of-a-stranger"
	for _, query := range []url.Values{
		{"client_id": {canary}},
		{"client_id": {"sallyport-cli"}, "redirect_uri": {"https://" + canary}},
		{"client_id": {"sallyport-cli"}, "redirect_uri": {"http://127.0.0.1:1/callback"}, "response_type": {canary}, "scope": {"openid"}},
		{"client_id": {"sallyport-cli"}, "redirect_uri": {"http://127.0.0.1:1/callback"}, "response_type": {"code"}, "scope": {canary}, "prompt": {canary}, "max_age": {canary}},
		{"client_id": {"sallyport-cli"}, "request": {canary}},
	} {
		if p := b.get(r.server.URL + "/oauth/authorize?" + query.Encode()); p.StatusCode/100 == 5 {
			t.Errorf("%v: %s", query, p.Status)
		}
	}
	r.form("/oauth/device_authorization", url.Values{"client_id": {PostgresClient}, "scope": {canary}})
	r.form("/oauth/token", url.Values{"grant_type": {canary}, "client_id": {canary}})
	r.form("/oauth/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {"sallyport-cli"}, "code": {canary}})
	r.form("/oauth/revoke", url.Values{"token": {canary}, "client_id": {canary}})
	if strings.Contains(said.String(), canary) {
		t.Errorf("the log has it:\n%s", &said)
	}
}
