package disk

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
)

const (
	ballastPiece = 64 << 10
	ballastMost  = 16 << 20
)

// Ballast is a file that does nothing but take up room, so that there is room for endings once the disk is full. While
// a piece of it is used, nothing but endings is written, or the sessions that are still open would eat it up.
type Ballast struct {
	path string
	want int64

	used atomic.Bool // a piece was given back, and not taken again yet

	mu   sync.Mutex
	size int64
}

// NewBallast is a file at path that keeps a quarter of the reserve, within bounds that make sense.
func NewBallast(path string, reserve int64) *Ballast {
	return &Ballast{path: path, want: min(max(reserve/4, 4*ballastPiece), ballastMost) / ballastPiece * ballastPiece}
}

// Used reports whether a piece of it was given back, and not taken again yet.
func (b *Ballast) Used() bool { return b.used.Load() }

// look notes how large the file is, which somebody may have deleted to make room. The lock is held.
func (b *Ballast) look() {
	b.size = 0
	if info, err := os.Stat(b.path); err == nil {
		b.size = info.Size() / ballastPiece * ballastPiece
	}
}

// Fill brings the ballast to its size again if that takes no more than free bytes.
func (b *Ballast) Fill(free int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.look(); b.size >= b.want {
		b.used.Store(false)
		return nil
	}
	if b.want-b.size > free {
		return fmt.Errorf("there is no room for the %d bytes that are kept for endings", b.want)
	}
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	piece := make([]byte, ballastPiece)            // of noise, which no file system stores smaller
	_, _ = rand.NewChaCha8([32]byte{}).Read(piece) // never fails
	for b.size < b.want && err == nil {
		if _, err = f.WriteAt(piece, b.size); err == nil {
			b.size += ballastPiece
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("keep room for endings: %w", err)
	}
	b.used.Store(false)
	return nil
}

// Release gives a piece of the ballast back to the disk and reports whether there was one.
func (b *Ballast) Release() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.look(); b.size == 0 {
		return false
	}
	b.used.Store(true)
	b.size -= ballastPiece
	return os.Truncate(b.path, b.size) == nil
}
