//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sallyport/client"
	"sallyport/internal/demo/provider"
	"sallyport/proxy"
)

// The scripts run the real program: a gateway of its own for each, a real provider, and in the place of the person's
// browser one that fills in the provider's form.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sallyport": main,
		"xdg-open":  browse,
	})
}

func TestCommandLine(t *testing.T) {
	if testing.Short() {
		t.Skip("starts gateways")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               setUpScript,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":  exits,
			"await":  await,
			"keep":   keep,
			"until":  until,
			"device": device,
			"expire": expire,

			"template": template,
		},
	})
}

const scriptConfiguration = `
state: state
url: https://%[1]s
listen: {https: "%[1]s", postgres: "%[2]s", ssh: "%[3]s"}
tls: {certificate: tls.crt, key: tls.key, ca: tls.crt}
provider:
  issuer: %[4]s
  client_id: gateway
  client_secret: env:PROVIDER_SECRET
  scopes: [openid, profile, email, groups]
  ca: tls.crt
workloads:
  - name: shop
    preset: github
    issuer: %[4]s/ci
    audience: https://%[1]s
    ca: tls.crt
    bind: {repository_id: "%[5]s", repository_owner_id: "%[6]s"}
    groups: [ci]
recording: {durability: written, reserve: 1MiB}
targets:
  - name: orders
    kind: postgres
    address: 127.0.0.1:1
    tls: {mode: "off"}
    accounts: [{name: app, password: "env:PROVIDER_SECRET"}, {name: report, password: "env:PROVIDER_SECRET"}]
  - name: web-1
    kind: ssh
    address: 127.0.0.1:1
    host_ca: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJHHc6xL1b3G6dBYbC1pQZ7VYCC8pqU5J7h0h5JYV0m9
    accounts: [{name: deploy}]
policies:
  - name: automatic
    groups: [engineers]
    accounts: ["report@orders", "*@web-1"]
    max_duration: 1h
    approve: {auto: true}
  - name: deployments
    groups: [ci]
    accounts: ["app@orders", "*@web-1"]
    max_duration: 1h
    approve: {auto: true}
  - name: orders
    groups: [engineers]
    accounts: ["app@orders"]
    max_duration: 8h
    reason_length: 5
    approve: {groups: [approvers]}
permissions:
  - {groups: [security], may: ["*"]}
`

// setUpScript starts a provider and writes the configuration of the script's gateway, which the script starts itself.
func setUpScript(env *testscript.Env) error {
	ports := make([]string, 3)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		ports[i] = l.Addr().String()
		defer l.Close() // after all are known, so that they differ; then the programs listen there themselves
	}
	certificate, key := filepath.Join(env.WorkDir, "tls.crt"), filepath.Join(env.WorkDir, "tls.key")
	if err := proxy.SelfSigned("127.0.0.1", certificate, key); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	listener, err := provider.Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		return err
	}
	p, err := provider.Start(listener, provider.Options{
		Users: []provider.User{
			{Name: "alice", FullName: "Alice Engineer", Email: "alice@example.com", Groups: []string{"engineers"}, Password: "alice"},
			{Name: "bob", FullName: "Bob Approver", Email: "bob@example.com", Groups: []string{"approvers"}, Password: "bob"},
			{Name: "carol", FullName: "Carol Security", Email: "carol@example.com", Groups: []string{"security"}, Password: "carol"},
		},
		Client: provider.Client{ID: "gateway", Secret: "between us", Redirect: "https://" + ports[0] + "/oauth/callback"},
		TLS:    &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		return err
	}
	env.Defer(func() { p.Close() })
	text := fmt.Appendf(nil, scriptConfiguration, ports[0], ports[1], ports[2], p.Issuer, provider.RepositoryID, provider.OwnerID)
	if err := os.WriteFile(filepath.Join(env.WorkDir, "sallyport.yaml"), text, 0o600); err != nil {
		return err
	}
	env.Setenv("GATEWAY", "https://"+ports[0])
	env.Setenv("CI_TOKEN_ADDRESS", p.CI.Issuer+"/token")
	env.Setenv("CI_TOKEN_BEARER", p.CI.RequestToken)
	env.Setenv("PROVIDER_SECRET", "between us")
	env.Setenv("AUTHORITY", certificate)
	docs, err := filepath.Abs("../../docs")
	if err != nil {
		return err
	}
	env.Setenv("DOCS", docs)
	env.Setenv("HOME", filepath.Join(env.WorkDir, "user"))
	env.Setenv("XDG_CONFIG_HOME", "")
	env.Setenv("TZ", "UTC")
	env.Setenv("GORACE", "atexit_sleep_ms=50") // each program would else wait a second before it ends
	return os.Mkdir(filepath.Join(env.WorkDir, "user"), 0o700)
}

