package authn

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"sallyport/authn/federation"
	"sallyport/authn/pages"
	"sallyport/authn/scim"
	"sallyport/internal/refusal"
)

// cliClient is the gateway's issuer's client on the outside: the command line, on the user's machine or a device. It is
// public: what proves it is PKCE and the loopback redirect. The other one is consoleClient.
const cliClient = "sallyport-cli"

// The issuer's addresses, below the gateway's URL.
const (
	pathDiscovery     = "/.well-known/openid-configuration"
	pathMetadata      = "/.well-known/oauth-authorization-server" // RFC 8414's name for the same
	pathAuthorize     = "/oauth/authorize"
	pathAuthorized    = pathAuthorize + "/callback" // op appends it
	pathLogin         = "/oauth/login"
	pathLoginGo       = pathLogin + "/go" // after the person has said that they began it
	pathCallback      = "/oauth/callback" // registered at the company's provider; with /NAME at those of config.Providers
	pathToken         = "/oauth/token"
	pathKeys          = "/oauth/keys"
	pathUserinfo      = "/oauth/userinfo"
	pathRevoke        = "/oauth/revoke"
	pathDeviceRequest = "/oauth/device_authorization"
	pathDevice        = "/oauth/device"
	pathDeviceLogin   = "/oauth/device/login"
	pathDeviceConfirm = "/oauth/device/confirm"
	pathHold          = "/oauth/wait" // of connections
	pathHoldLogin     = "/oauth/wait/login"
	pathHoldConfirm   = "/oauth/wait/confirm"
	pathLogout        = "/oauth/backchannel-logout" // likewise
	pathKey           = "/oauth/key"                // where a browser's answer with an enrolled key comes to
	pathKeyScript     = pathKey + ".js"
)

// How long the steps of a sign-in may take.
const (
	authRequestLife = 15 * time.Minute // from the client's request to the code
	codeLife        = time.Minute
	tripLife        = 10 * time.Minute // to the company's provider and back
	deviceLife      = 10 * time.Minute
	confirmLife     = 5 * time.Minute
	devicePoll      = 2 * time.Second
	idTokenLife     = 5 * time.Minute
)

// maxForm bounds a request's body, maxAuthorize a whole authorization request, maxParameter one parameter.
const (
	maxForm      = 32 << 10
	maxAuthorize = 4 << 10
	maxParameter = 1024
)

// issuer is op's provider, with what this issuer does not have switched off.
type issuer struct{ *op.Provider }

// GrantTypeJWTAuthorizationSupported is off: op has it on for everybody.
func (issuer) GrantTypeJWTAuthorizationSupported() bool { return false }

// ValidateAuthRequest adds to op's checks: op takes any loopback host and scheme, and a missing or plain PKCE challenge.
func (issuer) ValidateAuthRequest(ctx context.Context, request *oidc.AuthRequest, storage op.Storage, verifier *op.IDTokenHintVerifier) (string, error) {
	client, err := storage.GetClientByClientID(ctx, request.ClientID)
	if err != nil {
		return "", oidc.ErrInvalidRequestRedirectURI().WithDescription("there is no client of that name here; the command line is " + cliClient)
	}
	if request.ClientID == consoleClient {
		if request.RedirectURI != client.RedirectURIs()[0] {
			return "", oidc.ErrInvalidRequestRedirectURI().WithDescription("redirect_uri is not the console's")
		}
	} else if request.ClientID == PostgresClient {
		return "", oidc.ErrInvalidRequestRedirectURI().WithDescription("the client " + PostgresClient + " signs in by the device flow only")
	} else if !isLoopbackRedirect(request.RedirectURI) {
		return "", oidc.ErrInvalidRequestRedirectURI().WithDescription("redirect_uri must be http://127.0.0.1:PORT/callback or http://[::1]:PORT/callback")
	}
	for _, parameter := range []string{request.State, request.Nonce, request.RedirectURI, request.CodeChallenge, strings.Join(request.Scopes, " ")} {
		if len(parameter) > maxParameter {
			return "", oidc.ErrInvalidRequestRedirectURI().WithDescription("a parameter is longer than %d bytes", maxParameter)
		}
	}
	request.IDTokenHint = "" // who signs in is decided by the company's provider
	if _, err := op.ValidateAuthRequestClient(ctx, request, client, verifier); err != nil {
		return "", err
	}
	if request.CodeChallengeMethod != oidc.CodeChallengeMethodS256 || len(request.CodeChallenge) != 43 { // SHA-256 in base64url
		return "", oidc.ErrInvalidRequest().WithDescription("PKCE is required: code_challenge with code_challenge_method S256 (RFC 7636)")
	}
	if request.ResponseMode != "" && request.ResponseMode != oidc.ResponseModeQuery {
		return "", oidc.ErrInvalidRequest().WithDescription("response_mode can only be query")
	}
	return "", nil
}

