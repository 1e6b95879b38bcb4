package recorder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sallyport/recorder/disk"
	"sallyport/recorder/format"
)

// reasonCrashed is the ending that Open writes for recordings that their gateway did not end.
const reasonCrashed = "crashed"

// recover looks at every recording and audit file, and closes those that an earlier run left open.
func (r *Recorder) recover(ctx context.Context) error {
	var files []string
	var err error
	for _, dir := range []string{r.recordings(), r.audits()} {
		err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("recover the session log: %w", err)
		}
	}
	if err := r.replay(files); err != nil {
		return fmt.Errorf("recover the session log: %w", err)
	}
	if files, err = r.removeUnborn(files); err != nil {
		return fmt.Errorf("recover the session log: %w", err)
	}
	for _, path := range files {
		err := ctx.Err()
		name := filepath.Base(path)
		switch {
		case err != nil:
		case strings.HasSuffix(name, extension):
			err = r.look(path)
		case strings.HasSuffix(name, extension+disk.Unborn), strings.HasPrefix(name, "measure-"):
			err = os.Remove(path)
		}
		if err != nil {
			return fmt.Errorf("recover the session log: %w", err)
		}
	}
	return nil
}

// look closes one file if nobody did.
func (r *Recorder) look(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	relative, err := filepath.Rel(r.Dir, path)
	if err != nil {
		return err
	}
	session := sessionOf(path)
	r.paths[session] = relative
	found, err := format.Look(f, info.Size())
	switch {
	case errors.Is(err, format.ErrNotRecording):
		r.Log.Error("a recording is damaged: its header cannot be read; it is left as it is", "file", relative, "error", err)
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", relative, err)
	case found.Header.Lock != nil && found.Header.Protocol != protocolAudit:
		r.noteLocked(found.Header)
	}
	switch {
	case found.Sealed:
		if found.Header.Lock == nil && !found.Packed && info.Size() >= packLeast {
			r.packer.add(session)
		}
		return nil
	}
	if found.Header.Protocol != protocolAudit {
		r.crashed = append(r.crashed, found.Header)
	}
	if err := r.repair(f, relative); err != nil {
		if disk.IsFull(err) {
			r.Log.Error("a recording could not be closed, for want of room; the next start tries again", "file", relative, "error", err)
			return nil
		}
		return fmt.Errorf("close %s: %w", relative, err)
	}
	if found.Header.Lock == nil && info.Size() >= packLeast {
		r.packer.add(session)
	}
	return nil
}

// repair cuts a torn tail and seals the file.
func (r *Recorder) repair(f *os.File, path string) error {
	reader, err := format.NewReader(f)
	if err != nil {
		return err
	}
	var damages []*format.Damage
	var torn *format.Damage
	for {
		_, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		damage, ok := errors.AsType[*format.Damage](err)
		switch {
		case ok && damage.Torn:
			torn = damage
		case ok:
			damages = append(damages, damage)
			r.Log.Error("a recording is damaged; it is left as it is", "file", path, "damage", damage)
		case err != nil:
			return err
		}
	}
	if reader.Sealed() { // with something wrong about its end, which is not for us to mend
		return nil
	}
	state, at := reader.State(), reader.Latest()
	builder := format.Continue(state)
	end := format.End{Reason: reasonCrashed, Detail: "the gateway died; its next start closed the recording", Ended: reader.Header().Started.Add(at)}
	note := format.Note{Kind: "recovered", Text: end.Detail, Fields: map[string]string{
		"closed":  time.Now().UTC().Format(time.RFC3339Nano),
		"damages": strconv.Itoa(len(damages)),
	}}
	if torn != nil {
		hash := sha256.New()
		if _, err := io.Copy(hash, io.NewSectionReader(f, state.Offset, torn.Length)); err != nil {
			return err
		}
		note.Fields["cut_bytes"] = strconv.FormatInt(torn.Length, 10)
		note.Fields["cut_sha256"] = hex.EncodeToString(hash.Sum(nil))
		if err := f.Truncate(state.Offset); err != nil {
			return err
		}
		r.Log.Warn("a block that was being written when the gateway died was cut; nothing in it had been acknowledged",
			"file", path, "bytes", torn.Length)
	}
	event := format.JSON(format.TypeNote, 0, note)
	event.At = at
	if err := builder.Add(event); err != nil {
		return err
	}
	if err := builder.Seal(end, at); err != nil {
		return err
	}
	for {
		_, err := f.WriteAt(builder.Bytes(), state.Offset)
		if err == nil {
			break
		}
		if !disk.IsFull(err) || !r.ballast.Release() {
			return err
		}
	}
	return f.Sync()
}
