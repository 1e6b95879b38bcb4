//go:build linux

package attacks

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecretsStandNowhere uses every kind of secret that people and programs show to the gateway or that it was given, also where it
// fails, and then searches what it keeps and says: its store with the write-ahead log, recordings, logs with the addresses of requests,
// answers, the process list and the environments of what it runs while it runs it, and what it leaves when it crashes. None may
// stand there.
func TestSecretsStandNowhere(t *testing.T) {
	t.Setenv("CANARY_HOOK", "canary-webhook-77ab01") // comes to the gateway through the rig
	s := newScene(t)
	canaries := map[string]string{"a webhook's secret": os.Getenv("CANARY_HOOK")}
	issuer := s.giveSecrets(canaries)
	s.restart()
	watch := s.watchProcesses()
	s.useJob(canaries, issuer)
	s.useConsole(canaries)
	s.failToTell()

	var issued struct{ Password, User string }
	s.Ask(&issued, "alice", "credentials", "app@orders")
	canaries["a password that was issued"] = issued.Password
	port := regexp.MustCompile(`port=(\d+)`).FindStringSubmatch(s.Env["SALLYPORT_PG"])[1]
	connection := "host=localhost port=" + port + " dbname=orders sslmode=verify-full sslrootcert=" + s.Env["SALLYPORT_CA"] + " user=" + issued.User
	if out := s.Run([]string{"PGPASSWORD=" + issued.Password}, "psql", "-X", "-w", "-c", "select 1", connection); out.Code != 0 {
		t.Fatal(out.Text())
	}
	canaries["a wrong password"] = "canary-wrong-password-1f9c"
	if out := s.Run([]string{"PGPASSWORD=" + canaries["a wrong password"]}, "psql", "-X", "-w", "-c", "select 1", connection); out.Code == 0 || strings.Contains(out.Text(), "canary") {
		t.Fatal(out.Text())
	}

	// What the command line holds, and what strangers send in places where secrets stand.
	for person := range map[string]bool{"alice": true, "bob": true} {
		err := filepath.WalkDir(s.Env["SALLYPORT_HOME_"+strings.ToUpper(person)], func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".json" {
				return err
			}
			data, err := os.ReadFile(path)
			for _, m := range regexp.MustCompile(`"(access_token|refresh_token)"\s*:\s*"([^"]{20,})"`).FindAllSubmatch(data, -1) {
				canaries[person+"'s "+string(m[1])] = string(m[2])
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if canaries["alice's access_token"] == "" {
		t.Fatal("no token was found in alice's home: is it kept elsewhere now?")
	}
	passwords := map[string]string{}
	data, err := os.ReadFile(s.Env["SALLYPORT_PASSWORDS"])
	if err == nil {
		err = json.Unmarshal(data, &passwords)
	}
	if err != nil {
		t.Fatal(err)
	}
	canaries["alice's password at the provider"] = passwords["alice"]
	for name, form := range map[string]struct {
		path string
		form url.Values
	}{
		"a code of a stranger":          {"/oauth/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {"sallyport-cli"}, "code": {"canary-code-77aa01"}, "code_verifier": {"canary-code-77aa01"}}},
		"a refresh token of a stranger": {"/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {"sallyport-cli"}, "refresh_token": {"canary-refresh-77aa02"}}},
		"a job's token of a stranger":   {"/oauth/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "client_id": {"sallyport-cli"}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}, "subject_token": {"canary-job-77aa03.a.b"}}},
		"a revoked token of a stranger": {"/oauth/revoke", url.Values{"client_id": {"sallyport-cli"}, "token": {"canary-revoke-77aa04"}}},
	} {
		page := s.Browser("alice").Post(form.path, form.form)
		canary := regexp.MustCompile(`canary-[a-z]+-77aa\d+`).FindString(form.form.Encode())
		canaries[name] = canary
		if page.Status/100 == 5 || strings.Contains(page.Text, canary) {
			t.Errorf("%s: %d %s", name, page.Status, page.Text)
		}
	}

	s.readKeys(canaries)

	// What the gateway was given to log in with.
	for _, name := range []string{"provider", "app", "postgres"} {
		secret, err := os.ReadFile(s.Path("secrets", name))
		if err != nil {
			t.Fatal(err)
		}
		canaries["the gateway's own secret "+name] = strings.TrimSpace(string(secret))
	}

	found := func(where string, data []byte) {
		for name, canary := range canaries {
			if len(canary) < 8 {
				t.Fatalf("%s is too short to be searched for", name)
			}
			if bytes.Contains(data, []byte(canary)) {
				t.Errorf("%s stands in %s", name, where)
			}
		}
	}
	searched := 0
	err = filepath.WalkDir(s.Path(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // files come and go under a running gateway
		}
		switch below, _ := filepath.Rel(s.Path(), path); strings.Split(below, string(filepath.Separator))[0] {
		case "secrets", "homes", "postgres", "sshd", "keys": // where they are kept, and the target's own
			return fs.SkipDir
		case "gateway.key":
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err == nil {
			searched++
			found(path, data)
		}
		return nil
	})
	if err != nil || searched < 10 {
		t.Fatalf("only %d files were searched, %v", searched, err)
	}
	watch(found)
	for _, command := range [][]string{{"notifications", "--json"}, {"status", "--json"}, {"audit", "--json"}, {"sessions", "--all", "--json"}, {"export", "--all", "--format", "jsonl"}} {
		found("sallyport "+strings.Join(command, " "), []byte(s.As("carol", command...).Text()))
	}
	s.undisturbed()
	if told := read(t, s.Path("secrets", "command.env")); !bytes.Contains(told, []byte("PATH=")) || bytes.Contains(told, []byte(canaries["a webhook's secret"])) {
		t.Errorf("a command that fetches a secret is given another:\n%s", told)
	}
	found("what the gateway says when it is made to crash", s.crash())
}
