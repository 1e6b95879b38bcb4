package client

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/client/userfile"
	"sallyport/web/api"
)

const authority = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJHHc6xL1b3G6dBYbC1pQZ7VYCC8pqU5J7h0h5JYV0m9"

// issued is what a gateway answers, for a person with two accounts on a database and one on each of two hosts.
func issued() api.Certificates {
	return api.Certificates{
		TLSCertificate: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
		SSHCertificate: "ssh-ed25519-cert-v01@openssh.com AAAA",
		Gateway:        api.Gateway{CA: "pem", SSH: api.Endpoint{Host: "gate.example", Port: 2222}},
		KnownHosts:     []string{"@cert-authority [gate.example]:2222 " + authority, "@cert-authority web-1 " + authority},
		Targets: []api.Connection{
			{Name: "orders", Kind: "postgres", Accounts: []string{"app", "report"}, Host: "gate.example", Port: 5433, Database: "shop"},
			{Name: "orders-report", Kind: "postgres", Accounts: []string{"app"}, Host: "gate.example", Port: 5432, Database: "orders-report"},
			{Name: "web-1", Kind: "ssh", Accounts: []string{"deploy", "root"}, Host: "gate.example", Port: 2222, Aliases: []string{"web-1.internal", "10.0.0.5:2200", "web-2"}},
			{Name: "web-2", Kind: "ssh", Accounts: []string{"root"}, Host: "gate.example", Port: 2222},
		},
	}
}

func homeIn(t *testing.T, dir string) Home {
	t.Helper()
	h := Home{Dir: dir}
	keys, err := newKeys()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.writeCredentials(keys, issued()); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestServices(t *testing.T) {
	h := Home{Dir: "/home/a b"}
	got, err := h.services(issued())
	if err != nil {
		t.Fatal(err)
	}
	first := `[orders]
host=gate.example
port=5433
dbname=shop
user=app
sslmode=verify-full
sslrootcert=/home/a b/ca.pem
sslcert=/home/a b/tls.crt
sslkey=/home/a b/tls.key
`
	if runtime.GOOS != "windows" && !strings.HasPrefix(got, first) {
		t.Errorf("got\n%s\nwant it to begin with\n%s", got, first)
	}
	// A target's own name comes before another's TARGET-ACCOUNT.
	if want := []string{"orders", "orders-wait", "orders-app", "orders-report", "orders-report-wait"}; strings.Join(sections(got), " ") != strings.Join(want, " ") {
		t.Errorf("services %v, want %v", sections(got), want)
	}
}

func TestServicesWithTheSystemsAuthorities(t *testing.T) {
	c := issued()
	c.Gateway.CA = ""
	got, err := Home{Dir: "/h"}.services(c)
	if err != nil || !strings.Contains(got, "sslrootcert=system\n") {
		t.Errorf("got %q, %v", got, err)
	}
}

// The stock ssh reads what was written, paths with blanks and percent signs included.
func TestOpenSSHReadsTheConfig(t *testing.T) {
	program, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("there is no ssh here")
	}
	dir := filepath.Join(t.TempDir(), "100% mine [x]")
	h := homeIn(t, dir)
	for host, want := range map[string][]string{
		"web-1": {"hostname web-1", "user deploy", "port 22", "proxyjump sallyport-gateway", "identitiesonly yes", "stricthostkeychecking true",
			"identityfile " + strings.ReplaceAll(h.Path(fileSSHKey), "%", "%%"), "certificatefile " + strings.ReplaceAll(h.Path(fileSSHCertificate), "%", "%%"),
			"userknownhostsfile " + h.Path(fileKnownHosts)},
		"web-1.internal":    {"hostname web-1", "user deploy"},
		"10.0.0.5":          {"hostname web-1"},
		"web-2":             {"hostname web-2", "user root"},
		"sallyport-gateway": {"hostname gate.example", "port 2222"},
	} {
		out, err := exec.Command(program, "-G", "-F", h.Path(fileSSHConfig), host).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh -G %s: %v\n%s", host, err, out)
		}
		for _, line := range want {
			if !strings.Contains(unpercent(string(out)), unpercent(line)+"\n") {
				t.Errorf("%s: no %q in\n%s", host, line, out)
			}
		}
	}
	// Through the user's own file the same holds.
	own := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(own, []byte("Host *\n  User somebody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := userfile.Merge(own, "Include "+includePath(h.Path(fileSSHConfig)), userfile.AtTop); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "-G", "-F", own, "web-1").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "user deploy\n") {
		t.Errorf("through Include: %v\n%s", err, out)
	}
}

// unpercent makes "%%" and "%" the same: versions of ssh differ in whether -G prints a path before or after expansion.
func unpercent(s string) string { return strings.ReplaceAll(s, "%%", "%") }

