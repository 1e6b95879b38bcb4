// Package recorder is the session log: what was done, by whom, when, kept before it happens.
//
// A session's recording is one append-only file in the form of sallyport/recorder/format. Record returns once its events
// are safe at the recording's level: `written`, with the kernel, which survives the death of the gateway at any instant;
// or `synced`, on stable storage, which survives a power cut too. All recordings at level synced share one write-ahead
// log (sallyport/recorder/wal), so that one sync serves all who wait; their files are synced behind it. A write or sync
// that fails ends the recording for good, and with it the session: a failed sync is never tried again, because the kernel
// may answer the second one with success though the data are gone. One that fails on the shared log, or behind it, ends
// every recording at that level. There is always room for a recording's ending.
//
// Open brings what the log has to the files and repairs what an earlier run left: it cuts what was being written when that run died, never a block that was whole,
// and closes its recordings as "crashed". What was changed in the middle of a file is reported as damage and left as
// it is.
//
// The audit log of the control plane is kept the same way, in files of its own, fed from the store's outbox.
package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/recorder/disk"
	"sallyport/recorder/format"
	"sallyport/recorder/lock"
	"sallyport/recorder/transparency"
	"sallyport/recorder/transparency/ledger"
	"sallyport/recorder/wal"
)

// extension ends the name of a recording's file.
const extension = ".srec"

// Options configure Open.
type Options struct {
	// Dir is the state directory; recordings are Dir/recordings/**/*.srec, the audit log Dir/audit/*.srec.
	Dir string
	// Config has the default level, the reserve of free space and whether a volatile file system will do.
	Config configs.Recording
	// Store has the outbox of audit events, which Open's mover appends to the audit log. Without one there is no audit log.
	Store *store.Store
	// Interpreters has a constructor for each protocol by Header.Protocol.
	Interpreters map[string]func(format.Header) Interpreter
	// Index is the file of the search index; without one searches read the recordings.
	Index string
	// Keep says how long a target's recordings are kept after they ended; without it, or where it says 0, for ever. It may be
	// called at any time, and needs Store.
	Keep func(target string) time.Duration
	// Archived is asked before a recording is deleted because its time is over: it says with which chain value the recording is kept
	// elsewhere, and where. An empty chain or an error keeps the recording here; without Archived nobody is asked.
	Archived func(ctx context.Context, session string) (chain string, where map[string]string, err error)
	// EndAudit is how old an audit file grows before the next one is begun; 0: as old as it takes to be full.
	EndAudit time.Duration
	// Recipients are the age recipients that a target's recordings are locked to; without it, or where there are none, they are
	// in the clear. It may be called at any time.
	Recipients func(target string) []string
	// Mask says what is hidden in all that is made of a target's recordings to be read, beside what their headers say; without
	// it, or where it is nil, nothing more. It may be called at any time; see Remask.
	Mask func(target string) *format.Mask
	// InputRecipients are, of a target whose recordings are locked, the stricter recipients of what is typed and of the
	// parameters of statements; without it, or where there are none, that is for Recipients like all else.
	InputRecipients func(target string) []string
	// Sealers have a constructor, by Header.Protocol, for what tells that apart; without one it is what was plainly said.
	Sealers map[string]func(placeholder string) Sealer
	// NewKey makes the key of a recording that is to be locked, as lock.New does, which is the default.
	NewKey func(ctx context.Context, session string, recipients []string) (*format.Key, *format.Lock, error)
	// Ledger is the log over all recordings, which binds each when it begins, lives and ends; without one nothing does. It
	// stays the caller's, to be closed after the recorder. Progress is how often live recordings are bound; 0: 10 s.
	Ledger   *ledger.Log
	Progress time.Duration
	// Version is the gateway's version, for headers.
	Version string
	Log     *slog.Logger
}

