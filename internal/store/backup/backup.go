// Package backup writes what a gateway can't make again into one encrypted file, and brings it back: the database, the keys and
// authorities, and with them, where that is asked for, the recordings and logs.
//
// The file is a tar archive, compressed with Zstandard and encrypted by age (https://age-encryption.org/v1), to recipients or
// to a passphrase; its first entry says what it is. What is brought back is marked, so that the gateway that starts on it gives
// nobody what they had when the backup was made: who has lost it since can't be known.
//
// An archive from a stranger is not safe to restore: whoever makes one chooses the keys of the gateway that runs on it.
package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// Manifest says what a backup is.
type Manifest struct {
	Format     int       `json:"format"` // 1
	Made       time.Time `json:"made"`   // when the copy of the database began
	Version    string    `json:"version"`
	Gateway    string    `json:"gateway"` // its address
	Store      string    `json:"store"`   // sqlite or postgres
	Recordings bool      `json:"recordings"`
	Files      int       `json:"files"` // how many, this one left out
	Bytes      int64     `json:"bytes"` // in all of them
}

const (
	formatNumber = 1
	manifestName = "sallyport-backup.json"
	storeFolder  = "store"
	stateFolder  = "state"
	maxManifest  = 64 << 10
)

// The folders of the state directory that are always in, and those of the recordings and logs.
var (
	always  = []string{"keys", "acme"}
	records = []string{"recordings", "audit", "transparency", "wal"}
)

// Source is what is backed up.
type Source struct {
	State    string                                     // the state directory
	Snapshot func(ctx context.Context, to string) error // copies the database into an empty directory
	Manifest Manifest                                   // all but what Write sets
}

// Write writes a backup to w. With Manifest.Recordings no gateway may be running.
func Write(ctx context.Context, w io.Writer, from Source, to ...age.Recipient) (Manifest, error) {
	m := from.Manifest
	m.Format, m.Made = formatNumber, time.Now().UTC()
	work, err := os.MkdirTemp(from.State, ".backup-*") // with mode 0700, on the disk that holds the database anyway
	if err != nil {
		return m, fmt.Errorf("make a place for the database's copy: %w", err)
	}
	defer os.RemoveAll(work)
	if err := from.Snapshot(ctx, work); err != nil {
		return m, err
	}
	files, err := list(work, storeFolder)
	if err != nil {
		return m, err
	}
	folders := always
	if m.Recordings {
		folders = append(folders[:len(folders):len(folders)], records...)
	}
	for _, folder := range folders {
		more, err := list(filepath.Join(from.State, folder), path.Join(stateFolder, folder))
		if err != nil {
			return m, err
		}
		files = append(files, more...)
	}
	for _, f := range files {
		m.Files++
		m.Bytes += f.size
	}
	sealed, err := age.Encrypt(w, to...)
	if err != nil {
		return m, fmt.Errorf("encrypt the backup: %w", err)
	}
	packed, err := zstd.NewWriter(sealed)
	if err != nil {
		return m, fmt.Errorf("compress the backup: %w", err)
	}
	archive := tar.NewWriter(packed)
	text, err := json.Marshal(m)
	if err != nil {
		return m, err
	}
	if err := entry(archive, manifestName, m.Made, bytes.NewReader(text), int64(len(text))); err != nil {
		return m, err
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return m, err
		}
		if err := f.write(archive, m.Made); err != nil {
			return m, fmt.Errorf("back up %s: %w", f.path, err)
		}
	}
	if err := errors.Join(archive.Close(), packed.Close(), sealed.Close()); err != nil {
		return m, fmt.Errorf("write the backup: %w", err)
	}
	return m, nil
}

// file is one to be backed up.
type file struct {
	path, name string // where it is, and what it is called in the archive
	size       int64
}

