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
