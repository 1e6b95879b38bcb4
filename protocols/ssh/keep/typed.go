package keep

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"sallyport/recorder/format"
)

// Typed follows what is typed on a terminal whose account has record_input, to record what the terminal showed of it and nothing
// else. Whether a program has turned the echo off is known to the target alone; so a line counts as shown when each of its
// characters came back at once and in order, and its end brought a new line. Every doubt counts as not shown, and of that the
// recording has the length alone. What a client sent is recorded before the target hears of it in any case, by its length; the
// text comes after, with the echo.
//
// Safe for use by a goroutine in each direction.
type Typed struct {
	channel uint32

	mu      sync.Mutex
	waiting []byte // typed, and not seen yet
	seen    []byte // of the line, as it was typed
	skip    int    // bytes of an escape sequence that the terminal sends for a key
	hidden  bool   // something of this line was not shown
	lost    int    // bytes of it that are not kept
}

// NewTyped is for a channel's terminal.
func NewTyped(channel uint32) *Typed { return &Typed{channel: channel} }

// maxTyped is how much of a line is followed; what is longer counts as not shown.
const maxTyped = 8 << 10

// Typed takes what the client sends.
func (e *Typed) Typed(data []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting)+len(e.seen)+len(data) > maxTyped {
		e.lost += len(e.waiting) + len(e.seen) + len(data)
		clear(e.waiting)
		clear(e.seen)
		e.waiting, e.seen, e.hidden = e.waiting[:0], e.seen[:0], true
		if data = data[max(bytes.LastIndexAny(data, "\r\n"), 0):]; data[0] != '\r' && data[0] != '\n' {
			return
		}
		data = data[:1]
	}
	e.waiting = append(e.waiting, data...)
}

// Shown takes what the terminal is shown and returns what is to be recorded of lines that are over.
func (e *Typed) Shown(data []byte) (events []format.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) == 0 && e.lost == 0 {
		return nil
	}
	text := visible(data)
	for {
		e.keys()
		if len(e.waiting) == 0 || len(text) == 0 {
			return events
		}
		head := e.waiting[0]
		ends := head == '\r' || head == '\n'
		switch {
		case ends && text[0] == '\n':
			text = text[1:]
			e.take()
			events = append(events, e.line())
			continue
		case !ends && text[0] == head:
			text = text[1:]
			e.take()
			continue
		}
		// Something else came instead.
		e.hidden = true
		n := bytes.IndexAny(e.waiting, "\r\n")
		at := bytes.IndexByte(text, '\n')
		if n < 0 || at < 0 {
			return events
		}
		for range n + 1 {
			e.take()
		}
		text = text[at+1:]
		events = append(events, e.line())
	}
}

// keys passes over what is typed and never shown as it is: control characters, and what a terminal sends for arrows and the like.
func (e *Typed) keys() {
	for len(e.waiting) > 0 {
		c := e.waiting[0]
		if c == '\r' || c == '\n' {
			e.skip = 0
			return
		}
		switch {
		case e.skip > 0 && (c == '[' || c == 'O') && e.skip == 2:
			e.skip = 1
		case e.skip > 0:
			if e.skip == 2 || c >= 0x40 && c <= 0x7e {
				e.skip = 0
			}
		case c == 0x1b:
			e.skip = 2
		case c >= 0x20 && c != 0x7f:
			return
		}
		e.take()
	}
}

func (e *Typed) take() {
	e.seen = append(e.seen, e.waiting[0])
	e.waiting = append(e.waiting[:0], e.waiting[1:]...)
}

// line is what is recorded of the line that is over.
func (e *Typed) line() format.Event {
	var event format.Event
	if e.hidden {
		event = e.unseen()
	} else {
		event = format.Event{Type: format.TypeSaid, Channel: e.channel, Data: bytes.Clone(e.seen)}
	}
	clear(e.seen)
	e.seen, e.hidden, e.lost = e.seen[:0], false, 0
	return event
}

func (e *Typed) unseen() format.Event {
	return format.JSON(format.TypeNote, e.channel, format.Note{
		Kind: "not_shown", Text: fmt.Sprintf("%d bytes were typed that the terminal did not show; they are not recorded", len(e.seen)+e.lost),
	})
}

// Last is what is recorded at the channel's end.
func (e *Typed) Last() []format.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost += len(e.waiting)
	clear(e.waiting)
	e.waiting = e.waiting[:0]
	if e.lost+len(e.seen) == 0 {
		return nil
	}
	e.hidden = e.hidden || e.lost > 0
	return []format.Event{e.line()}
}

// visible is output without its escape sequences and without carriage returns, as far as one piece of it tells.
func visible(data []byte) []byte {
	if !bytes.ContainsAny(data, "\x1b\r\a") {
		return data
	}
	var text []byte
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '\r' || c == '\a':
		case c != 0x1b:
			text = append(text, c)
		case i+1 < len(data) && data[i+1] == '[':
			for i += 2; i < len(data) && (data[i] < 0x40 || data[i] > 0x7e); i++ {
			}
		case i+1 < len(data) && strings.IndexByte("]P_^X", data[i+1]) >= 0:
			for i += 2; i < len(data) && data[i] != '\a' && data[i] != 0x1b; i++ {
			}
			if i+1 < len(data) && data[i] == 0x1b && data[i+1] == '\\' {
				i++
			}
		default:
			i++
		}
	}
	return text
}
