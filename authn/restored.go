package authn

import (
	"context"
	"fmt"
	"time"

	"sallyport/internal/store"
)

// endRestored ends every sign-in, and forgets every one under way, in a store that was brought back from a backup: who has
// signed out since it was made, or was signed out, can't be known. People sign in anew, at a provider that knows. Enrolled keys are
// forgotten too: one that was removed since would be back, and one's counter with it; people enrol them anew.
func endRestored(ctx context.Context, s *store.Store, now time.Time) error {
	return s.Do(ctx, func(tx *store.Tx) error {
		_, restored, err := tx.Restored(ctx, "authn")
		if err != nil || !restored {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE sign_ins SET ended = ? WHERE ended = 0`, stamp(now)); err != nil {
			return fmt.Errorf("end the sign-ins of a restored store: %w", err)
		}
		for _, table := range []string{"trips", "key_challenges", "enrolled_keys", "auth_requests", "devices"} {
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+table); err != nil {
				return fmt.Errorf("end the sign-ins of a restored store: %w", err)
			}
		}
		return nil
	})
}
