package recorder

import (
	"context"

	"sallyport/recorder/verify"
)

// Verify checks the whole session log, with what only the running gateway knows: which recordings are being written,
// and which audit events wait to be moved.
func (r *Recorder) Verify(ctx context.Context) (*verify.Report, error) {
	o := verify.Options{Live: r.isLive}
	if r.Store != nil {
		o.Destroying = func(session string) bool {
			var one int
			err := r.Store.Read().QueryRowContext(ctx, `SELECT 1 FROM recording_shreds WHERE session = ?`, session).Scan(&one)
			return err == nil
		}
	}
	if r.audit != nil {
		waiting, err := r.Store.Outbox(ctx, 0, 10_000)
		if err != nil {
			return nil, err
		}
		for _, e := range waiting {
			o.Waiting = append(o.Waiting, e.Number)
		}
	}
	if r.Ledger != nil {
		o.LogKey = r.Ledger.Key()
		if r.Ledger.Witnessed().Note != nil { // else no witness has answered yet, which status tells
			o.Witnesses, o.Quorum = r.Ledger.WitnessKeys(), 1
		}
	}
	return verify.Check(r.Dir, o)
}

// isLive reports whether the file of that name is being written, and how much of it is safe.
func (r *Recorder) isLive(name string) (int64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, live := r.live[sessionOf(name)]
	if !live {
		return 0, false
	}
	return rec.safe.Load(), true
}
