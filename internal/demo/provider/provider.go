// Package provider is a real OpenID provider for the demo and for tests, with three people in it, and an issuer of
// workload tokens such as a CI system has.
//
// It promises to be reachable from this machine only: Listen refuses every address but loopback, because its passwords
// are printed on the screen. Everything it keeps is in memory and gone when it is closed. What it says on the wire is
// said by zitadel/oidc's pkg/op, so whoever signs in here has gone through authorization code, PKCE and a signed ID token
// as with any other provider.
package provider

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// User is one person the provider knows.
type User struct {
	Name     string // to sign in with; the subject too
	FullName string
	Email    string
	Groups   []string
	Password string
	Disabled bool // may not sign in, and is not vouched for any more
}

// Client is the one relying party: the gateway.
type Client struct {
	ID       string
	Secret   string
	Redirect string // the only address codes are sent to
	// BackChannel is where it is told who has signed out (OpenID Connect Back-Channel Logout 1.0); "" for nowhere.
	BackChannel string
}

// Options configure Start.
type Options struct {
	Users  []User
	Client Client
	// TLS is the server's certificate.
	TLS *tls.Config
	// Roots is what the Client's own server is trusted by; nil for the system's.
	Roots *x509.CertPool
	Log   *slog.Logger
}

// Provider is a running provider and CI issuer. Its methods are safe for concurrent use.
type Provider struct {
	Issuer string // of people
	CI     *CI    // of workloads; its issuer is Issuer + "/ci"

	server *http.Server
	served chan error
}

// ErrNotLoopback is returned by Listen for an address that other machines could reach.
var ErrNotLoopback = errors.New("the demo's provider listens on loopback only, because its passwords are public")

// Listen opens a TCP listener for the provider. The host of address must be a loopback address, not a name and not
// empty.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("provider address %q: %w", address, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("provider address %q: %w", address, ErrNotLoopback)
	}
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", address)
}

// Start serves the provider on the listener, which must be a loopback one, until Close.
func Start(listener net.Listener, o Options) (*Provider, error) {
	if a, ok := listener.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		return nil, fmt.Errorf("provider on %s: %w", listener.Addr(), ErrNotLoopback)
	}
	issuer := "https://" + listener.Addr().String()
	key, err := newSigningKey()
	if err != nil {
		return nil, err
	}
	store := newStorage(key, o.Client, o.Users)
	var crypto [32]byte
	if _, err := rand.Read(crypto[:]); err != nil {
		return nil, err
	}
	endpoints, err := op.NewProvider(&op.Config{
		CryptoKey:             crypto,
		CryptoKeyId:           "demo",
		CodeMethodS256:        true,
		AuthMethodPost:        true,
		GrantTypeRefreshToken: true,
		SupportedScopes:       []string{"openid", "profile", "email", "groups", "offline_access"},
		SupportedClaims:       []string{"sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "name", "email", "email_verified", "preferred_username", "groups"},
	}, store, op.StaticIssuer(issuer))
	if err != nil {
		return nil, fmt.Errorf("start the provider: %w", err)
	}
	ci, err := newCI(issuer + "/ci")
	if err != nil {
		return nil, err
	}

	mux := http.NewServeMux()
	mux.Handle("/login", &loginPage{storage: store, done: op.AuthCallbackURL(endpoints), issuer: op.NewIssuerInterceptor(endpoints.IssuerFromRequest)})
	mux.Handle("POST /sign-out", newSignOut(issuer, store, o.Client, o.Roots))
	mux.HandleFunc("POST /account", store.account)
	mux.Handle("/ci/", http.StripPrefix("/ci", ci))
	mux.Handle("/", endpoints)
	out := outage{storage: store}
	all := http.NewServeMux()
	all.HandleFunc("POST /outage", out.set)
	all.Handle("/ci/", mux)
	all.Handle("/", out.around(mux))

	log := o.Log
	if log == nil {
		log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	p := &Provider{
		Issuer: issuer,
		CI:     ci,
		served: make(chan error, 1),
		server: &http.Server{
			Handler:           http.MaxBytesHandler(all, 64<<10),
			TLSConfig:         o.TLS,
			ReadHeaderTimeout: 10 * time.Second,
			ReadTimeout:       30 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       time.Minute,
			MaxHeaderBytes:    32 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
	}
	go func() { p.served <- p.server.ServeTLS(listener, "", "") }()
	return p, nil
}

// Close stops serving and waits for it.
func (p *Provider) Close() error {
	err := p.server.Close()
	if serving := <-p.served; !errors.Is(serving, http.ErrServerClosed) {
		err = errors.Join(err, serving)
	}
	return err
}
