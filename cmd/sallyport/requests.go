package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/web/api"
)

func newRequestsCommand() *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use:     "requests",
		Short:   "Requests that wait: yours, and those you may decide",
		Example: "  sallyport requests\n  sallyport requests show g-7k3mq2",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			return listGrants(command, "/v1/requests", all)
		},
	}
	command.Flags().BoolVar(&all, "all", false, "those that were decided too")
	command.AddCommand(newRequestsShowCommand())
	return command
}

func newRequestsShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "One request: who, what, why, who may approve and who has, what it would permit, until when it waits",
		Long: `Show one request, or what became of it: who asks, for what and why, the approvals that it takes one after the other with who may
give them and who has, what it would permit, and until when it waits. Look at it before you decide: nothing of what it asks for
changes afterwards.`,
		Example: "  sallyport requests show g-7k3mq2",
		Args:    exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			g, err := get[api.Grant](command, "/v1/grants/"+url.PathEscape(args[0]))
			if err != nil {
				return err
			}
			return show(command, g, func(t *table) { describeRequest(t, g) })
		},
	}
}

// describeRequest prints all that somebody has to know who decides on it.
func describeRequest(t *table, g api.Grant) {
	who := g.Identity.Label()
	if g.Identity.Email != "" && g.Identity.Email != who {
		who += " (" + g.Identity.Email + ")"
	}
	if g.Identity.Kind != "human" {
		who += ", a " + g.Identity.Kind
	}
	t.row("request", g.ID+", "+stateOf(g))
	t.row("who", who)
	t.row("groups", strings.Join(g.Identity.Groups, ", "))
	what := g.Account + "@" + g.Target + " for " + span(g.Duration)
	if g.Total > g.Duration {
		what += ", with extensions " + span(g.Total) + " at most"
	}
	t.row("what", what)
	t.row("why", g.Reason)
	if g.Ticket != "" {
		t.row("ticket", g.Ticket)
	}
	t.row("permits", permitsOf(g))
	t.row("policy", g.Policy)
	t.row("asked", local(g.Requested))
	if !g.Start.IsZero() {
		t.row("not before", local(g.Start))
	}
	if g.BreakGlass {
		t.row("emergency", "approved by nobody, and reviewed afterwards")
	}
	stages := g.Stages
	if len(stages) == 0 && !g.BreakGlass {
		t.row("approval", "by the policy itself")
	}
	describeStages(t, stages)
	switch {
	case g.State == "pending":
		t.row("waits until", local(g.DecideBy))
	case g.State == "approved":
		t.row("used before", local(g.ActivateBy))
	case !g.From.IsZero():
		t.row("from", local(g.From))
		t.row("until", local(g.Until))
	}
	if !g.EndedAt.IsZero() {
		t.row("over", strings.TrimSpace(local(g.EndedAt)+" by "+g.EndedBy+" "+g.EndComment))
	}
	if e := g.Extension; e != nil {
		t.row("more", span(e.Duration)+", asked at "+local(e.Requested))
		t.row("why more", e.Reason)
		describeStages(t, e.Stages)
		t.row("waits until", local(g.Until))
	}
	if g.Confirm {
		t.row("confirm", "approvals count only from people who show that they are signed in")
	}
}

// describeStages prints the approvals that something takes.
func describeStages(t *table, stages []api.Stage) {
	for _, s := range stages {
		name := "approval"
		if len(stages) > 1 {
			name = s.Label(len(stages))
		}
		text := fmt.Sprintf("%d of %d by %s", s.Approvals, s.Needed, strings.Join(s.Groups, " or "))
		if len(s.By) > 0 {
			text += "; approved by " + strings.Join(s.By, ", ")
		}
		switch s.State {
		case "open":
			text += "; asked now"
		case "waiting":
			text += "; asked when the stages before it are met"
		}
		t.row(name, text)
	}
}

// stateOf is a grant's state, with why where it is over.
func stateOf(g api.Grant) string {
	if g.EndReason != "" {
		return g.State + " (" + g.EndReason + ")"
	}
	return g.State
}

// permitsOf says what a grant would permit, or does.
func permitsOf(g api.Grant) string {
	permits := "everything that the account may do"
	if len(g.Limits) > 0 {
		permits = strings.Join(g.Limits, "; ")
	}
	if g.Role != "" {
		permits = "role " + g.Role + ": " + permits
	}
	return permits
}

// listGrants prints requests or grants.
func listGrants(command *cobra.Command, path string, all bool) error {
	c, err := open()
	if err != nil {
		return err
	}
	if all {
		path += "?all=true"
	}
	grants, err := client.List[api.Grant](command.Context(), c, path)
	if err != nil {
		return err
	}
	return show(command, grants, func(t *table) {
		t.row("ID", "STATE", "WHO", "ACCOUNT@TARGET", "FOR", "LEFT", "REQUESTED", "REASON")
		for _, g := range grants {
			state := stateOf(g)
			length, asked, reason := span(g.Duration), g.Requested, g.Reason
			if e := g.Extension; e != nil { // what waits is more of it
				state, length, asked, reason = state+" (extension)", "+"+span(e.Duration), e.Requested, e.Reason
			}
			if stage := g.StageLabel(); stage != "" {
				state += " (" + stage + ")"
			}
			if g.Ticket != "" {
				reason = g.Ticket + ": " + reason
			}
			t.row(g.ID, state, g.Identity.Label(), g.Account+"@"+g.Target, length, remaining(g), local(asked), reason)
		}
	})
}

// remaining is how long a grant still gives access.
func remaining(g api.Grant) string {
	if g.State != "active" {
		return ""
	}
	return left(g.Until)
}
