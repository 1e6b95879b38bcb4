package verify

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"sallyport/recorder/transparency"
)

// TestABundleThatBecomesFull is read, whether it has moved to where full bundles are or not: a gateway goes on while it is verified.
func TestABundleThatBecomesFull(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, transparency.Folder)
	tail := filepath.Join(log, filepath.FromSlash(transparency.TailPath(0)))
	full := filepath.Join(log, filepath.FromSlash(transparency.BundlePath(0, transparency.Width)))
	if err := errors.Join(os.MkdirAll(filepath.Dir(tail), 0o700), os.MkdirAll(filepath.Dir(full), 0o700)); err != nil {
		t.Fatal(err)
	}
	content := transparency.AppendEntry(nil, []byte("leaf"))
	for range 3000 {
		if err := errors.Join(os.RemoveAll(full), os.WriteFile(tail, content, 0o600)); err != nil {
			t.Fatal(err)
		}
		moved := make(chan error, 1)
		go func() { moved <- os.Rename(tail, full) }()
		entries, _, err := readBundle(dir, 0)
		if err := errors.Join(err, <-moved); err != nil || len(entries) != 1 {
			t.Fatal(len(entries), err)
		}
	}
}
