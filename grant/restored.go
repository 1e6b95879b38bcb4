package grant

import (
	"context"
	"math"
	"strconv"
	"time"

	"sallyport/internal/store"
)

// endRestored ends everything that was open in a store that was brought back from a backup: whether it has been used up,
// revoked or denied since the backup was made can't be known. It is called before anything is in memory, and what it does is
// one transaction with the store's mark, so that it is done once and whole.
func (s *Service) endRestored(ctx context.Context) error {
	return s.store.Do(ctx, func(tx *store.Tx) error {
		r, restored, err := tx.Restored(ctx, "grant")
		if err != nil || !restored {
			return err
		}
		stamp := s.clock.stamp()
		grants, err := query(ctx, tx, math.MaxInt32, `WHERE `+isOpen)
		if err != nil {
			return err
		}
		for _, old := range grants {
			g := old.clone()
			to := Ended
			if g.State == Pending {
				to = Lapsed
			}
			g.end(to, stamp, EndRestored, system, "the store was brought back from a backup of "+when(r.Made)+"; what became of this since then is not known")
			event := s.over(g)
			if g, err = save(ctx, tx, old, g); err != nil {
				return err
			}
			if err := tx.Audit(event); err != nil {
				return err
			}
			if err := announce(ctx, tx, event, g); err != nil {
				return err
			}
		}
		if err := saveHigh(ctx, tx, stamp); err != nil {
			return err
		}
		return tx.Audit(store.AuditEvent{
			Time: stamp, Kind: "store.restored", Actor: system, Reason: "the store was brought back from a backup",
			Fields: map[string]string{"made": r.Made.Format(time.RFC3339), "at": r.At.Format(time.RFC3339), "grants_ended": strconv.Itoa(len(grants))},
		})
	})
}
