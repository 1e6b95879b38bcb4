//go:build unix

package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"sallyport/client"
	"sallyport/internal/demo/provider"
	"sallyport/web/api"
)

// clientID is the gateway's at the provider.
const clientID = "sallyport-gateway"

// person is one of the three, with a home of their own for the client.
type person struct {
	d    *Demo
	user provider.User
	home client.Home
}

// names in the order in which they appear in the story.
var names = []string{"alice", "bob", "carol"}

func (d *Demo) makePeople() []provider.User {
	users := []provider.User{
		{Name: "alice", FullName: "Alice", Email: "alice@example.com", Groups: []string{"engineers"}},
		{Name: "bob", FullName: "Bob", Email: "bob@example.com", Groups: []string{"approvers"}},
		{Name: "carol", FullName: "Carol", Email: "carol@example.com", Groups: []string{"security"}},
	}
	d.people = make(map[string]*person)
	for i := range users {
		users[i].Password = strings.ToLower(rand.Text()[:10])
		d.people[users[i].Name] = &person{d: d, user: users[i], home: client.Home{Dir: filepath.Join(d.dir, "homes", users[i].Name)}}
	}
	return users
}

// startProvider starts the provider with the three people in it and the gateway as its client.
func (d *Demo) startProvider(ctx context.Context) error {
	certificate, key, err := d.authority.issue(filepath.Join(d.dir, "secrets"), "provider-tls")
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	listener, err := provider.Listen(ctx, loopback(d.port(portProvider)))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(d.authority.certificate)
	gateway := fmt.Sprintf("https://localhost:%d/oauth/", d.port(portHTTPS))
	d.provider, err = provider.Start(listener, provider.Options{
		Users:  d.makePeople(),
		Client: provider.Client{ID: clientID, Secret: d.clientSecret(), Redirect: gateway + "callback", BackChannel: gateway + "backchannel-logout"},
		Roots:  roots,
		TLS:    &tls.Config{Certificates: []tls.Certificate{pair}},
		Log:    d.log,
	})
	if err != nil {
		listener.Close()
	}
	return err
}

func (d *Demo) signInAll(ctx context.Context) error {
	for _, name := range names {
		if err := d.people[name].signIn(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// signIn is `sallyport login`, with a program in the browser's place.
func (p *person) signIn(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	_, err := client.Login(ctx, p.home, client.LoginOptions{
		Gateway: p.d.gateway.url,
		CA:      p.d.authority.file,
		Timeout: time.Minute,
		Out:     io.Discard,
		Open: func(address string) error {
			err := p.browse(ctx, address)
			if err != nil {
				stop(err) // nobody else will sign in
			}
			return err
		},
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// browse does what a person does with the address that a sign-in shows: it follows the redirects to the provider's page,
// fills in the form and follows them back.
func (p *person) browse(ctx context.Context, address string) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	browser := &http.Client{
		Jar:       jar,
		Timeout:   30 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.d.authority.pool()}},
	}
	page, err := visit(ctx, browser, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("open the sign-in: %w", err)
	}
	if page.Path == "/oauth/login" { // did you start this yourself?
		if page, err = visit(ctx, browser, http.MethodGet, page.JoinPath("go").String(), nil); err != nil {
			return fmt.Errorf("go on with the sign-in: %w", err)
		}
	}
	if page.Scheme+"://"+page.Host != p.d.provider.Issuer {
		return fmt.Errorf("the sign-in leads to %s, not to the provider", page.Redacted())
	}
	form := url.Values{"id": {page.Query().Get("id")}, "name": {p.user.Name}, "password": {p.user.Password}}
	page, err = visit(ctx, browser, http.MethodPost, p.d.provider.Issuer+"/login", form)
	if err != nil {
		return fmt.Errorf("sign in at the provider: %w", err)
	}
	if page.Scheme+"://"+page.Host == p.d.provider.Issuer {
		return errors.New("the provider did not take the password")
	}
	return nil
}

// visit sends a request and returns where its redirects end.
func visit(ctx context.Context, browser *http.Client, method, address string, form url.Values) (*url.URL, error) {
	request, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	answer, err := browser.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(answer.Body, 4<<10)) // only shown where something is wrong
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %s", method, answer.Request.URL.Path, answer.Status, bytes.TrimSpace(body))
	}
	return answer.Request.URL, nil
}

// outcome is how a program ended.
type outcome struct {
	stdout, stderr string
	code           int
}

// run runs a program and waits; a program that fails is an outcome, one that can't be run an error.
func run(ctx context.Context, env []string, name string, args ...string) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &stdout, &stderr, env
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	out := outcome{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && ctx.Err() == nil) {
		return out, fmt.Errorf("%s: %w\n%s%s", filepath.Base(name), err, out.stdout, out.stderr)
	}
	return out, nil
}

// env is the environment of what this person runs.
func (p *person) env() []string {
	return plainEnvironment("SALLYPORT_HOME="+p.home.Dir, "PGSERVICEFILE="+p.home.Path("pg_service.conf"), "PGCONNECT_TIMEOUT=15")
}

// sallyport runs the command line as this person; any exit code but 0 is an error.
func (p *person) sallyport(ctx context.Context, args ...string) (string, error) {
	out, err := p.try(ctx, args...)
	if err == nil && out.code != 0 {
		err = fmt.Errorf("as %s: sallyport %s: exit %d\n%s%s", p.user.Name, strings.Join(args, " "), out.code, out.stdout, out.stderr)
	}
	return out.stdout, err
}

// try is sallyport where a refusal is what is expected.
func (p *person) try(ctx context.Context, args ...string) (outcome, error) {
	return run(ctx, p.env(), p.d.options.Binary, args...)
}

// ask is sallyport with --json, its result read into v.
func (p *person) ask(ctx context.Context, v any, args ...string) error {
	out, err := p.sallyport(ctx, append(args, "--json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("sallyport %s --json printed no JSON of the kind expected: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// grant asks for an account as this person and has Bob approve.
func (p *person) grant(ctx context.Context, account, duration, reason string) (api.Grant, error) {
	var g api.Grant
	if err := p.ask(ctx, &g, "request", account, "--duration", duration, "--reason", reason); err != nil {
		return g, err
	}
	return g, p.d.people["bob"].ask(ctx, &g, "approve", g.ID)
}

// trustGateway gives the sshd the gateway's target authority, as `sallyport targets setup` says it.
func (d *Demo) trustGateway(ctx context.Context) error {
	var setup api.Setup
	if err := d.people["carol"].ask(ctx, &setup, "targets", "setup", sshTarget); err != nil {
		return err
	}
	for _, part := range setup.Parts {
		if part.Name == "trusted_ca" {
			return d.sshd.trust([]byte(part.Text))
		}
	}
	return errors.New("targets setup does not name the target authority")
}
