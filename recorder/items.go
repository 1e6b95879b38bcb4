package recorder

import (
	"context"
	"encoding/json"
	"iter"
	"time"
	"unicode/utf8"

	"sallyport/recorder/format"
)

// Items is Read through the protocol's Interpreter: start, what happened, end (with Reason "unfinished" where there is none
// yet), with what the configuration hides masked (see Options.Mask). Notes and the target's connection, which every protocol has, are items also where the Interpreter passes them over.
func (r *Recorder) Items(ctx context.Context, session string) (iter.Seq2[Item, error], error) {
	return r.items(ctx, session, (*Recorder).newMaskedTeller)
}

func (r *Recorder) items(ctx context.Context, session string, make tellers) (iter.Seq2[Item, error], error) {
	header, events, err := r.Read(ctx, session)
	if err != nil {
		return nil, err
	}
	if header.Lock != nil {
		return nil, RefuseLocked(session)
	}
	return r.itemsBy(make, header, events), nil
}

// tellers make tellers, masked or not.
type tellers func(*Recorder, format.Header, func(Item, error) bool) teller

func (r *Recorder) itemsBy(make tellers, header format.Header, events iter.Seq2[Event, error]) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		t := make(r, header, yield)
		t.start()
		t.tell(events)
	}
}

func (r *Recorder) newMaskedTeller(header format.Header, yield func(Item, error) bool) teller {
	return r.newTeller(header, masking(r.masker(header), false, yield))
}

// newLinesTeller is for whoever reads what terminals show in lines, and masks those once more when they are whole.
func (r *Recorder) newLinesTeller(header format.Header, yield func(Item, error) bool) teller {
	return r.newTeller(header, masking(r.masker(header), true, yield))
}

// newTeller hides nothing: whoever shows what it tells takes the masked one.
func (r *Recorder) newTeller(header format.Header, yield func(Item, error) bool) teller {
	t := teller{header: header, yield: yield, interpreter: plain{}}
	if make, ok := r.Interpreters[header.Protocol]; ok {
		t.interpreter = make(header)
	}
	return t
}

// teller turns the events of one recording into numbered items.
type teller struct {
	header      format.Header
	interpreter Interpreter
	yield       func(Item, error) bool
	number      int
	at          time.Duration // of the event in hand
	noted       bool          // the Interpreter made a note of it
	end         *format.End   // nil: it has not come yet
	stopped     bool
}

func (t *teller) start() { t.emit(Item{Kind: ItemStart, Header: &t.header}) }

// tell tells of all events, after the start.
func (t *teller) tell(events iter.Seq2[Event, error]) {
	if t.stopped {
		return
	}
	for event, err := range events {
		if err != nil {
			t.yield(Item{}, err)
			return
		}
		t.take(event)
		if t.stopped { // now: the next event of a live recording may be long in coming
			return
		}
	}
	t.finish()
}

// take tells of one event.
func (t *teller) take(event Event) {
	if event.Type != format.TypeEnd {
		t.event(event)
		return
	}
	t.at = event.At
	end, err := format.EndOf(event)
	if err != nil {
		end.Reason = "unreadable"
	}
	t.end = &end
}

// finish tells of the ending, after all events.
func (t *teller) finish() {
	end := format.End{Reason: "unfinished"}
	if t.end != nil {
		end = *t.end
	}
	if !t.stopped {
		t.interpreter.Finish(t.emit)
	}
	t.emit(Item{Kind: ItemEnd, Reason: end.Reason, Text: end.Detail})
}

// event tells of one that is not the ending.
func (t *teller) event(event Event) {
	t.at, t.noted = event.At, false
	t.interpreter.Interpret(event, t.emit)
	if !t.noted {
		t.common(event)
	}
}

func (t *teller) emit(item Item) {
	if t.stopped {
		return
	}
	t.noted = t.noted || item.Kind == ItemNote
	t.number++
	item.Session, item.Number = t.header.Session, t.number
	if item.At == 0 {
		item.At = t.at
	}
	item.Time = t.header.Started.Add(item.At)
	t.stopped = !t.yield(item, nil)
}

// common makes items of the events that every protocol has.
func (t *teller) common(event Event) {
	item := Item{Kind: ItemNote, Channel: event.Channel}
	switch event.Type {
	case format.TypeNote:
		var note format.Note
		if json.Unmarshal(event.Data, &note) != nil {
			note = format.Note{Kind: "unreadable"}
		}
		item.Command, item.Text, item.Fields = note.Kind, note.Text, note.Fields
	case format.TypeConnected:
		var fields map[string]json.RawMessage // as they stand: a certificate's serial takes all 64 bits, which a float has not
		item.Command, item.Fields = "connected", map[string]string{}
		if json.Unmarshal(event.Data, &fields) == nil {
			for name, value := range fields {
				text := string(value)
				_ = json.Unmarshal(value, &text) // else it is a number
				item.Fields[name] = text
			}
		}
	default:
		return
	}
	t.emit(item)
}

// plain is the Interpreter of a protocol that has none here: it shows the bytes.
type plain struct{}

func (plain) Interpret(event Event, emit func(Item)) {
	item := Item{Kind: ItemOutput, Channel: event.Channel, Data: event.Data, Bytes: int64(len(event.Data))}
	switch event.Type {
	case format.TypeSaid:
		item.Kind = ItemInput
	case format.TypeAnswered:
		item.Stream = "stdout"
	case format.TypeAnsweredError:
		item.Stream = "stderr"
	case format.TypeBulk:
		var bulk format.Bulk
		if json.Unmarshal(event.Data, &bulk) != nil {
			return
		}
		emit(Item{Kind: ItemBulk, Channel: event.Channel, Stream: bulk.Stream, Bytes: bulk.Bytes, SHA256: bulk.SHA256, Text: bulk.Why})
		return
	default:
		return
	}
	if utf8.Valid(event.Data) {
		item.Text = string(event.Data)
	}
	emit(item)
}

func (plain) Finish(func(Item)) {}

// State implements Resumable: it knows nothing.
func (plain) State() ([]byte, bool) { return nil, true }

// Resume implements Resumable.
func (plain) Resume([]byte) error { return nil }
