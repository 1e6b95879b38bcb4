package recorder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/recorder/disk"
	"sallyport/recorder/format"
)

const (
	// packLeast is the size of a recording that is worth packing: a smaller one takes no less room on most disks.
	packLeast = 4096
	// packRetry is how long packing waits for room on the disk.
	packRetry = 30 * time.Second
)

// packer brings recordings that have ended into their packed form, one after another, off the way of everything that is
// recorded. A recording is exchanged for its packed form only after that is on stable storage and was read to the same end;
// whatever goes wrong before leaves it as it was.
type packer struct {
	recorder *Recorder
	work     background

	mu      sync.Mutex
	waiting []string           // sessions
	current string             // the one that is being packed; empty: none is
	stop    context.CancelFunc // of that
	apart   map[string]int     // not to be packed just now, and by how many that is wanted
	changed chan struct{}      // closed and replaced when these change
}

func newPacker(r *Recorder) *packer {
	return &packer{recorder: r, apart: map[string]int{}, changed: make(chan struct{})}
}

// add has a recording packed that was ended.
func (p *packer) add(session string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = append(p.waiting, session)
	p.change()
}

func (p *packer) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// next waits for a recording that is to be packed. The context it comes with ends when that is not wanted any more.
func (p *packer) next(ctx context.Context) (string, context.Context, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ctx.Err() == nil {
		at := slices.IndexFunc(p.waiting, func(session string) bool { return p.apart[session] == 0 })
		if at < 0 {
			p.wait(ctx)
			continue
		}
		p.current = p.waiting[at]
		p.waiting = slices.Delete(p.waiting, at, at+1)
		ctx, p.stop = context.WithCancel(ctx)
		return p.current, ctx, true
	}
	return "", nil, false
}

// done says that nothing is being packed any more, and what was goes on waiting if it was stopped.
func (p *packer) done(stopped bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
	if stopped {
		p.waiting = append(p.waiting, p.current)
	}
	p.current = ""
	p.change()
}

// wait waits for a change. The lock is held before and after.
func (p *packer) wait(ctx context.Context) {
	changed := p.changed
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-changed:
	case <-ctx.Done():
	}
}

// settled waits until nothing is left to pack.
func (p *packer) settled(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ctx.Err() == nil && (p.current != "" || len(p.waiting) > 0) {
		p.wait(ctx)
	}
	return ctx.Err()
}

// has reports whether a recording is being packed, or waits for it.
func (p *packer) has(session string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current == session || slices.Contains(p.waiting, session)
}

// without keeps a recording from being packed until the function is called that it returns. It stops what is being done and waits
// for that, so whoever calls it holds nothing that packing needs.
func (p *packer) without(session string) (again func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.apart[session]++
	for p.current == session {
		p.stop()
		p.wait(context.Background())
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.apart[session]--; p.apart[session] == 0 {
			delete(p.apart, session)
		}
		p.change()
	}
}

// run packs until the context ends; what is left then is found by the next Open.
func (p *packer) run(ctx context.Context) {
	for {
		session, wanted, ok := p.next(ctx)
		if !ok {
			return
		}
		err := p.recorder.spare()
		for ; errors.Is(err, errNoRoom) && wanted.Err() == nil; err = p.recorder.spare() {
			pause(wanted, packRetry)
		}
		if err == nil {
			err = p.recorder.pack(wanted, session)
		}
		stopped := err != nil && wanted.Err() != nil
		p.done(stopped)
		switch {
		case err == nil, stopped:
		case errors.Is(err, format.ErrNotWhole):
			p.recorder.Log.Warn("a recording is not packed", "session", session, "error", err)
		default:
			p.recorder.Log.Error("a recording could not be packed; it stays as it is, and the next start tries again", "session", session, "error", err)
			if disk.IsBroken(err) {
				p.recorder.distrust(err)
			}
		}
	}
}

// pack exchanges the recording of a session that has ended for its packed form.
func (r *Recorder) pack(ctx context.Context, session string) error {
	r.mu.Lock()
	path, ok := r.paths[session]
	live := r.live[session] != nil
	r.mu.Unlock()
	if !ok || live {
		return nil
	}
	full := filepath.Join(r.Dir, path)
	plain, err := os.Open(full)
	if err != nil {
		return err
	}
	defer plain.Close()
	info, err := plain.Stat()
	if err != nil {
		return err
	}
	if look, err := format.Look(plain, info.Size()); err != nil || look.Packed || !look.Sealed || look.Header.Lock != nil {
		return err
	}
	temporary := full + disk.Unborn
	packed, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer packed.Close()
	err = r.packInto(ctx, packed, plain)
	if err == nil {
		err = r.swap(session, temporary, full, info.Size(), packed)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}

// packInto writes the packed form of a recording and reads it once more, from the file, to the same end.
func (r *Recorder) packInto(ctx context.Context, packed, plain *os.File) error {
	reader, err := format.NewReader(io.NewSectionReader(plain, 0, 1<<62))
	if err != nil {
		return err
	}
	want, err := format.Pack(&unlessDone{ctx, plain}, packed, r.newKeyer(reader.Header()))
	if err != nil {
		return err
	}
	if err := packed.Sync(); err != nil {
		return &disk.SyncError{Err: err}
	}
	if _, err := packed.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if reader, err = format.NewReader(&unlessDone{ctx, packed}); err != nil {
		return err
	}
	for {
		if _, err = reader.Next(); err != nil {
			break
		}
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("what was packed cannot be read: %w", err)
	}
	if got := reader.State(); got.Number != want.Number || got.Sequence != want.Sequence || got.Chain != want.Chain || !reader.Sealed() {
		return fmt.Errorf("what was packed is not what was there: it ends at block %d with chain %x, not at block %d with chain %x",
			got.Number, got.Chain, want.Number, want.Chain)
	}
	return nil
}

// swap puts the packed file into the plain one's place, unless that has been purged meanwhile or is no larger.
func (r *Recorder) swap(session, temporary, full string, size int64, packed *os.File) error {
	r.purging.Lock()
	defer r.purging.Unlock()
	info, err := packed.Stat()
	if err != nil {
		return err
	}
	if !r.has(session) || info.Size() >= size {
		return os.Remove(temporary)
	}
	r.faults.at(packWritten)
	if err := os.Rename(temporary, full); err != nil {
		return err
	}
	r.faults.at(packSwapped)
	return disk.SyncDirectory(filepath.Dir(full))
}

// unlessDone reads until the context ends.
type unlessDone struct {
	ctx context.Context
	io.Reader
}

func (u *unlessDone) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.Reader.Read(b)
}

// lookInto looks at a file that may be a recording.
func lookInto(path string) (format.Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return format.Info{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return format.Info{}, err
	}
	return format.Look(f, info.Size())
}

// isPacked reports whether the file of that path is a recording in its packed form.
func isPacked(path string) (bool, error) {
	found, err := lookInto(path)
	if errors.Is(err, format.ErrNotRecording) {
		return false, nil
	}
	return found.Packed, err
}

// sessionOf is the session whose recording a file is.
func sessionOf(path string) string { return strings.TrimSuffix(filepath.Base(path), extension) }
