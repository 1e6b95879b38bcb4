package recorder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"sallyport/internal/store"
	"sallyport/recorder/disk"
	"sallyport/recorder/format"
	"sallyport/recorder/transparency"
)

const (
	// purgeInterval is how often recordings that are past their time are looked for, the first time a little after Open.
	purgeInterval = 24 * time.Hour
	purgeFirst    = time.Minute
	// purgeJump is how far the clock may move against the time that has passed since Open, before its word is not enough
	// any more to delete anything.
	purgeJump = time.Hour
)

// background is a goroutine that runs until it is closed. The zero value is none.
type background struct {
	stop    context.CancelFunc
	stopped chan struct{}
}

func (b *background) start(ctx context.Context, work func(context.Context)) {
	ctx, b.stop = context.WithCancel(context.WithoutCancel(ctx))
	b.stopped = make(chan struct{})
	go func() {
		defer close(b.stopped)
		work(ctx)
	}()
}

func (b *background) close() {
	if b.stop != nil {
		b.stop()
		<-b.stopped
	}
}

// keepUp purges once a day, until the context ends.
func (r *Recorder) keepUp(ctx context.Context) {
	timer := time.NewTimer(purgeFirst)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		purged, err := r.Purge(ctx)
		if len(purged) > 0 {
			r.Log.Info("recordings past their time were purged", "recordings", len(purged))
		}
		if err != nil && ctx.Err() == nil {
			r.Log.Error("not every recording that is past its time could be purged; it is tried again tomorrow", "error", err)
		}
		timer.Reset(purgeInterval)
	}
}

// Purge deletes the recordings that ended longer ago than Options.Keep says for their target, but for those on hold and
// those without an ending. Before a file goes, the audit log says that it does, with its hash: an event recording.purged,
// which is on stable storage in the log first. It returns the sessions whose recordings are gone; an error of one does not
// keep the others.
func (r *Recorder) Purge(ctx context.Context) (purged []string, err error) {
	if r.Keep == nil || r.Store == nil {
		return nil, nil
	}
	now := r.clock()
	if jump := now.Round(0).Sub(r.opened.Round(0)) - r.running(); jump.Abs() > purgeJump {
		return nil, fmt.Errorf("the clock has been moved by %v since the gateway was started; set it right and restart the gateway", jump.Round(time.Second))
	}
	holds, err := r.Holds(ctx)
	if err != nil {
		return nil, err
	}
	held := map[string]bool{} // these are not even looked at
	for _, h := range holds {
		held[h.Session] = true
	}
	var errs []error
	notArchived := 0
	defer func() {
		if notArchived > 0 {
			r.Log.Warn("recordings whose time is over are kept, because the archive does not have them yet", "recordings", notArchived)
		}
	}()
	for _, session := range r.sessions() {
		if held[session] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return purged, err
		}
		gone, err := r.purge(ctx, session, now)
		if errors.Is(err, errNotArchived) {
			notArchived++
		} else if errors.Is(err, errArchive) { // it would not answer about the next one either
			return purged, errors.Join(append(errs, err)...)
		} else if err != nil {
			errs = append(errs, fmt.Errorf("purge the recording of session %s: %w", session, err))
		} else if gone {
			purged = append(purged, session)
		}
	}
	return purged, errors.Join(errs...)
}

