// Package archive copies what is evidence to an S3-compatible store: recordings that have ended, the files of the audit log,
// and the log over all of them with its checkpoints.
//
// An object's name has the SHA-256 of what is in it, and nothing is ever written over: what a recording is archived as stays
// (If-None-Match), and where the bucket has Object Lock, nobody can delete it before its time. A recording counts as archived
// once the object has been read back, all of it, and is what was sent; until then it is not deleted here, and a checkpoint
// that covers its ending does not go there. So a copy of the bucket is always something that sallyport-verify can check.
//
// Nothing is ever deleted there but the objects of recordings that somebody has destroyed here (recorder.Shred), and only once a
// checkpoint which says that is there; see shred.go.
//
// The archive stands beside the gateway's work: it reads files that have ended, and a store that is slow, full, lying or gone
// keeps no session from beginning and no record from being written. How far it has come is kept in the gateway's database,
// so that a gateway which dies in the middle goes on where it was, also within a large file.
package archive

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"sallyport/configs"
	"sallyport/internal/store"
	"sallyport/recorder/transparency/ledger"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

var migrations, _ = fs.Sub(migrationFiles, "migrations") // the directory is embedded above

// Options configure New. All are required but Log and Patience.
type Options struct {
	Config configs.Archive
	// Dir is the state directory, below which the recordings' paths are.
	Dir string
	// Secret resolves a reference to a secret.
	Secret func(context.Context, configs.SecretRef) (string, error)
	Store  *store.Store
	Ledger *ledger.Log
	// Patience is how long the store may do nothing before a request is given up; 0: a minute.
	Patience time.Duration
	Log      *slog.Logger
}

// Recordings tells where they are. A *recorder.Recorder does.
type Recordings interface {
	// Stored is the path of a session's recording, or of an audit file, below the state directory; it is empty where there is
	// none. Settled says that it has ended and is not about to be packed.
	Stored(session string) (path string, settled bool)
}

// Archive is the way to the store. All methods are safe for concurrent use.
type Archive struct {
	o      Options
	bucket *bucket
	place  string

	recordings Recordings
	stop       context.CancelFunc
	stopped    chan struct{}
	lockKnown  bool // the bucket has the Object Lock that is asked for; the worker's own

	mu        sync.Mutex
	started   time.Time
	complete  time.Time // when everything was there last
	failed    error     // why the last pass ended
	failedAt  time.Time
	behind    bool // the alarm was given
	announced bool // that the store does not answer
}

// Status is how it stands with the archive.
type Status struct {
	Place string // endpoint, bucket and prefix
	Lock  string // such as "compliance for 400d"; empty: none is asked for
	// Waiting is how many recordings and audit files have ended and are not there yet, Oldest since when the first of them.
	Waiting int
	Oldest  time.Time
	// Archived is how many are there, read back, and Bytes how much that is.
	Archived int
	Bytes    int64
	// Checkpoint is how many leaves the newest checkpoint there covers, CheckpointAt when it went there.
	Checkpoint   int64
	CheckpointAt time.Time
	// Complete is when the archive last had everything, zero before the first time; Behind says that this is too long ago
	// (archive.max_behind). Started is when this gateway began to look.
	Complete time.Time
	Started  time.Time
	Behind   bool
	// Shredding is how many recordings were destroyed here and are still there, Shreds the oldest of them.
	Shredding int
	Shreds    []Shred
	// Error is why it does not go on, since FailedAt; empty: it does.
	Error    string
	FailedAt time.Time
}

// patience is Options.Patience where it is not said.
const patience = time.Minute

// Since is when the archive last had everything, or, before the first time, when the gateway began.
func (s *Status) Since() time.Time {
	if s.Complete.IsZero() {
		return s.Started
	}
	return s.Complete
}

// New makes an archive of a configuration that is Used. It reaches out to nobody before Start.
func New(ctx context.Context, o Options) (*Archive, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Patience <= 0 {
		o.Patience = patience
	}
	b, err := openBucket(o)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	if err := o.Store.Migrate(ctx, "archive", migrations); err != nil {
		return nil, err
	}
	a := &Archive{o: o, bucket: b, place: Place(o.Config), started: time.Now()}
	at, err := a.position(ctx)
	if err != nil {
		return nil, err
	}
	a.complete = at.complete
	return a, nil
}

// Place names where a configuration's archive is.
func Place(c configs.Archive) string {
	place := c.Endpoint
	if u, err := url.Parse(c.Endpoint); err == nil {
		place = u.Scheme + "://" + u.Host
	}
	return strings.TrimSuffix(place+"/"+c.Bucket+"/"+strings.Trim(c.Prefix, "/"), "/")
}

