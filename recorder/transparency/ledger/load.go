package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/recorder/disk"
	"sallyport/recorder/transparency"
)

// maxBundle is the most bytes of a bundle.
const maxBundle = transparency.Width * (transparency.MaxLeaf + 2)

// load finds out what there is: bundles, the tail (cut where a power cut tore it; nothing acknowledged is in that part), the
// tree over them, and whether it is what the newest checkpoints say.
func (l *Log) load() error {
	for _, dir := range []string{"tile/entries", transparency.TailFolder} {
		if err := disk.MakeDirectory(l.o.Dir, filepath.Join(l.dir, filepath.FromSlash(dir))); err != nil {
			return err
		}
	}
	bundles, err := l.bundles()
	if err != nil {
		return err
	}
	entries, bundles, err := l.loadTail(bundles)
	if err != nil {
		return err
	}
	l.size = bundles << transparency.Height
	for level := 1; bundles>>(transparency.Height*(level-1)) > 0; level++ {
		count := bundles >> (transparency.Height * (level - 1)) // full tiles of the level below
		for n := count &^ (transparency.Width - 1); n < count; n++ {
			hashes, err := l.fullTile(level-1, n)
			if err != nil {
				return err
			}
			l.push(level, transparency.Peaks(hashes)[0])
		}
	}
	for _, entry := range entries {
		l.push(0, tlog.RecordHash(entry))
		l.size++
	}
	return l.loadCheckpoints()
}

// bundles counts the full bundles, of which none may be missing.
func (l *Log) bundles() (int64, error) {
	var count, last int64
	last = -1
	err := filepath.WalkDir(filepath.Join(l.dir, "tile", "entries"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(l.dir, path)
		if err != nil {
			return err
		}
		if level, n, width, err := transparency.ParsePath(filepath.ToSlash(relative)); err == nil && level == -1 && width == transparency.Width {
			count++
			last = max(last, n)
		}
		return nil
	})
	if err == nil && count != last+1 {
		err = fmt.Errorf("%w: of %d bundles of leaves, %d are there", ErrDamaged, last+1, count)
	}
	return count, err
}

// loadTail reads the leaves that stand in no full bundle. Full tails that a gateway had no time to move, it moves.
func (l *Log) loadTail(bundles int64) (entries [][]byte, count int64, err error) {
	dir := filepath.Join(l.dir, transparency.TailFolder)
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, 0, err
	}
	for _, f := range files {
		if n, err := strconv.ParseInt(f.Name(), 10, 64); err == nil && n < bundles { // was moved; its old name outlived a power cut
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return nil, 0, err
			}
		}
	}
	for {
		path := filepath.Join(dir, strconv.FormatInt(bundles, 10))
		content, err := disk.Read(path, 2*maxBundle)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, bundles, nil
		}
		if err != nil {
			return nil, 0, err
		}
		entries, size := readable(content)
		if len(entries) == transparency.Width {
			if err := l.settle(bundles); err != nil {
				return nil, 0, err
			}
			bundles++
			continue
		}
		if l.tail, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			return nil, 0, err
		}
		if size < len(content) {
			l.o.Log.Warn("leaves that were being written when the gateway died were cut; nothing in them had been acknowledged", "bytes", len(content)-size)
			if err := errors.Join(l.tail.Truncate(int64(size)), disk.SyncData(l.tail)); err != nil {
				return nil, 0, err
			}
		}
		l.at = int64(size)
		return entries, bundles, nil
	}
}

// readable are the entries up to the first that is no leaf, and how many bytes they are.
func readable(tail []byte) ([][]byte, int) {
	entries, _, _ := transparency.Entries(tail)
	size := 0
	for i, entry := range entries {
		if _, err := transparency.Decode(entry); err != nil {
			return entries[:i], size
		}
		size += 2 + len(entry)
	}
	return entries, size
}

// loadCheckpoints reads the newest checkpoints, to which the tree must have grown.
func (l *Log) loadCheckpoints() error {
	var keys []transparency.WitnessKey
	for _, w := range l.o.Witnesses {
		keys = append(keys, w.Key)
	}
	for _, c := range []struct {
		file string
		into *transparency.Checkpoint
	}{{transparency.CheckpointFile, &l.head}, {transparency.WitnessedFile, &l.witnessed}} {
		signed, err := disk.Read(filepath.Join(l.dir, c.file), transparency.MaxCheckpoint)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		read, err := transparency.ParseCheckpoint(signed, l.o.Key, keys...)
		if err != nil {
			return fmt.Errorf("%w: %s/%s: %w", ErrDamaged, transparency.Folder, c.file, err)
		}
		if read.Tree.N > l.size {
			return fmt.Errorf("%w: its checkpoint is over %d leaves, and %d are there", ErrDamaged, read.Tree.N, l.size)
		}
		root := transparency.RootOf(nil)
		if read.Tree.N > 0 {
			if root, err = tlog.TreeHash(read.Tree.N, l); err != nil {
				return err
			}
		}
		if root != read.Tree.Hash {
			return fmt.Errorf("%w: its leaves are not those that its checkpoint over %d was signed for", ErrDamaged, read.Tree.N)
		}
		*c.into = read
	}
	if l.witnessed.Tree.N < l.size {
		l.unsigned = time.Now()
		entry, err := l.Entry(l.witnessed.Tree.N)
		if err != nil {
			return err
		}
		if leaf, err := transparency.Decode(entry); err == nil && leaf.Time.Before(l.unsigned) {
			l.unsigned = leaf.Time // a start makes it no younger
		}
	}
	return nil
}

// Recent gives the leaves from the newest back to the oldest, with their indexes, until yield returns false.
func (l *Log) Recent(yield func(int64, transparency.Leaf) bool) error {
	l.mu.Lock()
	size := l.size
	l.mu.Unlock()
	for n := (size - 1) >> transparency.Height; n >= 0 && size > 0; n-- {
		first := n << transparency.Height
		bundle, err := l.Bundle(n, int(min(size-first, transparency.Width)))
		if err != nil {
			return err
		}
		entries, _, _ := transparency.Entries(bundle)
		for i := len(entries) - 1; i >= 0; i-- {
			leaf, err := transparency.Decode(entries[i])
			if err != nil {
				return fmt.Errorf("%w: leaf %d: %w", ErrDamaged, first+int64(i), err)
			}
			if !yield(first+int64(i), leaf) {
				return nil
			}
		}
	}
	return nil
}
