package mask

import "bytes"

const (
	// mostHeld is how much of a stream is held back at most.
	mostHeld = 512
	// mostWord is how much of a word that may go on is.
	mostWord = 128
	// mostLine is how much of a line patterns see.
	mostLine = 4 << 10
)

// Stream masks bytes that come in pieces, such as what a terminal shows: what a piece ends with is held back as long as it may
// be the beginning of a card number, or a word that a pattern is yet to see whole, and comes with the next piece. Patterns
// see one line at a time. What of a match was given before it was one stays; what of it comes after is masked.
type Stream struct {
	masker *Masker
	line   []byte // what was given of the line under way, as it was; only patterns need it
	held   []byte
	long   bool // what was given last is a row of digits too long for a card
	masked bool // what was given last is the label of a match that may go on
}

// Stream begins one.
func (m *Masker) Stream() *Stream { return &Stream{masker: m} }

// Write appends to dst what can be given now.
func (s *Stream) Write(dst, data []byte) []byte { return s.write(dst, data, false) }

// Flush appends what was held back; the stream ends there, or may go on with something new.
func (s *Stream) Flush(dst []byte) []byte { return s.write(dst, nil, true) }

func (s *Stream) write(dst, data []byte, last bool) []byte {
	m := s.masker
	if s.long && len(m.patterns) == 0 { // the rest of what is no card's number; patterns see it in the line
		n := 0
		for n < len(data) && digit(data[n]) {
			n++
		}
		dst, data = append(dst, data[:n]...), data[n:]
		if len(data) == 0 && !last {
			return dst
		}
	}
	s.long = false
	given := len(s.line)
	all := make([]byte, 0, given+len(s.held)+len(data))
	all = append(append(append(all, s.line...), s.held...), data...)
	v := look(all)
	spans := m.find(v)
	cut := len(all)
	if !last {
		cut = s.hold(v, spans, all, given)
	}
	masked := false
	for i := range spans {
		spans[i].told = s.masked && spans[i].from < given && spans[i].to >= given
		masked = masked || spans[i].from < cut && spans[i].to >= cut && spans[i].to > given
	}
	dst = apply(dst, all, spans, given, cut)
	if cut > given {
		s.masked = masked && !last
	}
	s.held = append(s.held[:0], all[cut:]...)
	s.line = s.line[:0]
	if len(m.patterns) > 0 && !last {
		line := all[:cut]
		if i := bytes.LastIndexByte(line, '\n'); i >= 0 {
			line = line[i+1:]
		}
		s.line = append(s.line, line[max(0, len(line)-mostLine):]...)
	}
	return dst
}

// hold is from where on something is held back.
func (s *Stream) hold(v view, spans []span, all []byte, given int) int {
	cut := max(given, unfinished(all))
	seen := len(v.text)
	for seen > 0 && v.at(seen-1) >= cut {
		seen--
	}
	if s.masker.cards {
		cut = min(cut, s.holdDigits(v, seen, given))
	}
	if len(s.masker.patterns) > 0 {
		word := seen
		for word > 0 && wordly(v.text[word-1]) && seen-word < mostWord {
			word--
		}
		if word < seen && seen-word < mostWord {
			cut = min(cut, max(given, v.at(word)))
		}
	}
	for i := len(spans) - 1; i >= 0 && spans[i].to > given; i-- {
		span := spans[i]
		open := span.label != "" && span.to >= cut // it may match more yet
		if (span.from < cut && span.to > cut || open) && span.from >= given {
			cut = min(cut, span.from)
		}
	}
	if len(all)-cut > max(mostHeld, mostLine) {
		return len(all)
	}
	return cut
}

// holdDigits is where the digits begin at the end of what is seen that may be a part of a card number.
func (s *Stream) holdDigits(v view, seen, given int) int {
	text := v.text[:seen]
	first := seen
	for first > 0 && len(text)-first < mostHeld && (digit(text[first-1]) || text[first-1] == ' ' || text[first-1] == '-' || text[first-1] == '\r') {
		first--
	}
	for at := first; at < seen; {
		if !digit(text[at]) {
			at++
			continue
		}
		r := runAt(text, at)
		if r.end < seen {
			at = r.end
			continue
		}
		return s.undecided(v, r, given)
	}
	return v.size
}

// undecided is from where on a run at the end may have parts of a card number that is not whole yet.
func (s *Stream) undecided(v view, r run, given int) int {
	digits := 0
	for i := len(r.groups) - 1; i >= 0; i-- {
		g := r.groups[i]
		n := g[1] - g[0]
		if n > mostDigits { // what is behind it counts
			if i == len(r.groups)-1 {
				s.long = v.after(g[1]-1) == v.size || s.long
				return v.size
			}
			return max(given, v.at(r.groups[i+1][0]))
		}
		if digits += n; digits > 2*mostDigits {
			return max(given, v.at(g[0]))
		}
	}
	return max(given, v.at(r.groups[0][0]))
}

// wordly reports whether a word may go on with that byte.
func wordly(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= 0x80 || bytes.IndexByte([]byte("_-+/.=@"), c) >= 0
}
