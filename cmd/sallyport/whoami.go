package main

import (
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newWhoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "whoami",
		Short:   "Say who you are to the gateway",
		Example: "  sallyport whoami --json",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			c, err := open()
			if err != nil {
				return err
			}
			var who api.Identity
			if err := c.Do(command.Context(), http.MethodGet, "/v1/me", nil, &who); err != nil {
				return err
			}
			return show(command, who, func(t *table) {
				t.row("name", who.Label())
				t.row("e-mail", who.Email)
				if t.row("groups", strings.Join(who.Groups, ", ")); len(who.Groups) == 0 && who.Kind == "human" {
					t.row("", "the provider tells of none: whoever runs the gateway looks at provider.scopes and provider.groups_claim")
				}
				t.row("kind", who.Kind)
				t.row("subject", who.Subject)
				t.row("issuer", who.Issuer)
				t.row("signed in", local(who.SignedIn))
				t.row("until", local(who.Expires))
				if who.Emergency {
					t.row("good for", "an emergency alone: signed in with an enrolled key")
				}
				t.row("gateway", c.Gateway())
			})
		},
	}
}
