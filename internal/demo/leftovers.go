//go:build unix

package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// register is the demo's entry in a well-known directory: which processes it started and which directory is its own. It
// is written before there is anything to leave behind, so that a demo killed half-way is cleaned up by the next.
type register struct {
	path   string
	claims []io.Closer // of the ports
	mu     sync.Mutex
	entry
}

type entry struct {
	Owner    identity   `json:"owner"`
	Children []identity `json:"children"`
	// Remove are directories to remove whole when the owner is gone.
	Remove []string `json:"remove"`
	// Ports are taken by this demo, also while nobody listens on one because its process is being restarted.
	Ports []int `json:"ports"`
}

// marker is the file that a directory must hold to be removed as the demo's: a register that was tampered with, or a
// mistake in this file, can then cost nobody their files.
const marker = ".sallyport-demo"

// registers is the well-known directory, this user's alone.
func registers() (string, error) {
	dir := filepath.Join(os.TempDir(), "sallyport-demo-"+strconv.Itoa(os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("keep track of the demo's processes: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("keep track of the demo's processes: %w", err)
	}
	owner, _ := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || owner == nil || int(owner.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s is not a directory of yours alone (mode 0700); remove it and start again", dir)
	}
	return dir, nil
}

// newRegister cleans up after earlier demos and opens an entry for this one, with so many ports.
func newRegister(ports int) (*register, error) {
	dir, err := registers()
	if err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	taken, err := cleanLeftovers(dir)
	if err != nil {
		return nil, err
	}
	r := &register{path: filepath.Join(dir, fmt.Sprintf("%d-%d.json", os.Getpid(), time.Now().UnixNano()))}
	r.Owner = identify("demo", os.Getpid())
	if r.Ports, r.claims, err = freePorts(ports, taken); err != nil {
		return nil, err
	}
	return r, r.save()
}

// cleanLeftovers ends the processes and removes the directories of demos that are gone. It returns the ports of those
// that are not.
func cleanLeftovers(dir string) (taken map[int]bool, err error) {
	taken = make(map[int]bool)
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var left entry
		if err := json.Unmarshal(data, &left); err == nil {
			if left.Owner.alive() {
				for _, port := range left.Ports {
					taken[port] = true
				}
				continue
			}
			for i := len(left.Children) - 1; i >= 0; i-- {
				if child := left.Children[i]; child.alive() {
					child.stopLeftover(3 * time.Second)
				}
			}
			for _, d := range left.Remove {
				if err := removeOwn(d); err != nil {
					return nil, err
				}
			}
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return taken, nil
}

// removeOwn removes a directory of the demo's.
func removeOwn(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, marker)); errors.Is(err, fs.ErrNotExist) {
		return nil // gone already, or not ours
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// mark makes a directory one that removeOwn removes.
func mark(dir string) error {
	return os.WriteFile(filepath.Join(dir, marker), []byte("made by sallyport demo\n"), 0o644)
}

func (r *register) add(name string, pid int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	alive := r.Children[:0]
	for _, c := range r.Children {
		if c.alive() {
			alive = append(alive, c)
		}
	}
	r.Children = append(alive, identify(name, pid))
	return r.save()
}

// removeLater has a directory removed by close, or by the next demo if this one is killed.
func (r *register) removeLater(dir string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Remove = append(r.Remove, dir)
	return r.save()
}

// save writes the entry whole. The caller holds mu.
func (r *register) save() error {
	data, err := json.Marshal(r.entry)
	if err != nil {
		return err
	}
	return writeWhole(r.path, data, 0o600)
}

// close removes what was to be removed, and the entry. Its processes have been ended before.
func (r *register) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, claim := range r.claims {
		errs = append(errs, claim.Close())
	}
	for _, dir := range r.Remove {
		errs = append(errs, removeOwn(dir))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.Remove(r.path)
}

// writeWhole replaces a file whole: a reader sees the old one or the new one.
func writeWhole(path string, data []byte, mode fs.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // after the rename there is nothing to remove
	_, err = file.Write(data)
	if err == nil {
		err = file.Chmod(mode)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
