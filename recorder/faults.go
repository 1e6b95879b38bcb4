package recorder

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"sallyport/recorder/wal"
)

// The places of the write path at which a test can have the process killed, as kill -9 would; the write-ahead log has
// more. They concern Record, and not notes, endings and the audit log, so that a test knows which one dies.
const (
	beforeWrite = "record-before-write"
	halfWritten = "record-half-written"
	afterWrite  = "record-after-write"
	afterSync   = "record-after-sync"
	packWritten = "pack-before-swap" // the packed form of a recording is on stable storage, beside it
	packSwapped = "pack-after-swap"  // and in its place, which is not on stable storage yet
)

// faults kills the process when it comes to a place for the nth time. A nil *faults never does.
type faults struct {
	place string
	left  atomic.Int64
}

// faultsFromEnvironment reads SALLYPORT_CRASH_AT=PLACE[:N], which counts only beside SALLYPORT_FAULTS=1.
func faultsFromEnvironment(log *slog.Logger) (*faults, error) {
	text := os.Getenv("SALLYPORT_CRASH_AT")
	if text == "" || os.Getenv("SALLYPORT_FAULTS") != "1" {
		return nil, nil
	}
	place, count, _ := strings.Cut(text, ":")
	n := int64(1)
	if count != "" {
		var err error
		if n, err = strconv.ParseInt(count, 10, 64); err != nil || n < 1 {
			return nil, fmt.Errorf("SALLYPORT_CRASH_AT=%s: after the colon a number from 1 is expected", text)
		}
	}
	places := []string{
		beforeWrite, halfWritten, afterWrite, afterSync, packWritten, packSwapped,
		wal.BeforeWrite, wal.HalfWritten, wal.AfterWrite, wal.AfterSync, wal.BeforeCheckpoint, wal.AfterCheckpoint,
	}
	if !slices.Contains(places, place) {
		return nil, fmt.Errorf("SALLYPORT_CRASH_AT=%s: expected one of %s", text, strings.Join(places, ", "))
	}
	log.Warn("fault injection: this process will kill itself", "place", place, "time", n)
	f := &faults{place: place}
	f.left.Store(n)
	return f, nil
}

// due reports whether the process is to die here, and counts.
func (f *faults) due(place string) bool {
	return f != nil && f.place == place && f.left.Add(-1) == 0
}

// at dies here if it is due.
func (f *faults) at(place string) {
	if f.due(place) {
		die()
	}
}

// die is kill -9 from within: nothing is flushed, no deferred call runs.
func die() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Kill()
	}
	select {}
}
