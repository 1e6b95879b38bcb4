package authn

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Members are people as they last signed in; who was disabled, and jobs, are none.
func TestMembers(t *testing.T) {
	r := newRig(t)
	for _, who := range []Identity{
		{Issuer: "i", Subject: "bob", Kind: Human, Groups: []string{"leads"}},
		{Issuer: "i", Subject: "dave", Kind: Human, Groups: []string{"leads", "security"}},
		{Issuer: "i", Subject: "eve", Kind: Human, Groups: []string{"security"}},
		{Issuer: "i", Subject: "job", Kind: Workload, Groups: []string{"leads"}},
		{Issuer: "i", Subject: "gone", Kind: Human, Groups: []string{"leads"}},
		{Issuer: "i", Subject: "bob", Kind: Human, Groups: []string{"sales"}}, // moved
	} {
		if _, err := r.SignIn(t.Context(), who, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Disable(t.Context(), "i gone"); err != nil {
		t.Fatal(err)
	}
	for group, want := range map[string]int{"leads": 1, "security": 2, "sales": 1, "lead": 0} {
		if got, err := r.Members(t.Context(), []string{group}); err != nil || len(got) != want {
			t.Errorf("%s: %+v, %v", group, got, err)
		}
	}
	for subject, want := range map[string]string{"bob": "sales", "dave": "leads security", "gone": "", "stranger": ""} {
		if got, err := r.GroupsNow(t.Context(), Identity{Issuer: "i", Subject: subject}); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s is in %q, %v", subject, got, err)
		}
	}
	// Without a gateway: all who may sign in, and whom only the file of groups knows.
	c := *r.config
	c.GroupFile = filepath.Join(t.TempDir(), "groups.yaml")
	if err := os.WriteFile(c.GroupFile, []byte("oncall: ['i dave', 'i gone', 'i new', sub]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	people, err := KnownPeople(t.Context(), &c, r.store.Read())
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]string{}
	for _, who := range people {
		known[who.Key()] = strings.Join(who.Groups, " ")
	}
	for key, want := range map[string]string{"i bob": "sales", "i dave": "leads security oncall", "i new": "oncall", c.Provider.Issuer + " sub": "oncall"} {
		if known[key] != want {
			t.Errorf("%s is in %q, want %q", key, known[key], want)
		}
	}
	if _, there := known["i gone"]; there || len(known) != 5 { // and eve
		t.Errorf("%q", known)
	}
	if got, err := r.Members(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("no group: %+v, %v", got, err)
	}
}
