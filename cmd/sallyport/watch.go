package main

import (
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/recorder/replay"
	"sallyport/web/api"
)

func newWatchCommand() *cobra.Command {
	o := replay.Options{Live: true, Zone: time.Local}
	command := &cobra.Command{
		Use:     "watch ID",
		Short:   "Follow a live session until it ends",
		Example: "  sallyport watch s-0abc\n  sallyport watch s-0abc --json | jq -r .sql",
		Long: `Show what has happened in a live session so far, and then what happens, as soon as its record is safe: nothing is shown that
the recording could lose. It ends with the session; Ctrl-C ends it sooner. The session does not notice, and never waits; that
you watched is in the audit log. --json prints the items as JSON Lines.`,
		Args: exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			c, err := open()
			if err != nil {
				return err
			}
			items := client.Lines[api.Item](command.Context(), c, "/v1/sessions/"+url.PathEscape(args[0])+"/watch")
			if asJSON(command) {
				return printLines(command.OutOrStdout(), items)
			}
			return replay.Play(command.Context(), items, command.OutOrStdout(), o)
		},
	}
	command.Flags().BoolVar(&o.Raw, "raw", false, "pass terminal output on as it is, with all that it may do to your terminal")
	return command
}
