package configs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Masking is what is hidden wherever a recording is shown, searched or exported. The recording itself has everything.
type Masking struct {
	// Cards hides numbers of payment cards but for the last four digits: of all targets, or of none. Default: of targets
	// labelled pci.
	Cards *bool `yaml:"cards"`
	// Patterns are what else is hidden.
	Patterns []MaskPattern `yaml:"patterns"`
}

// MaskPattern hides what a regular expression matches.
type MaskPattern struct {
	// Name stands in its place.
	Name string `yaml:"name"`
	// Regexp is RE2, as Go has it; it sees one line of a terminal at a time.
	Regexp string `yaml:"regexp"`
	// Targets and Labels say of which targets; with neither, of all.
	Targets []string          `yaml:"targets"`
	Labels  map[string]string `yaml:"labels"`
}

// Bounds on what is hidden.
const (
	maxMaskPatterns = 32
	maxMaskRegexp   = 1024
)

// MasksFor says what is hidden of a target: card numbers, and patterns. Of one that is not configured any more, what is of all.
func (c *Config) MasksFor(target string) (cards bool, patterns []MaskPattern) {
	t := Target{Name: target}
	if i := slices.IndexFunc(c.Targets, func(t Target) bool { return t.Name == target }); i >= 0 {
		t = c.Targets[i]
	}
	cards = t.labelled("pci")
	if c.Masking.Cards != nil {
		cards = *c.Masking.Cards
	}
	for _, p := range c.Masking.Patterns {
		if len(p.Targets) == 0 && len(p.Labels) == 0 || slices.Contains(p.Targets, t.Name) || len(p.Labels) > 0 && t.has(p.Labels) {
			patterns = append(patterns, p)
		}
	}
	return cards, patterns
}

// has reports whether a target has all of some labels.
func (t Target) has(labels map[string]string) bool {
	for name, value := range labels {
		if got, ok := t.Labels[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// LintMasking names targets that are labelled pci or pii and of which nothing is hidden.
func (c *Config) LintMasking() []string {
	var all []string
	for _, t := range c.Targets {
		label := t.sensitive()
		if label == "" {
			continue
		}
		switch cards, patterns := c.MasksFor(t.Name); {
		case t.labelled("pci") && !cards:
			all = append(all, fmt.Sprintf("target %s is labelled %s, and masking.cards is false: whoever may read its recordings sees card numbers whole", t.Name, label))
		case !cards && len(patterns) == 0:
			all = append(all, fmt.Sprintf("target %s is labelled %s, and nothing is masked in what is shown of its recordings; see masking", t.Name, label))
		}
	}
	return all
}

func (l *loader) validateMasking(at reporter, c *Config) {
	if n := len(c.Masking.Patterns); n > maxMaskPatterns {
		at("masking.patterns", "there are %d patterns; at most %d", n, maxMaskPatterns)
	}
	seen := map[string]bool{}
	for i, p := range c.Masking.Patterns {
		path := fmt.Sprintf("masking.patterns[%d]", i)
		if !policyName.MatchString(p.Name) {
			at(path+".name", "name is %q; use letters, digits, spaces, dots, dashes and underscores, at most 63", p.Name)
		} else if seen[p.Name] {
			at(path+".name", "there are two patterns called %q", p.Name)
		}
		seen[p.Name] = true
		compiled, err := regexp.Compile(p.Regexp)
		switch {
		case p.Regexp == "" || len(p.Regexp) > maxMaskRegexp:
			at(path+".regexp", "regexp has %d characters; it has 1 to %d", len(p.Regexp), maxMaskRegexp)
		case err != nil:
			at(path+".regexp", "regexp is none that RE2 has: %v", err)
		case compiled.MatchString(""):
			at(path+".regexp", "regexp matches nothing at all, everywhere; write one that takes at least one character")
		}
		for j, name := range p.Targets {
			if !slices.ContainsFunc(c.Targets, func(t Target) bool { return t.Name == name }) {
				at(fmt.Sprintf("%s.targets[%d]", path, j), "there is no target called %q", name)
			}
		}
	}
}

// labelled reports whether a label says something about a target by its name or value.
func (t Target) labelled(what string) bool {
	for name, value := range t.Labels {
		if strings.EqualFold(value, what) || strings.EqualFold(name, what) && value != "false" {
			return true
		}
	}
	return false
}
