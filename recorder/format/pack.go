package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
)

// ErrNotWhole is wrapped by Pack's error for a recording that was not ended, or is damaged: it stays as it is.
var ErrNotWhole = errors.New("only a whole recording can be packed")

// Keyer makes keys: it follows a recording's events, and knows what one must know to understand what comes next.
type Keyer interface {
	// Event is given every event in order; its Data may be kept.
	Event(Event)
	// Key returns what there is to know at this place, at most maxBody bytes; false where that cannot be said just now. It
	// is asked about once a packSize.
	Key() ([]byte, bool)
}

// Pack writes the recording that src has once more in less room, with keys and an index; see this package's comment. It
// returns where the recording ends, to which number, sequence and chain a Reader of dst must come as well. It holds a few MiB at a time.
func Pack(src io.Reader, dst io.Writer, keyer Keyer) (State, error) {
	r, err := NewReader(src)
	if err != nil {
		return State{}, err
	}
	p := packing{reader: r, dst: dst, keyer: keyer}
	if p.zstd, err = newPacker(); err != nil {
		return State{}, err
	}
	defer p.zstd.Close()
	if err := p.run(); err != nil {
		return State{}, fmt.Errorf("pack a recording: %w", err)
	}
	return r.State(), nil
}

type packing struct {
	reader *Reader
	dst    io.Writer
	keyer  Keyer
	zstd   *zstd.Encoder

	offset  int64 // of what was written
	before  State // of the recording, where the current pack begins
	blocks  uint32
	content int // bytes that these take
	body    []byte
	packed  []byte
	out     []byte
	index   []byte
	key     struct{ offset, at uint64 } // of the last one
}

func (p *packing) run() error {
	r := p.reader
	if err := p.write(r.stored); err != nil {
		return err
	}
	p.before = r.State()
	for {
		before := r.State()
		b, err := r.wholeBlock()
		switch _, damaged := errors.AsType[*Damage](err); {
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%w: it has no ending", ErrNotWhole)
		case damaged:
			return fmt.Errorf("%w: %w", ErrNotWhole, err)
		case err != nil:
			return err
		}
		if r.packed != nil {
			return errors.New("it is packed already")
		}
		if b.flags&flagSealed != 0 {
			return p.finish(before, &b)
		}
		for {
			e, ok := r.eventHere()
			if !ok {
				break
			}
			p.keyer.Event(e)
		}
		p.body = appendBrief(p.body, &b)
		p.content += blockSize + len(b.payload)
		p.blocks++
		if p.content < packSize {
			continue
		}
		key, ok := p.keyer.Key()
		ok = ok && r.open == nil
		if !ok && p.content < packMost {
			continue
		}
		if err := p.closePack(); err != nil {
			return err
		}
		if ok {
			if err := p.addKey(key); err != nil {
				return err
			}
		}
	}
}

// closePack writes the current pack, if there is something in it.
func (p *packing) closePack() error {
	if p.blocks == 0 {
		return nil
	}
	s := section{kind: kindPack, blocks: p.blocks, content: uint64(p.content)}
	err := p.section(s, p.before, p.body)
	p.before, p.body, p.blocks, p.content = p.reader.State(), p.body[:0], 0, 0
	return err
}

func (p *packing) addKey(key []byte) error {
	if len(key) > maxBody {
		return nil
	}
	offset, at := uint64(p.offset), uint64(p.reader.latest/time.Microsecond)
	p.index = binary.AppendUvarint(p.index, offset-p.key.offset)
	p.index = binary.AppendUvarint(p.index, at-p.key.at)
	p.key.offset, p.key.at = offset, at
	return p.section(section{kind: kindKey}, p.reader.State(), key)
}

// finish writes the last pack, the index and the block with the ending, before which the recording stands at before.
func (p *packing) finish(before State, ending *block) error {
	end := p.reader.State()
	p.reader.state = before
	err := p.closePack()
	p.reader.state = end
	if err != nil {
		return err
	}
	if len(p.index) > maxBody {
		p.index = nil
	}
	if err := p.section(section{kind: kindIndex, content: uint64(end.Offset)}, before, p.index); err != nil {
		return err
	}
	if _, err := p.reader.wholeBlock(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows the ending", ErrNotWhole)
	}
	ending.chain = end.Chain
	return p.write(ending.append(nil, end.seed))
}

// section writes a section that stands where the recording is at s.
func (p *packing) section(head section, s State, body []byte) error {
	head.number, head.first, head.chain = s.Number+1, s.Sequence+1, s.Chain
	p.packed = p.zstd.EncodeAll(body, p.packed[:0])
	p.out = head.append(p.out[:0], p.packed, s.seed)
	return p.write(p.out)
}

func (p *packing) write(b []byte) error {
	n, err := p.dst.Write(b)
	p.offset += int64(n)
	return err
}

// wholeBlock makes the next block the current one and returns it.
func (r *Reader) wholeBlock() (block, error) {
	if err := r.nextBlock(); err != nil {
		return block{}, err
	}
	return r.current, nil
}

// append appends the block as it is stored.
func (b *block) append(to []byte, seed uint32) []byte {
	start := len(to)
	to = append(to, make([]byte, blockSize)...)
	b.putSummed(to[start:])
	copy(to[start+summedSize:], b.chain[:])
	binary.BigEndian.PutUint32(to[start+blockSize-4:], crc32.Update(seed, castagnoli, to[start:start+blockSize-4]))
	return append(to, b.payload...)
}

