package configs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"filippo.io/age"
)

// maxRecipients is how many recipients a recording is locked to at most: its header has the key once for each.
const maxRecipients = 32

// RecipientsFor are the age recipients that the recordings of a target are locked to; none: they are in the clear.
func (c *Config) RecipientsFor(target string) []string {
	for _, t := range c.Targets {
		if t.Name == target {
			return t.Recipients
		}
	}
	return c.Recording.Recipients
}

// InputRecipientsFor are the stricter recipients of what is typed and of the parameters of statements; none: it is for
// RecipientsFor too.
func (c *Config) InputRecipientsFor(target string) []string {
	for _, t := range c.Targets {
		if t.Name == target {
			return t.RecipientsInput
		}
	}
	return c.Recording.RecipientsInput
}

// WithInputRecipients are the recipients of all that is not for stricter ones alone, who can open that too.
func WithInputRecipients(recipients, input []string) []string {
	if len(input) == 0 {
		return recipients
	}
	all := slices.Clone(recipients)
	for _, one := range input {
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}

// checkInputRecipients checks a stricter list beside the other: whoever reads what is typed reads the rest, so one key is for both.
func checkInputRecipients(at reporter, path string, input, recipients []string) {
	if len(input) == 0 {
		return
	}
	checkRecipients(at, path, input)
	switch {
	case len(recipients) == 0:
		at(path, "there are none in recipients; what is typed is for stricter recipients only where the rest is locked, too")
	case mixed(slices.Concat(recipients, input)) && !mixed(input):
		at(path, "recipients beside it are of the other kind; %s", noMix)
	case len(recipients)+len(input) > maxRecipients:
		at(path, "with those in recipients there are %d; at most %d", len(recipients)+len(input), maxRecipients)
	}
}

// ParseRecipients parses age recipients, all classic ones (age1…) or all post-quantum hybrids (age1pq1…): age does not
// mix them, since the weaker would open the file.
func ParseRecipients(texts []string) ([]age.Recipient, error) {
	var all []age.Recipient
	for _, text := range texts {
		r, err := parseRecipient(text)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	if len(all) == 0 {
		return nil, errors.New("there are no recipients")
	}
	if mixed(texts) {
		return nil, errors.New(noMix)
	}
	return all, nil
}

const (
	hybridPrefix = "age1pq1"
	noMix        = "classic and post-quantum recipients cannot stand in one list; use age1pq1… for all, or for none"
)

func parseRecipient(text string) (age.Recipient, error) {
	var r age.Recipient
	var err error
	if strings.HasPrefix(text, hybridPrefix) {
		r, err = age.ParseHybridRecipient(text)
	} else {
		r, err = age.ParseX25519Recipient(text)
	}
	if err != nil {
		return nil, fmt.Errorf("%.80q is no age recipient; write what age-keygen prints as its public key, age1… or age1pq1…", text)
	}
	return r, nil
}

func mixed(texts []string) bool {
	hybrid := func(text string) bool { return strings.HasPrefix(text, hybridPrefix) }
	return slices.ContainsFunc(texts, hybrid) && slices.ContainsFunc(texts, func(t string) bool { return !hybrid(t) })
}

func checkRecipients(at reporter, path string, texts []string) {
	if len(texts) > maxRecipients {
		at(path, "%s has %d recipients; at most %d", path, len(texts), maxRecipients)
	}
	for i, text := range texts {
		where := fmt.Sprintf("%s[%d]", path, i)
		if strings.HasPrefix(strings.ToUpper(text), "AGE-SECRET-KEY-") {
			at(where, "this is an identity, the secret half; take it out of here, and write its recipient: age-keygen -y FILE")
		} else if _, err := parseRecipient(text); err != nil {
			at(where, "%v", err)
		}
	}
	if mixed(texts) {
		at(path, "%s", noMix)
	}
}

// sensitive is the label that says pii or pci, by its name or value: recordings of such a target are kept locked or not at all.
func (t Target) sensitive() string {
	is := func(s string) bool { s = strings.ToLower(s); return s == "pii" || s == "pci" }
	for _, name := range slices.Sorted(maps.Keys(t.Labels)) {
		if value := t.Labels[name]; is(value) || is(name) && value != "false" {
			return name + ": " + value
		}
	}
	return ""
}
