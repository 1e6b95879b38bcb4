package client

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"sallyport/internal/refusal"
	"sallyport/web/api"
)

// LoginOptions say how to sign in.
type LoginOptions struct {
	// Gateway is the gateway's HTTPS address; empty: the one signed in at last.
	Gateway string
	// CA is a PEM file with the authority that signed the gateway's certificate; empty: the one kept for this gateway,
	// else the system's.
	CA string
	// Device signs in on any other device by a code, for a machine without a browser.
	Device bool
	// Open opens an address in a browser; nil only prints it. A program that drives the sign-in pages itself sets this.
	Open func(address string) error
	// Out is where the person is told what to do.
	Out io.Writer
	// Keychain keeps the tokens in the system's keychain; where that fails, in a file. Agent also gives the SSH key to
	// ssh-agent. Formats are further forms of the TLS key. All three hold for renewals too.
	Keychain, Agent bool
	Formats         []Format
	// Timeout bounds the wait for the person; 0: ten minutes.
	Timeout time.Duration
}

// Login signs in at the gateway, has fresh keys certified and writes the home's files. It returns who signed in.
func Login(ctx context.Context, home Home, o LoginOptions) (api.Identity, error) {
	var who api.Identity
	if err := home.plainPath(); err != nil {
		return who, err
	}
	gateway, authority, err := home.chooseGateway(o)
	if o.Gateway == "" && refusal.Is(err, refusal.NotAuthenticated) {
		return who, refusal.New(refusal.Invalid, "which gateway is not known yet").
			WithDetail("nobody has signed in with %s", home.Dir).WithHint("sallyport login --gateway https://GATEWAY; whoever runs it knows its address")
	}
	if err != nil {
		return who, err
	}
	client, err := httpClient(authority)
	if err != nil {
		return who, err
	}
	facts, err := fetchGateway(ctx, client, gateway)
	if err != nil {
		return who, err
	}
	config, err := discover(ctx, client, gateway)
	if err != nil {
		return who, err
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Minute
	}
	waiting, cancel := context.WithTimeout(context.WithValue(ctx, oauth2.HTTPClient, client), o.Timeout)
	defer cancel()
	signIn := signInByBrowser
	if o.Device {
		signIn = signInByDevice
	}
	token, err := signIn(waiting, config, o)
	if err != nil {
		if ctx.Err() == nil && waiting.Err() != nil {
			err = refusal.New(refusal.NotAuthenticated, "nobody signed in within %s", o.Timeout).WithHint("sallyport login")
		}
		return who, err
	}

	if facts.CA != "" {
		authority = []byte(facts.CA)
	}
	s := settings{Gateway: gateway, Keychain: o.Keychain, Agent: o.Agent, Formats: o.Formats}
	if len(authority) > 0 {
		s.CA = fileAuthority
		if err := home.write(fileAuthority, authority, 0o644); err != nil {
			return who, err
		}
	}
	if err := home.writeJSON(fileConfig, s); err != nil {
		return who, err
	}
	if err := home.keepToken(&s, token, o.Out); err != nil {
		return who, err
	}
	c, err := Open(home)
	if err != nil {
		return who, err
	}
	if err := c.Do(ctx, http.MethodGet, "/v1/me", nil, &who); err != nil {
		return who, err
	}
	return who, c.Certify(ctx, o.Out)
}

// chooseGateway is the gateway to sign in at and the authority to trust for it.
func (h Home) chooseGateway(o LoginOptions) (gateway string, authority []byte, err error) {
	last, err := h.settings()
	if gateway = strings.TrimRight(o.Gateway, "/"); gateway == "" {
		if err != nil {
			return "", nil, err
		}
		gateway = last.Gateway
	}
	u, err := url.Parse(gateway)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" {
		return "", nil, refusal.New(refusal.Invalid, "%q is not a gateway's address", gateway).WithHint("write it as https://HOST or https://HOST:PORT")
	}
	file := o.CA
	if file == "" && last.Gateway == gateway && last.CA != "" {
		file = h.Path(last.CA)
	}
	if file == "" {
		return gateway, nil, nil
	}
	if authority, err = os.ReadFile(file); err != nil {
		return "", nil, fmt.Errorf("read the gateway's authority: %w", err)
	}
	return gateway, authority, nil
}

