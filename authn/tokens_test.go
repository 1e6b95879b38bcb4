package authn

import (
	"errors"
	"net/url"
	"testing"

	"github.com/zitadel/oidc/v3/pkg/op"

	"sallyport/internal/refusal"
)

// TestUsedTwiceAtTheSameTime: a code or a refresh token that two show at the same time, so that both are looked up before either is
// used up, is in two hands as much as one that is shown again later: one of them gets an answer, which is worth nothing afterwards.
func TestUsedTwiceAtTheSameTime(t *testing.T) {
	for name, look := range map[string]func(*rig, *storage) (one, other op.TokenRequest){
		"a code": func(r *rig, st *storage) (op.TokenRequest, op.TokenRequest) {
			code := r.codeOfTheCLI()
			return must(st.AuthRequestByCode(t.Context(), code))(t), must(st.AuthRequestByCode(t.Context(), code))(t)
		},
		"a refresh token": func(r *rig, st *storage) (op.TokenRequest, op.TokenRequest) {
			_, token := r.signedIn("alice")
			return must(st.TokenRequestByRefreshToken(t.Context(), token.RefreshToken))(t), must(st.TokenRequestByRefreshToken(t.Context(), token.RefreshToken))(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			st := &storage{r.Service}
			one, other := look(r, st)
			_, refresh, _, err := st.CreateAccessAndRefreshTokens(t.Context(), one, "")
			if err != nil {
				t.Fatal(err)
			}
			if _, _, _, err := st.CreateAccessAndRefreshTokens(t.Context(), other, ""); err == nil {
				t.Fatal("both got tokens")
			}
			if _, err := r.refresh(t.Context(), refresh); !errors.Is(err, op.ErrInvalidRefreshToken) {
				t.Errorf("what the first got is still good: %v", err)
			}
			ended := r.events("credential.revoked")
			if len(ended) < 2 || ended[0].Reason != name+" was used twice" || ended[0].Actor == "" {
				t.Errorf("%+v", ended)
			}
		})
	}
}

// TestRefreshTokenIsGoodOnce: one that is shown again ends all tokens of its family, the one that its first use gave too.
func TestRefreshTokenIsGoodOnce(t *testing.T) {
	r := newRig(t)
	_, first := r.signedIn("alice")
	use := func(token string) (int, map[string]any) {
		return r.form(pathToken, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {cliClient}})
	}
	status, second := use(first.RefreshToken)
	access, _ := second["access_token"].(string)
	next, _ := second["refresh_token"].(string)
	if status != 200 || access == "" || next == "" {
		t.Fatalf("%d %v", status, second)
	}
	must(r.Bearer(t.Context(), access))(t)
	if status, body := use(first.RefreshToken); status != 400 || body["error"] != "invalid_grant" {
		t.Fatalf("%d %v", status, body)
	}
	for _, token := range []string{first.AccessToken, access} {
		refused(t, err2(r.Bearer(t.Context(), token)), refusal.NotAuthenticated)
	}
	if status, body := use(next); status != 400 {
		t.Errorf("%d %v", status, body)
	}
}
