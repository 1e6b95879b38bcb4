//go:build unix

package e2e

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"sallyport/grant/approval/slack/slacktest"
	"sallyport/grant/evidence/jira/jiratest"
	"sallyport/internal/telemetry/telemetrytest"
	"sallyport/test/rig"
)

// ci is a CI system: it signs its jobs' tokens, and says whether they run.
type ci struct {
	*httptest.Server
	signer jose.Signer
	state  atomic.Value
}

func newCI(t *testing.T) *ci {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &ci{}
	c.state.Store("in_progress")
	if c.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, (&jose.SignerOptions{}).WithType("JWT")); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": c.URL, "jwks_uri": c.URL + "/keys", "response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "1", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("GET /jobs/{job}", func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]any{"state": c.state.Load()}) })
	c.Server = httptest.NewServer(mux)
	t.Cleanup(c.Close)
	return c
}

// token is a file with a job's own token.
func (c *ci) token(t *testing.T, audience, run string) string {
	t.Helper()
	now := time.Now()
	text, err := jwt.Signed(c.signer).Claims(map[string]any{
		"iss": c.URL, "aud": audience, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "jti": rand.Text(),
		"sub": "repo:example/shop:ref:refs/heads/main", "repository": "example/shop", "repository_id": "7", "repository_owner_id": "8", "ref": "refs/heads/main",
		"workflow": "deploy", "event_name": "push", "run_id": run, "run_attempt": "1", "check_run_id": "9",
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// window is one of a policy's hours that is open now and ends in ten minutes or a little less, and its end: in a zone where it is about
// noon, so that no midnight is in it.
func window(now time.Time) (hours string, end time.Time) {
	zone := fmt.Sprintf("Etc/GMT%+d", now.UTC().Hour()-12) // whose signs are the other way round
	end = now.Add(10 * time.Minute).Truncate(time.Minute)
	noon := end.UTC().Add(time.Duration(12-now.UTC().Hour()) * time.Hour)
	return fmt.Sprintf("mon-sun %s-%s %s", noon.Add(-time.Hour).Format("15:04"), noon.Format("15:04"), zone), end
}

// storyPolicies take the place of the rig's; in them is the deployment's window.
const storyPolicies = `policies:
  - name: deploy
    groups: [release]
    accounts: ["app@orders"]
    hours: [%q]
    evidence: [job]
    when: evidence.job.state == "in_progress"
    max_duration: 15m
    approve: {auto: true}
  - name: diagnosis
    groups: [engineers]
    roles: [look]
    max_duration: 30m
    approve: {groups: [approvers]}
  - name: incident
    groups: [engineers]
    accounts: ["postgres@orders"]
    evidence: [oncall]
    when: identity.subject in evidence.oncall.subjects
    max_duration: 1h
    approve: {auto: true}
  - name: ticketed
    groups: [engineers]
    accounts: ["deploy@web-1"]
    evidence: [ticket]
    ticket: OPS-[0-9]+
    max_duration: 1h
    approve: {auto: true}
roles:
  - name: look
    accounts: ["app@orders"]
    limits: {read_only: true}
`

// TestAccessStory is the whole idea: access to production is given for a time and a reason, by a policy, a person, a shift or a
// ticket, and is gone when that is.
func TestAccessStory(t *testing.T) {
	told := telemetrytest.New(t) // through all of it, and a gateway that is killed
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", told.URL)
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "1000")
	r := rig.Start(t, rig.Checked(t))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var alice, bob struct{ Issuer, Subject string }
	r.Ask(&alice, "alice", "whoami")
	r.Ask(&bob, "bob", "whoami")

	jobs, jira := newCI(t), jiratest.New()
	t.Cleanup(jira.Close)
	slack := slacktest.New(slacktest.Member{ID: "U0ALICE"}, slacktest.Member{ID: "U0BOB"})
	t.Cleanup(slack.Close)
	oncall := r.Path("oncall.yaml")
	onDuty := func(subject string) {
		t.Helper()
		if err := os.WriteFile(oncall, fmt.Appendf(nil, "subjects: [%q]\n", subject), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	onDuty(alice.Subject)
	for name, secret := range map[string]string{"jira": jiratest.Token, "slack-app": slacktest.AppToken, "slack-bot": slacktest.BotToken} {
		if err := os.WriteFile(r.Path("secrets", name), []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := r.Path("sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), "policies:\n")
	_, permissions, found := strings.Cut(rest, "permissions:\n")
	if !found {
		t.Fatalf("the rig's configuration is not as it was:\n%s", text)
	}
	before = strings.Replace(before, "workloads:\n", fmt.Sprintf(`workloads:
  - name: release
    preset: github
    issuer: %q
    audience: %q
    bind: {repository_id: "7", repository_owner_id: "8"}
    groups: [release]
`, jobs.URL, r.Env["SALLYPORT_URL"]), 1)
	began := time.Now()
	hours, closes := window(began)
	changed := before + fmt.Sprintf(storyPolicies, hours) + fmt.Sprintf(`evidence:
  - {name: job, kind: job, url: "%s/jobs/{subject}", every: 5s}
  - {name: oncall, kind: oncall, file: %q, every: 5s}
  - {name: ticket, kind: ticket, jira: acme, every: 5s}
approvals:
  people:
    - {subject: %q, slack: T012AB3C4/U0ALICE, jira: acc-alice}
    - {subject: %q, slack: T012AB3C4/U0BOB}
  slack:
    - {name: ops, app_token: "file:%s", bot_token: "file:%s", channel: C0MAIN, api: %q}
  jira:
    - {name: acme, url: %q, user: %q, token: "file:%s", projects: [OPS], comment: true}
permissions:
`, jobs.URL, oncall, alice.Subject, bob.Subject, r.Path("secrets", "slack-app"), r.Path("secrets", "slack-bot"), slack.API(), jira.URL, jiratest.User, r.Path("secrets", "jira")) + permissions
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := r.Run(nil, r.Env["SALLYPORT_BIN"], "check", "-c", file); out.Code != 0 {
		t.Fatal(out.Text())
	}
	r.EndGateway(syscall.SIGKILL)
	r.Ready()

	type grant struct {
		ID, State  string
		EndReason  string `json:"end_reason"`
		Policy     string
		Identity   struct{ Kind, Subject string }
		Approvers  []string
		Limits     []string
		EndComment string `json:"end_comment"`
		From       time.Time
		Until      time.Time
	}
	newest := func(policy string) (g grant, err error) {
		var all []grant
		r.Ask(&all, "carol", "grants", "--all")
		for _, g := range all {
			if g.Policy == policy {
				return g, nil
			}
		}
		return g, fmt.Errorf("no grant by policy %s", policy)
	}
	ended := func(policy, reason string) grant {
		t.Helper()
		var g grant
		r.Until(time.Minute, "the grant by policy "+policy+" ends: "+reason, func() (err error) {
			if g, err = newest(policy); err == nil && (g.State != "ended" || g.EndReason != reason) {
				err = fmt.Errorf("it is %s, %s %s", g.State, g.EndReason, g.EndComment)
			}
			return err
		})
		return g
	}

	t.Run("a deploy job has access for its window, and loses it when it is done", func(t *testing.T) {
		home := t.TempDir()
		env := []string{"SALLYPORT_HOME=" + home, "SALLYPORT_GATEWAY=" + r.Env["SALLYPORT_URL"], "SALLYPORT_CA=" + r.Env["SALLYPORT_CA"], "TMPDIR=" + home}
		run := func(token string, command string) rig.Outcome {
			t.Helper()
			return r.Run(env, r.Env["SALLYPORT_BIN"], "run", "app@orders", "--token-file", token, "--reason", "release 7", "--need", "1m", "--", "sh", "-c", command)
		}
		out := run(jobs.token(t, r.Env["SALLYPORT_URL"], "70"), `psql -X -A -t -c "SELECT 'migrated as ' || current_user"`)
		if out.Code != 0 || !strings.Contains(out.Stdout, "migrated as app") {
			t.Fatal(out.Text())
		}
		g := ended("deploy", "released")
		if g.Identity.Kind != "workload" || len(g.Approvers) != 1 || g.Approvers[0] != "policy deploy" {
			t.Errorf("%+v", g)
		}
		if !g.Until.Equal(closes) || g.Until.Sub(g.From) >= 15*time.Minute { // the window ends before the quarter of an hour that it was for
			t.Errorf("from %s until %s, the window closes at %s", g.From, g.Until, closes)
		}
		if out := run(jobs.token(t, r.Env["SALLYPORT_URL"], "69"), `psql -X -A -t -c "SELECT 1" && exit 3`); out.Code != 3 { // a job that fails gives back what it had, too
			t.Error(out.Text())
		}
		ended("deploy", "released")
		// One that its CI system says is over has nothing any more, whatever it still does.
		marker := filepath.Join(home, "begun")
		go func() {
			for ctx.Err() == nil {
				if _, err := os.Stat(marker); err == nil {
					jobs.state.Store("completed")
					return
				}
				time.Sleep(50 * time.Millisecond) // looks again
			}
		}()
		out = run(jobs.token(t, r.Env["SALLYPORT_URL"], "71"), `psql -X -c "SELECT 1" && touch '`+marker+`' && exec psql -X -c "SELECT pg_sleep(100)"`)
		if out.Code == 0 || !strings.Contains(out.Text(), "evidence.job.state") {
			t.Errorf("exit %d: %s", out.Code, out.Text())
		}
		ended("deploy", "task_completed")
		if out := run(jobs.token(t, r.Env["SALLYPORT_URL"], "72"), "echo started"); out.Code == 0 || strings.Contains(out.Stdout, "started") {
			t.Errorf("a job that is over: exit %d: %s", out.Code, out.Text())
		}
	})

	t.Run("a person approves a diagnosis in Slack", func(t *testing.T) {
		var g grant
		r.Ask(&g, "alice", "request", "app@orders", "--duration", "10m", "--reason", "INC-42: slow checkout")
		if out := r.PSQL("SALLYPORT_PG", "-c", "SELECT 1"); out.Code == 0 {
			t.Fatal("before anybody approved it")
		}
		message := func(text string) (m slacktest.Message) {
			t.Helper()
			if err := slack.Until(ctx, func() bool {
				for _, m = range slack.Messages() {
					if strings.Contains(m.Blocks, g.ID) && strings.Contains(m.Text, text) {
						return true
					}
				}
				return false
			}); err != nil {
				t.Fatal(err)
			}
			return m
		}
		m := message("asks for app@orders for 10m")
		for _, what := range []string{"slow checkout", "read only", "approvers"} {
			if !strings.Contains(m.Blocks, what) {
				t.Errorf("the message does not say %s: %s", what, m.Blocks)
			}
		}
		r.Until(time.Minute, "the form", func() error { // until the gateway has noted which message it is
			if err := slack.Click(ctx, slacktest.From{User: "U0BOB"}, m, "sallyport_approve"); err != nil {
				t.Fatal(err)
			}
			short, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			return slack.Until(short, func() bool { return len(slack.Views()) > 0 })
		})
		said, err := slack.Submit(ctx, slacktest.From{User: "U0BOB"}, slack.Views()[0], "have a look")
		if err != nil || !strings.Contains(said, "approved") {
			t.Fatal(said, err)
		}
		message("approved by")
		if out := r.PSQL("SALLYPORT_PG", "-c", "SELECT 'diagnosed'"); out.Code != 0 || !strings.Contains(out.Stdout, "diagnosed") {
			t.Fatal(out.Text())
		}
		if out := r.PSQL("SALLYPORT_PG", "-c", "UPDATE orders SET item = item"); out.Code == 0 {
			t.Error("a read-only grant has written")
		}
		message("active until")
		if out := r.As("alice", "release", g.ID); out.Code != 0 {
			t.Fatal(out.Text())
		}
		if g := ended("diagnosis", "released"); len(g.Limits) == 0 {
			t.Errorf("%+v", g)
		}
		message("ended, released")
	})

	t.Run("an incident grant rides on who is on call", func(t *testing.T) {
		if out := r.As("alice", "request", "postgres@orders", "--reason", "INC-43: replication stands still"); out.Code != 0 {
			t.Fatal(out.Text())
		}
		running := talk(t, r, nil, "psql", "-X", "-A", "-t", r.Env["SALLYPORT_PG_SUPERUSER"], "-c", "\\warn runs", "-c", "SELECT pg_sleep(200)")
		running.hears(t, `(runs)`)
		r.Until(time.Minute, "the list of live sessions says what is done", func() error {
			if out := r.As("carol", "sessions", "--live"); out.Code != 0 || !strings.Contains(out.Stdout, "SELECT pg_sleep(200)") || !strings.Contains(out.Stdout, "postgres@orders") {
				return errors.New(out.Text())
			}
			return nil
		})
		var mine []struct {
			Live struct {
				Seen bool
				Last string
			}
		}
		if r.Ask(&mine, "alice", "sessions", "--live"); len(mine) != 1 || mine[0].Live.Seen || mine[0].Live.Last != "" {
			t.Errorf("she may not watch, and is told %+v", mine)
		}
		onDuty(bob.Subject)
		ended("incident", "shift_over")
		if status := running.ends(t); status == 0 || !strings.Contains(running.stderr.String(), "oncall") {
			t.Errorf("the statement ended with %d: %s", status, &running.stderr)
		}
		// And with the connection the statement on the target.
		r.Until(20*time.Second, "the statement is gone", func() error {
			if out := r.PSQL("SALLYPORT_PG_SUPERUSER_DIRECT", "-c", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(200)%' AND pid <> pg_backend_pid()"); out.Code != 0 || strings.TrimSpace(out.Stdout) != "0" {
				return errors.New(out.Text())
			}
			return nil
		})
		if out := r.As("alice", "request", "postgres@orders", "--reason", "INC-43: again"); out.Code == 0 || !strings.Contains(out.Text(), "evidence.oncall.subjects") {
			t.Error(out.Text())
		}
	})

	t.Run("a ticketed grant ends with its ticket", func(t *testing.T) {
		if out := r.As("alice", "request", "deploy@web-1", "--reason", "rotate the keys", "--ticket", "OPS-42"); out.Code == 0 || !strings.Contains(out.Text(), "there is no issue OPS-42") {
			t.Fatal(out.Text())
		}
		jira.Move("OPS-42", "In Progress", "indeterminate", "acc-bob", time.Now())
		r.Until(time.Minute, "the ticket counts", func() error { // once it is read again
			if out := r.As("alice", "request", "deploy@web-1", "--reason", "rotate the keys", "--ticket", "OPS-42"); out.Code != 0 {
				return errors.New(out.Text())
			}
			return nil
		})
		if out := r.SSH("echo rotated"); out.Code != 0 || out.Stdout != "rotated\n" {
			t.Fatal(out.Text())
		}
		open := exec.CommandContext(ctx, "ssh", "-F", r.Env["SALLYPORT_SSH_CONFIG"], "-o", "BatchMode=yes", "web-1", "sleep 200")
		if err := open.Start(); err != nil {
			t.Fatal(err)
		}
		over := make(chan error, 1)
		go func() { over <- open.Wait() }()
		jira.Move("OPS-42", "Done", "done", "acc-bob", time.Now())
		if g := ended("ticketed", "ticket_closed"); !strings.Contains(g.EndComment, "OPS-42 is closed") {
			t.Errorf("%+v", g)
		}
		select {
		case err := <-over:
			if err == nil {
				t.Error("the session ended well")
			}
		case <-time.After(20 * time.Second):
			t.Error("the session outlives the ticket")
		}
		r.Until(time.Minute, "the ticket is told", func() error {
			if all := strings.Join(jira.Comments("OPS-42"), "\n"); !strings.Contains(all, "Approved by policy ticketed") || !strings.Contains(all, "Access ended (ticket closed)") {
				return errors.New(all)
			}
			return nil
		})
	})

	t.Run("and all of it stands in the log", func(t *testing.T) {
		audit := r.As("carol", "audit", "--json").Stdout
		for _, what := range []string{"task_completed", "shift_over", "ticket_closed", "slack/ops", "workload.exchanged"} {
			if !strings.Contains(audit, what) {
				t.Errorf("the audit log does not say %s", what)
			}
		}
		var report struct {
			Tables []struct {
				Title string
				Rows  [][]string
			}
		}
		at := func(when time.Time) string { return when.UTC().Format(time.RFC3339) }
		r.Ask(&report, "carol", "report", "access", "--from", at(began.Add(-time.Minute)), "--to", at(time.Now().Add(time.Minute)))
		rows := ""
		for _, table := range report.Tables {
			for _, row := range table.Rows {
				rows += table.Title + " | " + strings.Join(row, " | ") + "\n"
			}
		}
		for _, parts := range [][]string{ // who, when, why, by whose word, with what done
			{"Grants", "release 7", "deploy", "policy deploy", "released"},
			{"Grants", "release 7", "deploy", "policy deploy", "task_completed"},
			{"Grants", "Alice", "INC-42: slow checkout", "diagnosis", "Bob", "released"},
			{"Grants", "Alice", "INC-43: replication stands still", "policy incident", "shift_over"},
			{"Grants", "Alice", "rotate the keys", "OPS-42", "policy ticketed", "ticket_closed"},
			{"What was done", "release 7", "policy deploy", "migrated as"},
			{"What was done", "Alice", "INC-42: slow checkout", "Bob", "SELECT 'diagnosed'"},
			{"What was done", "Alice", "INC-43", "policy incident", "pg_sleep(200)"},
			{"What was done", "Alice", "rotate the keys", "policy ticketed", "echo rotated"},
		} {
			if !slices.ContainsFunc(strings.Split(rows, "\n"), func(row string) bool {
				return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(strings.ToLower(row), strings.ToLower(part)) })
			}) {
				t.Errorf("no row of the report says all of %q:\n%s", parts, rows)
			}
		}
		today := began.UTC().Format("2006-01-02")
		if time.Now().UTC().Format("2006-01-02") == today && strings.Count(rows, today) < 9 {
			t.Errorf("it does not say when:\n%s", rows)
		}
		if out := r.As("carol", "report", "access", "--from", at(began.Add(-2*time.Hour)), "--to", at(began.Add(-time.Hour))); out.Code != 0 || strings.Contains(out.Stdout, "INC-42") {
			t.Errorf("of the time before: %s", out.Text())
		}
		if out := r.As("carol", "verify"); out.Code != 0 {
			t.Error(out.Text())
		}
	})

	t.Run("and a collector was told of it", func(t *testing.T) { toldOf(t, told, r) })
}
