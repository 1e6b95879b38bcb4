package configs

import (
	"strings"
	"testing"
)

func TestStagesAreChecked(t *testing.T) {
	stages := strings.Replace(good, "      groups: [approvers]\n", "      stages:\n        - groups: [approvers]\n        - {name: owners, groups: [owners, security], count: 2}\n", 1)
	c, err := Load(write(t, with(stages)))
	if err != nil {
		t.Fatal(err)
	}
	var got []Stage
	for _, p := range c.Policies {
		got = append(got, p.Approve.Stages...)
	}
	if len(got) != 2 || got[0].Name != "1" || got[0].Count != 1 || got[1].Count != 2 || got[1].Groups[1] != "security" {
		t.Fatalf("%+v", got)
	}
	swap := func(old, text string) string {
		t.Helper()
		if !strings.Contains(stages, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(stages, old, text, 1)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"both forms", swap("      stages:\n", "      groups: [approvers]\n      stages:\n"), ":31:9: approve has stages and also groups or count"},
		{"a count beside", swap("      stages:\n", "      count: 2\n      stages:\n"), "approve has stages and also groups or count"},
		{"auto beside", swap("      stages:\n", "      auto: true\n      stages:\n"), "approve has auto and also groups, count or stages"},
		{"no groups", swap("groups: [owners, security], ", ""), ":31:12: stage owners has no groups"},
		{"a name twice", swap("        - groups: [approvers]", "        - name: owners\n          groups: [approvers]"), `there is another stage named "owners"`},
		{"a name", swap("name: owners", `name: "o/w"`), "a stage's name is of letters"},
		{"a count", swap("count: 2", "count: 11"), "the count of stage owners is 11; it is between 1 and 10"},
		{"an unknown key", swap("count: 2", "quorum: 2"), `unknown key "quorum"`},
		{"too many", swap("        - groups: [approvers]\n", strings.Repeat("        - groups: [approvers]\n", 10)), "at most 10 are possible"},
		{"none", swap("      stages:\n        - groups: [approvers]\n        - {name: owners, groups: [owners, security], count: 2}\n", "      stages: []\n"), "approve is missing"},
	} {
		_, err := Load(write(t, with(tt.text)))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "sallyport.yaml:") {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
