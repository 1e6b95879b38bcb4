package recorder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"sallyport/internal/store"
	"sallyport/recorder/disk"
	"sallyport/recorder/format"
	"sallyport/recorder/transparency"
	"sallyport/recorder/transparency/ledger"
)

// This file is where recordings are bound to the log over all of them (sallyport/recorder/transparency).

const (
	// heartbeat is how often a gateway says that it is there, whatever happens.
	heartbeat = time.Hour
	// progressWidth is how many recordings one leaf of progress binds.
	progressWidth = 256
)

// bind adds leaves to the log, if there is one. It does not give up: what is half done must be finished.
func (r *Recorder) bind(leaves ...transparency.Leaf) error {
	if r.Ledger == nil {
		return nil
	}
	if _, err := r.Ledger.Append(context.Background(), leaves...); err != nil {
		return fmt.Errorf("the log over all recordings: %w", err)
	}
	return nil
}

// owe adds leaves to the log, now or, where there is no room for them, as soon as there is.
func (r *Recorder) owe(leaves ...transparency.Leaf) {
	now := time.Now()
	for i := range leaves {
		leaves[i].Time = now
	}
	if err := r.bind(leaves...); err != nil {
		r.Log.Error("leaves could not be added; it is tried again, or by the next start", "leaves", len(leaves), "error", err)
		r.mu.Lock()
		r.owed = append(r.owed, leaves...)
		r.mu.Unlock()
	}
}

// bindOpening says that a recording has begun, before anything is recorded in it. Where that fails, its file, which has
// nothing but a header, goes.
func (r *Recorder) bindOpening(rec *Recording, path string) error {
	err := r.bind(transparency.Leaf{Kind: transparency.Open, Recording: transparency.Of(rec.header.Session, rec.good)})
	if err != nil && disk.IsFull(err) { // after other errors the leaf may be there or not: the next start finds out
		os.Remove(filepath.Join(r.Dir, path))
	}
	return err
}

// keepBinding binds what lives, until the context ends.
func (r *Recorder) keepBinding(ctx context.Context) {
	progress := time.NewTicker(r.Progress)
	defer progress.Stop()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-progress.C:
			r.bindProgress()
		case <-beat.C:
			r.owe(transparency.Leaf{Kind: transparency.Heartbeat})
		case <-r.Ledger.Failed():
			r.failAll(isAny, r.Ledger.Err()) // nothing passes that the log can't bind
			return
		case <-ctx.Done():
			return
		}
	}
}

// bindProgress binds what live recordings have got since the last time.
func (r *Recorder) bindProgress() {
	r.mu.Lock()
	owed := r.owed
	r.owed = nil
	r.mu.Unlock()
	live := r.living(isAny)
	if len(owed) > 0 {
		r.owe(owed...)
	}
	var leaf transparency.Leaf
	leaf.Kind = transparency.Progress
	for i, rec := range live {
		rec.mu.Lock()
		state, ended := rec.good, rec.ended
		rec.mu.Unlock()
		if !ended && state.Number > rec.bound {
			rec.bound = state.Number
			leaf.Live = append(leaf.Live, transparency.Of(rec.header.Session, state))
		}
		if len(leaf.Live) == progressWidth || i == len(live)-1 && len(leaf.Live) > 0 {
			r.owe(leaf)
			leaf.Live = nil
		}
	}
}

// bindIssues tells of the credentials among events that are in the audit log. Where the gateway dies before the events
// leave the outbox, they are told of twice, by the same numbers.
func (r *Recorder) bindIssues(events []store.AuditEvent) error {
	var leaves []transparency.Leaf
	for _, e := range events {
		if e.Kind == "credential.issued" {
			leaves = append(leaves, transparency.Leaf{Kind: transparency.Issue, Credential: e.Fields["credential"], Number: e.Number})
		}
	}
	if len(leaves) == 0 {
		return nil
	}
	return r.bind(leaves...)
}

