package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newExtendCommand() *cobra.Command {
	var ask api.ExtensionRequest
	command := &cobra.Command{
		Use:   "extend ID --duration LONG",
		Short: "Ask that your active grant end later",
		Long: `Ask that your active grant end later, as far as its policy lets it last in all. It is decided as the request was; until
then the grant goes on to its old end.`,
		Example: `  sallyport extend g-7k3mq2 --duration 30m --reason "the index is still building"`,
		Args:    exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			if ask.Duration == "" {
				return usage(command, "by how long is missing: --duration 30m")
			}
			g, err := post[api.Grant](command, "/v1/grants/"+url.PathEscape(args[0])+"/extend", ask)
			if err != nil {
				return err
			}
			if asJSON(command) {
				return printJSON(command.OutOrStdout(), g)
			}
			if e := g.Extension; e != nil {
				_, err = fmt.Fprintf(command.OutOrStdout(), "%s more of grant %s wait for approval by %s; it goes on until %s.\n  One of them runs: sallyport approve %[2]s\n",
					span(e.Duration), g.ID, visible(g.WaitsFor()), local(g.Until))
				return err
			}
			_, err = fmt.Fprintf(command.OutOrStdout(), "Grant %s now lasts until %s.\n", g.ID, local(g.Until))
			return err
		},
	}
	flags := command.Flags()
	flags.StringVar(&ask.Duration, "duration", "", "by how `LONG`: 30m, 1h")
	flags.StringVar(&ask.Reason, "reason", "", "`WHY`, for those who approve and for the record")
	return command
}
