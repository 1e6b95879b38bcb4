package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Unborn ends the name of a file whose first bytes are not whole yet, or that is to take another's place.
const Unborn = ".new"

// Create makes a file below root with these first bytes that is on stable storage under its name when it returns. Missing
// directories are made. A file that exists is never touched.
func Create(root, path string, first []byte) (*os.File, error) {
	full := filepath.Join(root, path)
	f, err := begin(root, full)
	for range 3 { // a directory that is there may be empty, and just be removed
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		f, err = begin(root, full)
	}
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(first); err == nil {
		if err = f.Sync(); err != nil {
			err = &SyncError{err}
		}
	}
	if err == nil {
		err = os.Rename(full+Unborn, full)
	}
	if err == nil {
		err = SyncDirectory(filepath.Dir(full))
	}
	if err != nil {
		f.Close()
		os.Remove(full + Unborn)
		os.Remove(full)
		return nil, err
	}
	return f, nil
}

func begin(root, full string) (*os.File, error) {
	if err := MakeDirectory(root, filepath.Dir(full)); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(full); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("%s exists", full), err)
	}
	return os.OpenFile(full+Unborn, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
}

// known are directories that this process has seen on stable storage. Whoever needs one that another is just making waits for that.
var known = struct {
	sync.Mutex
	safe map[string]bool
	sync func(string) error // a test watches it
}{safe: map[string]bool{}, sync: SyncDirectory}

// MakeDirectory makes a directory and those above it that are missing. When it returns they are on stable storage, each in the one above,
// as far as they are below root or were made; those below root also if they were there, for who made them may have died before that.
func MakeDirectory(root, dir string) error {
	known.Lock()
	defer known.Unlock()
	return makeDirectory(root, dir)
}

func makeDirectory(root, dir string) error {
	info, err := os.Stat(dir)
	there := err == nil && info.IsDir()
	below := dir != root && filepath.IsLocal(relative(root, dir))
	if there && (!below || known.safe[dir]) {
		return nil
	}
	above := filepath.Dir(dir)
	if err := makeDirectory(root, above); err != nil {
		return err
	}
	if !there {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := known.sync(above); err != nil {
		return err
	}
	if below {
		known.safe[dir] = true
	}
	return nil
}

// relative is a path as it is named from root, or one that leads out of it.
func relative(root, path string) string {
	name, err := filepath.Rel(root, path)
	if err != nil {
		return ".."
	}
	return name
}

// Replace puts a file in the place of another, or where there is none, whole or not at all, and returns when it is on stable storage.
func Replace(path string, content []byte) error {
	f, err := os.OpenFile(path+Unborn, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return SyncDirectory(filepath.Dir(path))
}

// Read reads a file that has no more than that many bytes.
func Read(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("%s is longer than %d bytes", path, most)
	}
	return content, err
}

// Overwrite fills a file with zeros, durably. What the disk keeps elsewhere of what stood there is out of reach.
func Overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, min(info.Size(), 1<<20))
	for at := int64(0); at < info.Size(); at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), info.Size()-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// SyncDirectory waits until the names in a directory are on stable storage.
func SyncDirectory(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
