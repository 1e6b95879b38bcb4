//go:build unix

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/test/rig"
)

// bare is a home with nothing in it but a key of its own and the gateway's host authority, as the page for newcomers says
// it; it returns the options of a stock ssh.
func bare(t *testing.T, r *rig.Rig) []string {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "id_ed25519")
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(r.Path("sallyport.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	port := regexp.MustCompile(`(?m)^  ssh: "?[0-9.]+:([0-9]+)`).FindStringSubmatch(string(text))[1]
	page := r.Browser("alice").Get("/v1/gateway")
	authority := regexp.MustCompile(`"host_authority":"([^"]+)"`).FindStringSubmatch(page.Text)[1]
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, []byte("@cert-authority [localhost]:"+port+" "+authority+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-F", "none", "-p", port, "-i", key, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "UserKnownHostsFile=" + known, "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"}
}

// TestSSHSignsInWithAnyKey: a stock ssh with a key that nobody knows: a banner shows link and code, in batch mode too, and the
// connection goes on once its person has signed in. Then the key stands for them.
func TestSSHSignsInWithAnyKey(t *testing.T) {
	r := rig.Start(t, rig.Checked(t))
	ssh := bare(t, r)
	destination := "deploy@web-1@localhost"
	out := r.Run(nil, "ssh", append(ssh, destination, "true")...)
	if out.Code != 255 || !strings.Contains(out.Stderr, "takes no plain keys") || strings.Contains(out.Stderr, "/oauth/") {
		t.Fatalf("before it is allowed: %d %s", out.Code, out.Text())
	}
	allowPrompt(t, r)

	// Four at once, as forks of a program are: one sign-in for all.
	var forks []*talking
	links, codes := map[string]bool{}, map[string]bool{}
	for range 4 {
		p := talk(t, r, nil, "ssh", append(ssh, destination, "echo in; exit 3")...)
		links[p.hears(t, `sign in to go on: (\S+)`)[1]] = true
		codes[p.hears(t, `Type this code there: (\S+)`)[1]] = true
		forks = append(forks, p)
	}
	if len(links) != 1 || len(codes) != 1 {
		t.Fatalf("%d links and %d codes for one key", len(links), len(codes))
	}
	// Somebody with a certificate is not held up by those who wait.
	if out := r.SSH("true"); out.Code != 0 {
		t.Fatal(out.Text())
	}
	b := r.Browser("alice")
	for link := range links {
		for code := range codes {
			page := b.Get(link)
			for _, want := range []string{"deploy@web-1", "SSH", "OpenSSH", "SHA256:", "8h"} {
				if !strings.Contains(page.Text, want) {
					t.Errorf("the page does not show %q:\n%s", want, page.Text)
				}
			}
			if page := approve(t, b, link, code); page.Status != 200 || !strings.Contains(page.Text, "Signed in") {
				t.Fatalf("%d %s", page.Status, page.Text)
			}
		}
	}
	for _, p := range forks {
		if code := p.ends(t); code != 3 || p.stdout.String() != "in\n" {
			t.Fatalf("exit %d: %q %s", code, &p.stdout, &p.stderr)
		}
	}

	out = r.Run(nil, "ssh", append(ssh, destination, "echo again")...)
	if out.Code != 0 || out.Stdout != "again\n" || strings.Contains(out.Stderr, "sign in") {
		t.Fatalf("a second time: %d %s", out.Code, out.Text())
	}
	file := filepath.Join(t.TempDir(), "copied")
	scp := r.Run(nil, "scp", append(append([]string{}, strings.Fields(strings.Replace(strings.Join(ssh, " "), "-p ", "-P ", 1))...), destination+":/etc/hostname", file)...)
	if scp.Code != 0 {
		t.Fatalf("scp: %s", scp.Text())
	}
	var sessions []struct {
		Identity struct{ Name, Method string }
	}
	r.Ask(&sessions, "carol", "sessions", "--all")
	if len(sessions) == 0 || sessions[0].Identity.Name != "Alice" || sessions[0].Identity.Method != "SSH key" {
		t.Fatalf("%+v", sessions[0])
	}

	var keys []struct{ ID, Fingerprint, Source string }
	r.Ask(&keys, "alice", "keys")
	if len(keys) != 1 || !strings.HasPrefix(keys[0].Fingerprint, "SHA256:") {
		t.Fatalf("%+v", keys)
	}
	if out := r.As("bob", "keys", "revoke", keys[0].ID); out.Code == 0 {
		t.Fatal("bob revoked alice's key")
	}
	if out := r.As("alice", "keys", "revoke", keys[0].ID); out.Code != 0 {
		t.Fatal(out.Text())
	}
	p := talk(t, r, nil, "ssh", append(ssh, destination, "true")...)
	link := p.hears(t, `sign in to go on: (\S+)`)[1] // it stands for nobody again
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.Until(30*time.Second, "the link is dead", func() error {
		if page := b.Get(link); page.Status != 404 {
			return os.ErrExist
		}
		return nil
	})
	// Nothing but an account on that target: a jump, or another target that does not allow it, stays shut.
	for _, user := range []string{"deploy", "deploy@orders", "deploy@nowhere", "@web-1"} {
		if out := r.Run(nil, "ssh", append(ssh, user+"@localhost", "true")...); out.Code != 255 || strings.Contains(out.Stderr, "/oauth/") {
			t.Errorf("%s: %d %s", user, out.Code, out.Text())
		}
	}
}
