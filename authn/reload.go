package authn

import (
	"context"
	"fmt"
	"unicode/utf8"

	"sallyport/configs"
	"sallyport/internal/store"
)

// Reload takes changed workloads in, and the file of groups. The sign-ins of one that was removed or changed end, and with them its credentials:
// whether what it is bound to now would let those jobs in is not known any more. Everything else of the configuration
// that is authn's needs a restart.
func (s *Service) Reload(ctx context.Context, config *configs.Config) error {
	old := s.jobs.Load()
	gone := old.Gone(config.Workloads)
	s.jobs.Store(old.Renewed(config.Workloads)) // first, so that nobody gets in by the old one while its jobs are ended
	for _, w := range gone {
		if err := s.endWorkload(ctx, w); err != nil {
			return err
		}
	}
	return s.readGroups(ctx)
}

func (s *Service) endWorkload(ctx context.Context, w configs.Workload) error {
	return s.store.Do(ctx, func(tx *store.Tx) error {
		prefix := w.Name + ":"
		rows, err := tx.QueryContext(ctx, `SELECT subject FROM identities i WHERE kind = ? AND issuer = ? AND substr(subject, 1, ?) = ?
			AND EXISTS (SELECT 1 FROM sign_ins s WHERE s.identity = i.id AND s.ended = 0 AND s.expires > ? AND s.at > i.signed_out)`,
			Workload, w.Issuer, utf8.RuneCountInString(prefix), prefix, stamp(s.now()))
		if err != nil {
			return fmt.Errorf("find the jobs of workload %s: %w", w.Name, err)
		}
		subjects, err := column[string](rows)
		if err != nil {
			return fmt.Errorf("find the jobs of workload %s: %w", w.Name, err)
		}
		for _, subject := range subjects {
			if err := s.end(ctx, tx, Identity{Issuer: w.Issuer, Subject: subject}, system, "workload changed or removed"); err != nil {
				return err
			}
		}
		return nil
	})
}