// Recorder is the session log of one gateway. All methods are safe for concurrent use.
type Recorder struct {
	Options
	hardware Hardware
	volatile bool
	faults   *faults
	wal      *wal.Log // of all recordings at level synced
	ballast  *disk.Ballast
	crashed  []format.Header
	audit    *auditLog            // nil without a store
	indexer  *indexer             // nil without an index
	opened   time.Time            // has the clock that does not jump
	clock    func() time.Time     // the wall's, and
	running  func() time.Duration // how long it has been since opened; tests set both
	purging  sync.Mutex           // of one recording: it is not put on hold meanwhile
	keeper   background
	packer   *packer
	warner   background
	free     func() (int64, error) // bytes of the disk that are free
	binder   background
	latency  SyncLatency
	masks    maskers
	claims   atomic.Uint64 // how many recordings were begun, or were about to be

	mu     sync.Mutex
	paths  map[string]string // of all recordings, by session, below Dir
	live   map[string]*Recording
	locked map[string]format.Header // of all recordings that are locked: as much as a search looks at
	owed   []transparency.Leaf      // for which there was no room
	closed bool
	dead   error // a write or sync that failed so that nothing more is trusted to this disk
}

// ErrClosed is what a recording says once the recorder was closed.
var ErrClosed = errors.New("the recorder is closed")

// Open recovers what an earlier run left (torn tails cut, open recordings closed as "crashed") and starts the mover of
// audit events. One process at a time may have a directory open; the store's lock sees to that.
func Open(ctx context.Context, o Options) (*Recorder, error) {
	return open(ctx, o, system())
}

// OpenOn is Open with another disk under recordings and their log, for tests of what that may do. What ended recordings are
// packed into, and everything else, is with the operating system.
func OpenOn(ctx context.Context, o Options, on Hardware) (*Recorder, error) { return open(ctx, o, on) }

func open(ctx context.Context, o Options, on Hardware) (*Recorder, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Config.Durability == "" {
		o.Config.Durability = configs.Synced
	}
	if o.NewKey == nil {
		o.NewKey = lock.New
	}
	if o.Progress <= 0 {
		o.Progress = 10 * time.Second
	}
	r := &Recorder{Options: o, hardware: on, paths: map[string]string{}, live: map[string]*Recording{}, locked: map[string]format.Header{}, opened: time.Now(), clock: time.Now}
	r.packer = newPacker(r)
	r.free = func() (int64, error) { return disk.Free(r.recordings()) }
	r.running = func() time.Duration { return time.Since(r.opened) }
	if err := r.prepare(); err != nil {
		return nil, err
	}
	if err := r.recover(ctx); err != nil {
		return nil, err
	}
	if err := r.settle(); err != nil {
		return nil, fmt.Errorf("recover the session log: %w", err)
	}
	if r.Ledger != nil {
		r.binder.start(ctx, r.keepBinding)
	}
	if err := r.Ready(); err != nil {
		o.Log.Error("no session can start", "error", err)
	} else if err := r.measure(); err != nil {
		return nil, fmt.Errorf("measure how long a sync takes: %w", err)
	}
	if o.Store != nil {
		if err := o.Store.Migrate(ctx, "recorder", migrations); err != nil {
			return nil, err
		}
		var err error
		if r.audit, err = openAuditLog(ctx, r); err != nil {
			return nil, err
		}
		if err := r.finishShreds(ctx); err != nil {
			return nil, fmt.Errorf("destroy what an earlier run had begun to: %w", err)
		}
	}
	if o.Index != "" {
		r.indexer = startIndexer(ctx, r)
	}
	if o.Keep != nil && o.Store != nil {
		r.keeper.start(ctx, r.keepUp)
	}
	r.packer.work.start(ctx, r.packer.run)
	r.warner.start(ctx, r.watchDisk)
	return r, nil
}

// prepare makes the directories and looks at the disk.
func (r *Recorder) prepare() error {
	var err error
	if r.faults, err = faultsFromEnvironment(r.Log); err != nil {
		return err
	}
	for _, dir := range []string{r.recordings(), r.audits(), r.ahead()} {
		if err := disk.MakeDirectory(r.Dir, dir); err != nil {
			return fmt.Errorf("make the session log's directory: %w", err)
		}
	}
	for _, dir := range []string{r.recordings(), r.ahead()} {
		volatile, err := disk.IsVolatile(dir)
		if err != nil {
			return fmt.Errorf("look at the session log's file system: %w", err)
		}
		r.volatile = r.volatile || volatile
	}
	if err := r.allows(r.Config.Durability); err != nil {
		return err
	}
	r.wal = r.newLog()
	r.ballast = disk.NewBallast(filepath.Join(r.recordings(), "ballast"), int64(r.Config.Reserve))
	return nil
}

func (r *Recorder) recordings() string { return filepath.Join(r.Dir, "recordings") }
func (r *Recorder) audits() string     { return filepath.Join(r.Dir, "audit") }

