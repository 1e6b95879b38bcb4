package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestDirectoriesAreSafeForEverybody: whoever needs a directory that another is just making waits until it is on stable storage, and one
// that is there since an earlier run is brought there, once.
func TestDirectoriesAreSafeForEverybody(t *testing.T) {
	var synced []string
	known.sync = func(dir string) error {
		if known.TryLock() {
			known.Unlock()
			t.Error("nobody waits for what is not safe yet")
		}
		synced = append(synced, dir)
		return SyncDirectory(dir)
	}
	t.Cleanup(func() { known.sync = SyncDirectory })
	root := t.TempDir()
	day := filepath.Join(root, "recordings", "25")
	if err := os.MkdirAll(day, 0o700); err != nil { // and then that run died
		t.Fatal(err)
	}
	for range 2 {
		if err := MakeDirectory(root, day); err != nil {
			t.Fatal(err)
		}
	}
	next := filepath.Join(root, "recordings", "26")
	if err := MakeDirectory(root, next); err != nil {
		t.Fatal(err)
	}
	if want := []string{root, filepath.Dir(day), filepath.Dir(day)}; !slices.Equal(synced, want) {
		t.Errorf("synced %q, want %q", synced, want)
	}
	if err := errors.Join(os.Remove(next), MakeDirectory(root, next)); err != nil || len(synced) != 4 {
		t.Errorf("one that was removed: %v %q", err, synced)
	}
}

// TestCreateWhereTheDirectoryGoes: the directory of a file may be removed at any time, when its last file is.
func TestCreateWhereTheDirectoryGoes(t *testing.T) {
	root := t.TempDir()
	for i := range 100 {
		gone := make(chan struct{})
		go func() { os.Remove(filepath.Join(root, "day")); close(gone) }()
		path := filepath.Join("day", fmt.Sprint(i))
		f, err := Create(root, path, []byte("x"))
		<-gone
		if err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		if err := errors.Join(f.Close(), os.Remove(filepath.Join(root, path))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Create(root, "day/x", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(root, "day/x", nil); err == nil {
		t.Error("a file that is there was made anew")
	}
}
