package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newCredentialsCommand() *cobra.Command {
	var ask api.CredentialRequest
	command := &cobra.Command{
		Use:   "credentials ACCOUNT@TARGET",
		Short: "A password for programs that can't hold a certificate",
		Long: `Make a password for one account on one PostgreSQL target, for any driver and any number of connections. It is shown once: the
gateway keeps only what verifies it. It opens nothing that you have no grant for, and ends with your sign-in at the latest.`,
		Example: "  sallyport credentials app@orders --duration 2h",
		Args:    exactly("ACCOUNT@TARGET"),
		RunE: func(command *cobra.Command, args []string) error {
			var found bool
			if ask.Account, ask.Target, found = cutAccount(args[0]); !found {
				return usage(command, "%q is not ACCOUNT@TARGET", args[0])
			}
			c, err := open()
			if err != nil {
				return err
			}
			made, err := c.NewCredential(command.Context(), ask)
			if err != nil {
				return err
			}
			return show(command, made, func(t *table) {
				t.row("user", made.User)
				t.row("password", made.Password)
				t.row("host", made.Address.Host)
				t.row("port", fmt.Sprint(made.Address.Port))
				t.row("database", made.Address.Database)
				t.row("URL", made.URL)
				t.row("JDBC", made.JDBC)
				t.row("until", local(made.Expires))
			})
		},
	}
	command.Flags().StringVar(&ask.Duration, "duration", "", "for how `LONG`: 30m, 8h; default: as long as your sign-in")
	command.AddCommand(&cobra.Command{
		Use:     "list",
		Short:   "Your passwords that are still good",
		Example: "  sallyport credentials list",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			list, err := get[[]api.Credential](command, "/v1/credentials")
			if err != nil {
				return err
			}
			return show(command, list, func(t *table) {
				t.row("ID", "USER", "TARGET", "SINCE", "UNTIL")
				for _, one := range list {
					t.row(one.ID, one.User, one.Target, local(one.Issued), local(one.Expires))
				}
			})
		},
	}, &cobra.Command{
		Use:     "revoke ID",
		Short:   "End one of your passwords; sessions that it opened go on",
		Example: "  sallyport credentials revoke baxpw4r65u",
		Args:    exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			return done(command, http.MethodDelete, "/v1/credentials/"+url.PathEscape(args[0]), nil, "Password %s is ended; sessions that it opened go on: sallyport sessions", args[0])
		},
	})
	return command
}