// The stock ssh-keygen reads the private key, and finds the authority in known_hosts.
func TestOpenSSHReadsTheKeys(t *testing.T) {
	program, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("there is no ssh-keygen here")
	}
	h := homeIn(t, t.TempDir())
	out, err := exec.Command(program, "-y", "-f", h.Path(fileSSHKey)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	public, err := os.ReadFile(h.Path(fileSSHPublic))
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(out)
	if err != nil || string(ssh.MarshalAuthorizedKey(key)) != string(public) {
		t.Errorf("the public key is %q, the private key's %q", public, out)
	}
	for _, host := range []string{"[gate.example]:2222", "web-1"} {
		if out, err := exec.Command(program, "-F", host, "-f", h.Path(fileKnownHosts)).CombinedOutput(); err != nil || !strings.Contains(string(out), "@cert-authority") {
			t.Errorf("%s: %v\n%s", host, err, out)
		}
	}
}

func TestSecretsAreTheOwnersAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean little here")
	}
	h := homeIn(t, filepath.Join(t.TempDir(), "home"))
	if err := h.writeJSON(fileToken, map[string]string{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{fileTLSKey, fileSSHKey, fileToken} {
		info, err := os.Stat(h.Path(name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if info, err := os.Stat(h.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the home: %v, %v", info, err)
	}
}

// A gateway that lies can't write lines of its own into the files which decide whom a client trusts.
func TestHostileNamesAreNotWritten(t *testing.T) {
	keys, err := newKeys()
	if err != nil {
		t.Fatal(err)
	}
	evil := []string{"x\nProxyCommand evil", "x ProxyCommand", `x"y`, "-oProxyCommand=x", "a%b", "x\r", "x\x00", "", " x", "x#y z]", strings.Repeat("x", 300)}
	change := map[string]func(c *api.Certificates, word string){
		"name":     func(c *api.Certificates, w string) { c.Targets[2].Name = w },
		"database": func(c *api.Certificates, w string) { c.Targets[0].Name = w },
		"account":  func(c *api.Certificates, w string) { c.Targets[0].Accounts[1] = w },
		"user":     func(c *api.Certificates, w string) { c.Targets[2].Accounts[0] = w },
		"host":     func(c *api.Certificates, w string) { c.Targets[0].Host = w },
		"alias":    func(c *api.Certificates, w string) { c.Targets[2].Aliases[0] = w },
		"gateway":  func(c *api.Certificates, w string) { c.Gateway.SSH.Host = w },
		"known":    func(c *api.Certificates, w string) { c.KnownHosts[0] = w },
	}
	for what, set := range change {
		for _, word := range evil {
			c := issued()
			set(&c, word)
			h := Home{Dir: filepath.Join(t.TempDir(), "home")}
			if err := h.writeCredentials(keys, c); err == nil {
				t.Errorf("%s %q was written", what, word)
			}
			if _, err := os.Stat(h.Dir); !os.IsNotExist(err) {
				t.Errorf("%s %q: something was written before it was refused", what, word)
			}
		}
	}
	c := issued()
	c.Targets[0].Database = "shop\nhost=evil"
	if _, err := (Home{Dir: "/h"}).services(c); err == nil {
		t.Error("a line break in a database's name was written")
	}
}

func TestHostileHomeIsRefused(t *testing.T) {
	for _, dir := range []string{"/a\nb", `/a"b`, "/a${b}"} {
		if err := (Home{Dir: dir}).plainPath(); err == nil {
			t.Errorf("%q was taken", dir)
		}
	}
	if err := (Home{Dir: "/a b/100%"}).plainPath(); err != nil {
		t.Error(err)
	}
}

// With a shared home the user's own files get the marked block and, after logout, are as they were.
func TestShareAndTakeBack(t *testing.T) {
	user := t.TempDir()
	t.Setenv("HOME", user)
	t.Setenv("USERPROFILE", user)
	t.Setenv("APPDATA", user)
	services, err := userServices()
	if err != nil {
		t.Fatal(err)
	}
	config, err := userSSHConfig()
	if err != nil {
		t.Fatal(err)
	}
	before := map[string]string{services: "[orders]\nhost=mine\n", config: "Host *\n  Compression yes\n"}
	for path, text := range before {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := homeIn(t, filepath.Join(user, "settings", "sallyport"))
	h.Shared = true
	var told strings.Builder
	for range 2 {
		if err := h.share(issued(), io.MultiWriter(&told)); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(told.String(), "[orders]") || strings.Contains(told.String(), "[orders-app]") {
		t.Errorf("the shadowed service was not named alone: %q", told.String())
	}
	for path, text := range before {
		data, err := os.ReadFile(path)
		if err != nil || strings.Count(string(data), "# >>> sallyport >>>") != 1 || !strings.Contains(string(data), text) {
			t.Errorf("%s holds %q, %v", path, data, err)
		}
	}
	if err := Logout(t.Context(), h); err == nil {
		t.Error("a logout that could not reach the gateway said nothing")
	}
	for path, text := range before {
		if data, err := os.ReadFile(path); err != nil || string(data) != text {
			t.Errorf("after logout %s holds %q, %v", path, data, err)
		}
	}
	left, err := os.ReadDir(h.Dir)
	if err != nil || len(left) != 0 {
		t.Errorf("after logout the home holds %v, %v", left, err)
	}
}
