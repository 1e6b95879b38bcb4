package transparency

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Width is how many hashes a full tile has, and how many leaves a full bundle; Height is its logarithm.
const (
	Width  = 1 << Height
	Height = 8
)

// Below the state directory the log is Folder: the newest signed Checkpoint, the newest one that was Witnessed, full tiles
// and bundles where c2sp.org/tlog-tiles has them, and TailFolder with the leaves of the bundle that is not full yet.
const (
	Folder         = "transparency"
	CheckpointFile = "checkpoint"
	WitnessedFile  = "witnessed"
	TailFolder     = "tail"
)

// CheckpointsFolder is where an archive of the log has its checkpoints instead, each under a name of its own: nothing there is
// written over.
const CheckpointsFolder = "checkpoints"

// CheckpointName is what a checkpoint is called there: its size, so that they sort by it, and its SHA-256, since the same tree is
// cosigned more than once.
func CheckpointName(c Checkpoint) string {
	return fmt.Sprintf("%020d-%x", c.Tree.N, sha256.Sum256(c.Note))
}

// IsCheckpointName reports whether a name has that form.
func IsCheckpointName(name string) bool {
	size, sum, _ := strings.Cut(name, "-")
	_, err := strconv.ParseUint(size, 10, 63)
	raw, notHex := hex.DecodeString(sum)
	return len(size) == 20 && err == nil && notHex == nil && len(raw) == sha256.Size
}

// TilePath is where the tile of hashes stands, as c2sp.org/tlog-tiles has it: level 0 has leaf hashes. A width below Width
// is a partial tile's.
func TilePath(level int, n int64, width int) string {
	return "tile/" + strconv.Itoa(level) + "/" + indexPath(n, width)
}

// BundlePath is where the n-th Width leaves stand.
func BundlePath(n int64, width int) string { return "tile/entries/" + indexPath(n, width) }

// TailPath is where the leaves of the n-th bundle stand until it is full.
func TailPath(n int64) string { return TailFolder + "/" + strconv.FormatInt(n, 10) }

func indexPath(n int64, width int) string {
	path := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	if width < Width {
		path += ".p/" + strconv.Itoa(width)
	}
	return path
}

// ParsePath is the reverse of TilePath and BundlePath, whose level is -1.
func ParsePath(path string) (level int, n int64, width int, err error) {
	fail := func() (int, int64, int, error) { return 0, 0, 0, errors.New("no path of a tile") }
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok || len(path) > 100 {
		return fail()
	}
	first, rest, _ := strings.Cut(rest, "/")
	level = -1
	if first != "entries" {
		if level, err = strconv.Atoi(first); err != nil || level < 0 || level > 63/Height {
			return fail()
		}
	}
	width = Width
	if index, partial, cut := strings.Cut(rest, ".p/"); cut {
		rest = index
		if width, err = strconv.Atoi(partial); err != nil || width < 1 || width >= Width {
			return fail()
		}
	}
	for digits := range strings.SplitSeq(rest, "/") {
		digits = strings.TrimPrefix(digits, "x")
		part, err := strconv.ParseUint(digits, 10, 10)
		if err != nil || len(digits) != 3 || part > 999 || n > 1<<50 {
			return fail()
		}
		n = n*1000 + int64(part)
	}
	wanted := BundlePath(n, width)
	if level >= 0 {
		wanted = TilePath(level, n, width)
	}
	if path != wanted { // one path for each
		return fail()
	}
	return level, n, width, nil
}

// AppendEntry adds an entry to a bundle.
func AppendEntry(bundle, entry []byte) []byte {
	bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(entry)))
	return append(bundle, entry...)
}

// Entries takes a bundle apart, at most Width entries. Where the bundle ends within one, or one is empty, whole says false
// and the entries before it are given; size is the length of what was taken apart. They are parts of bundle.
func Entries(bundle []byte) (entries [][]byte, size int, whole bool) {
	for size < len(bundle) && len(entries) < Width {
		if len(bundle)-size < 2 {
			return entries, size, false
		}
		length := int(binary.BigEndian.Uint16(bundle[size:]))
		if length == 0 || len(bundle)-size-2 < length {
			return entries, size, false
		}
		entries = append(entries, bundle[size+2:size+2+length])
		size += 2 + length
	}
	return entries, size, size == len(bundle)
}

// Tree is the shape of a Merkle tree that leaves are added to: the roots of its largest whole subtrees, from the left. It is
// enough to know the root at every size it passes. The zero value is empty.
type Tree struct {
	size  int64
	peaks []tlog.Hash
}

// Add adds a leaf by its hash (tlog.RecordHash).
func (t *Tree) Add(leaf tlog.Hash) {
	t.peaks = append(t.peaks, leaf)
	for n := t.size; n&1 == 1; n >>= 1 {
		last := len(t.peaks) - 1
		t.peaks[last-1] = tlog.NodeHash(t.peaks[last-1], t.peaks[last])
		t.peaks = t.peaks[:last]
	}
	t.size++
}

// Size is how many leaves there are.
func (t *Tree) Size() int64 { return t.size }

// Root is the tree's root.
func (t *Tree) Root() tlog.Hash { return RootOf(t.peaks) }

// RootOf is the root over whole subtrees that stand beside each other, the largest first.
func RootOf(peaks []tlog.Hash) tlog.Hash {
	if len(peaks) == 0 {
		return sha256.Sum256(nil)
	}
	root := peaks[len(peaks)-1]
	for i := len(peaks) - 2; i >= 0; i-- {
		root = tlog.NodeHash(peaks[i], root)
	}
	return root
}

// Peaks are the roots of the whole subtrees that hashes of one level make, the largest first.
func Peaks(hashes []tlog.Hash) []tlog.Hash {
	var peaks []tlog.Hash
	for len(hashes) > 0 {
		size := 1 << (bits.Len(uint(len(hashes))) - 1)
		peaks = append(peaks, subtree(hashes[:size]))
		hashes = hashes[size:]
	}
	return peaks
}

func subtree(hashes []tlog.Hash) tlog.Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	half := len(hashes) / 2
	return tlog.NodeHash(subtree(hashes[:half]), subtree(hashes[half:]))
}
