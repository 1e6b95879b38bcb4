//go:build linux

package attacks

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// giveSecrets configures channels, evidence and pipelines that have secrets, none of which can be reached, and returns the issuer of
// the pipeline. The gateway has to be started again.
func (s *scene) giveSecrets(canaries map[string]string) *ci {
	s.t.Helper()
	file := func(name string) string {
		canary := name + "-canary-77ac" + strconv.Itoa(len(canaries)) // Slack's tokens begin with their kind
		canaries["the secret "+name] = canary
		path := s.Path("secrets", name)
		write(s.t, path, []byte(canary+"\n"))
		return path
	}
	issuer := newCI(s.t)
	authority := filepath.Join(s.t.TempDir(), "ci.pem")
	write(s.t, authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.Certificate().Raw}))
	script := s.Path("secrets", "fetch")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nenv >'"+s.Path("secrets", "command.env")+"'\ncat '"+file("jira-token")+"'\n"), 0o700); err != nil {
		s.t.Fatal(err)
	}
	config := strings.Replace(s.configuration(), "workloads:\n", fmt.Sprintf(`approvals:
  webhooks:
    - {name: dead-hook, url: "https://127.0.0.1:1/hook", secret: "env:CANARY_HOOK", decision_secret: "file:%s"}
  slack:
    - {name: dead-slack, app_token: "file:%s", bot_token: "file:%s", channel: C012AB3CD, api: "https://127.0.0.1:1/api/"}
  jira:
    - {name: dead-jira, url: "https://127.0.0.1:1", user: gateway@example.com, token: "command:%s", projects: [OPS], comment: true}
evidence:
  - {name: dead_evidence, url: "https://127.0.0.1:1/{ticket}", token: "file:%s"}
workloads:
  - {name: canaries, preset: generic, issuer: %q, audience: https://ours.example, ca: %q, bind: {project: "7"}, subject: [job], groups: [ci]}
`, file("decisions"), file("xapp"), file("xoxb"), script, file("evidence"), issuer.URL, authority), 1)
	config = strings.Replace(config, "permissions:\n", `  - name: asks the dead
    groups: [engineers]
    accounts: ["postgres@orders"]
    max_duration: 5m
    evidence: [dead_evidence]
    approve: {auto: true}
permissions:
`, 1)
	write(s.t, s.Path("sallyport.yaml"), []byte(config))
	return issuer
}

// useJob exchanges a job's token, and fails to with others.
func (s *scene) useJob(canaries map[string]string, issuer *ci) {
	s.t.Helper()
	now := time.Now()
	claims := map[string]any{"iss": issuer.URL, "aud": "https://ours.example", "sub": "a job", "project": "7", "job": "1", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()}
	client := s.api()
	for name, change := range map[string]map[string]any{"good": nil, "of another project": {"project": "8"}, "expired": {"exp": now.Add(-time.Hour).Unix()}} {
		token := sign(s.t, issuer.key, claims, change, nil)
		canaries["a job's token, "+name] = token[strings.LastIndexByte(token, '.')+1:]
		response, err := client.PostForm(s.Env["SALLYPORT_URL"]+"/oauth/token", url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {token}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
		})
		if err != nil {
			s.t.Fatal(err)
		}
		var answer struct {
			AccessToken string `json:"access_token"`
		}
		err = json.NewDecoder(response.Body).Decode(&answer)
		response.Body.Close()
		if err != nil || (response.StatusCode == http.StatusOK) != (name == "good") {
			s.t.Fatalf("%s: %s, %v", name, response.Status, err)
		}
		if name == "good" {
			canaries["a job's access token"] = answer.AccessToken
		}
	}
}

// useConsole signs carol in, whose cookies are secrets too.
func (s *scene) useConsole(canaries map[string]string) {
	s.t.Helper()
	b := s.Browser("carol")
	if page := b.SignIn(b.Get("/console/sign-in/start")); page.Status != http.StatusOK || page.URL.Path != "/console/" {
		s.t.Fatalf("carol is not signed in: %d at %s", page.Status, page.URL)
	}
	home, err := url.Parse(s.Env["SALLYPORT_URL"])
	if err != nil {
		s.t.Fatal(err)
	}
	cookies := b.HTTP.Jar.Cookies(home)
	for _, cookie := range cookies {
		canaries["the cookie "+cookie.Name] = cookie.Value
	}
	if len(cookies) < 2 {
		s.t.Fatalf("the console has %d cookies", len(cookies))
	}
}

