package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/recorder/item"
	"sallyport/recorder/terminal"
)

// ErrNoTerminal is returned for a recording of which there is nothing to see on a terminal.
var ErrNoTerminal = errors.New("the recording has no terminal's output")

// Cast says how to write an asciicast.
type Cast struct {
	// Version is that of the form: 3 (default) or 2, for older players.
	Version int
	// Input adds what was typed, as far as it was recorded.
	Input bool
	// Raw keeps sequences that reach beyond the picture (see package terminal); players that draw on a real terminal
	// obey them.
	Raw bool
	// Channel is the channel to show; 0 takes the first with a terminal, or else the first with output.
	Channel uint32
}

// castHeader is the first line of either version.
type castHeader struct {
	Version int `json:"version"`
	// Version 2 has the size at the top, version 3 in Term.
	Width     int       `json:"width,omitempty"`
	Height    int       `json:"height,omitempty"`
	Term      *castTerm `json:"term,omitempty"`
	Timestamp int64     `json:"timestamp"`
	Command   string    `json:"command,omitempty"`
	Title     string    `json:"title,omitempty"`
	Env       any       `json:"env,omitempty"`
}

type castTerm struct {
	Columns int    `json:"cols"`
	Rows    int    `json:"rows"`
	Type    string `json:"type,omitempty"`
}

// Asciicast writes a recording as an asciicast (docs.asciinema.org/manual/asciicast): output and, where asked for, input,
// changes of the terminal's size, a marker for each command and the exit status. Bytes that are no UTF-8 become U+FFFD:
// the recording itself has them exactly. A session without a terminal but with statements becomes its timeline.
func Asciicast(ctx context.Context, items iter.Seq2[item.Item, error], w io.Writer, c Cast) error {
	k := caster{w: w, cast: c, channel: c.Channel, chosen: c.Channel != 0, decoders: map[string]*decoder{}}
	for it, err := range items {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = k.item(it)
		}
		if err != nil {
			return err
		}
	}
	return k.finish()
}

type caster struct {
	w        io.Writer
	cast     Cast
	start    item.Item
	command  item.Item
	channel  uint32
	chosen   bool // the channel
	timeline bool // there is no terminal; lines of the timeline are shown
	began    bool // the header is written
	last     int64
	decoders map[string]*decoder
	filter   terminal.Filter
}

func (k *caster) item(it item.Item) error {
	switch {
	case it.Kind == item.Start:
		k.start = it
		k.timeline = it.Header == nil || it.Header.Protocol != "ssh"
		if !k.timeline {
			return nil
		}
	case k.timeline:
	case it.Kind == item.Command && !k.chosen && it.Columns > 0:
		k.channel, k.chosen, k.command = it.Channel, true, it
	case it.Kind == item.Command && (!k.chosen || it.Channel == k.channel) && !k.began:
		k.command = it
	case it.Kind == item.Output && !k.chosen:
		k.channel, k.chosen = it.Channel, true
	}
	if k.timeline {
		lines := Options{}.lines(it)
		if len(lines) == 0 {
			return nil
		}
		return k.event(it.At, "o", strings.Join(lines, "\r\n")+"\r\n")
	}
	if !k.chosen || it.Channel != k.channel {
		return nil
	}
	switch it.Kind {
	case item.Command:
		what := it.Command
		if what == "" {
			what = it.Via
		}
		if it.Guess() {
			what += " " + item.Guessed
		}
		return k.event(it.At, "m", safe(what))
	case item.Output:
		data := it.Data
		if !k.cast.Raw {
			data = k.filter.Append(nil, data)
		}
		return k.text(it.At, "o", it.Stream, data)
	case item.Input:
		if k.cast.Input {
			return k.text(it.At, "i", "", it.Data)
		}
	case item.Resize:
		return k.event(it.At, "r", fmt.Sprintf("%dx%d", it.Columns, it.Lines))
	case item.Exit:
		if err := k.flush(it.At); err != nil {
			return err
		}
		if it.ExitStatus != nil && k.cast.Version != 2 {
			return k.event(it.At, "x", strconv.Itoa(*it.ExitStatus))
		}
	}
	return nil
}

// text writes bytes as text, keeping a character that is cut for the next time.
func (k *caster) text(at time.Duration, code, stream string, data []byte) error {
	name := code + stream
	if k.decoders[name] == nil {
		k.decoders[name] = &decoder{code: code}
	}
	if text := k.decoders[name].decode(data); text != "" {
		return k.event(at, code, text)
	}
	return nil
}

// flush writes what is left of characters that were never whole.
func (k *caster) flush(at time.Duration) error {
	for _, d := range k.decoders {
		if text := d.finish(); text != "" {
			if err := k.event(at, d.code, text); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *caster) finish() error {
	if err := k.flush(time.Duration(k.last) * time.Microsecond); err != nil {
		return err
	}
	if !k.began {
		return ErrNoTerminal
	}
	return nil
}

// event writes one line. Times are whole microseconds, and intervals differences of them, so that nothing adds up.
func (k *caster) event(at time.Duration, code, text string) error {
	if !k.began {
		k.began = true
		if err := k.line(k.header()); err != nil {
			return err
		}
	}
	now := max(at.Microseconds(), k.last)
	shown := now
	if k.cast.Version != 2 {
		shown = now - k.last
	}
	k.last = now
	return k.line([]any{json.Number(fmt.Sprintf("%d.%06d", shown/1e6, shown%1e6)), code, text})
}

func (k *caster) line(v any) error {
	encoder := json.NewEncoder(k.w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

func (k *caster) header() castHeader {
	h := castHeader{Version: 3, Command: safe(k.command.Command)}
	columns, lines := k.command.Columns, k.command.Lines
	if columns <= 0 || lines <= 0 {
		columns, lines = 80, 24
		if k.timeline {
			columns, lines = 120, 40
		}
	}
	if k.cast.Version == 2 {
		h.Version, h.Width, h.Height = 2, columns, lines
		if k.command.Terminal != "" {
			h.Env = map[string]string{"TERM": safe(k.command.Terminal)}
		}
	} else {
		h.Term = &castTerm{Columns: columns, Rows: lines, Type: safe(k.command.Terminal)}
	}
	if s := k.start.Header; s != nil {
		h.Timestamp = s.Started.Unix()
		h.Title = safe(fmt.Sprintf("%s@%s, %s, session %s", s.Account, s.Target, s.Identity.Name, s.Session))
	}
	return h
}

// decoder turns bytes, cut anywhere, into text.
type decoder struct {
	code string
	rest []byte
}

func (d *decoder) decode(data []byte) string {
	data = append(d.rest, data...)
	cut := len(data)
	for back := 1; back < utf8.UTFMax && back <= len(data); back++ {
		if c := data[len(data)-back]; utf8.RuneStart(c) {
			if !utf8.FullRune(data[len(data)-back:]) {
				cut -= back
			}
			break
		}
	}
	text := strings.ToValidUTF8(string(data[:cut]), "\uFFFD")
	d.rest = append(d.rest[:0:0], data[cut:]...)
	return text
}

func (d *decoder) finish() string {
	text := strings.ToValidUTF8(string(d.rest), "\uFFFD")
	d.rest = nil
	return text
}
