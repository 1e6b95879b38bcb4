package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newIndexCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "index",
		Short: "The search index",
		Args:  noArguments,
		RunE:  func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(&cobra.Command{
		Use:   "rebuild",
		Short: "Make the search index anew, from the recordings",
		Long: `Throw the gateway's search index away and make it anew from the recordings, in the background. Searches find everything
meanwhile; they read what is not in the index yet, which takes longer. sallyport status says how far it is.`,
		Args: noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			c, err := open()
			if err != nil {
				return err
			}
			var index api.Index
			if err := c.Do(command.Context(), http.MethodPost, "/v1/index/rebuild", nil, &index); err != nil {
				return err
			}
			if asJSON(command) {
				return printJSON(command.OutOrStdout(), index)
			}
			_, err = fmt.Fprintln(command.OutOrStdout(), "The search index is being made anew.")
			return err
		},
	})
	return command
}
