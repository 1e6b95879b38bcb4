package verify

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"sallyport/recorder/format"
	"sallyport/recorder/wal"
)

// maxAhead is how much of a write-ahead log Ahead holds; a gateway's has less.
const maxAhead = 1 << 30

// Ahead reads the write-ahead log in a state directory, or in a copy of one, and changes nothing: by session, what the next
// start would bring to the recordings. The second result says what is damaged in the log.
func Ahead(dir string) (map[string][]Piece, []string, error) {
	all := map[string][]Piece{}
	size := 0
	found, err := wal.Replay(filepath.Join(dir, "wal"), func(r wal.Record) error {
		if size += len(r.Data); size > maxAhead {
			return fmt.Errorf("it has more than %d bytes, which no gateway writes", maxAhead)
		}
		all[r.Name] = append(all[r.Name], Piece{Offset: r.Offset, Data: bytes.Clone(r.Data)})
		return nil
	})
	return all, found.Damages, err
}

// Piece is a part of a recording that a gateway had written ahead when it died, and its next start will bring to the file.
type Piece struct {
	Offset int64
	Data   []byte
}

// withAhead reads a file as it will be once these pieces, in order, are in it, and says how long it is then. One that was packed
// has everything.
func withAhead(file *os.File, size int64, pieces []Piece) (io.ReaderAt, int64) {
	if len(pieces) == 0 {
		return file, size
	}
	if info, err := format.Look(file, size); err == nil && info.Packed {
		return file, size
	}
	o := overlay{file: file, pieces: pieces, size: size}
	for _, p := range pieces {
		o.size = max(o.size, p.Offset+int64(len(p.Data)))
	}
	return &o, o.size
}

type overlay struct {
	file   *os.File
	pieces []Piece
	size   int64
}

// ReadAt implements io.ReaderAt. What neither the file nor a piece has is zero.
func (o *overlay) ReadAt(b []byte, at int64) (int, error) {
	if at >= o.size {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), o.size-at)]
	n, err := o.file.ReadAt(b, at)
	if err != nil && err != io.EOF {
		return n, err
	}
	clear(b[n:])
	end := at + int64(len(b))
	for _, p := range o.pieces {
		if from, to := max(p.Offset, at), min(p.Offset+int64(len(p.Data)), end); from < to {
			copy(b[from-at:to-at], p.Data[from-p.Offset:])
		}
	}
	return len(b), nil
}