// isLoopbackRedirect takes what RFC 8252, section 7.3, describes, on both loopback addresses, any port, path /callback.
// A name such as localhost is not taken, because it may be resolved to something else.
func isLoopbackRedirect(redirect string) bool {
	u, err := url.Parse(redirect)
	if err != nil {
		return false
	}
	at, err := netip.ParseAddrPort(u.Host)
	return err == nil && at.Port() != 0 && (at.Addr() == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || at.Addr() == netip.IPv6Loopback()) &&
		redirect == "http://"+at.String()+"/callback" // so nothing else is in it: user, query, fragment, another spelling
}

// newIssuer sets the issuer and its handler up.
func (s *Service) newIssuer() error {
	storage := &storage{s}
	s.consoleSecret = rand.Text() + rand.Text()
	provider, err := op.NewProvider(&op.Config{
		CodeMethodS256: true, GrantTypeRefreshToken: true,
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime: deviceLife, PollInterval: devicePoll, UserFormPath: pathDevice, UserCode: op.UserCodeBase20,
		},
	}, storage, op.StaticIssuer(s.config.URL),
		op.WithCrypto(op.NewAES256GCMCrypto(s.authorities.Load().Token, "")), // op's own default also takes an unauthenticated cipher
		op.WithCustomEndpoints(op.NewEndpoint(pathAuthorize), op.NewEndpoint(pathToken), op.NewEndpoint(pathUserinfo),
			op.NewEndpoint(pathRevoke), op.NewEndpoint("/oauth/end_session"), op.NewEndpoint(pathKeys)),
		op.WithCustomDeviceAuthorizationEndpoint(op.NewEndpoint(pathDeviceRequest)))
	if err != nil {
		return fmt.Errorf("the gateway's issuer at %q: %w", s.config.URL, err)
	}
	s.issuer = issuer{provider}
	s.newProviders()

	// op's own router also has endpoints that nobody needs here, and lets every origin call them; so each is named.
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathDiscovery, s.discovery)
	mux.HandleFunc("GET "+pathMetadata, s.discovery)
	mux.HandleFunc("GET "+pathKeys, func(w http.ResponseWriter, r *http.Request) { op.Keys(w, r, storage) })
	for _, method := range []string{"GET ", "POST "} { // both: OpenID Connect Core, sections 3.1.2.1 and 5.3.1
		mux.HandleFunc(method+pathAuthorize, s.authorize)
		mux.HandleFunc(method+pathUserinfo, func(w http.ResponseWriter, r *http.Request) { op.Userinfo(w, r, s.issuer) })
	}
	mux.HandleFunc("GET "+pathLogin, s.login)
	mux.HandleFunc("GET "+pathLoginGo, s.login)
	mux.HandleFunc("GET "+pathCallback, s.callback)
	mux.HandleFunc("GET "+pathCallback+"/{provider}", s.callback)
	mux.HandleFunc("GET "+pathAuthorized, s.authorized)
	mux.HandleFunc("POST "+pathToken, s.token)
	mux.HandleFunc("POST "+pathRevoke, func(w http.ResponseWriter, r *http.Request) { op.Revoke(w, r, s.issuer) })
	mux.HandleFunc("POST "+pathDeviceRequest, op.DeviceAuthorizationHandler(s.issuer))
	mux.HandleFunc("GET "+pathDevice, s.device)
	mux.HandleFunc("GET "+pathDeviceLogin, s.deviceLogin)
	mux.HandleFunc("POST "+pathDeviceConfirm, s.deviceConfirm)
	mux.HandleFunc("GET "+pathHold, s.hold)
	mux.HandleFunc("GET "+pathHoldLogin, s.holdLogin)
	mux.HandleFunc("POST "+pathHoldConfirm, s.holdConfirm)
	mux.HandleFunc("POST "+pathKey, s.keyAnswer)
	mux.HandleFunc("GET "+pathKeyScript, pages.KeyScript)
	mux.HandleFunc("POST "+pathLogout, s.backChannelLogout)
	mux.HandleFunc("POST "+pathLogout+"/{provider}", s.backChannelLogout)
	mux.Handle(pathDirectory+"/", s.provision())
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, http.StatusNotFound, refusal.New(refusal.NotFound, "there is nothing at this address").WithHint("sign in: sallyport login"))
	})
	s.handler = s.outside(mux)
	return nil
}

// Handler serves the gateway's own issuer (discovery, authorization code + PKCE, device authorization, token, keys,
// revocation) and the sign-in pages, below the gateway's URL: /.well-known/openid-configuration and /oauth/…; and SCIM for
// providers that provision people: /scim/v2/….
func (s *Service) Handler() http.Handler { return s.handler }