// purge deletes one recording if its time has come.
func (r *Recorder) purge(ctx context.Context, session string, now time.Time) (bool, error) {
	if r.Live(session) {
		return false, nil
	}
	header, err := r.header(session)
	if errors.Is(err, format.ErrNotRecording) || isMissing(err) {
		return false, nil // damaged ones stay: verify names them
	}
	if err != nil {
		return false, err
	}
	keep := r.Keep(header.Target)
	if keep <= 0 || now.Sub(header.Started) < keep {
		return false, nil
	}
	archived, where, err := r.archived(ctx, header, now.Add(-keep)) // which may take long, and nothing waits for it
	if err != nil {
		return false, err
	}
	r.purging.Lock()
	defer r.purging.Unlock()
	path, event, state, ended, err := r.epitaph(header)
	if err != nil || !ended.Add(keep).Before(now) {
		return false, err
	}
	if r.Archived != nil && hex.EncodeToString(state.Chain[:]) != archived {
		return false, errNotArchived // or something else was
	}
	event.Reason = fmt.Sprintf("kept for %v", keep)
	maps.Copy(event.Fields, where)
	held := false
	err = r.Store.Do(ctx, func(tx *store.Tx) error {
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM recording_holds WHERE session = ?`, session).Scan(&held); err != nil || held {
			return err
		}
		return tx.Audit(event)
	})
	if err != nil || held {
		return false, err
	}
	if err := r.audit.catchUp(ctx); err != nil {
		return false, err
	}
	leaf := transparency.Leaf{Kind: transparency.Purge, Recording: transparency.Of(session, state), Reason: "retention"}
	if err := r.bind(leaf); err != nil {
		return false, err
	}
	return true, r.remove(ctx, session, path)
}

var (
	errNotArchived = errors.New("the archive does not have it")
	errArchive     = errors.New("the archive could not be asked")
)

// archived asks the archive about a recording that began before a time, if there is one and the recording has ended before
// that time too.
func (r *Recorder) archived(ctx context.Context, header format.Header, before time.Time) (chain string, where map[string]string, err error) {
	if r.Archived == nil {
		return "", nil, nil
	}
	if _, _, _, ended, err := r.epitaph(header); err != nil || !ended.Before(before) {
		return "", nil, err
	}
	chain, where, err = r.Archived(ctx, header.Session)
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", errArchive, err)
	}
	return chain, where, nil
}

// epitaph is what is said of a recording before it goes, and when it ended. One without an ending has none.
func (r *Recorder) epitaph(header format.Header) (path string, event store.AuditEvent, state format.State, ended time.Time, err error) {
	r.mu.Lock()
	path = r.paths[header.Session]
	r.mu.Unlock()
	file, err := os.Open(filepath.Join(r.Dir, path))
	if err != nil {
		return path, event, state, ended, err
	}
	defer file.Close()
	hash := sha256.New()
	hashed := io.TeeReader(file, hash)
	reader, err := format.NewReader(hashed)
	if err != nil {
		return path, event, state, ended, err
	}
	damages := 0
	for {
		e, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if _, damaged := errors.AsType[*format.Damage](err); damaged {
			damages++
			continue
		}
		if err != nil {
			return path, event, state, ended, err
		}
		if e.Type != format.TypeEnd {
			continue
		}
		if end, err := format.EndOf(e); err == nil {
			ended = end.Ended
		}
	}
	if !reader.Sealed() {
		return path, event, state, ended, errors.New("it has no ending; it is kept")
	}
	if at := header.Started.Add(reader.Latest()); at.After(ended) {
		ended = at
	}
	if _, err := io.Copy(io.Discard, hashed); err != nil { // what the reader left unread
		return path, event, state, ended, err
	}
	info, err := file.Stat()
	if err != nil {
		return path, event, state, ended, err
	}
	state = reader.State()
	event = store.AuditEvent{
		Kind: "recording.purged", Actor: "system", Target: header.Target, Account: header.Account, Grant: header.Grant, Session: header.Session,
		Fields: map[string]string{
			"file": filepath.ToSlash(path), "sha256": hex.EncodeToString(hash.Sum(nil)), "bytes": strconv.FormatInt(info.Size(), 10),
			"chain": hex.EncodeToString(state.Chain[:]), "person": header.Identity.Issuer + " " + header.Identity.Subject,
			"started": header.Started.Format(time.RFC3339Nano), "ended": ended.UTC().Format(time.RFC3339Nano),
		},
	}
	if damages > 0 {
		event.Fields["damages"] = strconv.Itoa(damages)
	}
	return path, event, state, ended, nil
}

// remove deletes a recording, durably, and what was derived from it.
func (r *Recorder) remove(ctx context.Context, session, path string) error {
	full := filepath.Join(r.Dir, path)
	if err := os.Remove(full); err != nil {
		return err
	}
	day := filepath.Dir(full)
	if err := disk.SyncDirectory(day); err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.paths, session)
	delete(r.locked, session)
	r.mu.Unlock()
	if r.indexer != nil {
		r.indexer.forget(ctx, session)
	}
	os.Remove(day) // which is long over, and goes only if it is empty
	return nil
}
