//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/test/rig"
)

// atProvider does to alice what an administrator of the demo's provider would.
func (s *signing) atProvider(t *testing.T, change url.Values) {
	t.Helper()
	b := s.Browser("alice")
	change.Set("name", "alice")
	change.Set("password", b.Password)
	if page := b.Post(s.issuer+"/account", change); page.Status != http.StatusNoContent {
		t.Fatalf("%d %s", page.Status, page.Text)
	}
}

// audited waits until such an event is in the audit log.
func (s *signing) audited(t *testing.T, what string, fits func(kind string, fields map[string]string) bool) {
	t.Helper()
	s.Until(time.Minute, what, func() error {
		events := json.NewDecoder(strings.NewReader(s.As("carol", "audit", "--json").Stdout))
		for n := 0; ; n++ {
			var e struct {
				Kind   string
				Fields map[string]string
			}
			if err := events.Decode(&e); err != nil {
				return fmt.Errorf("not among %d events: %w", n, err)
			}
			if fits(e.Kind, e.Fields) {
				return nil
			}
		}
	})
}

// regrouped: a group that the provider takes away ends the session that it gave, with the grant.
func (s *signing) regrouped(t *testing.T) {
	conn, err := s.Connect(t.Context(), "SALLYPORT_PG")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	s.atProvider(t, url.Values{"group": {"former-engineers"}})
	began := time.Now()
	s.Until(2*time.Minute, "her session ends", func() error {
		if err := conn.Ping(t.Context()); err == nil {
			return errors.New("it goes on")
		}
		return nil
	})
	t.Logf("her session ended %s after the group was gone", time.Since(began).Round(time.Millisecond))
	s.audited(t, "the lost group and the ended grant are audited", func(kind string, fields map[string]string) bool {
		return kind == "grant.ended" && fields["end_reason"] == "policy_removed"
	})
	s.atProvider(t, url.Values{"group": {"engineers"}})
	s.signInAgain(t)
	s.granted(t)
}

// granted sees to it that alice, who is signed in, has the rig's grants for an account of each protocol.
func (s *signing) granted(t *testing.T) {
	t.Helper()
	try := map[string]func() rig.Outcome{
		"app@orders":   func() rig.Outcome { return s.PSQL("SALLYPORT_PG", "-c", "select 1") },
		"deploy@web-1": func() rig.Outcome { return s.SSH("true") },
	}
	for account, connect := range try {
		s.Until(time.Minute, "she is let in as "+account, func() error {
			if connect().Code == 0 {
				return nil
			}
			var g struct{ ID string }
			out := s.As("alice", "request", account, "--duration", "30m", "--reason", "here again", "--json")
			if out.Code != 0 {
				return errors.New(out.Text())
			}
			if err := json.Unmarshal([]byte(out.Stdout), &g); err != nil {
				return err
			}
			if out := s.As("bob", "approve", g.ID); out.Code != 0 {
				return errors.New(out.Text())
			}
			return errors.New(connect().Text())
		})
	}
}

// disabled: who is disabled at the provider loses live sessions of both protocols within a minute, the sign-in and what hangs on it,
// and can't sign in.
func (s *signing) disabled(t *testing.T) {
	psql := talk(t, s.Rig, nil, "psql", "-X", "-d", s.Env["SALLYPORT_PG"], "-c", `\warn psql is in`, "-c", "select pg_sleep(600)")
	psql.hears(t, "psql is in")
	ssh := talk(t, s.Rig, nil, "ssh", "-F", s.Env["SALLYPORT_SSH_CONFIG"], "-o", "BatchMode=yes", "web-1", "echo ssh is in >&2; sleep 600")
	ssh.hears(t, "ssh is in")

	s.atProvider(t, url.Values{"disabled": {"true"}})
	began := time.Now()
	for name, p := range map[string]*talking{"psql": psql, "ssh": ssh} {
		if code := p.ends(t); code == 0 {
			t.Errorf("%s ended well: %s%s", name, &p.stdout, &p.stderr)
		}
	}
	t.Logf("both sessions have ended %s after she was disabled", time.Since(began).Round(time.Millisecond))
	// The first that asks the provider ends the sign-in, and the others find that; it may be neither of these, but who looks after grants.
	if said := psql.stderr.String() + ssh.stderr.String(); strings.Count(said, "does not vouch for you any more")+strings.Count(said, "you are signed out") < 2 {
		t.Errorf("they do not say why:\n%s", said)
	}
	s.audited(t, "it is audited", func(kind string, fields map[string]string) bool {
		return kind == "login.withdrawn" && strings.HasSuffix(fields["identity"], " alice")
	})
	if out := s.As("alice", "whoami"); out.Code == 0 {
		t.Errorf("her tokens: %s", out.Text())
	}
	if out := s.PSQL("SALLYPORT_PG", "-c", "select 1"); out.Code == 0 {
		t.Errorf("her certificate: %s", out.Text())
	}
	s.atProvider(t, url.Values{"disabled": {"false"}})
	s.signInAgain(t)
	s.granted(t)
}

