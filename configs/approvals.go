package configs

import (
	"fmt"
	"maps"
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
	// Known refuses a request at once that fewer people could approve than have to, of those who have ever signed in here.
	// Without it such a request waits, for somebody may sign in.
	Known bool    `yaml:"known"`
	Slack []Slack `yaml:"slack"`
	Jira  []Jira  `yaml:"jira"`
}

// LinkedPerson says which identity an account elsewhere stands for.
type LinkedPerson struct {
	// Issuer is the company's provider; default: provider.issuer.
	Issuer  string `yaml:"issuer"`
	Subject string `yaml:"subject"`
	Email   string `yaml:"email"`
	// Slack is WORKSPACE/MEMBER: T012AB3C4/U061F7AUR.
	Slack string `yaml:"slack"`
	// Jira is an account's id at Jira: 5b10ac8d82e05b22cc7d4ef5.
	Jira string `yaml:"jira"`
	// Also are other identities of the same person, as ISSUER SUBJECT: nobody approves for one of their own by another, and one
	// person has one vote.
	Also []string `yaml:"also"`
}

// Slack asks people in a workspace and takes their decisions, over a connection that the gateway opens (Socket Mode).
type Slack struct {
	Name string `yaml:"name"`
	// AppToken (xapp-…) opens the connection over which clicks come, BotToken (xoxb-…) sends messages. Who holds the first can
	// decide as any linked person: keep it as the right to approve.
	AppToken SecretRef `yaml:"app_token"`
	BotToken SecretRef `yaml:"bot_token"`
	// Channel is the id of the channel in which requests are posted; Channels are others for those that certain groups decide,
	// of which the first that fits counts.
	Channel  string         `yaml:"channel"`
	Channels []SlackChannel `yaml:"channels"`
	// API is the address of Slack's Web API; default: https://slack.com/api/.
	API string `yaml:"api"`
}

// Jira is a site whose issues are read as evidence, and told what becomes of grants that name them.
type Jira struct {
	Name string `yaml:"name"`
	URL  string `yaml:"url"`
	CA   string `yaml:"ca"`
	// User and Token are an account's e-mail address and API token; without User the token is a personal access token.
	User  string    `yaml:"user"`
	Token SecretRef `yaml:"token"`
	// Projects are the keys of those whose issues count.
	Projects []string `yaml:"projects"`
	// Comment writes a comment on the issue when a grant that names it is decided, begins and ends.
	Comment bool `yaml:"comment"`
}

// SlackChannel is a channel for what members of certain groups decide.
type SlackChannel struct {
	Groups  []string `yaml:"groups"`
	Channel string   `yaml:"channel"`
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
	// Events are the kinds that are sent: Events' values; default: all but voted.
	Events []string `yaml:"events"`
}

// Events are the kinds of things that happen to grants and are told to channels.
var Events = []string{"requested", "decided", "active", "ended", "voted", "stage"}

func (c *Config) setApprovalDefaults() {
	c.setAlertDefaults()
	for i := range c.Approvals.People {
		set(&c.Approvals.People[i].Issuer, c.Provider.Issuer)
	}
	for i := range c.Approvals.Slack {
		set(&c.Approvals.Slack[i].API, "https://slack.com/api/")
	}
	for i := range c.Approvals.Webhooks {
		w := &c.Approvals.Webhooks[i]
		set(&w.KeyID, w.Name)
		if len(w.Events) == 0 {
			w.Events = slices.Clone(Events[:4])
		}
	}
}

var (
	slackMember  = regexp.MustCompile(`^[TE][A-Z0-9]{2,20}/[UW][A-Z0-9]{2,20}$`)
	jiraProject  = regexp.MustCompile(`^[A-Z][A-Z0-9_]{1,20}$`)
	slackChannel = regexp.MustCompile(`^[CGD][A-Z0-9]{2,20}$`)
)

