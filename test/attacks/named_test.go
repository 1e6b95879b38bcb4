//go:build unix

package attacks

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAbuseIsNamed: each kind of abuse that the threat model lists names a test, and each that it names there is.
func TestAbuseIsNamed(t *testing.T) {
	tests, names := map[string]bool{}, &strings.Builder{}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == "dist" || entry.Name() == ".git") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, found := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
			tests[string(found[1])] = true
		}
		if filepath.Base(filepath.Dir(path)) == "attacks" {
			names.Write(source)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	model := string(read(t, "../../docs/threat-model.md"))
	_, section, _ := strings.Cut(model, "\n## Abuse, and the test of each\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := regexp.MustCompile(`(?m)^\| ([^|]+) \| ([^|]+) \|$`).FindAllStringSubmatch(section, -1)
	if len(rows) < 20 {
		t.Fatalf("the threat model lists %d kinds of abuse", len(rows))
	}
	for _, row := range rows[1:] { // after the heading
		named := regexp.MustCompile("`(Test\\w+)(?:/([^`]+))?`").FindAllStringSubmatch(row[2], -1)
		if len(named) == 0 {
			t.Errorf("%s has no test", row[1])
		}
		for _, test := range named {
			if !tests[test[1]] {
				t.Errorf("%s: there is no %s", row[1], test[1])
			}
			if part := test[2]; part != "" {
				for _, made := range []string{"a client certificate ", "a user certificate "} { // what the names of subtests begin with
					part = strings.TrimPrefix(part, made)
				}
				if !strings.Contains(names.String(), `"`+part+`"`) {
					t.Errorf("%s: %s has no part %q", row[1], test[1], test[2])
				}
			}
		}
	}
}
