package wal

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"sallyport/recorder/disk"
)

// Disk is where the log's files are.
type Disk interface {
	// Create makes a file of size bytes, all zero, that is on stable storage under its name when it returns.
	Create(path string, size int64) (File, error)
	// Remove removes a file whose content is not needed any more, sooner or later.
	Remove(path string) error
}

// File is a file of the log.
type File interface {
	io.WriterAt
	// Sync waits until everything written to the file is on stable storage.
	Sync() error
	Close() error
}

// System is the Disk of the operating system.
type System struct{}

// fillStep is how many zeros are written before they are brought to the disk, so that nobody else's sync waits for many
// at once.
const fillStep = 256 << 10

// Create implements Disk. The zeros are written, not only reserved: a sync has less to do where blocks are in use.
func (System) Create(path string, size int64) (File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, min(size, fillStep))
	for at := int64(0); at < size && err == nil; at += int64(len(zeros)) {
		if _, err = f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err == nil {
			err = writeBack(f, at, int64(len(zeros)))
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = disk.SyncDirectory(filepath.Dir(path))
	}
	if err != nil {
		f.Close()
		os.Remove(path)
		return nil, err
	}
	return DataSynced{f}, nil
}

// Remove implements Disk.
func (System) Remove(path string) error { return os.Remove(path) }

// DataSynced is a file whose Sync spares itself the times that nobody needs.
type DataSynced struct{ *os.File }

// Sync waits until the file's data and size are on stable storage.
func (f DataSynced) Sync() error { return disk.SyncData(f.File) }

func isEnd(err error) bool { return errors.Is(err, io.EOF) }
