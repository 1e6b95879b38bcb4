package recorder

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"sallyport/recorder/disk"
)

// Usage is what recordings take of the disk.
type Usage struct {
	Recordings int
	Bytes      int64 // of recordings and audit log, as long as the files are
	// Days are the last days, today last, by UTC; a recording counts for the day on which it began.
	Days []DayUsage
	Free int64 // what can still be written to the disk
	// Reserve is what has to be free for sessions to start.
	Reserve int64
	// Warn is below which free space is little.
	Warn int64
	// Left is how long it takes until no session can start, if it goes on as on the whole days among Days; 0 where that
	// is not known, because nothing was recorded on them.
	Left time.Duration
}

// DayUsage is one day's share.
type DayUsage struct {
	Day        time.Time
	Recordings int
	Bytes      int64
}

// usageDays is how many days a forecast looks back.
const usageDays = 7

// SyncLatency is how long the disk took to make a small write safe, measured when the recorder was opened; zero where it
// was not.
type SyncLatency struct {
	Median  time.Duration
	Slowest time.Duration
}

// SyncLatency returns what was measured.
func (r *Recorder) SyncLatency() SyncLatency { return r.latency }

// Usage looks at all files, which takes a moment where there are many.
func (r *Recorder) Usage(ctx context.Context) (Usage, error) {
	today := r.clock().UTC().Truncate(24 * time.Hour)
	u := Usage{Reserve: int64(r.Config.Reserve), Warn: int64(r.Config.Warn)}
	for n := range usageDays {
		u.Days = append(u.Days, DayUsage{Day: today.AddDate(0, 0, n+1-usageDays)})
	}
	for _, dir := range []string{r.recordings(), r.audits()} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err = errors.Join(err, ctx.Err()); err != nil || entry.IsDir() || !strings.HasSuffix(path, extension) {
				if errors.Is(err, fs.ErrNotExist) { // was just purged
					return nil
				}
				return err
			}
			info, err := entry.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			u.Bytes += info.Size()
			if dir != r.recordings() {
				return nil
			}
			u.Recordings++
			relative, err := filepath.Rel(dir, filepath.Dir(path))
			if err != nil {
				return err
			}
			for i := range u.Days {
				if u.Days[i].Day.Format("2006/01/02") == filepath.ToSlash(relative) {
					u.Days[i].Recordings++
					u.Days[i].Bytes += info.Size()
				}
			}
			return nil
		})
		if err != nil {
			return u, err
		}
	}
	var err error
	if u.Free, err = disk.Free(r.recordings()); err != nil {
		return u, err
	}
	u.Left = u.forecast()
	return u, nil
}

// forecast is Left: today is not over and would make it look better than it is.
func (u Usage) forecast() time.Duration {
	const most = 100 * 365 * 24 * time.Hour
	var bytes int64
	for _, d := range u.Days[:len(u.Days)-1] {
		bytes += d.Bytes
	}
	perDay := float64(bytes) / float64(len(u.Days)-1)
	if perDay == 0 {
		return 0
	}
	days := float64(max(0, u.Free-u.Reserve)) / perDay
	return time.Duration(min(days*24*float64(time.Hour), float64(most)))
}

// OutboxDepth is how many audit events wait to be moved to the audit log.
func (r *Recorder) OutboxDepth(ctx context.Context) (int, error) {
	if r.Store == nil {
		return 0, nil
	}
	var count int
	err := r.Store.Read().QueryRowContext(ctx, `SELECT count(*) FROM audit_outbox`).Scan(&count)
	return count, err
}
