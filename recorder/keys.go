package recorder

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
	"sallyport/recorder/terminal"
)

// Resumable is an Interpreter that can go on in the middle of a recording.
type Resumable interface {
	Interpreter
	// State is what the interpreter must know to understand what comes next; false where that cannot be said just now,
	// because something is half done.
	State() ([]byte, bool)
	// Resume makes a new interpreter know it. The state may be anything: it comes from a file.
	Resume(state []byte) error
}

// Bounds on a key.
const (
	maxState     = 1 << 20 // bytes of an interpreter's state
	maxTerminals = 8       // in one session; with more there are no keys
)

// key is what is known in the middle of a recording, in its packed form. It is derived from what stands before it.
type key struct {
	Items    int           `json:"items"` // so many come before
	At       time.Duration `json:"at_ns"` // of the last event before
	State    []byte        `json:"state,omitempty"`
	Pictures []picture     `json:"pictures,omitempty"`
}

// picture is what one of the session's terminals shows.
type picture struct {
	Channel uint32 `json:"channel"`
	Columns int    `json:"columns,omitempty"`
	Lines   int    `json:"lines,omitempty"`
	Paint   []byte `json:"paint"`
}

// keyer makes the keys of one recording while it is packed.
type keyer struct {
	teller    teller
	terminals map[uint32]*terminal.Picture
	many      bool // terminals
}

func (r *Recorder) newKeyer(header format.Header) *keyer {
	k := &keyer{terminals: map[uint32]*terminal.Picture{}}
	k.teller = r.newTeller(header, k.item)
	k.teller.start()
	return k
}

// item shows what is output on its terminal.
func (k *keyer) item(it Item, _ error) bool {
	shown := k.terminals[it.Channel]
	switch {
	case it.Kind == ItemCommand && it.Columns > 0:
		if shown == nil && len(k.terminals) >= maxTerminals {
			k.many = true
			break
		}
		k.terminals[it.Channel] = terminal.NewPicture(it.Columns, it.Lines)
	case shown == nil:
	case it.Kind == ItemOutput:
		shown.Write(it.Data)
	case it.Kind == ItemResize:
		shown.Resize(it.Columns, it.Lines)
	case it.Kind == ItemExit:
		delete(k.terminals, it.Channel)
	}
	return true
}

// Event implements format.Keyer.
func (k *keyer) Event(e Event) { k.teller.event(e) }

// Key implements format.Keyer.
func (k *keyer) Key() ([]byte, bool) {
	interpreter, ok := k.teller.interpreter.(Resumable)
	if !ok || k.many {
		return nil, false
	}
	now := key{Items: k.teller.number, At: k.teller.at}
	if now.State, ok = interpreter.State(); !ok || len(now.State) > maxState {
		return nil, false
	}
	for channel, t := range k.terminals {
		if !t.Whole() {
			return nil, false
		}
		columns, lines := t.Size()
		now.Pictures = append(now.Pictures, picture{channel, columns, lines, t.Paint()})
	}
	b, err := json.Marshal(now)
	return b, err == nil
}

// ItemsFrom is Items without most of what happened before a time since the session began, if that can be left out: of a
// finished recording that is large enough to have keys, no more than a few MiB are read to come to any place. After the start
// comes, for each terminal, what it showed (an output with Via item.Picture, which is not in the recording), and then
// everything, beginning somewhat before that time.
func (r *Recorder) ItemsFrom(ctx context.Context, session string, from time.Duration) (iter.Seq2[Item, error], error) {
	return r.itemsFrom(ctx, session, from, (*Recorder).newMaskedTeller)
}

func (r *Recorder) itemsFrom(ctx context.Context, session string, from time.Duration, make tellers) (iter.Seq2[Item, error], error) {
	all, err := r.items(ctx, session, make)
	if err != nil || from <= 0 {
		return all, err
	}
	return func(yield func(Item, error) bool) {
		done, err := r.resume(ctx, session, from, make, yield)
		switch {
		case err != nil:
			yield(Item{}, fmt.Errorf("read the recording of session %s: %w", session, err))
		case !done:
			all(yield)
		}
	}, nil
}

// resume gives the items from the last key on that is before a time; false where there is none.
func (r *Recorder) resume(ctx context.Context, session string, from time.Duration, make tellers, yield func(Item, error) bool) (bool, error) {
	file, live, _, err := r.open(session)
	if err != nil {
		return false, err
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if live != nil || err != nil {
		return false, err
	}
	reader, content, err := format.Resume(file, size, from)
	if err != nil || content == nil {
		return false, err
	}
	var k key
	t := make(r, reader.Header(), yield)
	interpreter, ok := t.interpreter.(Resumable)
	if !ok || json.Unmarshal(content, &k) != nil || interpreter.Resume(k.State) != nil { // of another version, or changed
		return false, nil
	}
	t.start()
	t.at = k.At
	for _, p := range k.Pictures {
		t.emit(Item{Kind: ItemOutput, Via: item.Picture, Channel: p.Channel, Columns: p.Columns, Lines: p.Lines, Stream: "stdout", Data: p.Paint, Bytes: int64(len(p.Paint))})
	}
	t.number = k.Items
	t.tell(eventsOf(ctx, reader))
	return true, nil
}

// Keys are the places of a recording, as times since the session began, from just behind which ItemsFrom reads nothing twice;
// none of one that has not ended, or is small.
func (r *Recorder) Keys(session string) ([]time.Duration, error) {
	file, live, _, err := r.open(session)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if live != nil || err != nil {
		return nil, err
	}
	info, err := format.Look(file, size)
	if err != nil {
		return nil, fmt.Errorf("look at the recording of session %s: %w", session, err)
	}
	return info.Keys(), nil
}