// failToTell has every channel try in vain: Alice gives a grant back that nobody uses and asks for it again,
// which Bob denies.
func (s *scene) failToTell() {
	s.t.Helper()
	var grants []struct{ ID, Account, State string }
	s.Ask(&grants, "alice", "grants")
	for _, g := range grants {
		if g.Account == "postgres" {
			if out := s.As("alice", "release", g.ID); out.Code != 0 {
				s.t.Fatal(out.Text())
			}
		}
	}
	var asked struct{ ID string }
	s.Ask(&asked, "alice", "request", "postgres@orders", "--duration", "1m", "--reason", "canaries", "--ticket", "OPS-1")
	if out := s.As("bob", "deny", asked.ID, "--comment", "not today"); out.Code != 0 { // Jira is told what became of it
		s.t.Fatal(out.Text())
	}
	s.Until(time.Minute, "the channels that can't be reached are known", func() error {
		out := s.As("carol", "notifications", "--json")
		for _, word := range []string{"dead-hook", "dead-slack", "dead-jira", "refused"} {
			if !strings.Contains(out.Stdout, word) {
				return errors.New(out.Text())
			}
		}
		return nil
	})
}

// readKeys takes the gateway's own keys as canaries: as they are, in hexadecimal, in base64, and a line of their files.
func (s *scene) readKeys(canaries map[string]string) {
	s.t.Helper()
	files, err := filepath.Glob(s.Path("keys", "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	taken := 0
	take := func(name string, secret []byte) {
		taken++
		canaries[name] = string(secret)
		canaries[name+" in hexadecimal"] = hex.EncodeToString(secret)
		canaries[name+" in base64"] = strings.TrimRight(base64.StdEncoding.EncodeToString(secret), "=")
	}
	for _, path := range append(files, s.Path("gateway.key")) {
		info, err := os.Stat(path)
		if err != nil {
			s.t.Fatal(err)
		}
		if !info.Mode().IsRegular() {
			continue
		}
		data, name := read(s.t, path), "the key "+filepath.Base(path)
		if strings.Contains(string(data), "PRIVATE+KEY") { // the log's, which is a note's
			canaries[name] = strings.TrimSpace(string(data))
			taken++
		}
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "SALLYPORT SYMMETRIC KEY" {
				take(name, block.Bytes)
				continue
			}
			if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
				continue
			}
			canaries[name+"'s file"] = strings.Split(string(pem.EncodeToMemory(block)), "\n")[1]
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				key, err = x509.ParseECPrivateKey(block.Bytes)
			}
			switch k := key.(type) {
			case ed25519.PrivateKey:
				take(name, k.Seed())
			case *ecdsa.PrivateKey:
				scalar, err := k.Bytes()
				if err != nil {
					s.t.Fatal(err)
				}
				take(name, scalar)
			default:
				s.t.Fatalf("%s: %T, %v", path, key, err)
			}
		}
	}
	if taken < 9 { // ssh_host, host_ca, login_ca, target_ca, client_ca, issuer, token, the log's, the server's
		s.t.Fatalf("only %d keys were found", taken)
	}
}

// watchProcesses looks at the process list and at the environments of what the gateway runs, again and again, until the function that it
// returns is called, which hands all of it over.
func (s *scene) watchProcesses() func(found func(where string, data []byte)) {
	seen, stop, stopped := map[string]bool{}, make(chan struct{}), make(chan struct{})
	gateway := strconv.Itoa(s.pid)
	look := func() {
		all, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			s.t.Error(err)
		}
		for _, process := range all { // they come and go
			if line, err := os.ReadFile(filepath.Join(process, "cmdline")); err == nil {
				seen["the process list: "+string(line)] = true
			}
			if stat, err := os.ReadFile(filepath.Join(process, "stat")); err == nil {
				fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
				if len(fields) > 1 && fields[1] == gateway {
					if environment, err := os.ReadFile(filepath.Join(process, "environ")); err == nil {
						seen["what the gateway runs is given "+string(environment)] = true
					}
				}
			}
		}
	}
	go func() {
		defer close(stopped)
		for {
			look()
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func(found func(where string, data []byte)) {
		close(stop)
		<-stopped
		look()
		for what := range seen {
			found("the process list or an environment", []byte(what))
		}
		if len(seen) < 5 {
			s.t.Errorf("only %d processes were seen", len(seen))
		}
	}
}

// crash has the gateway write where all its goroutines are and end, as for a bug that nobody caught, and returns what it wrote. It
// checks that no core dump could have been.
func (s *scene) crash() []byte {
	s.t.Helper()
	limits := string(read(s.t, fmt.Sprintf("/proc/%d/limits", s.pid)))
	for line := range strings.Lines(limits) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			if fields := strings.Fields(rest); len(fields) < 2 || fields[0] != "1" || fields[1] != "1" {
				s.t.Errorf("the gateway may leave a core dump: %s", line)
			}
		}
	}
	log := s.Path("log", "gateway.log")
	before := len(read(s.t, log))
	s.EndGateway(syscall.SIGQUIT)
	s.Ready()
	said := read(s.t, log)[before:]
	if !bytes.Contains(said, []byte("SIGQUIT")) || bytes.Count(said, []byte("\ngoroutine ")) < 10 {
		s.t.Errorf("that was no dump of the gateway's goroutines:\n%.3000s", said)
	}
	return said
}
