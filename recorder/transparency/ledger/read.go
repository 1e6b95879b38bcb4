package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/recorder/disk"
	"sallyport/recorder/transparency"
)

// ErrNoTile is returned for tiles and bundles that the log has not, or not that wide.
var ErrNoTile = errors.New("the log has no such tile")

// Size is how many leaves there are.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

// Key is the log's public key.
func (l *Log) Key() transparency.LogKey { return l.o.Key }

// Checkpoint is the newest that was signed, Witnessed the newest that a witness cosigned; without one its Note is nil.
func (l *Log) Checkpoint() transparency.Checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Witnessed is the newest checkpoint with a cosignature; without one its Note is nil.
func (l *Log) Witnessed() transparency.Checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.witnessed
}

// Tile is the data of a tile of hashes, of that width.
func (l *Log) Tile(level int, n int64, width int) ([]byte, error) {
	l.mu.Lock()
	var edge []tlog.Hash
	count := l.size >> (transparency.Height * level) // hashes of the level
	if level < len(l.edge) && n == (count-1)>>transparency.Height && len(l.edge[level]) > 0 {
		edge = l.edge[level][:min(width, len(l.edge[level]))]
	}
	l.mu.Unlock()
	first := n << transparency.Height
	if n < 0 || width < 1 || width > transparency.Width || first+int64(width) > count {
		return nil, ErrNoTile
	}
	if len(edge) == width {
		return encode(edge), nil
	}
	hashes, err := l.fullTile(level, n)
	if err != nil {
		return nil, err
	}
	return encode(hashes[:width]), nil
}

// Bundle is the data of a bundle of leaves, of that width.
func (l *Log) Bundle(n int64, width int) ([]byte, error) {
	if n < 0 || width < 1 || width > transparency.Width || n<<transparency.Height+int64(width) > l.Size() {
		return nil, ErrNoTile
	}
	return l.bundle(n, width)
}

// Entry is the bytes of one leaf.
func (l *Log) Entry(index int64) ([]byte, error) {
	bundle, err := l.Bundle(index>>transparency.Height, int(index%transparency.Width)+1)
	if err != nil {
		return nil, err
	}
	entries, _, _ := transparency.Entries(bundle)
	return entries[len(entries)-1], nil
}

func (l *Log) bundle(n int64, width int) ([]byte, error) {
	// While it is read it may become full and move.
	for _, path := range []string{transparency.BundlePath(n, transparency.Width), transparency.TailPath(n), transparency.BundlePath(n, transparency.Width)} {
		content, err := disk.Read(filepath.Join(l.dir, filepath.FromSlash(path)), 2*maxBundle)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries, _, _ := transparency.Entries(content)
		if len(entries) < width {
			return nil, fmt.Errorf("%w: bundle %d has %d leaves instead of %d", ErrDamaged, n, len(entries), width)
		}
		size := 0
		for _, entry := range entries[:width] {
			size += 2 + len(entry)
		}
		return content[:size], nil
	}
	return nil, fmt.Errorf("%w: bundle %d is missing", ErrDamaged, n)
}

// fullTile reads a full tile, or makes it again from what is below it.
func (l *Log) fullTile(level int, n int64) ([]tlog.Hash, error) {
	path := filepath.Join(l.dir, filepath.FromSlash(transparency.TilePath(level, n, transparency.Width)))
	content, err := disk.Read(path, transparency.Width*tlog.HashSize)
	if err == nil && len(content) == transparency.Width*tlog.HashSize {
		return decode(content), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	hashes := make([]tlog.Hash, 0, transparency.Width)
	if level == 0 {
		content, err := l.bundle(n, transparency.Width)
		if err != nil {
			return nil, err
		}
		entries, _, _ := transparency.Entries(content)
		for _, entry := range entries {
			hashes = append(hashes, tlog.RecordHash(entry))
		}
	} else {
		for below := n << transparency.Height; below < (n+1)<<transparency.Height; below++ {
			lower, err := l.fullTile(level-1, below)
			if err != nil {
				return nil, err
			}
			hashes = append(hashes, transparency.Peaks(lower)[0])
		}
	}
	return hashes, l.replace(path, encode(hashes))
}

// ReadHashes implements tlog.HashReader.
func (l *Log) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	tiles := map[tlog.Tile][]byte{}
	for i, index := range indexes {
		tile := tlog.TileForIndex(transparency.Height, index)
		data, ok := tiles[tile]
		if !ok {
			var err error
			if data, err = l.Tile(tile.L, tile.N, tile.W); err != nil {
				return nil, err
			}
			tiles[tile] = data
		}
		var err error
		if hashes[i], err = tlog.HashFromTile(tile, data, index); err != nil {
			return nil, err
		}
	}
	return hashes, nil
}

// Consistency proves that the tree of size n begins with the one of size old.
func (l *Log) Consistency(old, n int64) ([]tlog.Hash, error) {
	if old == 0 || old == n {
		return nil, nil
	}
	return tlog.ProveTree(n, old, l)
}

// Inclusion proves that leaf index is in the tree of size n.
func (l *Log) Inclusion(index, n int64) ([]tlog.Hash, error) { return tlog.ProveRecord(n, index, l) }

func encode(hashes []tlog.Hash) []byte {
	data := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		data = append(data, h[:]...)
	}
	return data
}

func decode(data []byte) []tlog.Hash {
	hashes := make([]tlog.Hash, len(data)/tlog.HashSize)
	for i := range hashes {
		copy(hashes[i][:], data[i*tlog.HashSize:])
	}
	return hashes
}