var channelName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func validateApprovals(at reporter, c *Config) {
	seen := map[string]string{}
	for i, p := range c.Approvals.People {
		path := fmt.Sprintf("approvals.people[%d]", i)
		if p.Subject == "" {
			at(path+".subject", "subject is missing; sallyport whoami prints it")
		}
		if p.Slack != "" && !slackMember.MatchString(p.Slack) {
			at(path+".slack", "slack is %q; write the ids of workspace and member, like T012AB3C4/U061F7AUR", p.Slack)
		}
		accounts := map[string]string{"email": strings.ToLower(p.Email), "slack": p.Slack, "jira": p.Jira}
		if p.Email == "" && p.Slack == "" && p.Jira == "" && len(p.Also) == 0 {
			at(path+".email", "email, slack, jira and also are missing; one of them has to stand for this identity")
		}
		for j, other := range p.Also {
			if issuer, subject, found := strings.Cut(other, " "); !found || issuer == "" || subject == "" {
				at(fmt.Sprintf("%s.also[%d]", path, j), "%q is no identity; write the issuer, one blank, and the subject, as sallyport whoami prints them", other)
			}
		}
		if len(p.Also) > 0 {
			for j, key := range append([]string{p.Issuer + " " + p.Subject}, p.Also...) {
				where := fmt.Sprintf("%s.also[%d]", path, j-1)
				if j == 0 {
					where = path + ".subject"
				}
				if _, taken := seen["identity "+key]; taken {
					at(where, "%s is linked already", key)
				}
				seen["identity "+key] = p.Subject
			}
		}
		for _, key := range slices.Sorted(maps.Keys(accounts)) {
			account := accounts[key]
			if owner, taken := seen[key+" "+account]; taken && account != "" {
				at(path+"."+key, "%s is linked to subject %s already", account, owner)
			}
			seen[key+" "+account] = p.Subject
		}
	}
	validateSlack(at, c)
	validateJira(at, c)
	names := map[string]bool{}
	for i, w := range c.Approvals.Webhooks {
		path := fmt.Sprintf("approvals.webhooks[%d]", i)
		checkChannelName(at, path+".name", "webhook", w.Name, names)
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

func validateJira(at reporter, c *Config) {
	names := map[string]bool{}
	for i, j := range c.Approvals.Jira {
		path := fmt.Sprintf("approvals.jira[%d]", i)
		checkChannelName(at, path+".name", "site", j.Name, names)
		checkHTTPS(at, path+".url", j.URL)
		checkFile(at, path+".ca", j.CA)
		if j.Token == "" {
			at(path+".token", "token is missing; it is an API token or a personal access token")
		}
		checkSecret(at, path+".token", j.Token)
		if len(j.Projects) == 0 {
			at(path+".projects", "projects is missing; name those whose issues count")
		}
		for k, key := range j.Projects {
			if !jiraProject.MatchString(key) {
				at(fmt.Sprintf("%s.projects[%d]", path, k), "%q is no project's key, like OPS", key)
			}
		}
	}
}

func validateSlack(at reporter, c *Config) {
	names := map[string]bool{}
	for i, s := range c.Approvals.Slack {
		path := fmt.Sprintf("approvals.slack[%d]", i)
		checkChannelName(at, path+".name", "workspace", s.Name, names)
		for key, token := range map[string]SecretRef{".app_token": s.AppToken, ".bot_token": s.BotToken} {
			if token == "" {
				at(path+key, "%s is missing; docs/approvals.md says how to make the app", key[1:])
			}
			checkSecret(at, path+key, token)
		}
		checkHTTPS(at, path+".api", s.API)
		if !slackChannel.MatchString(s.Channel) {
			at(path+".channel", "channel is %q; write the channel's id, like C024BE91L", s.Channel)
		}
		for j, other := range s.Channels {
			if !slackChannel.MatchString(other.Channel) || len(other.Groups) == 0 {
				at(fmt.Sprintf("%s.channels[%d]", path, j), "it has groups, and the id of a channel like C024BE91L")
			}
		}
	}
}

// checkChannelName finds a name that can't stand in an address, or that another channel of the kind has. The name is taken then.
func checkChannelName(at reporter, path, kind, name string, taken map[string]bool) {
	if !channelName.MatchString(name) {
		at(path, "a %s's name here is lower-case letters, digits and dashes; got %q", kind, name)
	}
	if taken[name] {
		at(path, "there is another %s named %q", kind, name)
	}
	taken[name] = true
}

// checkHTTPS finds what is no address that secrets may be sent to.
func checkHTTPS(at reporter, path, text string) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		at(path, "%s is %q; write an https:// address", path, text)
	}
}
