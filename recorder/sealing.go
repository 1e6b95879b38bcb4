package recorder

import (
	"strings"

	"sallyport/recorder/format"
)

// Sealer tells apart, in what is recorded of one session, what is for stricter recipients: what was typed, and parameters of
// statements. It is used by one goroutine at a time.
type Sealer interface {
	// Seal emits an event in pieces that are the same bytes in the same order, those for stricter recipients Strict, and behind these
	// a format.StandIn for those who can't open them, so that an Interpreter understands the rest. What it emits is
	// used at once.
	Seal(e Event, emit func(Event))
}

// sealerFor is the one of a recording; nil where it has no stricter recipients.
func (r *Recorder) sealerFor(header format.Header, keys keyPair) Sealer {
	if keys.strict == nil {
		return nil
	}
	text := placeholder(header.Lock.Input.Recipients)
	if make, ok := r.Sealers[header.Protocol]; ok {
		return make(text)
	}
	return saidSealer(text)
}

// placeholder is what those see who can't open what is for others.
func placeholder(recipients []string) string {
	const most = 3
	var short []string
	for i, name := range recipients {
		if i == most {
			short = append(short, "…")
			break
		}
		if len(name) > 16 {
			name = name[:12] + "…" + name[len(name)-4:]
		}
		short = append(short, name)
	}
	return "[sealed for: " + strings.Join(short, ", ") + "]"
}

// saidSealer has what was plainly said for stricter recipients, whole.
type saidSealer string

func (s saidSealer) Seal(e Event, emit func(Event)) {
	if e.Type != format.TypeSaid {
		emit(e)
		return
	}
	e.Strict = true
	emit(e)
	e.Data = []byte(s)
	emit(format.StandIn(e))
}
