package recorder

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"sallyport/recorder/disk"
	"sallyport/recorder/wal"
)

// File is a recording's file as it is written.
type File interface {
	io.WriterAt
	Sync() error
	Truncate(size int64) error
	Close() error
}

// Hardware is what a recorder writes recordings and its log to. Tests have some that loses what was not synced.
type Hardware struct {
	// Create makes a file below dir with these first bytes, which is on stable storage under its name when it returns.
	// Missing directories are made; a file that exists is never touched.
	Create  func(dir, path string, first []byte) (File, error)
	Log     wal.Disk
	Segment int64 // as wal.Options.Segment
}

func system() Hardware {
	return Hardware{
		Create: func(dir, path string, first []byte) (File, error) {
			f, err := disk.Create(dir, path, first)
			if err != nil {
				return nil, err
			}
			return wal.DataSynced{File: f}, nil
		},
		Log: wal.System{},
	}
}

func (r *Recorder) ahead() string { return filepath.Join(r.Dir, "wal") }

// newLog makes the log that all recordings at level synced share.
func (r *Recorder) newLog() *wal.Log {
	return wal.New(wal.Options{
		Dir: r.ahead(), Disk: r.hardware.Log, Segment: r.hardware.Segment, Log: r.Log,
		Failed: func(err error) { r.failAll(isSynced, err) },
		At: func(place string, first func()) {
			if r.faults.due(place) {
				if first != nil {
					first()
				}
				die()
			}
		},
	})
}

// replay brings what an earlier run left in its write-ahead log to the recordings among files, and removes the log once
// they are safe.
func (r *Recorder) replay(files []string) error {
	p := player{recorder: r, paths: map[string]string{}, open: map[string]*os.File{}}
	for _, path := range files {
		if name, ok := strings.CutSuffix(filepath.Base(path), extension); ok {
			p.paths[name] = path
		}
	}
	found, err := wal.Replay(r.ahead(), p.apply)
	if err = errors.Join(err, p.sync()); err != nil {
		if disk.IsFull(err) {
			return fmt.Errorf("replay the write-ahead log: %w; make room on the disk and start again, nothing is lost", err)
		}
		return fmt.Errorf("replay the write-ahead log: %w", err)
	}
	for _, damage := range found.Damages {
		r.Log.Error("the write-ahead log is damaged; what it lacks may be lacking in recordings", "damage", damage)
	}
	if found.Groups > 0 {
		r.Log.Info("the write-ahead log of an earlier run was replayed", "groups", found.Groups, "bytes", p.bytes)
	}
	return wal.Remove(r.ahead())
}

// player writes records of the log to the files they belong to.
type player struct {
	recorder *Recorder
	paths    map[string]string
	open     map[string]*os.File
	bytes    int64
}

// openFiles is how many files a player has open at once.
const openFiles = 128

func (p *player) apply(record wal.Record) error {
	f, err := p.file(record.Name)
	if f == nil || err != nil {
		return err
	}
	// Written even where the file seems to have it: what is in the kernel's cache is not always on the disk.
	for {
		if _, err = f.WriteAt(record.Data, record.Offset); err == nil || !disk.IsFull(err) || !p.recorder.ballast.Release() {
			break
		}
	}
	p.bytes += int64(len(record.Data))
	return err
}

// file is the file of that name, or nil if it was removed or packed since.
func (p *player) file(name string) (*os.File, error) {
	if f, ok := p.open[name]; ok {
		return f, nil
	}
	if len(p.open) >= openFiles {
		if err := p.sync(); err != nil {
			return nil, err
		}
	}
	var f *os.File
	if path, ok := p.paths[name]; ok {
		packed, err := isPacked(path)
		if err != nil {
			return nil, err
		}
		if !packed { // else it was ended, and safe, before it was packed
			if f, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil {
				return nil, err
			}
		}
	} else {
		p.recorder.Log.Warn("the write-ahead log has something of a recording that is gone", "recording", name)
	}
	p.open[name] = f
	return f, nil
}

// sync makes everything written safe and closes the files.
func (p *player) sync() error {
	var errs []error
	for _, f := range p.open {
		if f != nil {
			errs = append(errs, f.Sync(), f.Close())
		}
	}
	clear(p.open)
	return errors.Join(errs...)
}
