package authn

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/configs"
	"sallyport/internal/store/storetest"
)

// TestGroupFile: what the file says counts in addition to what the provider said, for people, from the next look on; it is taken
// in whole or not at all, and one that is broken takes nothing away and gives nothing.
func TestGroupFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "groups.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("dba: [alice, 'https://login.example bob']\nengineers: [alice]\n")
	r := newRig(t, func(c *configs.Config) { c.GroupFile = file })
	_, token := r.signedIn("alice")
	_, bobs := r.signedIn("bob")
	groups := func(access string) []string {
		t.Helper()
		return must(r.Bearer(t.Context(), access))(t).Groups
	}
	read := func() {
		t.Helper()
		if err := r.readGroups(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := groups(token.AccessToken); !slices.Equal(got, []string{"engineers", "oncall", "dba"}) {
		t.Fatalf("alice: %v", got)
	}
	if got := groups(bobs.AccessToken); !slices.Equal(got, []string{"approvers"}) {
		t.Errorf("bob of another issuer is not this one: %v", got)
	}
	if members := must(r.Members(t.Context(), []string{"dba"}))(t); len(members) != 1 || members[0].Subject != "alice" {
		t.Errorf("%+v", members)
	}
	read()
	if e := r.events("groups.loaded"); len(e) != 1 || e[0].Fields["groups"] != "2" || e[0].Fields["members"] != "3" {
		t.Errorf("%+v", e)
	}

	for name, broken := range map[string]string{
		"no YAML":           "dba: [bob\n",
		"empty":             "",
		"no lists":          "dba: {bob: yes}\n",
		"a list":            "[bob]\n",
		"a group twice":     "dba: [bob]\ndba: [alice]\n",
		"an unnamed group":  "'': [bob]\n",
		"an unnamed member": "dba: [bob, '']\n",
		"unprintable":       "dba: [\"bo\\u0007b\"]\n",
		"a long name":       strings.Repeat("x", 257) + ": [bob]\n",
		"a long file":       "dba: [bob]\n#" + strings.Repeat("x", 4<<20),
	} {
		before := len(r.events("groups.broken"))
		write(broken)
		read()
		read() // is told once
		if after := len(r.events("groups.broken")); after != before+1 {
			t.Errorf("%s: told %d times", name, after-before)
		}
		if got := groups(token.AccessToken); !slices.Contains(got, "dba") {
			t.Errorf("%s: alice lost what she had: %v", name, got)
		}
		if got := groups(bobs.AccessToken); slices.Contains(got, "dba") {
			t.Errorf("%s: half of it counts: %v", name, got)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	read()
	if got := groups(token.AccessToken); !slices.Contains(got, "dba") {
		t.Errorf("gone: %v", got)
	}

	write("dba: [bob]\n")
	if err := r.Reload(t.Context(), r.cfg); err != nil {
		t.Fatal(err)
	}
	if got := groups(token.AccessToken); !slices.Equal(got, []string{"engineers", "oncall"}) {
		t.Errorf("alice, who is not in it any more: %v", got)
	}
	if got := groups(bobs.AccessToken); !slices.Equal(got, []string{"approvers", "dba"}) {
		t.Errorf("bob, who is now: %v", got)
	}
	// What the provider says stays its own, and is not mixed with the file's when it is kept.
	_, token = r.signedIn("bob")
	write("other: [bob]\n")
	read()
	if got := groups(token.AccessToken); !slices.Equal(got, []string{"approvers", "other"}) {
		t.Errorf("bob, after signing in again: %v", got)
	}
	if job := (Identity{Issuer: r.cfg.Provider.Issuer, Subject: "bob", Kind: Workload}); len(r.withFile(job)) != 0 {
		t.Error("a workload is in a group of people")
	}

	// There is no first set without the file.
	write("dba: [bob\n")
	broken := *r.cfg
	broken.State = filepath.Join(t.TempDir(), "state")
	st := storetest.New(t, broken.State)
	if s, err := open(t.Context(), &broken, st, slog.New(slog.DiscardHandler), r.clock); err == nil {
		s.Close(t.Context())
		t.Error("it starts with a broken file")
	}
}
