//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/test/rig"
)

// newerPsql is the command of a psql that signs in natively, or skips: test/tools/newer-psql MAJOR brings one, and `make
// conformance` does.
func newerPsql(t *testing.T, major string) string {
	t.Helper()
	dir := os.Getenv("SALLYPORT_CONFORMANCE_CACHE")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Skip(err)
		}
		dir = filepath.Join(cache, "sallyport-conformance")
	}
	command := filepath.Join(dir, "psql-"+major, "psql")
	if out, err := exec.CommandContext(t.Context(), command, "--version").Output(); err != nil || !strings.Contains(string(out), ") "+major) {
		t.Skipf("there is no psql %s that runs here; bring it with: test/tools/newer-psql %s", major, major)
	}
	return command
}

// talking is a program whose standard error is read as it comes.
type talking struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	lines          chan string
	end            chan error
}

// talk starts it; what it says is also kept.
func talk(t *testing.T, r *rig.Rig, env []string, name string, args ...string) *talking {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	p := &talking{cmd: exec.CommandContext(ctx, name, args...), lines: make(chan string, 1000), end: make(chan error, 1)}
	p.cmd.Env = append(append(os.Environ(), "LC_ALL=C", "HOME="+t.TempDir()), env...)
	p.cmd.Stdout = &p.stdout
	p.cmd.WaitDelay = 5 * time.Second
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		scanner := bufio.NewScanner(stderr)
		for scanner.Scan() {
			p.stderr.WriteString(scanner.Text() + "\n")
			p.lines <- scanner.Text()
		}
		close(p.lines)
		p.end <- p.cmd.Wait()
	}()
	return p
}

// hears waits for a line that matches.
func (p *talking) hears(t *testing.T, pattern string) []string {
	t.Helper()
	expression := regexp.MustCompile(pattern)
	var all []string
	patience := time.After(time.Minute)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				t.Fatalf("it ended without saying %s, but:\n%s\n%s", pattern, strings.Join(all, "\n"), &p.stdout)
			}
			all = append(all, line)
			if m := expression.FindStringSubmatch(line); m != nil {
				return m
			}
		case <-patience:
			t.Fatalf("it never said %s, but:\n%s", pattern, strings.Join(all, "\n"))
		}
	}
}

// ends waits for its end and returns its exit status.
func (p *talking) ends(t *testing.T) int {
	t.Helper()
	select {
	case err := <-p.end:
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// own is a connection string to the rig's database without anybody's certificate.
func own(r *rig.Rig, more ...string) string {
	port := regexp.MustCompile(`port=(\d+)`).FindStringSubmatch(r.Env["SALLYPORT_PG"])[1]
	return strings.Join(append([]string{"host=localhost", "port=" + port, "dbname=orders", "user=app", "sslmode=verify-full", "sslrootcert=" + r.Env["SALLYPORT_CA"]}, more...), " ")
}

// TestPsqlSignsInNatively: a stock psql of a release that knows OAuth signs in by the device flow at the gateway's own
// issuer, with nothing installed; and what is wrong with its settings it can say.
func TestPsqlSignsInNatively(t *testing.T) {
	newest := newerPsql(t, "19")
	r := rig.Start(t, rig.Checked(t))
	issuer := []string{"oauth_issuer=" + r.Env["SALLYPORT_URL"], "oauth_client_id=sallyport-psql"}
	for _, major := range []string{"18", "19"} {
		t.Run("psql "+major, func(t *testing.T) {
			psql := newerPsql(t, major)
			env := []string{"PGOAUTHCAFILE=" + r.Env["SALLYPORT_CA"]}
			if major == "18" { // which takes another authority only in its test mode
				env = append(env, "PGOAUTHDEBUG=UNSAFE")
			}
			p := talk(t, r, env, psql, "-X", "-A", "-t", "-c", "select 'in as ' || current_user", own(r, append(issuer, "require_auth=oauth")...))
			found := p.hears(t, `Visit (\S+) and enter the code: (\S+)`)
			b := r.Browser("alice")
			page := b.Submit(b.Get(found[1]), url.Values{"user_code": {strings.ToLower(found[2])}})
			for _, want := range []string{found[2], "app@orders", "127.0.0.1", "libpq"} {
				if !strings.Contains(page.Text, want) && !(want == "127.0.0.1" && strings.Contains(page.Text, "::1")) {
					t.Errorf("the page does not show %q:\n%s", want, page.Text)
				}
			}
			page = b.Submit(b.SignIn(b.Go(page)), url.Values{"decision": {"approve"}})
			if page.Status != 200 || !strings.Contains(page.Text, "Signed in") {
				t.Fatalf("%d %s", page.Status, page.Text)
			}
			if code := p.ends(t); code != 0 || p.stdout.String() != "in as app\n" {
				t.Fatalf("exit %d: %q %s", code, &p.stdout, &p.stderr)
			}
			var sessions []struct {
				Identity struct{ Name, Method string }
			}
			r.Until(30*time.Second, "the session is listed", func() error {
				r.Ask(&sessions, "carol", "sessions", "--all")
				if len(sessions) == 0 || sessions[0].Identity.Name != "Alice" || sessions[0].Identity.Method != "OAuth token" {
					return fmt.Errorf("%+v", sessions)
				}
				return nil
			})
		})
	}
	for name, c := range map[string]struct {
		settings []string
		words    []string
	}{
		"nothing about OAuth":    {nil, []string{"oauth_issuer"}},
		"another issuer":         {[]string{"oauth_issuer=https://login.example", "oauth_client_id=sallyport-psql"}, []string{r.Env["SALLYPORT_URL"]}},
		"another client":         {[]string{issuer[0], "oauth_client_id=psql"}, []string{"sallyport-psql"}},
		"a scope of its own":     {append([]string{"oauth_scope=openid"}, issuer...), []string{"leave oauth_scope out"}},
		"a password's name":      {append([]string{"user=app+abcdefghij", "password=x"}, issuer...), []string{"password authentication failed", "sallyport credentials"}},
		"a name that nobody has": {append([]string{"user=a/b"}, issuer...), []string{"sallyport login", "/connect"}},
	} {
		t.Run("wrong: "+name, func(t *testing.T) {
			out := r.Run([]string{"PGOAUTHCAFILE=" + r.Env["SALLYPORT_CA"], "HOME=" + t.TempDir()}, newest, "-X", "-w", "-c", "select 1", own(r, c.settings...))
			t.Log(out.Text())
			if out.Code == 0 {
				t.Fatal("it got in")
			}
			for _, word := range c.words {
				if !strings.Contains(out.Stderr, word) {
					t.Errorf("it does not say %q", word)
				}
			}
		})
	}
}
