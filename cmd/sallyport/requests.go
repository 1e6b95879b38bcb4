package main

import (
	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/web/api"
)

func newRequestsCommand() *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use:   "requests",
		Short: "Requests that wait: yours, and those you may decide",
		Args:  noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			return listGrants(command, "/v1/requests", all)
		},
	}
	command.Flags().BoolVar(&all, "all", false, "those that were decided too")
	return command
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
			state := g.State
			if g.EndReason != "" {
				state += " (" + g.EndReason + ")"
			}
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
