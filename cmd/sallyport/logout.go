package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sallyport/client"
)

func newLogoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "logout",
		Short:   "End your sign-in and remove keys and certificates",
		Example: "  sallyport logout",
		Long: `End all your tokens and certificates at the gateway and remove what login wrote here, the marked blocks in your own files
included. What is here goes even when the gateway can't be reached.`,
		Args: noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			home, err := client.DefaultHome()
			if err != nil {
				return err
			}
			if err := client.Logout(command.Context(), home); err != nil {
				return err
			}
			if asJSON(command) {
				return printJSON(command.OutOrStdout(), map[string]bool{"signed_out": true})
			}
			_, err = fmt.Fprintln(command.OutOrStdout(), "Signed out.")
			return err
		},
	}
}