// Info is what can be told of a file without reading it.
type Info struct {
	Header Header
	// Sealed says that the file ends with an ending. Only a Reader tells whether all of it is whole.
	Sealed bool
	// Packed says that it was packed after that.
	Packed bool
	// Content is how long the file was before it was packed.
	Content int64

	reader *Reader
	keys   []byte // the index's body, unpacked
}

// Look reads the beginning and the end of a file of that size. The error wraps ErrNotRecording if it has no header.
func Look(file io.ReaderAt, size int64) (Info, error) {
	r, err := NewReader(io.NewSectionReader(file, 0, size))
	if err != nil {
		return Info{}, err
	}
	info := Info{Header: r.header, Content: size, reader: r}
	ending, err := info.lookForEnding(file, size)
	if err != nil || !info.Sealed {
		return info, err
	}
	info.lookForIndex(file, ending)
	return info, nil
}

// lookForEnding sets Sealed and returns where the ending's block begins.
func (i *Info) lookForEnding(file io.ReaderAt, size int64) (int64, error) {
	const most = blockSize + maxFrameTop + 2*6*maxEnding + 1024 // JSON may need six bytes for one
	tail := make([]byte, max(0, min(most, size-i.reader.state.Offset)))
	start := size - int64(len(tail))
	if _, err := file.ReadAt(tail, start); err != nil && err != io.EOF {
		return 0, err
	}
	for from := 0; ; from++ {
		at := bytes.Index(tail[from:], []byte(blockMark))
		if at < 0 {
			return 0, nil
		}
		from += at
		b, ok := parseBlock(tail[from:], i.reader.state.seed)
		if ok && b.flags&flagSealed != 0 && from+blockSize+int(b.length) == len(tail) {
			i.Sealed = true
			return start + int64(from), nil
		}
	}
}

// lookForIndex reads the index that ends where the ending begins. What cannot be read is as if it were not there.
func (i *Info) lookForIndex(file io.ReaderAt, ending int64) {
	var end [sectionSizeEnd]byte
	first := i.reader.state.Offset
	if ending-first < sectionTop+sectionSizeEnd {
		return
	}
	if _, err := file.ReadAt(end[:], ending-sectionSizeEnd); err != nil {
		return
	}
	start := ending - int64(binary.BigEndian.Uint32(end[:]))
	if start < first || start > ending-sectionTop-sectionSizeEnd {
		return
	}
	s, body, ok := readSection(file, start, i.reader.state.seed)
	if !ok || s.kind != kindIndex || start+s.size() != ending || s.content > 1<<62 {
		return
	}
	i.Packed, i.Content, i.keys = true, int64(s.content), body
}

// readSection reads the section at a place of a file and unpacks its body.
func readSection(file io.ReaderAt, at int64, seed uint32) (s section, body []byte, ok bool) {
	head := make([]byte, sectionTop)
	if _, err := file.ReadAt(head, at); err != nil {
		return s, nil, false
	}
	if s, ok = parseSection(head, seed); !ok {
		return s, nil, false
	}
	all := make([]byte, s.size())
	if n, _ := file.ReadAt(all, at); n < len(all) {
		return s, nil, false
	}
	if body, ok = s.bodyOf(all); !ok {
		return s, nil, false
	}
	body, err := unpack().DecodeAll(body, nil)
	return s, body, err == nil
}

// Resume returns a Reader of a file of that size that begins at its last key which is not after at, and the key; or one that
// begins at the beginning, with no key. So all of the file's events from at on come, and no more than a few MiB before.
func Resume(file io.ReaderAt, size int64, at time.Duration) (*Reader, []byte, error) {
	info, err := Look(file, size)
	if err != nil {
		return nil, nil, err
	}
	r := info.reader
	if offset, ok := info.keyBefore(at); ok {
		if s, key, ok := readSection(file, offset, r.state.seed); ok && s.kind == kindKey {
			from := offset + s.size()
			r.src, r.buf, r.eof = io.NewSectionReader(file, from, size-from), nil, false
			r.state.Offset, r.state.Number, r.state.Sequence, r.state.Chain = from, s.number-1, s.first-1, s.chain
			return r, key, nil
		}
	}
	r, err = NewReader(io.NewSectionReader(file, 0, size))
	return r, nil, err
}

// keyBefore returns where the last key stands before which all frames are earlier than at.
func (i *Info) keyBefore(at time.Duration) (offset int64, found bool) {
	limit := uint64(max(at, 0) / time.Microsecond)
	var place, when uint64
	for rest := i.keys; len(rest) > 0; {
		further, n := binary.Uvarint(rest)
		if n <= 0 {
			break
		}
		later, m := binary.Uvarint(rest[n:])
		if m <= 0 {
			break
		}
		rest, place, when = rest[n+m:], place+further, when+later
		if when >= limit || place > 1<<62 {
			break
		}
		offset, found = int64(place), true
	}
	return offset, found
}

// Keys are the times, rising, of the keys in a packed file: how long after the beginning the latest frame before each is. From
// just behind such a time Resume needs to read nothing twice.
func (i *Info) Keys() []time.Duration {
	var all []time.Duration
	var when uint64
	for rest := i.keys; len(rest) > 0; {
		_, n := binary.Uvarint(rest)
		if n <= 0 {
			break
		}
		later, m := binary.Uvarint(rest[n:])
		if m <= 0 || later > 1<<62-when {
			break
		}
		rest, when = rest[n+m:], when+later
		if at := time.Duration(when) * time.Microsecond; at > 0 && (len(all) == 0 || at > all[len(all)-1]) {
			all = append(all, at)
		}
	}
	return all
}
