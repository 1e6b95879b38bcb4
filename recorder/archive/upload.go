package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/store"
)

const (
	// partSize is above which a file goes in parts of that size; what has gone is not sent again after a failure.
	partSize = 16 << 20
	// settling is how long a recording may wait to be packed before it goes as it is.
	settling = 30 * time.Second
)

// upload brings one recording or audit file to the store and reads it back.
func (a *Archive) upload(ctx context.Context, r row) error {
	file, relative, err := a.open(ctx, r.session)
	if errors.Is(err, fs.ErrNotExist) { // purged or destroyed, which its leaf says, or lost, which verify says
		return a.setGone(ctx, r.session)
	}
	if err != nil {
		return fmt.Errorf("archive the recording of session %s: %w", r.session, err)
	}
	defer file.Close()
	c, err := measure(ctx, file)
	if err != nil {
		return fmt.Errorf("archive the recording of session %s: %w", r.session, err)
	}
	r.sha256, r.bytes = hex.EncodeToString(c.sum[:]), c.size
	object := objectOf(relative, r.sha256)
	if object != r.object {
		r.upload = "" // of a file that has been packed since
	}
	r.object = object
	until := a.until(r.ended)
	if c.size > partSize {
		err = a.putParts(ctx, &r, c, until)
	} else {
		err = a.bucket.put(ctx, object, c, until)
	}
	if err == nil {
		r.version, err = a.bucket.readBack(ctx, object, "", c, until)
	}
	if err != nil {
		return err
	}
	return a.setArchived(ctx, r, eventOf(a.place, r, relative, until))
}

// open opens a recording that has ended. One that is about to be packed is waited for, a while.
func (a *Archive) open(ctx context.Context, session string) (*os.File, string, error) {
	deadline := time.Now().Add(settling)
	for {
		relative, settled := a.recordings.Stored(session)
		if relative == "" {
			return nil, "", fs.ErrNotExist
		}
		if settled || time.Now().After(deadline) {
			file, err := os.Open(filepath.Join(a.o.Dir, relative))
			return file, filepath.ToSlash(relative), err
		}
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, "", ctx.Err()
		}
	}
}

// measure is a file's size and hash.
func measure(ctx context.Context, file *os.File) (content, error) {
	hash := sha256.New()
	info, err := file.Stat()
	if err != nil {
		return content{}, err
	}
	n, err := io.Copy(hash, &untilDone{ctx, io.NewSectionReader(file, 0, info.Size())})
	if err == nil && n != info.Size() {
		err = io.ErrUnexpectedEOF
	}
	return content{source: file, size: n, sum: [sha256.Size]byte(hash.Sum(nil))}, err
}

// untilDone reads until the context ends.
type untilDone struct {
	ctx context.Context
	io.Reader
}

func (u *untilDone) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.Reader.Read(b)
}

// objectOf is the name that a file's content has: its folder, its SHA-256, and its own name, by which verify knows it.
func objectOf(relative, sum string) string {
	return path.Join(path.Dir(relative), sum, path.Base(relative))
}

// until is when the lock of something of that time ends; whole seconds, as the protocol has them.
func (a *Archive) until(of time.Time) time.Time {
	return of.Add(a.o.Config.Lock.For.D()).UTC().Truncate(time.Second)
}

// eventOf tells of an archived recording. Audit files have none: they would have no end.
func eventOf(place string, r row, relative string, until time.Time) *store.AuditEvent {
	if strings.HasPrefix(relative, "audit/") {
		return nil
	}
	fields := map[string]string{"archive": place, "object": r.object, "sha256": r.sha256, "bytes": strconv.FormatInt(r.bytes, 10), "chain": r.chain}
	if r.version != "" {
		fields["version"] = r.version
	}
	return &store.AuditEvent{Kind: "recording.archived", Actor: "system", Session: r.session, Fields: fields}
}

// Kept reads once more, whole, what a session's recording was archived as, and returns the chain value that its ending had
// bound and where it is. It is asked before a recording is deleted here. The chain is empty where it has not gone there yet, or
// is not there any more as it was; then it goes again.
func (a *Archive) Kept(ctx context.Context, session string) (chain string, where map[string]string, err error) {
	found, err := a.rows(ctx, `session = ?`, session)
	if err != nil {
		return "", nil, err
	}
	if len(found) == 0 || found[0].state != archived {
		return "", nil, nil
	}
	r := found[0]
	sum, ok := digestOf(r.sha256)
	if !ok {
		return "", nil, fmt.Errorf("the archive's note of session %s is damaged", session)
	}
	_, err = a.bucket.readBack(ctx, r.object, r.version, content{size: r.bytes, sum: sum}, a.until(r.ended))
	if absent(err) || errors.Is(err, errOther) {
		a.o.Log.Error("a recording is not any more in the archive what was put there; it is kept here, and goes there again", "session", session, "error", err)
		return "", nil, a.forget(ctx, session)
	}
	if errors.Is(err, errNotLocked) {
		a.o.Log.Error("a recording is kept here whose time is over", "session", session, "error", err)
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	where = map[string]string{"archive": a.place, "object": r.object}
	if r.version != "" {
		where["version"] = r.version
	}
	return r.chain, where, nil
}