// list finds the files below a folder, which need not be there.
func list(folder, name string) (files []file, err error) {
	err = filepath.WalkDir(folder, func(at string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && at == folder {
			return nil
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		within, err := filepath.Rel(folder, at)
		if err != nil {
			return err
		}
		files = append(files, file{at, path.Join(name, filepath.ToSlash(within)), info.Size()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", folder, err)
	}
	return files, nil
}

func (f file) write(archive *tar.Writer, at time.Time) error {
	content, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer content.Close()
	return entry(archive, f.name, at, content, f.size)
}

func entry(archive *tar.Writer, name string, at time.Time, content io.Reader, size int64) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: at, Format: tar.FormatPAX}); err != nil {
		return err
	}
	n, err := io.Copy(archive, io.LimitReader(content, size))
	if err == nil && n < size {
		err = fmt.Errorf("it became shorter while it was read: %d of %d bytes", n, size)
	}
	return err
}

// Destination is where a backup is brought back to.
type Destination struct {
	State string // the state directory; made where it is missing
	Store string // sqlite or postgres: what the configuration says
	// Restore makes what Source.Snapshot wrote into from the database, and marks it as brought back.
	Restore func(ctx context.Context, from string, made time.Time) error
}

// Restore reads a backup and brings it back. Nothing in the state directory is overwritten: keys, a database, or recordings where
// the backup has some, must not be there. The database comes last, and a gateway does not start as the old one before; where
// Restore fails, what it has brought is taken away again.
func Restore(ctx context.Context, r io.Reader, to Destination, identities ...age.Identity) (m Manifest, err error) {
	opened, err := age.Decrypt(r, identities...)
	if err != nil {
		return m, fmt.Errorf("open the backup: %w", err)
	}
	unpacked, err := zstd.NewReader(opened, zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return m, fmt.Errorf("open the backup: %w", err)
	}
	defer unpacked.Close()
	archive := tar.NewReader(unpacked)
	if m, err = manifest(archive); err != nil {
		return m, err
	}
	if m.Store != to.Store {
		return m, fmt.Errorf("the backup has a store of the kind %s, and the configuration names one of the kind %s", m.Store, to.Store)
	}
	if err := os.MkdirAll(to.State, 0o700); err != nil {
		return m, fmt.Errorf("make the state directory: %w", err)
	}
	if err := vacant(to.State, m.Recordings); err != nil {
		return m, err
	}
	work, err := os.MkdirTemp(to.State, ".restore-*")
	if err != nil {
		return m, fmt.Errorf("make a place for the backup: %w", err)
	}
	defer os.RemoveAll(work)
	if err := unpack(ctx, archive, work, m); err != nil {
		return m, err
	}
	return m, install(ctx, work, to, m)
}

// manifest reads the first entry.
func manifest(archive *tar.Reader) (m Manifest, err error) {
	h, err := archive.Next()
	if err != nil {
		return m, fmt.Errorf("read the backup: %w", err)
	}
	if h.Name != manifestName || h.Size > maxManifest {
		return m, errors.New("it is no backup of sallyport's")
	}
	if err := json.NewDecoder(io.LimitReader(archive, maxManifest)).Decode(&m); err != nil {
		return m, fmt.Errorf("read what the backup is: %w", err)
	}
	if m.Format != formatNumber {
		return m, fmt.Errorf("the backup has format %d; this version reads %d", m.Format, formatNumber)
	}
	return m, nil
}

// vacant refuses to write over what is there.
func vacant(state string, recordings bool) error {
	folders := always
	if recordings {
		folders = append(folders[:len(folders):len(folders)], records...)
	}
	for _, folder := range folders {
		switch entries, err := os.ReadDir(filepath.Join(state, folder)); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case len(entries) > 0:
			return fmt.Errorf("%s is not empty: a backup overwrites nothing; move it away, or name another state directory", filepath.Join(state, folder))
		}
	}
	return nil
}

// unpack writes the archive's files below a directory, and nowhere else.
func unpack(ctx context.Context, archive *tar.Reader, to string, m Manifest) error {
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer root.Close()
	files, size := 0, int64(0)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read the backup: %w", err)
		}
		first, _, _ := strings.Cut(h.Name, "/")
		if h.Typeflag != tar.TypeReg || !fs.ValidPath(h.Name) || first != storeFolder && first != stateFolder {
			return fmt.Errorf("the backup holds %.80q, which no backup does", h.Name)
		}
		if err := root.MkdirAll(path.Dir(h.Name), 0o700); err != nil {
			return fmt.Errorf("bring back %s: %w", h.Name, err)
		}
		f, err := root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("bring back %s: %w", h.Name, err)
		}
		n, err := io.Copy(f, archive)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("bring back %s: %w", h.Name, err)
		}
		files, size = files+1, size+n
	}
	if files != m.Files || size != m.Bytes {
		return fmt.Errorf("the backup is not whole: it has %d files of %d bytes, of %d of %d", files, size, m.Files, m.Bytes)
	}
	return nil
}

// install moves what was unpacked into its place, the database last.
func install(ctx context.Context, work string, to Destination, m Manifest) (err error) {
	var moved []string
	defer func() {
		if err != nil {
			for _, folder := range moved {
				os.RemoveAll(folder)
			}
		}
	}()
	entries, err := os.ReadDir(filepath.Join(work, stateFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(always, e.Name()) && !(m.Recordings && slices.Contains(records, e.Name())) {
			return fmt.Errorf("the backup holds %.80q, which no backup does", e.Name())
		}
		folder := filepath.Join(to.State, e.Name())
		if err := os.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) { // an empty one
			return fmt.Errorf("bring back %s: %w", folder, err)
		}
		if err := os.Rename(filepath.Join(work, stateFolder, e.Name()), folder); err != nil {
			return fmt.Errorf("bring back %s: %w", folder, err)
		}
		moved = append(moved, folder)
	}
	return to.Restore(ctx, filepath.Join(work, storeFolder), m.Made)
}