// scim has the provider's directory say something to the gateway, and returns the id of what that is about.
func (s *signing) scim(t *testing.T, method, path, body string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.url+"/scim/v2"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+directoryToken)
	request.Header.Set("Content-Type", "application/scim+json")
	answer, err := s.browser(t).HTTP.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var said struct{ ID, Detail string }
	if err := json.NewDecoder(answer.Body).Decode(&said); err != nil || answer.StatusCode >= 300 {
		t.Fatalf("%s %s: %s: %s %v", method, path, answer.Status, said.Detail, err)
	}
	return said.ID
}

// closedByDirectory: whom the provider's directory closes (SCIM) loses live sessions, the sign-in and what hangs on it at once, though
// nobody asks the provider anything, and can't sign in until it opens them again.
func (s *signing) closedByDirectory(t *testing.T) {
	s.Until(time.Minute, "the gateway sees that the provider answers again", func() error { // what it saw counts for seconds
		if page := s.browser(t).Get("/console/sign-in/start"); page.Status == http.StatusServiceUnavailable {
			time.Sleep(500 * time.Millisecond) // from one address not too many sign-ins are begun
			return errors.New(page.URL.String())
		}
		return nil
	})
	s.signInAgain(t)
	s.granted(t)
	person := s.scim(t, http.MethodPost, "/Users", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"alice@example.com","externalId":"alice","active":true}`)
	active := func(is string) {
		s.scim(t, http.MethodPatch, "/Users/"+person, `{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[{"op":"replace","path":"active","value":`+is+`}]}`)
	}
	psql := talk(t, s.Rig, nil, "psql", "-X", "-d", s.Env["SALLYPORT_PG"], "-c", `\warn psql is in`, "-c", "select pg_sleep(600)")
	psql.hears(t, "psql is in")
	active("false")
	began := time.Now()
	if code := psql.ends(t); code == 0 {
		t.Errorf("psql ended well: %s%s", &psql.stdout, &psql.stderr)
	}
	t.Logf("her session has ended %s after she was closed", time.Since(began).Round(time.Millisecond))
	if !strings.Contains(psql.stderr.String(), "disabled") {
		t.Errorf("it does not say why: %s", &psql.stderr)
	}
	s.audited(t, "it is audited", func(kind string, fields map[string]string) bool {
		return kind == "directory.person" && fields["did"] == "changed" && fields["active"] == "false"
	})
	for what, out := range map[string]rig.Outcome{"her tokens": s.As("alice", "whoami"), "her certificate": s.PSQL("SALLYPORT_PG", "-c", "select 1")} {
		if out.Code == 0 {
			t.Errorf("%s: %s", what, out.Text())
		}
	}
	p, as := s.login(t, "--no-browser")
	b := s.browser(t)
	if page := b.SignIn(b.Go(b.Get(p.hears(t, `^\s+(https://\S+)$`)[1]))); strings.Contains(page.Header.Get("Location"), "code=") {
		t.Errorf("she was let in: %s", page.Header.Get("Location"))
	}
	if out := as("whoami"); out.Code == 0 {
		t.Errorf("she is signed in: %s", out.Text())
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	active("true")
	s.signInAgain(t)
}

// signInAgain signs alice in, in the home that she has.
func (s *signing) signInAgain(t *testing.T) {
	t.Helper()
	p := talk(t, s.Rig, []string{"SALLYPORT_HOME=" + s.Env["SALLYPORT_HOME_ALICE"]}, s.Env["SALLYPORT_BIN"], "login", "--gateway", s.url, "--ca", s.Env["SALLYPORT_CA"], "--no-browser")
	b := rig.NewBrowser(t, s.url, s.authorities, s.name, s.password)
	b.Get(s.toLogin(t, p, b).String())
	if code := p.ends(t); code != 0 {
		t.Fatalf("login: exit %d: %s", code, &p.stderr)
	}
}