// Start begins to copy what is in recordings.
func (a *Archive) Start(ctx context.Context, recordings Recordings) {
	a.recordings = recordings
	ctx, a.stop = context.WithCancel(context.WithoutCancel(ctx))
	a.stopped = make(chan struct{})
	go func() {
		defer close(a.stopped)
		a.run(ctx)
	}()
}

// Close ends the copying, wherever it is. What was under way goes on with the next Start.
func (a *Archive) Close() {
	if a == nil || a.stop == nil {
		return
	}
	a.stop()
	<-a.stopped
}

// The waits after a failure: they double from the first to the last.
const (
	firstWait = 2 * time.Second
	lastWait  = 5 * time.Minute
)

func (a *Archive) run(ctx context.Context) {
	wait := firstWait
	for {
		err := a.pass(ctx)
		if ctx.Err() != nil {
			return
		}
		a.note(ctx, err)
		next := a.o.Config.Every.D()
		if err != nil {
			next, wait = wait, min(2*wait, lastWait)
		} else {
			wait = firstWait
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// note keeps how a pass ended, and gives the alarm or takes it back.
func (a *Archive) note(ctx context.Context, err error) {
	a.mu.Lock()
	now := time.Now()
	first := err != nil && !a.announced
	again := err == nil && a.announced
	a.announced = err != nil
	if a.failed = err; err == nil {
		a.complete = now
	} else {
		a.failedAt = now
	}
	late := a.late(now)
	alarm, over := late && !a.behind, !late && a.behind
	a.behind = late
	a.mu.Unlock()
	if err != nil {
		a.bucket.creds.Expire() // they may be what was wrong
	}
	switch {
	case first:
		a.o.Log.Error("the archive is not up to date; recordings stay here until it is, and it is tried again for ever", "archive", a.place, "error", err)
	case again:
		a.o.Log.Info("the archive is up to date again", "archive", a.place)
	}
	if err == nil {
		if err := a.saveComplete(ctx, now); err != nil && ctx.Err() == nil {
			a.o.Log.Error("that the archive is complete could not be kept", "error", err)
		}
	}
	if alarm {
		a.tell(ctx, store.AuditEvent{Kind: "archive.behind", Outcome: "failed", Reason: reasonOf(err)})
	}
	if over {
		a.tell(ctx, store.AuditEvent{Kind: "archive.caught_up"})
	}
}

// late reports whether the archive has not had everything for too long. The lock is held.
func (a *Archive) late(now time.Time) bool {
	since := a.complete
	if since.IsZero() {
		since = a.started
	}
	return now.Sub(since) > a.o.Config.MaxBehind.D()
}

// overdue gives the alarm also in the middle of a pass that does not end.
func (a *Archive) overdue(ctx context.Context) {
	a.mu.Lock()
	// What a gateway that was off had no time for is not late before it has had a chance.
	alarm := !a.behind && a.late(time.Now()) && time.Since(a.started) > a.o.Config.MaxBehind.D()
	a.behind = a.behind || alarm
	a.mu.Unlock()
	if alarm {
		a.tell(ctx, store.AuditEvent{Kind: "archive.behind", Outcome: "failed", Reason: "there is more than goes there in that time"})
	}
}

func (a *Archive) tell(ctx context.Context, event store.AuditEvent) {
	event.Actor, event.Fields = "system", map[string]string{"archive": a.place}
	if err := a.o.Store.Audit(context.WithoutCancel(ctx), event); err != nil {
		a.o.Log.Error("how the archive stands could not be audited", "event", event.Kind, "error", err)
	}
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if len(text) > 500 {
		text = strings.ToValidUTF8(text[:500], "") + "…"
	}
	return text
}

// Status tells how it stands. A nil Archive has none.
func (a *Archive) Status(ctx context.Context) (*Status, error) {
	if a == nil {
		return nil, nil
	}
	s := &Status{Place: a.place}
	if lock := a.o.Config.Lock; lock.Mode != "" {
		s.Lock = lock.Mode + " for " + lock.For.String()
	}
	if err := a.count(ctx, s); err != nil {
		return nil, err
	}
	if err := a.countShreds(ctx, s); err != nil {
		return nil, err
	}
	at, err := a.position(ctx)
	if err != nil {
		return nil, err
	}
	s.Checkpoint, s.CheckpointAt = at.checkpoint, at.saved
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Complete, s.Started, s.Behind = a.complete, a.started, a.behind
	if a.failed != nil {
		s.Error, s.FailedAt = reasonOf(a.failed), a.failedAt
	}
	return s, nil
}
