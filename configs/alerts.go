package configs

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Alert is something that people are told when it happens: an event of the audit log for which When holds, or Count of them
// Within a time.
type Alert struct {
	Name string `yaml:"name"`
	// When is a condition in CEL over the event; docs/alerts.md lists what it knows. Whether it is one, grant/alert says.
	When string `yaml:"when"`
	// Count is how many events it takes, Within how long; default: 1. They are counted by By: actor (default), client, target,
	// or none, which is all together.
	Count  int      `yaml:"count"`
	Within Duration `yaml:"within"`
	By     string   `yaml:"by"`
	// To are channels by kind and name, such as slack/ops or webhook/chatops; default: all of these kinds.
	To []string `yaml:"to"`
}

const (
	maxAlerts      = 100
	maxAlertCount  = 1000
	maxAlertWindow = 24 * time.Hour
)

// AlertBy are the values of Alert.By.
var AlertBy = []string{"actor", "client", "target", "none"}

// alertChannels are the channels that alerts can go to.
func (c *Config) alertChannels() (names []string) {
	for _, s := range c.Approvals.Slack {
		names = append(names, "slack/"+s.Name)
	}
	for _, w := range c.Approvals.Webhooks {
		names = append(names, "webhook/"+w.Name)
	}
	return names
}

// houseAlerts are always there where there is a channel to tell them, unless the configuration has alerts of their names.
var houseAlerts = []Alert{
	{Name: "configuration-refused", When: `event.kind == "config.reloaded" && event.outcome != "ok"`},
	{Name: "role-not-dropped", When: `event.kind == "role.cleanup_stuck"`},
	{Name: "enrolled-key", When: `event.kind in ["key.enrolled", "login.emergency", "key.cloned"]`},
}

func (c *Config) setAlertDefaults() {
	for _, house := range houseAlerts {
		if len(c.alertChannels()) > 0 && !slices.ContainsFunc(c.Alerts, func(a Alert) bool { return a.Name == house.Name }) {
			c.Alerts = append(c.Alerts, house)
		}
	}
	for i := range c.Alerts {
		a := &c.Alerts[i]
		if a.Count == 0 {
			a.Count = 1
		}
		set(&a.By, AlertBy[0])
		if len(a.To) == 0 {
			a.To = c.alertChannels()
		}
	}
}

func validateAlerts(at reporter, c *Config) {
	if len(c.Alerts) > maxAlerts+len(houseAlerts) {
		at("alerts", "there are %d alerts; at most %d", len(c.Alerts)-len(houseAlerts), maxAlerts)
	}
	names, channels := map[string]bool{}, c.alertChannels()
	for i, a := range c.Alerts {
		path := fmt.Sprintf("alerts[%d]", i)
		if !channelName.MatchString(a.Name) {
			at(path+".name", "an alert's name is lower-case letters, digits and dashes; got %q", a.Name)
		}
		if names[a.Name] {
			at(path+".name", "there is another alert named %q", a.Name)
		}
		names[a.Name] = true
		if strings.TrimSpace(a.When) == "" {
			at(path+".when", "when is missing; write a condition on an event, like event.kind == \"grant.break_glass\"")
		}
		if a.Count < 1 || a.Count > maxAlertCount {
			at(path+".count", "count is %d; it is 1 to %d", a.Count, maxAlertCount)
		}
		if a.Count > 1 && a.Within <= 0 {
			at(path+".within", "within is missing; say in what time %d events are told, like 10m", a.Count)
		}
		if a.Within.D() > maxAlertWindow || a.Within < 0 {
			at(path+".within", "within is %s; at most %s", a.Within, Duration(maxAlertWindow))
		}
		if !slices.Contains(AlertBy, a.By) {
			at(path+".by", "by is %q; it is one of %s", a.By, strings.Join(AlertBy, ", "))
		}
		if len(channels) == 0 {
			at(path+".to", "there is no channel that could tell it; configure approvals.slack or approvals.webhooks")
		}
		for j, to := range a.To {
			if !slices.Contains(channels, to) {
				at(fmt.Sprintf("%s.to[%d]", path, j), "there is no channel %q; there are: %s", to, strings.Join(channels, ", "))
			}
		}
	}
}

// AlertProblem is something wrong with an alert of a configuration that was loaded, as PolicyProblem.
func (c *Config) AlertProblem(alert int, key string, line, column int, format string, args ...any) Problem {
	problem := Problem{File: c.File, Message: fmt.Sprintf(format, args...)}
	if c.main == nil {
		return problem
	}
	return problem.in(place{c.main, fmt.Sprintf("$.alerts[%d]", alert)}, key, line, column)
}
