package authn

import (
	"context"
	"crypto/subtle"
	"errors"
	"strings"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// consoleClient is the issuer's other client: the console, which runs in the gateway itself. It is confidential: its secret
// is made at each start and never leaves the process, so that a code that was caught on its way is worth nothing outside.
const consoleClient = "sallyport-console"

// ConsoleScope is all that the console asks for; in particular no refresh token.
const ConsoleScope = oidc.ScopeOpenID

// pathConsole is where the console takes its codes.
const pathConsole = "/console/callback"

// console is the client consoleClient as op sees it. What it does not say is as for the command line.
type console struct {
	cli
	redirect string
}

func (console) GetID() string                       { return consoleClient }
func (c console) RedirectURIs() []string            { return []string{c.redirect} }
func (console) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }
func (console) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodBasic }
func (console) GrantTypes() []oidc.GrantType        { return []oidc.GrantType{oidc.GrantTypeCode} }

// ConsoleSignIn is the address, below the gateway's URL, that a browser is sent to so that it comes back to the console
// with a code; challenge is PKCE's, of the method S256. Fresh makes the person prove themselves anew.
func (s *Service) ConsoleSignIn(state, challenge string, fresh bool) string {
	prompt := ""
	if fresh {
		prompt = "&prompt=" + oidc.PromptLogin
	}
	return pathAuthorize + "?client_id=" + consoleClient + "&response_type=code&scope=" + ConsoleScope +
		"&redirect_uri=" + s.consoleRedirect() + "&code_challenge_method=S256&code_challenge=" + challenge + "&state=" + state + prompt
}

func (s *Service) consoleRedirect() string {
	return strings.TrimSuffix(s.config.URL, "/") + pathConsole
}

// RedeemConsole gives the access token for a code that came back to the console. It is what Bearer takes. A code that is
// none, was used, or belongs to another client or verifier is refused.
func (s *Service) RedeemConsole(ctx context.Context, code, verifier string) (string, error) {
	if code == "" || len(code) > maxParameter || len(verifier) > maxParameter {
		return "", refuseNot("sign-in's code", errors.New("it has not the length of one"))
	}
	ctx = op.ContextWithIssuer(ctx, s.config.URL)
	request, client, err := op.ValidateAccessTokenRequest(ctx, &oidc.AccessTokenRequest{
		Code: code, RedirectURI: s.consoleRedirect(), ClientID: consoleClient, ClientSecret: s.consoleSecret, CodeVerifier: verifier,
	}, s.issuer)
	if err != nil {
		return "", refuseNot("sign-in's code", err)
	}
	answer, err := op.CreateTokenResponse(ctx, request, client, s.issuer, true, code, "")
	if err != nil {
		return "", refuseNot("sign-in's code", err)
	}
	return answer.AccessToken, nil
}

// EndConsole revokes an access token that RedeemConsole gave; one that is no good any more is no error.
func (s *Service) EndConsole(ctx context.Context, token string) error {
	if len(token) > maxToken {
		return nil
	}
	content, err := s.issuer.Crypto().Decrypt(token)
	if err != nil {
		return nil //nolint:nilerr // it is not ours, so there is nothing to end
	}
	secret, subject, _ := strings.Cut(content, ":")
	if failed := (&storage{s}).RevokeToken(ctx, secret, subject, consoleClient); failed != nil {
		return failed
	}
	return nil
}

// isConsoleSecret compares in constant time.
func (s *Service) isConsoleSecret(secret string) bool {
	return s.consoleSecret != "" && subtle.ConstantTimeCompare([]byte(secret), []byte(s.consoleSecret)) == 1
}
