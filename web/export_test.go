package web

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/authn"
)

func init() { standingEvery = 200 * time.Millisecond }

// Routes are the patterns of all that a gateway with these options answers to.
func Routes(o Options) []string { return (&server{Options: o}).routes().patterns }

// MayDecidePolicies is the check of the permission and the sign-in of who decides on policies.
func MayDecidePolicies(ctx context.Context, o Options, who authn.Identity) error {
	return (&server{Options: o}).mayDecidePolicies(ctx, caller{Identity: who})
}

// InEmergencies are the operations that somebody may do who signed in with an enrolled key.
func InEmergencies(o Options) (ids []string) {
	s := &server{Options: o}
	s.routes()
	for _, path := range s.api.OpenAPI().Paths {
		for _, op := range []*huma.Operation{path.Get, path.Post, path.Put, path.Patch, path.Delete} {
			if op == nil {
				continue
			}
			if allowed, _ := op.Metadata[emergencies].(bool); allowed {
				ids = append(ids, op.OperationID)
			}
		}
	}
	return ids
}
