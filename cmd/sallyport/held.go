//go:build unix

package main

import (
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newPolicyHeldCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "held",
		Short:   "The policies that may widen access and wait for a second person",
		Example: "  sallyport policy held",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			all, err := get[[]api.HeldPolicies](command, "/v1/policies/held")
			if err != nil {
				return err
			}
			return showHeld(command, all)
		},
	}
}

func newPolicyConfirmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "confirm REVISION",
		Short: "Let policies that may widen access come into force",
		Long: `Let the policies that wait come into force. REVISION is theirs, as "sallyport policy held" shows it: nothing else is confirmed.
It takes the permission policies.confirm. Read the change before, where it was reviewed; the gateway knows only what it loaded.`,
		Example: "  sallyport policy confirm 3f9a1c0b7d22",
		Args:    exactly("REVISION"),
		RunE: func(command *cobra.Command, args []string) error {
			one, err := post[api.HeldPolicies](command, "/v1/policies/"+url.PathEscape(args[0])+"/confirm", nil)
			if err != nil {
				return err
			}
			return showHeld(command, []api.HeldPolicies{one})
		},
	}
}

func newPolicyRejectCommand() *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:   "reject REVISION",
		Short: "Have policies that may widen access not come into force",
		Long: `Reject the policies that wait: the old ones stay in force until the files are changed, or put back and changed again. It takes the
permission policies.confirm.`,
		Example: `  sallyport policy reject 3f9a1c0b7d22 --reason "nobody needs that for a day"`,
		Args:    exactly("REVISION"),
		RunE: func(command *cobra.Command, args []string) error {
			one, err := post[api.HeldPolicies](command, "/v1/policies/"+url.PathEscape(args[0])+"/reject", api.Decision{Comment: reason})
			if err != nil {
				return err
			}
			return showHeld(command, []api.HeldPolicies{one})
		},
	}
	command.Flags().StringVar(&reason, "reason", "", "why, for the audit log and whoever made the change")
	return command
}

func showHeld(command *cobra.Command, all []api.HeldPolicies) error {
	return show(command, all, func(t *table) {
		t.row("REVISION", "SINCE", "MADE BY", "CONFIRMED", "WIDENS")
		for _, h := range all {
			confirmed := "no"
			switch {
			case h.RejectedBy != "":
				confirmed = "rejected by " + h.RejectedBy
			case h.Confirmed:
				confirmed = "yes"
			}
			t.row(h.Revision[:min(12, len(h.Revision))], local(h.Since), h.MadeBy, confirmed, strings.Join(h.Widens, ", "))
		}
	})
}
