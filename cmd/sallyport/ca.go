package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newAuthoritiesCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "ca",
		Short: "The gateway's certificate authorities: list and rotate them",
		Args:  noArguments,
		RunE:  func(command *cobra.Command, _ []string) error { return listAuthorities(command) },
	}
	command.AddCommand(
		&cobra.Command{
			Use: "list", Short: "The authorities, their keys, and until when old keys count", Example: "  sallyport ca list", Args: noArguments,
			RunE: func(command *cobra.Command, _ []string) error { return listAuthorities(command) },
		},
		newRotateCommand(),
	)
	return command
}

func newRotateCommand() *cobra.Command {
	var how api.Rotation
	command := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give an authority a new key",
		Long: `Give an authority a new key. What the old one signed is accepted for as long as it can be good.

What only the gateway trusts (login, tls-client, issuer) changes at once. For ssh-host and target others must know the new key first:
this prepares it and publishes it beside the old one; --activate then uses it. For ssh-host that is when everybody has signed in
anew, for target when every SSH target has what "sallyport targets setup" prints.

--at-once is for a key that is no longer secret: nothing that the old one signed is accepted from then on. People sign in anew;
after ssh-host and target nothing connects until the new key is trusted.`,
		Example: `  sallyport ca rotate login
  sallyport ca rotate target
  sallyport ca rotate target --activate`,
		Args:      exactly("NAME"),
		ValidArgs: []string{"ssh-host", "login", "tls-client", "target", "issuer"},
		RunE: func(command *cobra.Command, args []string) error {
			all, err := post[[]api.Authority](command, "/v1/authorities/"+url.PathEscape(args[0])+"/rotate", how)
			if err != nil {
				return err
			}
			for _, a := range all {
				if a.Name == args[0] && a.Next != "" {
					fmt.Fprintf(command.ErrOrStderr(), "The next key is %s. When it is trusted: sallyport ca rotate %s --activate\n", visible(a.Next), a.Name)
				}
			}
			return showAuthorities(command, all)
		},
	}
	command.Flags().BoolVar(&how.Activate, "activate", false, "use the key that was prepared")
	command.Flags().BoolVar(&how.AtOnce, "at-once", false, "without any overlap: the old key is no longer secret")
	return command
}

func listAuthorities(command *cobra.Command) error {
	all, err := get[[]api.Authority](command, "/v1/authorities")
	if err != nil {
		return err
	}
	return showAuthorities(command, all)
}

func showAuthorities(command *cobra.Command, all []api.Authority) error {
	return show(command, all, func(t *table) {
		t.row("NAME", "KEY", "SINCE", "UNTIL", "WHAT")
		for _, a := range all {
			t.row(a.Name, a.Fingerprint, local(a.Since), "", a.Purpose)
			if a.Next != "" {
				t.row("", a.Next, "", "", "prepared, to be activated")
			}
			for _, old := range a.Old {
				t.row("", old.Fingerprint, "", local(old.Until), "old")
			}
		}
	})
}
