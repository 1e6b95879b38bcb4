package index

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"sallyport/recorder/item"
	"sallyport/recorder/terminal"
)

// Entry is one place of a recording that can be found: a statement, a command, an operation on a file, or a line that a
// terminal showed.
type Entry struct {
	// Item is where it is found; of a terminal's line it is the output with which the line ended. It is without what is
	// long and not searched: output's bytes, a statement's parameters.
	Item item.Item
	// Texts are what it is found by, each by itself.
	Texts []string
	// Failed: the statement ended in an error, the command with another status than 0 or by a signal, the operation on a
	// file was refused. Statements and commands are told of by Extractor.Failed, because their end comes later.
	Failed bool
}

// Match returns the first text that has the folded text in it.
func (e Entry) Match(folded string) (line string, found bool) {
	for _, text := range e.Texts {
		if strings.Contains(Fold(text), folded) {
			return text, true
		}
	}
	return "", false
}

// Extractor makes entries of the items of one recording, which it is given in order. Entries are counted from 0.
type Extractor struct {
	// Emit is given each entry when it is complete.
	Emit func(Entry)
	// Failed is told that an earlier entry, by its count, turned out to have failed. It may be nil.
	Failed func(number int64)
	// Mask hides in a line of a terminal what is to be hidden; nil: nothing is. All else is hidden in the items already, of lines what
	// stood there in pieces is not.
	Mask func(line string) string

	count   int64
	streams map[stream]*lines
	open    map[opened]int64 // statements and commands without an end, by their entries
}

// stream is one terminal's or pipe's output.
type stream struct {
	channel uint32
	name    string
}

type lines struct {
	terminal.Lines
	last item.Item
}

// opened is what a result or an exit refers to.
type opened struct {
	channel uint32
	ref     int
}

// Item takes the next item. Text that was shown on a terminal counts once its line is over, by a line break or by the
// end of the command or recording.
func (x *Extractor) Item(it item.Item) {
	switch it.Kind {
	case item.Output:
		x.output(it)
	case item.Statement, item.Command, item.File, item.Other:
		var texts []string
		for _, text := range []string{it.SQL, it.Command, it.Path} {
			if text != "" {
				texts = append(texts, text)
			}
		}
		if it.Kind == item.File && it.SHA256 != "" {
			texts = append(texts, it.SHA256) // who else moved the same file
		}
		if it.Ref != 0 && (it.Kind == item.Statement || it.Kind == item.Command) && len(texts) > 0 {
			if x.open == nil {
				x.open = map[opened]int64{}
			}
			x.open[opened{it.Channel, it.Ref}] = x.count
		}
		it.Params, it.Data = nil, nil
		x.emit(Entry{Item: it, Texts: texts, Failed: it.Error != ""})
	case item.Result:
		x.ended(it, it.Error != "" || it.SQLState != "")
	case item.Exit:
		x.finish(func(s stream) bool { return s.channel == it.Channel })
		x.ended(it, it.ExitStatus != nil && *it.ExitStatus != 0 || it.Signal != "")
	case item.End:
		x.finish(func(stream) bool { return true })
	}
}

func (x *Extractor) emit(e Entry) {
	if len(e.Texts) == 0 {
		return
	}
	x.count++
	x.Emit(e)
}

func (x *Extractor) ended(it item.Item, failed bool) {
	of := opened{it.Channel, it.Ref}
	number, known := x.open[of]
	if !known {
		return
	}
	delete(x.open, of)
	if failed && x.Failed != nil {
		x.Failed(number)
	}
}

func (x *Extractor) output(it item.Item) {
	if x.streams == nil {
		x.streams = map[stream]*lines{}
	}
	from := stream{it.Channel, it.Stream}
	l := x.streams[from]
	if l == nil {
		l = new(lines)
		x.streams[from] = l
	}
	data := it.Data
	it.Data, it.Text = nil, ""
	l.last = it
	l.Write(data, x.line(l))
}

func (x *Extractor) line(l *lines) func(string) {
	return func(text string) { x.emit(Entry{Item: l.last, Texts: []string{x.masked(text)}}) }
}

func (x *Extractor) masked(line string) string {
	if x.Mask == nil {
		return line
	}
	return x.Mask(line)
}

// Pending are the lines that are under way, as if they were over.
func (x *Extractor) Pending() []Entry {
	var all []Entry
	for _, s := range x.which(func(stream) bool { return true }) {
		l := x.streams[s].Lines.Clone()
		l.Finish(func(text string) { all = append(all, Entry{Item: x.streams[s].last, Texts: []string{x.masked(text)}}) })
	}
	return all
}

// finish ends the lines that are under way, and forgets their streams.
func (x *Extractor) finish(these func(stream) bool) {
	for _, s := range x.which(these) {
		l := x.streams[s]
		l.Finish(x.line(l))
		delete(x.streams, s)
	}
}

// which are the streams that do, in a fixed order.
func (x *Extractor) which(these func(stream) bool) []stream {
	var order []stream
	for s := range x.streams {
		if these(s) {
			order = append(order, s)
		}
	}
	slices.SortFunc(order, func(a, b stream) int {
		return cmp.Or(cmp.Compare(a.channel, b.channel), strings.Compare(a.name, b.name))
	})
	return order
}

// stored is an item in the database: without what other columns have.
type stored struct {
	item.Item
	Session *string `json:"session,omitempty"`
	Time    *string `json:"time,omitempty"`
	At      *int64  `json:"at_ns,omitempty"`
	SQL     string  `json:"sql,omitempty"`
	IsSQL   bool    `json:"is_sql,omitempty"` // SQL is the text
	Parts   []int   `json:"parts,omitempty"`  // the lengths of several texts
}

// encode is an entry as its row has it.
func (e Entry) encode() (text string, rest []byte, err error) {
	s := stored{Item: e.Item, SQL: e.Item.SQL}
	switch {
	case len(e.Texts) > 1:
		for _, t := range e.Texts {
			s.Parts = append(s.Parts, len(t))
		}
	case s.SQL == e.Texts[0]:
		s.SQL, s.IsSQL = "", true
	}
	rest, err = json.Marshal(s)
	return strings.Join(e.Texts, "\n"), rest, err
}

// decode is the reverse of encode, but for the session's name and the time.
func decode(text, rest []byte) (Entry, error) {
	var s stored
	if err := json.Unmarshal(rest, &s); err != nil {
		return Entry{}, err
	}
	e := Entry{Item: s.Item}
	e.Item.SQL = s.SQL
	if s.IsSQL {
		e.Item.SQL = string(text)
	}
	if len(s.Parts) == 0 {
		e.Texts = []string{string(text)}
		return e, nil
	}
	for i, n := range s.Parts {
		if i > 0 {
			text = text[min(1, len(text)):] // the line break between
		}
		n = max(0, min(n, len(text)))
		e.Texts, text = append(e.Texts, string(text[:n])), text[n:]
	}
	return e, nil
}
