//go:build unix

package e2e

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/test/rig"
)

// TestRestoreDrill is what docs/operations.md says to rehearse: a gateway is backed up while it runs, loses its database and keys,
// later all its state, and is brought back; what was revoked in between stays revoked, and people work again.
func TestRestoreDrill(t *testing.T) {
	r := rig.Start(t, rig.Binary(t, ""))
	state := r.Env["SALLYPORT_STATE"]
	config := filepath.Join(state, "sallyport.yaml")
	away := filepath.Join(state, "away.yaml") // while the configuration is there, the gateway is not started
	passphrase := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(passphrase, []byte("correct horse battery staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sallyport := func(args ...string) rig.Outcome {
		t.Helper()
		return r.Run(nil, r.Env["SALLYPORT_BIN"], args...)
	}
	must := func(out rig.Outcome) rig.Outcome {
		t.Helper()
		if out.Code != 0 {
			t.Fatalf("exit %d: %s", out.Code, out.Text())
		}
		return out
	}
	sealed := func(args ...string) []string { return append(args, "--passphrase", "file:"+passphrase) }
	stopGateway := func() {
		t.Helper()
		pid, err := r.GatewayPID()
		if err == nil {
			err = os.Rename(config, away)
		}
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGTERM)
		}
		if err != nil {
			t.Fatal(err)
		}
		r.Until(time.Minute, "the gateway has ended", func() error {
			if err := syscall.Kill(pid, 0); err == nil {
				return errors.New("it runs")
			}
			return nil
		})
	}
	startGateway := func() {
		t.Helper()
		if err := os.Rename(away, config); err != nil {
			t.Fatal(err)
		}
		probe := r.Browser("alice").HTTP
		r.Until(time.Minute, "the gateway is ready", func() error {
			answer, err := probe.Get(r.Env["SALLYPORT_URL"] + "/readyz")
			if err != nil {
				return err
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				return errors.New(answer.Status)
			}
			return nil
		})
	}
	lose := func(names ...string) {
		t.Helper()
		for _, name := range names {
			if _, err := os.Stat(filepath.Join(state, name)); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(state, name)); err != nil {
				t.Fatal(err)
			}
		}
		for _, rest := range []string{"sallyport.db-wal", "sallyport.db-shm"} {
			os.Remove(filepath.Join(state, rest))
		}
	}
	signIn := func(people ...string) {
		t.Helper()
		for _, person := range people {
			p := talk(t, r, []string{"SALLYPORT_HOME=" + r.Env["SALLYPORT_HOME_"+strings.ToUpper(person)]}, r.Env["SALLYPORT_BIN"],
				"login", "--no-browser", "--gateway", r.Env["SALLYPORT_URL"], "--ca", r.Env["SALLYPORT_CA"])
			address := p.hears(t, `^\s+(https://\S+)$`)[1]
			b := r.Browser(person)
			b.Get(b.SignIn(b.Go(b.Get(address))).Header.Get("Location"))
			if code := p.ends(t); code != 0 {
				t.Fatalf("login as %s: exit %d: %s", person, code, &p.stderr)
			}
		}
	}
	open := func() map[string]string {
		t.Helper()
		var grants []struct{ ID, State string }
		var raw []map[string]any
		r.Ask(&raw, "carol", "grants", "--all")
		text, err := json.Marshal(raw)
		if err == nil {
			err = json.Unmarshal(text, &grants)
		}
		if err != nil || len(grants) == 0 {
			t.Fatalf("%v: %s", err, text)
		}
		found := map[string]string{}
		for i, g := range grants {
			if g.State == "active" || g.State == "approved" || g.State == "pending" {
				found[g.ID] = g.State
			} else if reason, _ := raw[i]["end_reason"].(string); reason != "" {
				found[g.ID] = reason
			}
		}
		return found
	}
	count := func(m map[string]string, what string) (n int) {
		for _, v := range m {
			if v == what {
				n++
			}
		}
		return n
	}

	// Before: a session under a grant, and a backup by the gateway's operator while it goes on.
	must(r.PSQL("SALLYPORT_PG", "-c", "SELECT 'before'"))
	first := filepath.Join(t.TempDir(), "first.age")
	must(sallyport(sealed("backup", "-c", config, first)...))
	if info, err := os.Stat(first); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if out := sallyport(sealed("backup", "-c", config, first)...); out.Code == 0 {
		t.Error("a backup was written over another")
	}
	if out := sallyport(sealed("backup", "-c", config, "--recordings", first+"2")...); out.Code == 0 || !strings.Contains(out.Stderr, "stop it") {
		t.Errorf("recordings were backed up while the gateway runs: %s", out.Text())
	}
	// Since then a grant is revoked, and another one is used for the first time.
	before := open()
	var grants []struct{ ID, State, Account string }
	r.Ask(&grants, "carol", "grants")
	for _, g := range grants {
		if g.Account == "app" {
			must(r.As("carol", "revoke", g.ID, "--reason", "laptop stolen"))
		}
	}
	must(r.PSQL("SALLYPORT_PG_SUPERUSER", "-c", "SELECT 'after'"))
	if out := r.PSQL("SALLYPORT_PG", "-c", "SELECT 1"); out.Code == 0 {
		t.Fatal("the grant is not revoked")
	}

	// Database and keys are lost, the recordings are not.
	if out := sallyport(sealed("restore", "-c", config, first)...); out.Code == 0 {
		t.Error("a backup was restored under a running gateway")
	}
	stopGateway()
	lose("sallyport.db", "keys")
	must(sallyport(sealed("restore", "-c", away, first)...))
	startGateway()
	for _, variable := range []string{"SALLYPORT_PG", "SALLYPORT_PG_SUPERUSER"} {
		if out := r.PSQL(variable, "-c", "SELECT 'with the old certificate'"); out.Code == 0 {
			t.Errorf("%s: a sign-in of before opens a session", variable)
		}
	}
	signIn("alice", "bob", "carol")
	for _, variable := range []string{"SALLYPORT_PG", "SALLYPORT_PG_SUPERUSER"} {
		if out := r.PSQL(variable, "-c", "SELECT 'with the old grant'"); out.Code == 0 {
			t.Errorf("%s: a grant of before opens a session", variable)
		}
	}
	after := open()
	if n := count(after, "restored"); n != len(before) || len(before) != 3 {
		t.Errorf("before the loss: %v, after it: %v", before, after)
	}
	var asked struct{ ID string }
	again := func() {
		t.Helper()
		r.Ask(&asked, "alice", "request", "app@orders", "--duration", "30m", "--reason", "after the drill")
		must(r.As("bob", "approve", asked.ID))
		must(r.PSQL("SALLYPORT_PG", "-c", "SELECT 'again'"))
	}
	again()
	r.Until(30*time.Second, "the log is whole, with what was recorded before, between and after", func() error {
		if out := r.As("carol", "verify"); out.Code != 0 {
			return errors.New(out.Text())
		}
		text := must(r.As("carol", "audit")).Stdout
		for _, kind := range []string{"laptop stolen", "store.restored", "after the drill"} {
			if !strings.Contains(text, kind) {
				return errors.New("the audit log does not say " + kind)
			}
		}
		return nil
	})

	// Then all of it is lost.
	stopGateway()
	second := filepath.Join(t.TempDir(), "second.age")
	must(sallyport(sealed("backup", "-c", away, "--recordings", second)...))
	lose("sallyport.db", "keys", "recordings", "audit", "transparency", "wal", "index.db")
	must(sallyport(sealed("restore", "-c", away, second)...))
	startGateway()
	signIn("alice", "bob", "carol")
	if n := count(open(), "restored"); n != len(before)+1 {
		t.Errorf("%d grants ended with the restoring, instead of %d", n, len(before)+1)
	}
	again()
	must(r.As("carol", "verify"))
	if out := must(r.As("carol", "export", "--all", "--format", "jsonl")); !strings.Contains(out.Stdout, "SELECT 'before'") || !strings.Contains(out.Stdout, "SELECT 'after'") {
		t.Error("the recordings did not come back")
	}
}
