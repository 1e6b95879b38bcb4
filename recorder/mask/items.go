package mask

import (
	"encoding/binary"
	"maps"
	"strconv"
	"strings"

	"sallyport/recorder/item"
)

// Items masks the items of one recording, in order, on their way to Yield. What a terminal's output ends with may come with
// the next output, or by itself before the command's exit, as a further item of the same number.
type Items struct {
	Masker *Masker
	// Yield is given each item, and returns whether to go on.
	Yield func(item.Item, error) bool

	streams map[source]*open
	order   []source
}

// source is one row of bytes.
type source struct {
	channel uint32
	kind    item.Kind
	stream  string
}

// open is one that has not ended.
type open struct {
	data *Stream
	last item.Item
}

// Item takes the next item, or what went wrong, and returns whether to go on.
func (s *Items) Item(it item.Item, err error) bool {
	if err != nil {
		return s.Yield(it, err)
	}
	switch it.Kind {
	case item.Output, item.Input:
		it = s.bytes(it)
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
	if it.Via == item.Picture { // is whole
		it.Data = s.Masker.Bytes(data)
	} else {
		from := source{it.Channel, it.Kind, it.Stream}
		o := s.streams[from]
		if o == nil {
			if s.streams == nil {
				s.streams = map[source]*open{}
			}
			o = &open{data: s.Masker.Stream()}
			s.streams[from], s.order = o, append(s.order, from)
		}
		it.Data = o.data.Write(nil, data)
		o.last = it
		o.last.Data, o.last.Text, o.last.Bytes, o.last.SHA256 = nil, "", 0, ""
	}
	if text {
		it.Text = strings.ToValidUTF8(string(it.Data), "\uFFFD")
	}
	return it
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
	if len(p.Binary) == 8 { // a number of which nobody said that it is one
		plain := strconv.FormatUint(binary.BigEndian.Uint64(p.Binary), 10)
		if shown := m.Text(plain); shown != plain {
			return item.Param{Text: shown}
		}
	}
	p.Binary = m.Bytes(p.Binary)
	return p
}
