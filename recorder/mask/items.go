package mask

import (
	"encoding/binary"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"sallyport/recorder/item"
)

// Items masks the items of one recording, in order, on their way to Yield. What a terminal's output ends with may come with
// the next output, or by itself before the command's exit, as a further item of the same number.
type Items struct {
	Masker *Masker
	// Lines says that what terminals show is wanted in lines (see Masker.Rows), and not as pictures.
	Lines bool
	// Yield is given each item, and returns whether to go on.
	Yield func(item.Item, error) bool

	streams map[source]*open
	order   []source
	sizes   map[uint32][2]int // of channels with a terminal: columns and rows
	screens int               // that paint
}

// mostScreens is how many terminals of a session paint at a time, and are worked out: more are not shown.
const mostScreens = 8

// source is one row of bytes.
type source struct {
	channel uint32
	kind    item.Kind
	stream  string
}

// open is one that has not ended.
type open struct {
	data   row
	screen *Screen // that is data, of a terminal
	paints bool
	last   item.Item
}

// row is a Stream or a Screen.
type row interface {
	Write(dst, data []byte) []byte
	Flush(dst []byte) []byte
}

// Item takes the next item, or what went wrong, and returns whether to go on.
func (s *Items) Item(it item.Item, err error) bool {
	if err != nil {
		return s.Yield(it, err)
	}
	switch it.Kind {
	case item.Output, item.Input:
		it = s.bytes(it)
	case item.Command, item.Resize:
		s.size(it)
	case item.Exit:
		if !s.finish(it.Channel, false) {
			return false
		}
	case item.End:
		if !s.finish(0, true) {
			return false
		}
	}
	return s.Yield(s.Masker.Item(it), nil)
}

// bytes masks a piece of a stream.
func (s *Items) bytes(it item.Item) item.Item {
	data, text := it.Data, it.Text != ""
	if len(data) == 0 {
		data = []byte(it.Text)
	}
	switch picture := it.Via == item.Picture; {
	case picture && s.Lines: // is whole
		it.Data = s.Masker.Bytes(data)
	case picture:
		s.sized(it.Channel, it.Columns, it.Lines)
		o := s.open(it)
		it.Data = o.screen.Picture(nil, data)
		o.keep(it)
	default:
		o := s.open(it)
		it.Data = o.data.Write(nil, data)
		o.keep(it)
	}
	if text {
		it.Text = strings.ToValidUTF8(string(it.Data), "\uFFFD")
	}
	return it
}

func (o *open) keep(it item.Item) {
	o.last = it
	o.last.Via, o.last.Data, o.last.Text, o.last.Bytes, o.last.SHA256 = "", nil, "", 0, ""
}

// open is the stream that an item is a piece of. What is output on a terminal is one, whatever it is called.
func (s *Items) open(it item.Item) *open {
	from := source{it.Channel, it.Kind, it.Stream}
	size, terminal := s.sizes[it.Channel]
	terminal = terminal && it.Kind == item.Output
	if terminal {
		from.stream = ""
	}
	if o := s.streams[from]; o != nil {
		return o
	}
	if s.streams == nil {
		s.streams = map[source]*open{}
	}
	o := &open{}
	if terminal {
		if s.Lines {
			o.screen = s.Masker.Rows(size[0], size[1])
		} else {
			o.screen = s.Masker.Screen(size[0], size[1])
		}
		o.screen.MayPaint = func() bool {
			if s.screens >= mostScreens {
				return false
			}
			s.screens++
			o.paints = true
			return true
		}
		o.data = o.screen
	} else {
		o.data = s.Masker.Stream()
	}
	s.streams[from], s.order = o, append(s.order, from)
	return o
}

// size notes how large a channel's terminal is.
func (s *Items) size(it item.Item) {
	if it.Columns <= 0 || it.Lines <= 0 {
		return
	}
	if _, known := s.sizes[it.Channel]; !known && it.Kind == item.Resize {
		return
	}
	s.sized(it.Channel, it.Columns, it.Lines)
	if o := s.streams[source{it.Channel, item.Output, ""}]; o != nil && o.screen != nil {
		o.screen.Resize(it.Columns, it.Lines)
	}
}

func (s *Items) sized(channel uint32, columns, rows int) {
	if s.sizes == nil {
		s.sizes = map[uint32][2]int{}
	}
	s.sizes[channel] = [2]int{columns, rows}
}

// finish gives what was held back of a channel's streams, or of all.
func (s *Items) finish(channel uint32, all bool) bool {
	kept := s.order[:0]
	for _, from := range s.order {
		if !all && from.channel != channel {
			kept = append(kept, from)
			continue
		}
		o := s.streams[from]
		delete(s.streams, from)
		delete(s.sizes, from.channel)
		if o.paints {
			s.screens--
		}
		if o.last.Data = o.data.Flush(nil); len(o.last.Data) > 0 && !s.Yield(o.last, nil) {
			return false
		}
	}
	s.order = kept
	return true
}

// Item masks what an item says in words. What a terminal showed is Items's.
func (m *Masker) Item(it item.Item) item.Item {
	if m == nil || it.Kind == item.Start {
		return it
	}
	for _, text := range []*string{&it.SQL, &it.Tag, &it.Error, &it.Command, &it.Path, &it.Reason, &it.Signal, &it.Terminal} {
		*text = m.Text(*text)
	}
	if it.Kind != item.Output && it.Kind != item.Input {
		it.Text, it.Data = m.Text(it.Text), m.Bytes(it.Data)
	}
	if len(it.Params) > 0 {
		params := make([]item.Param, len(it.Params))
		for i, p := range it.Params {
			params[i] = m.param(p)
		}
		it.Params = params
	}
	if len(it.Fields) > 0 && !(it.Kind == item.Note && it.Command == "connected") { // which has a certificate's number
		fields := maps.Clone(it.Fields)
		for name, value := range fields {
			fields[name] = m.Text(value)
		}
		it.Fields = fields
	}
	return it
}

func (m *Masker) param(p item.Param) item.Param {
	p.Text = m.Text(p.Text)
	for _, plain := range numbers(p.Binary) {
		if shown := m.Text(plain); shown != plain {
			return item.Param{Text: shown}
		}
	}
	p.Binary = m.Bytes(p.Binary)
	return p
}

// numbers are those that bytes may be of which nobody said that they are one: PostgreSQL's int8 and the whole part of its numeric, as
// numeric_send in its source writes it.
func numbers(b []byte) (all []string) {
	if len(b) == 8 {
		all = append(all, strconv.FormatUint(binary.BigEndian.Uint64(b), 10))
	}
	if len(b) < 8 || len(b)%2 != 0 || len(b) > 64 {
		return all
	}
	groups, weight := int(binary.BigEndian.Uint16(b)), int(int16(binary.BigEndian.Uint16(b[2:])))
	if len(b) != 8+2*groups || weight < 0 || weight > mostDigits/4 {
		return all
	}
	var text strings.Builder
	for i := range weight + 1 {
		group := uint16(0)
		if i < groups {
			group = binary.BigEndian.Uint16(b[8+2*i:])
		}
		fmt.Fprintf(&text, "%04d", group)
	}
	return append(all, strings.TrimLeft(text.String(), "0"))
}