// allows refuses a level that the file system can't keep.
func (r *Recorder) allows(level configs.Durability) error {
	switch {
	case level != configs.Written && level != configs.Synced:
		return refusal.New(refusal.Invalid, "no such durability: %q", level).WithHint("written or synced")
	case level == configs.Synced && r.volatile && !r.Config.AllowVolatile:
		return refusal.New(refusal.RecorderFailed, "recordings cannot be kept at level synced").
			WithDetail("%s is on a file system that is lost with the machine's power", r.recordings()).
			WithHint("move `state` to a disk, or set recording.durability to written")
	}
	return nil
}

// measure logs how long a sync takes, which is what a command waits for at level synced.
func (r *Recorder) measure() error {
	f, err := os.CreateTemp(r.recordings(), "measure-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	block := make([]byte, 4096)
	for range 8 {
		if _, err := f.Write(block); err != nil {
			return err
		}
		began := time.Now()
		if err := disk.SyncData(f); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	r.latency = SyncLatency{Median: took[len(took)/2], Slowest: took[len(took)-1]}
	r.Log.Info("recordings are kept", "durability", r.Config.Durability, "directory", r.recordings(),
		"volatile", r.volatile, "sync_median", r.latency.Median, "sync_slowest", r.latency.Slowest)
	return nil
}

// Crashed lists the headers of the sessions that Open found open and closed as crashed; the gateway ends what they may
// have left running on their targets.
func (r *Recorder) Crashed() []format.Header { return slices.Clone(r.crashed) }

// Ready returns nil while new recordings can be begun and kept; else a *refusal.Refusal (RecorderFailed) that says why
// not: disk full, failed sync; or, with Unwitnessed, that no witness has seen the log for too long.
func (r *Recorder) Ready() error {
	r.mu.Lock()
	dead, closed := r.dead, r.closed
	r.mu.Unlock()
	if closed {
		return refusal.New(refusal.RecorderFailed, "the session log is closed").WithDetail("the gateway is shutting down").Because(ErrClosed)
	}
	if err := r.room(); err != nil {
		return err
	}
	if dead == nil && r.audit != nil {
		dead = r.audit.failure()
	}
	if dead != nil {
		return refusal.New(refusal.RecorderFailed, "the session log has failed").
			WithDetail("writing to the gateway's disk failed, and nothing passes unrecorded").
			WithHint("ask whoever runs the gateway to look at its disk and restart it").Because(dead)
	}
	return r.seen()
}

// seen returns nil while a witness has seen the log lately enough for sessions to begin, where the configuration wants that.
func (r *Recorder) seen() error {
	most := r.Config.RequireWitness.D()
	if most <= 0 {
		return nil
	}
	no := refusal.New(refusal.Unwitnessed, "no witness has seen the gateway's log for too long").
		WithHint("ask whoever runs the gateway to look at its witnesses: sallyport status")
	switch l := r.Ledger; {
	case l == nil || len(l.WitnessKeys()) == 0:
		return no.WithDetail("there is none, and no session begins without")
	case l.Unwitnessed() > most:
		return no.WithDetail("a part of it waits for %v, and no session begins when that is more than %v", l.Unwitnessed().Round(time.Second), most)
	}
	return nil
}

// room returns nil while there is room for new recordings and for the endings of all; it makes the ballast whole again
// where it can.
func (r *Recorder) room() error {
	free, err := disk.Free(r.recordings())
	if err != nil {
		return refusal.New(refusal.RecorderFailed, "the session log's disk cannot be read").
			WithHint("ask whoever runs the gateway to look at its disk").Because(err)
	}
	if free < int64(r.Config.Reserve) {
		return full(fmt.Errorf("%d bytes are free, recording.reserve is %d", free, r.Config.Reserve))
	}
	if err := r.ballast.Fill(free - int64(r.Config.Reserve)); err != nil {
		return full(err)
	}
	return nil
}

func full(why error) *refusal.Refusal {
	return refusal.New(refusal.RecorderFailed, "the session log's disk is full").
		WithDetail("no session starts unless its recording and its ending have room").
		WithHint("ask whoever runs the gateway to make room on its disk; sessions can start as soon as there is").Because(why)
}

// Begin creates a recording and returns when its header is on stable storage, at either level. Header.Started,
// Durability and Gateway are set here; an empty level means the configured one. Header.Session names the file and is
// refused if it is not made of letters, digits, "-" and "_" (1 to 64 of them, the first a letter or digit), or used.
func (r *Recorder) Begin(ctx context.Context, header format.Header, level configs.Durability) (*Recording, error) {
	if level == "" {
		level = r.Config.Durability
	}
	if err := errors.Join(ctx.Err(), checkSession(header.Session)); err != nil {
		return nil, fmt.Errorf("begin a recording: %w", err)
	}
	if err := r.allows(level); err != nil {
		return nil, err
	}
	if err := r.Ready(); err != nil {
		return nil, err
	}
	started := time.Now()
	header.Started, header.Durability, header.Gateway = started.UTC(), string(level), r.Version
	day := header.Started.Format("2006/01/02")
	path := filepath.Join("recordings", filepath.FromSlash(day), header.Session+extension)
	if r.Mask != nil {
		header.Mask = r.Mask(header.Target)
	}
	keys, err := r.lock(ctx, &header)
	if err != nil {
		return nil, err
	}
	rec, err := r.create(path, header, keys, level, started)
	switch {
	case errors.Is(err, ErrClosed), errors.Is(err, errUsed):
		return nil, fmt.Errorf("begin a recording: %w", err)
	case disk.IsFull(err):
		return nil, full(err)
	case err != nil:
		if disk.IsBroken(err) {
			r.distrust(err)
		}
		return nil, refusal.New(refusal.RecorderFailed, "the recording could not be begun").
			WithHint("ask whoever runs the gateway to look at its disk").Because(err)
	}
	return rec, nil
}

var errUsed = errors.New("there is a recording of that session")

// claim makes a recording known, whose file is to come.
func (r *Recorder) claim(rec *Recording, path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, used := r.paths[rec.header.Session]; used {
		return errUsed
	}
	if r.closed && rec.header.Protocol != protocolAudit { // closing moves the last audit events
		return ErrClosed
	}
	r.paths[rec.header.Session], r.live[rec.header.Session] = path, rec
	r.claims.Add(1)
	return nil
}

// ended forgets a live recording.
func (r *Recorder) ended(rec *Recording) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live[rec.header.Session] == rec {
		delete(r.live, rec.header.Session)
	}
}

// living are the recordings that are being written, of those that which admits.
func (r *Recorder) living(which func(*Recording) bool) []*Recording {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*Recording
	for _, rec := range r.live {
		if which(rec) {
			all = append(all, rec)
		}
	}
	return all
}

func isAny(*Recording) bool         { return true }
func isSession(rec *Recording) bool { return rec.header.Protocol != protocolAudit }
func isSynced(rec *Recording) bool  { return rec.level == configs.Synced }

// failAll ends recordings after a failure of what they all stand on.
func (r *Recorder) failAll(which func(*Recording) bool, err error) {
	r.distrust(err)
	for _, rec := range r.living(which) {
		rec.mu.Lock()
		if !rec.ended {
			rec.fail(err)
		}
		rec.mu.Unlock()
	}
}

// distrust ends all recording after a failure that is not just want of room.
func (r *Recorder) distrust(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead == nil {
		r.dead = err
		r.Log.Error("writing a recording failed; no new session starts until the gateway is restarted on a sound disk", "error", err)
	}
}

// Close ends no recording: it waits for what is queued to be written, moves the outbox a last time, closes the audit log
// and the files. Recordings that were not ended are found by the next Open.
func (r *Recorder) Close(ctx context.Context) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	r.mu.Unlock()
	var errs []error
	for _, rec := range r.living(isSession) {
		errs = append(errs, rec.close())
	}
	r.keeper.close()
	r.packer.work.close()
	r.warner.close()
	if r.indexer != nil {
		r.indexer.close()
	}
	if r.audit != nil {
		errs = append(errs, r.audit.close(ctx))
	}
	r.binder.close()
	r.owe(append(r.owed, transparency.Leaf{Kind: transparency.Stop})...)
	errs = append(errs, r.wal.Close())
	return errors.Join(errs...)
}

// checkSession refuses ids that would not do as a file's name.
func checkSession(session string) error {
	ok := len(session) >= 1 && len(session) <= 64 && !strings.ContainsAny(session[:1], "-_")
	for _, c := range []byte(session) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
	}
	if !ok {
		return fmt.Errorf("%.80q is no session's id", session)
	}
	return nil
}
