package recorder

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// diskInterval is how often the disk's free space is looked at.
const diskInterval = time.Second

// watermark says how much room the disk has.
type watermark int

// The watermarks, from plenty to nothing. Between two of them lies what Recording's keys say: warn, reserve, end.
const (
	plenty    watermark = iota
	low                 // people are told
	scarce              // no session begins
	exhausted           // open sessions end
)

// watermark is that of so many free bytes.
func (r *Recorder) watermark(free int64) watermark {
	switch c := r.Config; {
	case free < int64(c.End):
		return exhausted
	case free < int64(c.Reserve):
		return scarce
	case free < int64(c.Warn):
		return low
	}
	return plenty
}

// watchDisk looks at the disk until the context ends.
func (r *Recorder) watchDisk(ctx context.Context) {
	ticker := time.NewTicker(diskInterval)
	defer ticker.Stop()
	for was := plenty; ; {
		was = r.lookAtDisk(ctx, was)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// lookAtDisk tells of a watermark that was passed, and ends sessions below the last one.
func (r *Recorder) lookAtDisk(ctx context.Context, was watermark) watermark {
	free, err := r.free()
	if err != nil {
		return was // Begin and status say so
	}
	now := r.watermark(free)
	if now < was { // only with some room to spare, so that nobody is told every second
		now = min(was, r.watermark(free-free/16))
	}
	if now == exhausted {
		r.stopAll(fmt.Errorf("%w: %d bytes are free", errDiskLow, free))
	}
	if now == was {
		return was
	}
	say, what := r.Log.Warn, [...]string{
		plenty:    "the session log's disk has room again",
		low:       "the session log's disk gets full; make room before no session can start",
		scarce:    "the session log's disk is nearly full; no session starts",
		exhausted: "the session log's disk is full but for what endings need; open sessions are ended",
	}[now]
	switch {
	case now == plenty:
		say = r.Log.Info
	case now > low:
		say = r.Log.Error
	}
	say(what, "free_bytes", free, "warn", int64(r.Config.Warn), "reserve", int64(r.Config.Reserve), "end", int64(r.Config.End))
	if r.Store != nil {
		word := [...]string{plenty: "plenty", low: "low", scarce: "scarce", exhausted: "exhausted"}[now]
		err := r.Store.Audit(ctx, store.AuditEvent{Kind: "recorder.disk", Actor: "system", Reason: what, Fields: map[string]string{
			"state": word, "free_bytes": strconv.FormatInt(free, 10),
		}})
		if err != nil {
			r.Log.Error("the state of the disk could not be audited", "error", err)
		}
	}
	return now
}

// errDiskLow is why open sessions are ended before the disk is full.
var errDiskLow = refusal.New(refusal.RecorderFailed, "the gateway's disk for recordings is nearly full, and nothing passes unrecorded")

// stopAll has nothing more recorded but endings, and what the audit log says.
func (r *Recorder) stopAll(why error) {
	for _, rec := range r.living(isSession) {
		rec.stop(why)
	}
}