// fetchGateway asks the gateway for what it is, and whether it goes by the address it was reached at: certificates and
// tokens are made for that one.
func fetchGateway(ctx context.Context, client *http.Client, gateway string) (api.Gateway, error) {
	var facts api.Gateway
	answer, err := send(ctx, client, http.MethodGet, gateway+"/v1/gateway", "", nil)
	if err != nil {
		return facts, err
	}
	defer answer.Body.Close()
	if err := decode(answer.Body, &facts); err != nil {
		return facts, err
	}
	if facts.URL != gateway {
		return facts, refusal.New(refusal.Invalid, "the gateway goes by another address").
			WithDetail("it was reached at %s and calls itself %s", gateway, facts.URL).
			WithHint("sallyport login --gateway %s", facts.URL)
	}
	return facts, nil
}

// signInByBrowser is the authorization code flow with PKCE (RFC 7636) and a loopback redirect (RFC 8252, section 7.3).
func signInByBrowser(ctx context.Context, config *oauth2.Config, o LoginOptions) (*oauth2.Token, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the browser's answer: %w; sallyport login --device needs no listener", err)
	}
	config.RedirectURL = "http://" + listener.Addr().String() + "/callback"
	verifier, state := oauth2.GenerateVerifier(), rand.Text()

	type outcome struct {
		code string
		err  error
	}
	came := make(chan outcome, 1)
	server := &http.Server{ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.URL.Path != "/callback" || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1 {
			http.Error(w, "This address only takes the answer of the sign-in that is going on.", http.StatusNotFound)
			return
		}
		out := outcome{code: q.Get("code")}
		if out.code == "" {
			out.err = refusal.New(refusal.NotAuthenticated, "the sign-in was refused").WithDetail("%.200q", q.Get("error")+": "+q.Get("error_description"))
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if out.err != nil {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, "The sign-in was refused. The terminal says why.\n")
		} else {
			io.WriteString(w, "You are signed in. Close this page and go on in the terminal.\n")
		}
		select {
		case came <- out:
		default: // a second answer to the same sign-in
		}
	})
	go func() { _ = server.Serve(listener) }() // ends with Shutdown below
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(stop) != nil {
			server.Close()
		}
	}()

	address := config.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier))
	fmt.Fprintf(o.Out, "Sign in with your browser:\n\n  %s\n\n", address)
	if o.Open != nil {
		if err := o.Open(address); err != nil {
			fmt.Fprintf(o.Out, "No browser could be opened (%v); open the address yourself, or use sallyport login --device.\n", err)
		}
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case out := <-came:
		if out.err != nil {
			return nil, out.err
		}
		token, err := config.Exchange(ctx, out.code, oauth2.VerifierOption(verifier))
		return token, signInError(err)
	}
}

// signInByDevice is the device authorization flow (RFC 8628).
func signInByDevice(ctx context.Context, config *oauth2.Config, o LoginOptions) (*oauth2.Token, error) {
	if config.Endpoint.DeviceAuthURL == "" {
		return nil, refusal.New(refusal.Unsupported, "this gateway has no sign-in by device").WithHint("sallyport login")
	}
	device, err := config.DeviceAuth(ctx)
	if err != nil {
		return nil, signInError(err)
	}
	address := device.VerificationURIComplete
	if address == "" {
		address = device.VerificationURI
	}
	fmt.Fprintf(o.Out, "On any device, open\n\n  %s\n\nand check that it shows the code %s\n\n", printable(address), printable(device.UserCode))
	if o.Open != nil {
		if err := o.Open(address); err != nil {
			fmt.Fprintf(o.Out, "No browser could be opened here (%v).\n", err)
		}
	}
	token, err := config.DeviceAccessToken(ctx, device)
	return token, signInError(err)
}

// signInError says what the issuer refused, without repeating its whole answer.
func signInError(err error) error {
	var no *oauth2.RetrieveError
	if errors.As(err, &no) {
		return refusal.New(refusal.NotAuthenticated, "the gateway refused the sign-in").
			WithDetail("%.200q", no.ErrorCode+": "+no.ErrorDescription).WithHint("sallyport login")
	}
	return err
}

// printable leaves out what would move a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}

// OpenBrowser opens an address in the person's browser, without waiting for it.
func OpenBrowser(address string) error {
	if u, err := url.Parse(address); err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("%q is no web address", address)
	}
	program := []string{"xdg-open"}
	switch runtime.GOOS {
	case "windows":
		program = []string{"rundll32", "url.dll,FileProtocolHandler"}
	case "darwin":
		program = []string{"open"}
	}
	// A browser outlives whoever opened it, so no context ends it.
	command := exec.CommandContext(context.Background(), program[0], append(program[1:], address)...)
	if err := command.Start(); err != nil {
		return err
	}
	go func() { _ = command.Wait() }() // how it ends is not ours; only its remains are collected
	return nil
}
