package configs

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Approvals are the ways to those who decide beside the command line, the API and the console.
type Approvals struct {
	// People link accounts elsewhere to identities. Whoever is not here has no vote through a channel.
	People   []LinkedPerson `yaml:"people"`
	Webhooks []Webhook      `yaml:"webhooks"`
}

// LinkedPerson says which identity an e-mail address stands for.
type LinkedPerson struct {
	// Issuer is the company's provider; default: provider.issuer.
	Issuer  string `yaml:"issuer"`
	Subject string `yaml:"subject"`
	Email   string `yaml:"email"`
}

// Webhook sends what happens to grants to another system, and may take decisions from it.
type Webhook struct {
	Name string `yaml:"name"`
	URL  string `yaml:"url"`
	// CA is a PEM file to trust beside the system's authorities.
	CA string `yaml:"ca"`
	// KeyID names the secret to the receiver; Secret is what messages are signed with.
	KeyID  string    `yaml:"key_id"`
	Secret SecretRef `yaml:"secret"`
	// DecisionSecret is what decisions that come in are signed with; without it none are taken.
	DecisionSecret SecretRef `yaml:"decision_secret"`
	// Events are the kinds that are sent: Events' values; default: all.
	Events []string `yaml:"events"`
}

// Events are the kinds of things that happen to grants and are told to channels.
var Events = []string{"requested", "decided", "active", "ended"}

func (c *Config) setApprovalDefaults() {
	for i := range c.Approvals.People {
		set(&c.Approvals.People[i].Issuer, c.Provider.Issuer)
	}
	for i := range c.Approvals.Webhooks {
		w := &c.Approvals.Webhooks[i]
		set(&w.KeyID, w.Name)
		if len(w.Events) == 0 {
			w.Events = slices.Clone(Events)
		}
	}
}

var channelName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func validateApprovals(at reporter, c *Config) {
	seen := map[string]string{}
	for i, p := range c.Approvals.People {
		path := fmt.Sprintf("approvals.people[%d]", i)
		if p.Subject == "" {
			at(path+".subject", "subject is missing; sallyport whoami prints it")
		}
		address := strings.ToLower(p.Email)
		if address == "" {
			at(path+".email", "email is missing; it is what stands for this identity")
		}
		if owner, taken := seen[address]; taken {
			at(path+".email", "%s is linked to subject %s already", address, owner)
		}
		seen[address] = p.Subject
	}
	names := map[string]bool{}
	for i, w := range c.Approvals.Webhooks {
		path := fmt.Sprintf("approvals.webhooks[%d]", i)
		if !channelName.MatchString(w.Name) {
			at(path+".name", "a webhook's name is lower-case letters, digits and dashes; got %q", w.Name)
		}
		if names[w.Name] {
			at(path+".name", "there is another webhook named %q", w.Name)
		}
		names[w.Name] = true
		checkHTTPS(at, path+".url", w.URL)
		checkFile(at, path+".ca", w.CA)
		if w.Secret == "" {
			at(path+".secret", "secret is missing; messages are signed with it")
		}
		checkSecret(at, path+".secret", w.Secret)
		checkSecret(at, path+".decision_secret", w.DecisionSecret)
		if w.DecisionSecret != "" && w.DecisionSecret == w.Secret {
			at(path+".decision_secret", "decision_secret is the same as secret; whoever receives messages could send them back as decisions")
		}
		for j, e := range w.Events {
			if !slices.Contains(Events, e) {
				at(fmt.Sprintf("%s.events[%d]", path, j), "unknown event %q; they are: %s", e, strings.Join(Events, ", "))
			}
		}
	}
}

// checkHTTPS finds what is no address that secrets may be sent to.
func checkHTTPS(at reporter, path, text string) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		at(path, "%s is %q; write an https:// address", path, text)
	}
}
