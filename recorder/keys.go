package recorder

import (
	"encoding/json"
	"time"

	"sallyport/recorder/format"
)

// Resumable is an Interpreter that can go on in the middle of a recording.
type Resumable interface {
	Interpreter
	// State is what the interpreter must know to understand what comes next, at most maxState bytes; false where that
	// cannot be said just now, because something is half done.
	State() ([]byte, bool)
	// Resume makes a new interpreter know it. The state may be anything: it comes from a file.
	Resume(state []byte) error
}

// maxState is how large an interpreter's state may be in a key.
const maxState = 1 << 20

// key is what is known in the middle of a recording, in its packed form. It is derived from what stands before it.
type key struct {
	Items int           `json:"items"` // so many come before
	At    time.Duration `json:"at_ns"` // of the last event before
	State []byte        `json:"state,omitempty"`
}

// keyer makes the keys of one recording while it is packed.
type keyer struct {
	teller teller
}

func (r *Recorder) newKeyer(header format.Header) *keyer {
	k := &keyer{}
	k.teller = r.newTeller(header, func(Item, error) bool { return true })
	k.teller.start()
	return k
}

// Event implements format.Keyer.
func (k *keyer) Event(e Event) { k.teller.event(e) }

// Key implements format.Keyer.
func (k *keyer) Key() ([]byte, bool) {
	interpreter, ok := k.teller.interpreter.(Resumable)
	if !ok {
		return nil, false
	}
	state, ok := interpreter.State()
	if !ok || len(state) > maxState {
		return nil, false
	}
	b, err := json.Marshal(key{Items: k.teller.number, At: k.teller.at, State: state})
	return b, err == nil
}
