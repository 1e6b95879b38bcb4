package main

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

const top = "../.."

// documents are what people read, by their paths from the top.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(top, filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			relative, err := filepath.Rel(top, file)
			if err != nil {
				t.Fatal(err)
			}
			all[filepath.ToSlash(relative)] = string(text)
		}
	}
	if len(all) < 15 {
		t.Fatalf("only %d documents", len(all))
	}
	return all
}

var (
	fenced    = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	inline    = regexp.MustCompile("`[^`\n]+`")
	linked    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	unsluggy  = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	ourselves = regexp.MustCompile(`(?:^|[\s;|&(])(?:sudo (?:-u sallyport )?)?(?:bin/)?sallyport((?: +(?:--)?[a-z][^\s;|&)]*)(?: +[^\s;|&)]+)*)`)
	called    = regexp.MustCompile(`(?:^|[\s;&])make ([a-z]+)`)
	target    = regexp.MustCompile(`(?m)^([a-z]+):`)
)

// anchors are the places of a document that a link can lead to, as GitHub names headings.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, h := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		all[strings.ReplaceAll(unsluggy.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")] = true
	}
	return all
}

// Links within the documentation lead to files and headings that are there. Pictures are made, and have a test of their own.
func TestLinksOfTheDocumentation(t *testing.T) {
	documents := documents(t)
	checked := 0
	for name, text := range documents {
		for _, link := range linked.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
			to, anchor, _ := strings.Cut(link[1], "#")
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") || strings.HasPrefix(to, "pictures/") {
				continue
			}
			checked++
			file := name
			if to != "" {
				file = path.Join(path.Dir(name), to)
				if _, err := os.Stat(filepath.Join(top, filepath.FromSlash(file))); err != nil {
					t.Errorf("%s links to %s, which is not there", name, link[1])
					continue
				}
			}
			if other, ok := documents[file]; ok && anchor != "" && !anchors(other)[anchor] {
				t.Errorf("%s links to %s, and %s has no such heading", name, link[1], file)
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d links were checked", checked)
	}
}

// Commands that the documentation names exist, with the flags that it names, and so do the targets of make.
func TestCommandsOfTheDocumentation(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(top, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, m := range target.FindAllStringSubmatch(string(makefile), -1) {
		targets = append(targets, m[1])
	}
	checked := 0
	for name, text := range documents(t) {
		if name == "CHANGELOG.md" { // which tells of what was
			continue
		}
		for _, code := range append(fenced.FindAllString(text, -1), inline.FindAllString(fenced.ReplaceAllString(text, ""), -1)...) {
			for line := range strings.SplitSeq(strings.ReplaceAll(code, "\\\n", " "), "\n") {
				line, _, _ = strings.Cut(strings.Trim(line, "`"), " #")
				for _, m := range ourselves.FindAllStringSubmatch(line, -1) {
					checked++
					if wrong := unknown(newRootCommand(), strings.Fields(m[1])); wrong != "" {
						t.Errorf("%s: %q: %s", name, strings.TrimSpace(m[0]), wrong)
					}
				}
				for _, m := range called.FindAllStringSubmatch(line, -1) {
					if !slices.Contains(targets, m[1]) {
						t.Errorf("%s: there is no make %s", name, m[1])
					}
				}
			}
		}
	}
	if checked < 150 {
		t.Errorf("only %d commands were checked", checked)
	}
}

// Every command is named in docs/cli.md.
func TestCommandsAreDocumented(t *testing.T) {
	text := documents(t)["docs/cli.md"]
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Hidden || sub.Name() == "help" || c.Name() == "completion" {
				continue
			}
			name := strings.TrimPrefix(sub.CommandPath(), "sallyport ")
			if !sub.HasSubCommands() && !regexp.MustCompile("`(?:sallyport )?"+name+"\\b").MatchString(text) {
				t.Errorf("docs/cli.md does not name %q", name)
			}
			walk(sub)
		}
	}
	walk(newRootCommand())
}

// unknown says what of a command line there is not: a command, or a flag. Where the documentation leaves something out, so does this.
func unknown(command *cobra.Command, words []string) string {
	for i, word := range words {
		word = strings.Trim(word, `[]",.`)
		if word == "--" || word == "-" || strings.ContainsAny(word, "…<>'") && !strings.HasPrefix(word, "--") {
			return ""
		}
		if !strings.HasPrefix(word, "-") {
			found := false
			for _, c := range command.Commands() {
				if c.Name() == word || c.HasAlias(word) {
					command, found = c, true
					break
				}
			}
			if !found && command.HasSubCommands() && command.Args != nil && strings.ToLower(word) == word && command.ValidateArgs(words[i:i+1]) != nil {
				return "there is no command " + word
			}
			continue
		}
		command.InitDefaultHelpFlag()
		if !command.HasParent() {
			command.InitDefaultVersionFlag()
		}
		flag, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if strings.HasPrefix(word, "--") && command.Flag(flag) == nil || !strings.HasPrefix(word, "--") && command.Flags().ShorthandLookup(flag[:min(1, len(flag))]) == nil && command.InheritedFlags().ShorthandLookup(flag[:min(1, len(flag))]) == nil {
			return command.CommandPath() + " has no " + word
		}
	}
	return ""
}
