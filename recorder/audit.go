package recorder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/recorder/disk"
	"sallyport/recorder/format"
)

const (
	protocolAudit = "audit"
	// auditFileSize is how large an audit file grows before the next one is begun.
	auditFileSize = 64 << 20
	auditBatch    = 256
	// auditRetry is how long the mover waits after a failure that may pass: a full disk, a busy database.
	auditRetry = time.Second
)

// auditLog moves the events of the control plane from the store's outbox to the audit log, each exactly once: an event
// leaves the outbox only after it is on stable storage in the log, and one whose number is in the log already, because a
// gateway died in between, is not written again.
type auditLog struct {
	recorder *Recorder
	stop     context.CancelFunc
	stopped  chan struct{}

	current *Recording // the mover's own; nil before the first event

	mu    sync.Mutex
	last  uint64        // the last number in the log
	moved chan struct{} // closed and replaced when last grows
	err   error         // why nothing is moved just now
	dead  bool          // and never will be
}

func openAuditLog(ctx context.Context, r *Recorder) (*auditLog, error) {
	a := &auditLog{recorder: r, stopped: make(chan struct{}), moved: make(chan struct{})}
	files := r.auditFiles()
	for _, path := range slices.Backward(files) { // the newest may be empty
		for event, err := range r.auditFile(ctx, path) {
			if err != nil {
				return nil, err
			}
			a.last = max(a.last, event.Number)
		}
		if a.last > 0 {
			break
		}
	}
	if err := r.Store.RaiseNumber(ctx, a.last); err != nil { // a store older than the log
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	a.stop = stop
	go a.run(running)
	return a, nil
}

// run is the mover.
func (a *auditLog) run(ctx context.Context) {
	defer close(a.stopped)
	for {
		committed := a.recorder.Store.Committed()
		count, err := a.move(ctx)
		if ctx.Err() != nil {
			return
		}
		if a.note(err) {
			return
		}
		switch {
		case err != nil:
			timer := time.NewTimer(auditRetry)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
		case count == 0:
			old, stop := a.old()
			select {
			case <-committed:
			case <-old:
				if a.note(a.end("rotated")) {
					return
				}
			case <-ctx.Done():
			}
			stop()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// old tells when the current file is as old as files get. Nothing comes where there is none, or no such age.
func (a *auditLog) old() (<-chan time.Time, func()) {
	if a.current == nil || a.recorder.EndAudit <= 0 {
		return nil, func() {}
	}
	timer := time.NewTimer(time.Until(a.current.header.Started.Add(a.recorder.EndAudit)))
	return timer.C, func() { timer.Stop() }
}

// note keeps how the last move went and reports whether it was the last one of all: after a failed sync nobody knows
// what the file holds, so nothing can be moved exactly once any more by this process.
func (a *auditLog) note(err error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil && a.err == nil {
		a.recorder.Log.Error("audit events cannot be moved to the audit log; they wait in the outbox, and no session starts", "error", err)
	}
	if err == nil && a.err != nil {
		a.recorder.Log.Info("audit events are moved to the audit log again")
	}
	a.err = err
	return a.dead
}

// failure is why audit events are not being moved, or nil.
func (a *auditLog) failure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// move moves one batch and returns how many there were.
func (a *auditLog) move(ctx context.Context) (int, error) {
	a.mu.Lock()
	last := a.last
	a.mu.Unlock()
	waiting, err := a.recorder.Store.Outbox(ctx, 0, auditBatch)
	if err != nil || len(waiting) == 0 {
		return 0, err
	}
	var events []Event
	for _, e := range waiting {
		if e.Number > last { // else it was moved by a run that died before it could say so
			events = append(events, format.JSON(format.TypeAudit, 0, e))
		}
	}
	newest := max(last, waiting[len(waiting)-1].Number)
	if len(events) > 0 {
		if err := a.write(ctx, last+1, events); err != nil {
			return 0, err
		}
		a.mu.Lock()
		a.last = newest
		close(a.moved)
		a.moved = make(chan struct{})
		a.mu.Unlock()
	}
	if err := a.recorder.bindIssues(waiting); err != nil {
		return 0, err
	}
	return len(waiting), a.recorder.Store.Moved(ctx, waiting[len(waiting)-1].Number)
}

// write makes events safe in the current audit file, or a new one. The first event's number names a new file.
func (a *auditLog) write(ctx context.Context, first uint64, events []Event) error {
	if a.current != nil && a.current.safe.Load() > auditFileSize {
		if err := a.end("rotated"); err != nil {
			return err
		}
	}
	if a.current == nil {
		if a.failure() != nil { // no file for each try on a full disk
			if err := a.recorder.room(); err != nil {
				return err
			}
		}
		now := time.Now()
		header := format.Header{
			Session:    fmt.Sprintf("audit-%012d-%s", first, now.UTC().Format("20060102T150405.000000000Z")),
			Protocol:   protocolAudit,
			Started:    now.UTC(),
			Durability: string(configs.Synced),
			Gateway:    a.recorder.Version,
		}
		current, err := a.recorder.create(filepath.Join("audit", header.Session+extension), header, keyPair{}, configs.Synced, now)
		if err != nil {
			return fmt.Errorf("begin an audit file: %w", err)
		}
		a.current = current
	}
	// Not ctx: what is half done must be finished, or it is not known whether it was.
	err := a.current.Record(context.WithoutCancel(ctx), events...)
	if err != nil {
		err = fmt.Errorf("write the audit log: %w", err)
		if ended := a.end("recorder_failed"); ended != nil || !disk.IsFull(err) {
			a.mu.Lock()
			a.dead = true
			a.mu.Unlock()
		}
	}
	return err
}

// end seals the current file.
func (a *auditLog) end(reason string) error {
	current := a.current
	a.current = nil
	if current == nil {
		return nil
	}
	return current.End(format.End{Reason: reason})
}

// close moves what is left and seals the log.
func (a *auditLog) close(ctx context.Context) error {
	a.stop()
	<-a.stopped
	var errs []error
	a.mu.Lock()
	dead := a.dead
	a.mu.Unlock()
	for !dead {
		count, err := a.move(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("move the last audit events: %w", err))
		}
		if count == 0 || err != nil {
			break
		}
	}
	return errors.Join(append(errs, a.end("closed"))...)
}

// auditFiles lists the audit files in order.
func (r *Recorder) auditFiles() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var files []string
	for _, path := range r.paths {
		if strings.HasPrefix(path, "audit") {
			files = append(files, path)
		}
	}
	slices.Sort(files) // their names begin with the number of their first event
	return files
}

// auditFile reads the events of one audit file.
func (r *Recorder) auditFile(ctx context.Context, path string) iter.Seq2[store.AuditEvent, error] {
	return func(yield func(store.AuditEvent, error) bool) {
		fail := func(err error) { yield(store.AuditEvent{}, fmt.Errorf("read %s: %w", path, err)) }
		file, live, err := r.openFile(path)
		if errors.Is(err, fs.ErrNotExist) && r.unborn(path) { // nothing was in it when it was listed
			return
		}
		if err != nil {
			fail(err)
			return
		}
		defer file.Close()
		var source io.Reader = file
		if live != nil {
			source = io.NewSectionReader(file, 0, live.safe.Load())
		}
		reader, err := format.NewReader(source)
		if errors.Is(err, format.ErrNotRecording) {
			r.Log.Error("an audit file is damaged; verify says more", "file", path, "error", err)
			return
		} else if err != nil {
			fail(err)
			return
		}
		for event, err := range eventsOf(ctx, reader) {
			if err != nil {
				fail(err)
				return
			}
			if event.Type != format.TypeAudit {
				continue
			}
			var e store.AuditEvent
			if err := json.Unmarshal(event.Data, &e); err != nil {
				fail(err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// unborn reports whether an audit file that was listed and is not there is just being made, or could not be.
func (r *Recorder) unborn(path string) bool {
	session := sessionOf(path)
	return r.Live(session) || !r.has(session)
}

// AuditFilter narrows Audit. Zero values do not.
type AuditFilter struct {
	Kind    string // a whole kind, or its beginning up to a dot: "grant" or "grant.approved"
	Actor   string // part of the actor or the actor's name, in any case
	Target  string
	Grant   string
	Session string
	Outcome string
	Since   time.Time // at or after
	Until   time.Time // before
	Last    int       // only so many, the newest
	// After and Before are numbers of events: only those above, and below. 0: none.
	After, Before uint64
}

func (f AuditFilter) admits(e store.AuditEvent) bool {
	return (f.Kind == "" || e.Kind == f.Kind || strings.HasPrefix(e.Kind, f.Kind+".")) &&
		(f.Actor == "" || contains(e.Actor, f.Actor) || contains(e.ActorName, f.Actor)) &&
		(f.Target == "" || e.Target == f.Target) &&
		(f.Grant == "" || e.Grant == f.Grant) &&
		(f.Session == "" || e.Session == f.Session) &&
		(f.Outcome == "" || e.Outcome == f.Outcome) &&
		e.Number > f.After && (f.Before == 0 || e.Number < f.Before) &&
		(f.Since.IsZero() || !e.Time.Before(f.Since)) &&
		(f.Until.IsZero() || e.Time.Before(f.Until))
}

// Audit gives the events of the audit log, oldest first, those included that were committed to the store before the call.
func (r *Recorder) Audit(ctx context.Context, filter AuditFilter) iter.Seq2[store.AuditEvent, error] {
	return func(yield func(store.AuditEvent, error) bool) {
		if r.audit == nil {
			yield(store.AuditEvent{}, refusal.New(refusal.NotFound, "this gateway keeps no audit log"))
			return
		}
		if err := r.audit.catchUp(ctx); err != nil {
			yield(store.AuditEvent{}, err)
			return
		}
		files := filter.files(r.auditFiles())
		if filter.Last > 0 {
			last, err := r.lastAudit(ctx, files, filter)
			if err != nil {
				yield(store.AuditEvent{}, err)
				return
			}
			for _, event := range last {
				if !yield(event, nil) {
					return
				}
			}
			return
		}
		for _, path := range files {
			for event, err := range r.auditFile(ctx, path) {
				switch {
				case err != nil:
					yield(store.AuditEvent{}, err)
					return
				case filter.admits(event) && !yield(event, nil):
					return
				}
			}
		}
	}
}

// lastAudit reads the newest events that the filter admits, from the newest file back as far as it takes.
func (r *Recorder) lastAudit(ctx context.Context, files []string, filter AuditFilter) ([]store.AuditEvent, error) {
	var last []store.AuditEvent
	for _, path := range slices.Backward(files) {
		var found []store.AuditEvent
		for event, err := range r.auditFile(ctx, path) {
			if err != nil {
				return nil, err
			}
			if !filter.admits(event) {
				continue
			}
			if found = append(found, event); len(found) >= 2*filter.Last {
				found = slices.Delete(found, 0, len(found)-filter.Last)
			}
		}
		last = append(found, last...)
		if len(last) >= filter.Last {
			return last[len(last)-filter.Last:], nil
		}
	}
	return last, nil
}

// files leaves of the audit log's files, in order, those that may hold what is between After and Before.
func (f AuditFilter) files(all []string) []string {
	var within []string
	for i, path := range all {
		if f.Before > 0 && firstNumber(path) >= f.Before {
			break
		}
		if i+1 < len(all) {
			if next := firstNumber(all[i+1]); next > 0 && next <= f.After+1 {
				continue
			}
		}
		within = append(within, path)
	}
	return within
}

// firstNumber is the number of an audit file's first event, which its name begins with; 0 where it says none.
func firstNumber(path string) (number uint64) {
	if _, err := fmt.Sscanf(filepath.Base(path), "audit-%d-", &number); err != nil {
		return 0
	}
	return number
}

// catchUp waits until what the outbox holds now stands in the log.
func (a *auditLog) catchUp(ctx context.Context) error {
	a.mu.Lock()
	from := a.last
	a.mu.Unlock()
	for {
		waiting, err := a.recorder.Store.Outbox(ctx, from, auditBatch)
		if err != nil {
			return err
		}
		if len(waiting) == 0 {
			return nil
		}
		want := waiting[len(waiting)-1].Number
		for {
			a.mu.Lock()
			last, moved, failed := a.last, a.moved, a.err
			a.mu.Unlock()
			if last >= want {
				break
			}
			if failed != nil {
				return fmt.Errorf("the audit log is behind: %w", failed)
			}
			select {
			case <-moved:
			case <-a.stopped:
				return ErrClosed
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if len(waiting) < auditBatch {
			return nil
		}
		from = want
	}
}
