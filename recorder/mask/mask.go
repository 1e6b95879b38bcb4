// Package mask hides card numbers, and texts that a policy names, in what is made of recordings for people to read: views,
// searches, exports. The recording itself stays as it was.
//
// A card number is 13 to 19 digits whose last is right by Luhn's formula (ISO/IEC 7812-1, annex B), with nothing, one
// space or one dash between any two, and no further digit beside it. In its place stands as much as PCI DSS 4.0, 3.4.1,
// lets everybody see of it, the last four digits: "[card •••••1111]", as wide as it was, so that what a terminal shows stays in
// its place. About one number in ten of those lengths is taken for a card's without being one.
//
// Whatever else is to be hidden is named by regular expressions (RE2, as package regexp has it): "[masked: NAME]" stands
// there.
package mask

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sallyport/recorder/format"
)

// The lengths of card numbers.
const (
	leastDigits = 13
	mostDigits  = 19
)

// Masker masks by fixed rules. A nil one masks nothing. It is safe for concurrent use.
type Masker struct {
	cards    bool
	patterns []pattern
}

type pattern struct {
	label  string
	regexp *regexp.Regexp
}

// New makes a Masker; nil where the rules mask nothing.
func New(rules *format.Mask) (*Masker, error) {
	if rules == nil || !rules.Cards && len(rules.Patterns) == 0 {
		return nil, nil
	}
	m := &Masker{cards: rules.Cards}
	for _, p := range rules.Patterns {
		compiled, err := regexp.Compile(p.Regexp)
		if err != nil {
			return nil, fmt.Errorf("what is masked as %.80q: %w", p.Name, err)
		}
		m.patterns = append(m.patterns, pattern{"[masked: " + p.Name + "]", compiled})
	}
	return m, nil
}

// Text is a text that is whole, masked.
func (m *Masker) Text(text string) string {
	if m == nil || text == "" || len(m.patterns) == 0 && !mayHaveCard(text) {
		return text
	}
	data := []byte(text)
	spans := m.find(look(data))
	if len(spans) == 0 {
		return text
	}
	return string(apply(nil, data, spans, 0, len(data)))
}

// Bytes is Text for bytes, which may have escape sequences in them that paint.
func (m *Masker) Bytes(data []byte) []byte {
	if m == nil || len(data) == 0 {
		return data
	}
	spans := m.find(look(data))
	if len(spans) == 0 {
		return data
	}
	return apply(nil, data, spans, 0, len(data))
}

// mayHaveCard is a quick look that says no to most texts.
func mayHaveCard(text string) bool {
	digits := 0
	for i := range len(text) {
		if c := text[i]; c >= '0' && c <= '9' {
			if digits++; digits >= leastDigits {
				return true
			}
		}
	}
	return false
}

// span is a part of some bytes that is masked, and what stands in its place: a label, or a card's last digits.
type span struct {
	from, to int
	label    string
	last     [4]byte
	told     bool // the label stands there already
}

// find returns what is to be masked, in order, none overlapping.
func (m *Masker) find(v view) []span {
	var all []span
	if m.cards {
		all = cards(v)
	}
	for _, p := range m.patterns {
		for _, at := range p.regexp.FindAllIndex(v.text, -1) {
			if at[1] > at[0] {
				all = append(all, span{from: v.at(at[0]), to: v.after(at[1] - 1), label: p.label})
			}
		}
	}
	return merge(all)
}

// merge puts in order, and makes one of those that overlap.
func merge(all []span) []span {
	if len(all) < 2 {
		return all
	}
	slices.SortStableFunc(all, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	merged := all[:1]
	for _, s := range all[1:] {
		last := &merged[len(merged)-1]
		if s.from >= last.to {
			merged = append(merged, s)
			continue
		}
		if last.label == "" { // a pattern says more of what is hidden
			last.label = s.label
		}
		if s.to > last.to {
			last.to, last.last = s.to, s.last
		}
	}
	return merged
}

// apply appends data[from:end] with its spans masked; of a span that reaches over either end, what is within.
func apply(to, data []byte, spans []span, from, end int) []byte {
	for _, s := range spans {
		begin, stop := max(s.from, from), min(s.to, end)
		if begin >= stop {
			continue
		}
		to = append(to, data[from:begin]...)
		hidden := look(data[begin:stop])
		if s.label == "" {
			to = append(to, "[card "...)
			to = append(to, strings.Repeat("•", max(2, len(hidden.text)-len("[card 1234]")))...)
			to = append(append(to, s.last[:]...), ']')
		} else if !s.told {
			to = append(to, s.label...)
		}
		to = hidden.appendUnseen(to, data[begin:stop]) // colours go on as they would have
		from = stop
	}
	return append(to, data[from:end]...)
}

// cards finds card numbers in what is seen.
func cards(v view) []span {
	var found []span
	for i := 0; i < len(v.text); {
		if !digit(v.text[i]) {
			i++
			continue
		}
		r := runAt(v.text, i)
		for _, c := range r.cards(v.text) {
			c.from, c.to = v.at(c.from), v.after(c.to-1)
			found = append(found, c)
		}
		i = r.end
	}
	return found
}

// run is a row of groups of digits with one separator between any two.
type run struct {
	groups [][2]int
	end    int // behind it, and behind a separator that nothing follows
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// separator is how many bytes between two groups of digits stand at a place; 0: none. " \r" is what shells write where a line that is
// typed goes on in the next row.
func separator(text []byte, at int) int {
	switch c := text[at]; {
	case c == ' ' && at+1 < len(text) && text[at+1] == '\r':
		return 2
	case c == ' ' || c == '-':
		return 1
	}
	return 0
}

func runAt(text []byte, at int) run {
	r := run{}
	for {
		from := at
		for at < len(text) && digit(text[at]) {
			at++
		}
		r.groups = append(r.groups, [2]int{from, at})
		r.end = at
		if at == len(text) {
			return r
		}
		n := separator(text, at)
		if n == 0 {
			return r
		}
		if at+n >= len(text) {
			r.end = len(text)
			return r
		}
		if !digit(text[at+n]) {
			return r
		}
		at += n
	}
}

// cards are the card numbers of a run; what overlaps is one.
func (r run) cards(text []byte) []span {
	var found []span
	for i := range r.groups {
		digits, sums := 0, [2]int{}
		for _, g := range r.groups[i:] {
			if digits += g[1] - g[0]; digits > mostDigits {
				break
			}
			// Both sums are kept: which counts is known when the length is.
			for _, c := range text[g[0]:g[1]] {
				d := int(c - '0')
				sums[0], sums[1] = sums[1]+d, sums[0]+2*d-9*(d/5)
			}
			if digits < leastDigits || sums[0]%10 != 0 {
				continue
			}
			s := span{from: r.groups[i][0], to: g[1]}
			copy(s.last[:], lastDigits(text[s.from:s.to]))
			if n := len(found); n > 0 && s.from < found[n-1].to {
				if s.to > found[n-1].to {
					found[n-1].to, found[n-1].last = s.to, s.last
				}
			} else {
				found = append(found, s)
			}
		}
	}
	return found
}

// lastDigits are the last four.
func lastDigits(text []byte) []byte {
	last := make([]byte, 0, 4)
	for i := len(text) - 1; len(last) < 4; i-- {
		if digit(text[i]) {
			last = append(last, text[i])
		}
	}
	slices.Reverse(last)
	return last
}