// browse is the person's browser: it opens the address, fills in the form as $PERSON and follows where it leads.
func browse() {
	if err := signInOnPage(os.Args[1], os.Getenv("PERSON")); err != nil {
		fmt.Fprintln(os.Stderr, "browser:", err)
		os.Exit(1)
	}
}

func signInOnPage(address, person string) error {
	b, err := newBrowser(os.Getenv("AUTHORITY"))
	if err != nil {
		return err
	}
	if err := b.get(address); err != nil {
		return err
	}
	if b.at.Path == "/oauth/login" { // did you start this yourself?
		if err := b.get(b.at.JoinPath("go").String()); err != nil {
			return err
		}
	}
	return b.signIn(person)
}

// browser is a person's browser without a screen: it keeps cookies, and shows one page.
type browser struct {
	client *http.Client
	at     *url.URL
	page   string
}

func newBrowser(authorityFile string) (*browser, error) {
	authority, err := os.ReadFile(authorityFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	return &browser{client: &http.Client{Jar: jar, Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}}}, nil
}

func (b *browser) show(answer *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	b.at, b.page = answer.Request.URL, string(text)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s\n%s", b.at, answer.Status, text)
	}
	return err
}

func (b *browser) get(address string) error { return b.show(b.client.Get(address)) }

func (b *browser) post(path string, form url.Values) error {
	return b.show(b.client.PostForm(b.at.ResolveReference(&url.URL{Path: path}).String(), form))
}

// value finds the first group of a pattern in the page.
func (b *browser) value(pattern string) string {
	found := regexp.MustCompile(pattern).FindStringSubmatch(b.page)
	if found == nil {
		return ""
	}
	return html.UnescapeString(found[1])
}

// signIn fills in the provider's form.
func (b *browser) signIn(person string) error {
	id := b.value(`name="id" value="([^"]+)"`)
	if id == "" {
		return fmt.Errorf("no form at %s:\n%s", b.at, b.page)
	}
	return b.post("/login", url.Values{"id": {id}, "name": {person}, "password": {person}})
}

// device signs a person in by the device flow, the pages being visited by a browser elsewhere: device PERSON HOME DECISION.
func device(ts *testscript.TestScript, neg bool, args []string) {
	person, home, decision := args[0], args[1], args[2]
	_, err := client.Login(context.Background(), client.Home{Dir: home}, client.LoginOptions{
		Gateway: ts.Getenv("GATEWAY"), CA: ts.Getenv("AUTHORITY"), Device: true, Out: io.Discard, Timeout: time.Minute,
		Open: func(address string) error {
			b, err := newBrowser(ts.Getenv("AUTHORITY"))
			if err != nil {
				return err
			}
			if err := b.get(address); err != nil {
				return err
			}
			next, err := b.at.Parse(b.value(`class="go" href="([^"]+)"`))
			if err != nil {
				return err
			}
			if err := errors.Join(b.get(next.String()), b.signIn(person)); err != nil {
				return err
			}
			return b.post("/oauth/device/confirm", url.Values{"confirm": {b.value(`name="confirm" value="([^"]+)"`)}, "decision": {decision}})
		},
	})
	if neg != (err != nil) {
		ts.Fatalf("signing in by device: %v", err)
	}
	if err != nil {
		ts.Logf("%v", err)
	}
}

// expire lets a home's access token run out: expire HOME.
func expire(ts *testscript.TestScript, _ bool, args []string) {
	file := filepath.Join(args[0], "token.json")
	var token map[string]any
	data, err := os.ReadFile(file)
	ts.Check(err)
	ts.Check(json.Unmarshal(data, &token))
	token["expiry"] = time.Now().Add(-time.Hour)
	data, err = json.Marshal(token)
	ts.Check(err)
	ts.Check(os.WriteFile(file, data, 0o600))
}

// exits runs a program and wants that exit code: exits CODE PROGRAM ARGS….
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%v exits with %d, not %d", args[1:], got, want)
	}
}

// await waits until the gateway is ready.
func await(ts *testscript.TestScript, _ bool, _ []string) {
	authority, err := os.ReadFile(ts.Getenv("AUTHORITY"))
	ts.Check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	asking := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		answer, err := asking.Get(ts.Getenv("GATEWAY") + "/readyz")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			ts.Fatalf("the gateway is not ready: %v", err)
		}
	}
}

// until runs a program again and again until its output matches: until PATTERN PROGRAM ARGS….
func until(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(args[0])
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("the output never matched %s", args[0])
		}
	}
}

// keep keeps the first group of a pattern in the last output as a variable: keep NAME PATTERN.
func keep(ts *testscript.TestScript, _ bool, args []string) {
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if found == nil {
		ts.Fatalf("no %s in the output", args[1])
	}
	ts.Setenv(args[0], found[1])
}
