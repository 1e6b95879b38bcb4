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
			c, err := open()
			if err != nil {
				return err
			}
			var list []api.Key
			if err := c.Do(command.Context(), http.MethodGet, "/v1/keys", nil, &list); err != nil {
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
		Use:   "revoke ID",
		Short: "Have a key stand for you no more; sessions that it opened go on",
		Args:  exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			c, err := open()
			if err != nil {
				return err
			}
			return c.Do(command.Context(), http.MethodDelete, "/v1/credentials/"+url.PathEscape(args[0]), nil, nil)
		},
	})
	return command
}
