package main

import (
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newKeysCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "keys",
		Short: "Plain SSH keys that stand for you now",
		Long: `List the SSH keys that stand for you because you signed in while a connection with one waited: ssh ACCOUNT@TARGET@GATEWAY with
nothing installed, where the target allows it. Each is good from one address, until its time or your sign-in ends.`,
		Example: "  sallyport keys\n  sallyport keys revoke k-…",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			list, err := get[[]api.Key](command, "/v1/keys")
			if err != nil {
				return err
			}
			return show(command, list, func(t *table) {
				t.row("ID", "KEY", "FROM", "SINCE", "UNTIL")
				for _, one := range list {
					t.row(one.ID, one.Fingerprint, one.Source, local(one.Issued), local(one.Expires))
				}
			})
		},
	}
	command.AddCommand(&cobra.Command{
		Use:     "revoke ID",
		Short:   "Have a key stand for you no more; sessions that it opened go on",
		Example: "  sallyport keys revoke k-2b6s7q",
		Args:    exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			return done(command, http.MethodDelete, "/v1/credentials/"+url.PathEscape(args[0]), nil, "Key %s stands for you no more; sessions that it opened go on: sallyport sessions", args[0])
		},
	})
	return command
}
