package main

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/internal/refusal"
	"sallyport/web/api"
)

func newReleaseCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "release [ID]",
		Short:   "Give a grant back before its time, or withdraw a request",
		Example: "  sallyport release\n  sallyport release g-7k3mq2",
		Long:    "Give your own grant back, which ends its sessions, or withdraw your own request. Without an ID: the only one you have.",
		Args:    atMost(1),
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 0 {
				id, err := onlyGrant(command)
				if err != nil {
					return err
				}
				args = []string{id}
			}
			return transition(command, "/v1/grants/"+url.PathEscape(args[0])+"/release", "")
		},
	}
}

// onlyGrant is the caller's one grant or request that is not over.
func onlyGrant(command *cobra.Command) (string, error) {
	c, err := open()
	if err != nil {
		return "", err
	}
	var who api.Identity
	if err := c.Do(command.Context(), http.MethodGet, "/v1/me", nil, &who); err != nil {
		return "", err
	}
	var mine []string
	for _, path := range []string{"/v1/grants", "/v1/requests"} {
		var grants []api.Grant
		if err := c.Do(command.Context(), http.MethodGet, path, nil, &grants); err != nil {
			return "", err
		}
		for _, g := range grants {
			if g.Identity.Issuer == who.Issuer && g.Identity.Subject == who.Subject {
				mine = append(mine, g.ID)
			}
		}
	}
	switch len(mine) {
	case 0:
		return "", refusal.New(refusal.NotFound, "you have no grant and no request")
	case 1:
		return mine[0], nil
	}
	return "", usage(command, "you have several: %s; name one", strings.Join(mine, ", "))
}