// outside is what every request passes, for it may come from anybody: a rate, bounds, headers, and the context in which
// op's storage finds who is asking.
func (s *Service) outside(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pages.Secure(w.Header())
		w.Header().Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'") // pages set their own
		visitor := newVisitor(r)
		now := s.now()
		rates := &s.rates
		if r.URL.Path == pathLogout || strings.HasPrefix(r.URL.Path, pathLogout+"/") {
			rates = &s.logouts // the provider's, for many people from one address
		}
		most := int64(maxForm)
		if strings.HasPrefix(r.URL.Path, pathDirectory+"/") {
			rates, most = &s.provisions, scim.MaxBody
		}
		if !rates.Allow(visitor.source, now) || begins(r.URL.Path) && !s.begins.Allow(visitor.source, now) {
			s.unauthenticated("http: too many requests to sign in", r)
			pages.RetryAfter(w.Header(), 5*time.Second)
			refuse(w, r, http.StatusTooManyRequests, refusal.New(refusal.TooMany, "too many requests from your address").WithHint("wait some seconds, then try again"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, most)
		ctx := context.WithValue(op.ContextWithIssuer(r.Context(), s.config.URL), visitorKey{}, visitor)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// begins tells the addresses at which something is kept for a sign-in that may never come to an end.
func begins(path string) bool {
	switch path {
	case pathAuthorize, pathLogin, pathLoginGo, pathDeviceRequest, pathDeviceLogin, pathHoldLogin:
		return true
	}
	return false
}

// discovery is what OpenID Connect Discovery and RFC 8414 call the metadata; written out, because op's names grants and
// response types that this issuer does not have.
func (s *Service) discovery(w http.ResponseWriter, _ *http.Request) {
	at := func(path string) string { return strings.TrimSuffix(s.config.URL, "/") + path }
	reply(w, http.StatusOK, &oidc.DiscoveryConfiguration{
		Issuer:                                 s.config.URL,
		AuthorizationEndpoint:                  at(pathAuthorize),
		TokenEndpoint:                          at(pathToken),
		UserinfoEndpoint:                       at(pathUserinfo),
		RevocationEndpoint:                     at(pathRevoke),
		DeviceAuthorizationEndpoint:            at(pathDeviceRequest),
		JwksURI:                                at(pathKeys),
		ScopesSupported:                        scopes,
		ResponseTypesSupported:                 []string{string(oidc.ResponseTypeCode)},
		ResponseModesSupported:                 []string{string(oidc.ResponseModeQuery)},
		GrantTypesSupported:                    append(cli{}.GrantTypes(), oidc.GrantTypeTokenExchange),
		SubjectTypesSupported:                  []string{"public"},
		IDTokenSigningAlgValuesSupported:       []string{string(signingAlgorithm)},
		TokenEndpointAuthMethodsSupported:      []oidc.AuthMethod{oidc.AuthMethodNone},
		RevocationEndpointAuthMethodsSupported: []oidc.AuthMethod{oidc.AuthMethodNone},
		ClaimsSupported:                        []string{"sub", "name", "email", "groups"},
		CodeChallengeMethodsSupported:          []oidc.CodeChallengeMethod{oidc.CodeChallengeMethodS256},
	})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // an error is the client going away
}

// refuse shows a refusal as a page, or as JSON to programs that ask for it.
func refuse(w http.ResponseWriter, r *http.Request, status int, no *refusal.Refusal) {
	if accept := r.Header.Get("Accept"); strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html") {
		reply(w, status, no)
		return
	}
	pages.Show(w, status, pages.Message{Title: sentence(no.Message), Detail: sentence(no.Detail), Hint: sentence(no.Hint)})
}

// sentence makes one of a refusal's words.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	first, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(first)) + s[size:] + "."
}

// fail shows what went wrong: a refusal as itself, anything else as the gateway's fault, with the reason in its log only.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	if no := refusal.Of(err); no != nil {
		refuse(w, r, http.StatusForbidden, no)
		return
	}
	if errors.Is(err, federation.ErrUnavailable) {
		s.log.Warn("the company's provider can't be asked", "err", err)
		pages.RetryAfter(w.Header(), 5*time.Second)
		refuse(w, r, http.StatusServiceUnavailable, refusal.New(refusal.TargetFailed, "your company's sign-in provider does not answer").
			WithDetail("so nobody can sign in now; who is signed in already stays so").
			WithHint("try again in a moment; if it persists, tell those who run the gateway: its log says why"))
		return
	}
	s.log.Error("a sign-in failed", "path", r.URL.Path, "err", err)
	refuse(w, r, http.StatusInternalServerError, refusal.New(refusal.Invalid, "the gateway failed to do this").
		WithHint("try again; if it persists, tell those who run the gateway: its log says why"))
}

// unauthenticated counts what the sender of a request did wrong.
func (s *Service) unauthenticated(kind string, r *http.Request) {
	var from net.Addr
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		from = net.TCPAddrFromAddrPort(a)
	}
	s.Unauthenticated(kind, from)
}

// logStranger tells in the log what was refused to somebody who has proven nothing: often enough to be seen, and no more.
func (s *Service) logStranger(r *http.Request, what string, cause error) {
	level := slog.LevelDebug
	if s.logged.AllowN(s.now(), 1) {
		level = slog.LevelWarn
	}
	s.log.Log(r.Context(), level, what, "from", r.RemoteAddr, "cause", cause)
}
