package recorder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"sallyport/recorder/wal"
)

const (
	extension = ".srec"
	// unborn ends the name of a file whose header is not whole yet; nothing was ever acknowledged in one.
	unborn = ".new"
)

// createFile makes a file with these first bytes that is on stable storage under its name when it returns. The path is
// below dir; missing directories are made. A file that exists is never touched.
func createFile(dir, path string, first []byte) (*os.File, error) {
	full := filepath.Join(dir, path)
	if err := makeDirectory(filepath.Dir(full)); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(full); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("%s exists", path), err)
	}
	f, err := os.OpenFile(full+unborn, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(first); err == nil {
		if err = f.Sync(); err != nil {
			err = &syncError{err}
		}
	}
	if err == nil {
		err = os.Rename(full+unborn, full)
	}
	if err == nil {
		err = wal.SyncDirectory(filepath.Dir(full))
	}
	if err != nil {
		f.Close()
		os.Remove(full + unborn)
		os.Remove(full)
		return nil, err
	}
	return f, nil
}

// makeDirectory makes a directory and those above it that are missing, each on stable storage in the one above.
func makeDirectory(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	above := filepath.Dir(dir)
	if err := makeDirectory(above); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) { // by another session, at the same time
			return nil
		}
		return err
	}
	return wal.SyncDirectory(above)
}

// isFull reports whether an error is want of room: disk, quota or file size.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// isBroken reports whether an error says that the disk is not to be trusted with anything more.
func isBroken(err error) bool {
	return isUnknown(err) || !isFull(err) && (errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EROFS))
}

// isUnknown reports whether an error leaves open what is on the disk.
func isUnknown(err error) bool {
	_, unsynced := errors.AsType[*syncError](err)
	_, ahead := errors.AsType[*wal.Failure](err)
	return unsynced || ahead
}

// syncError is a sync that failed: what of the file is on the disk is not known, and must not be asked again.
type syncError struct{ err error }

func (e *syncError) Error() string { return "sync the recording: " + e.err.Error() }
func (e *syncError) Unwrap() error { return e.err }