// unsettled are the recordings whose beginning is in the log, and not their ending. It looks back as far as the last start
// that found none.
func unsettled(l *ledger.Log) (map[string]bool, error) {
	open, closed := map[string]bool{}, map[string]bool{}
	err := l.Recent(func(_ int64, leaf transparency.Leaf) bool {
		switch leaf.Kind {
		case transparency.Open:
			if !closed[leaf.Session] {
				open[leaf.Session] = true
			}
		case transparency.Close, transparency.Crashed:
			closed[leaf.Session] = true
		case transparency.Start:
			return !leaf.Settled
		}
		return true
	})
	return open, err
}

// removeUnborn removes what Begin left when the gateway died within it: a header, for which no leaf was written, so that nothing
// was ever recorded.
func (r *Recorder) removeUnborn(files []string) (kept []string, err error) {
	if r.Ledger == nil || r.Ledger.Size() == 0 {
		return files, nil
	}
	open, err := unsettled(r.Ledger)
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		session, recording := strings.CutSuffix(filepath.Base(path), extension)
		empty := false
		if recording && !open[session] {
			if empty, err = isEmpty(path); err != nil {
				return nil, err
			}
		}
		if !empty {
			kept = append(kept, path)
		} else {
			r.Log.Info("a recording that had just been begun when the gateway died is removed; nothing was in it", "session", session)
			if err := os.Remove(path); err != nil {
				return nil, err
			}
		}
	}
	return kept, nil
}

// isEmpty reports whether a file is a recording's header and nothing else.
func isEmpty(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	reader, err := format.NewReader(f)
	if errors.Is(err, format.ErrNotRecording) {
		return false, nil
	}
	return err == nil && reader.State().Offset == info.Size(), err
}

// settle binds, at a start, the endings that the log does not have, and what was there before the log was; then it says
// that the gateway has started. A recording that no leaf tells of is left as it is: verify names it.
func (r *Recorder) settle() error {
	if r.Ledger == nil {
		return nil
	}
	first := r.Ledger.Size() == 0
	open, err := unsettled(r.Ledger)
	if err != nil {
		return err
	}
	start := transparency.Leaf{Kind: transparency.Start, Version: r.Version, Program: program(), Settled: true}
	var leaves []transparency.Leaf
	for session, path := range r.paths {
		if !first && !open[session] {
			continue
		}
		leaf, sealed, err := r.ending(session, path)
		switch {
		case errors.Is(err, format.ErrNotRecording): // its leaf stays without an ending: verify names it
			continue
		case err != nil:
			return err
		case !sealed: // for want of room; the next start ends it
			start.Settled = false
			continue
		}
		leaf.Kind = transparency.Crashed
		if first {
			leaf.Kind = transparency.Adopted
		}
		leaves = append(leaves, leaf)
	}
	if first && len(leaves) > 0 {
		r.Log.Info("the log over all recordings begins with those that are there", "recordings", len(leaves))
	}
	if err := r.bind(append(leaves, start)...); err != nil {
		if disk.IsFull(err) { // no session starts without room, and the next start settles
			r.Log.Error("the log over all recordings has no room", "error", err)
			return nil
		}
		return err
	}
	return nil
}

// ending is the leaf of a recording that has ended.
func (r *Recorder) ending(session, path string) (transparency.Leaf, bool, error) {
	f, err := os.Open(filepath.Join(r.Dir, path))
	if err != nil {
		return transparency.Leaf{}, false, err
	}
	defer f.Close()
	reader, err := format.NewReader(f)
	if err != nil {
		return transparency.Leaf{}, false, err
	}
	var leaf transparency.Leaf
	for event, err := range eventsOf(context.Background(), reader) {
		if err != nil {
			return leaf, false, err
		}
		if event.Type == format.TypeEnd {
			if end, err := format.EndOf(event); err == nil {
				leaf.Reason = end.Reason
			}
		}
	}
	leaf.Recording = transparency.Of(session, reader.State())
	return leaf, reader.Sealed(), nil
}

// program is the SHA-256 of the program that runs, which the log says at each start; empty where it can't be read. It is read once: what
// is put in its place while it runs is another program.
var program = sync.OnceValue(func() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return ""
	}
	return hex.EncodeToString(hash.Sum(nil))
})
