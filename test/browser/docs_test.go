package browser

import (
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
)

// docs is where the pictures go that the documentation shows. They are made, and not in the repository.
var docs = filepath.Join("..", "..", "docs", "pictures")

// documented are these, and the tests that make them.
var documented = map[string]string{
	"alice-first-visit.png":       "TestStory",
	"alice-ask-orders.png":        "TestStory",
	"alice-waiting.png":           "TestStory",
	"alice-granted.png":           "TestStory",
	"alice-in-use.png":            "TestStory",
	"bob-inbox.png":               "TestStory",
	"bob-inbox-dark.png":          "TestStory",
	"bob-inbox-empty.png":         "TestStory",
	"carol-live.png":              "TestStory",
	"carol-watching.png":          "TestStory",
	"carol-watching-terminal.png": "TestStory",
	"carol-timeline.png":          "TestStory",
	"carol-search.png":            "TestStory",
	"carol-terminal.png":          "TestStory",
	"carol-killed.png":            "TestStory",
	"carol-audit.png":             "TestStory",
	"carol-verify.png":            "TestStory",
	"carol-page-health.png":       "TestPages",
	"carol-page-policies.png":     "TestPages",
	"carol-large.png":             "TestLarge",
	"carol-fast.png":              "TestFast",
}

// Every picture that the documentation shows is one that these tests make, and none is made for it that it does not show.
func TestPicturesOfTheDocumentation(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "console.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, m := range regexp.MustCompile(`!\[([^\]]*)\]\(pictures/([^)]+)\)`).FindAllSubmatch(page, -1) {
		file := string(m[2])
		if shown[file] = true; documented[file] == "" {
			t.Errorf("docs/console.md shows %s, which no test makes", file)
		}
		if len(m[1]) == 0 {
			t.Errorf("%s is shown without words for those who don't see it", file)
		}
	}
	for file := range documented {
		if !shown[file] {
			t.Errorf("%s is made for docs/console.md, which does not show it", file)
		}
	}
}

// taken are the pictures that were taken in this run.
var taken sync.Map

// made insists that a test which has gone well made the pictures that it makes for the documentation.
func made(t *testing.T) {
	t.Helper()
	for file, test := range documented {
		if _, ok := taken.Load(file); test == t.Name() && !ok {
			t.Errorf("%s was not made", file)
		}
	}
}
