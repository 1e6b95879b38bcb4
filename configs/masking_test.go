package configs

import (
	"strings"
	"testing"
)

func TestMasksFor(t *testing.T) {
	yes, no := true, false
	c := Config{Targets: []Target{{Name: "pay", Labels: map[string]string{"data": "pci"}}, {Name: "people", Labels: map[string]string{"pii": "yes"}}, {Name: "web", Labels: map[string]string{"env": "test"}}}}
	c.Masking.Patterns = []MaskPattern{{Name: "all"}, {Name: "by name", Targets: []string{"web"}}, {Name: "by label", Labels: map[string]string{"pii": "yes"}}}
	masks := func(target string) string {
		cards, patterns := c.MasksFor(target)
		var names []string
		if cards {
			names = append(names, "cards")
		}
		for _, p := range patterns {
			names = append(names, p.Name)
		}
		return strings.Join(names, ", ")
	}
	for target, want := range map[string]string{"pay": "cards, all", "people": "all, by label", "web": "all, by name", "gone": "all"} {
		if got := masks(target); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
	if found := c.LintMasking(); len(found) != 0 {
		t.Errorf("%q", found)
	}
	c.Masking = Masking{Cards: &yes}
	if masks("gone") != "cards" || masks("web") != "cards" {
		t.Error("cards of all targets are not masked")
	}
	c.Masking = Masking{Cards: &no}
	if found := c.LintMasking(); masks("pay") != "" || len(found) != 2 || !strings.Contains(found[0], "target pay") || !strings.Contains(found[1], "target people") {
		t.Errorf("%q", found)
	}
}

func TestMaskingIsChecked(t *testing.T) {
	long := strings.Repeat("a", maxMaskRegexp+1)
	c := Config{Masking: Masking{Patterns: []MaskPattern{
		{Name: "good", Regexp: "AKIA[0-9A-Z]{16}"}, {Name: "good", Regexp: "x"}, {Name: "", Regexp: "x"}, {Name: "open", Regexp: "(x"}, {Name: "nothing", Regexp: "x*"}, {Name: "long", Regexp: long}, {Name: "nowhere", Regexp: "x", Targets: []string{"moon"}},
	}}}
	var found []string
	(&loader{}).validateMasking(func(path, _ string, _ ...any) { found = append(found, path) }, &c)
	want := "masking.patterns[1].name masking.patterns[2].name masking.patterns[3].regexp masking.patterns[4].regexp masking.patterns[5].regexp masking.patterns[6].targets[0]"
	if got := strings.Join(found, " "); got != want {
		t.Errorf("wrong are %s, want %s", got, want)
	}
}
