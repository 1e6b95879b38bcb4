package web

import (
	"context"
	"time"

	"sallyport/authn"
)

func init() { standingEvery = 200 * time.Millisecond }

// Routes are the patterns of all that a gateway with these options answers to.
func Routes(o Options) []string { return (&server{Options: o}).routes().patterns }

// MayDecidePolicies is the check of the permission and the sign-in of who decides on policies.
func MayDecidePolicies(ctx context.Context, o Options, who authn.Identity) error {
	return (&server{Options: o}).mayDecidePolicies(ctx, caller{Identity: who})
}
