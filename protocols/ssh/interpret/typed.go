package interpret

import (
	"bytes"
	"strings"
	"time"

	"sallyport/recorder"
	"sallyport/recorder/terminal"
)

// What is typed at a terminal is not recorded, but shells show it. typedLines reads the lines that were entered from the
// screen: when the first key of a line comes, what stands before the cursor is the prompt; when the cursor leaves the
// line, what stands behind the prompt was entered. That is a guess, and its items say so: programs show what they like, a
// password is not shown, a full-screen program has no lines.
//
// It renders the line alone, from the last newline on, and only when it is entered, so output costs next to nothing.
type typedLines struct {
	Row     []byte        `json:"row,omitempty"`     // output since the last newline
	Lost    bool          `json:"lost,omitempty"`    // there was more of it than is kept
	Other   bool          `json:"other,omitempty"`   // a full-screen program has the terminal
	Seen    int64         `json:"seen,omitempty"`    // bytes typed in all
	Typing  int64         `json:"typing,omitempty"`  // bytes typed that no line has accounted for
	Begun   bool          `json:"begun,omitempty"`   // keys have come since the last newline
	Prompt  string        `json:"prompt,omitempty"`  // what stood before the cursor then
	Right   string        `json:"right,omitempty"`   // and behind it, at the right edge
	Entered string        `json:"entered,omitempty"` // a line that may be complete
	At      time.Duration `json:"at_ns,omitempty"`   // since when
	Renders int           `json:"renders,omitempty"` // so far
}

const (
	// maxRow is how much output is kept of one line, colours and redrawing included.
	maxRow = 32 << 10
	// maxRenders is how many lines of a channel are rendered; who types so much does not do it by hand.
	maxRenders = 10000
	// doubtTime is how long a line that was left may still turn out not to have been entered: shells that list how a word could
	// go on write the list below, and the line again.
	doubtTime = 200 * time.Millisecond
)

// output takes what the terminal is shown.
func (l *typedLines) output(data []byte, at time.Duration, columns int, emit func(string)) {
	if l.Entered != "" && at-l.At >= doubtTime {
		l.decide(columns, emit)
	}
	for len(data) > 0 {
		n := bytes.IndexByte(data, '\n')
		if n < 0 {
			l.keep(data, emit)
			return
		}
		l.keep(data[:n], emit)
		data = data[n+1:]
		if l.Typing > 0 && !l.Other {
			l.left(at, columns, emit)
		}
		l.Row, l.Lost, l.Begun = l.Row[:0], false, false
	}
}

// keep adds to the line, and looks for a full-screen program that comes or goes.
func (l *typedLines) keep(data []byte, emit func(string)) {
	if len(l.Row)+len(data) > maxRow {
		l.Row, l.Lost = l.Row[:0], true
		data = data[max(0, len(data)-maxRow):]
	}
	const longest = len("\x1b[?1049h")
	from := max(0, len(l.Row)-longest)
	l.Row = append(l.Row, data...)
	if !bytes.Contains(l.Row[from:], []byte("\x1b[?")) {
		return
	}
	on, off := -1, -1
	for _, mode := range []string{"1049", "1047", "47"} {
		on = max(on, bytes.LastIndex(l.Row[from:], []byte("\x1b[?"+mode+"h")))
		off = max(off, bytes.LastIndex(l.Row[from:], []byte("\x1b[?"+mode+"l")))
	}
	switch {
	case on > off:
		if l.Entered != "" { // which started it
			emit(l.Entered)
		}
		l.Other, l.Typing, l.Entered = true, 0, ""
	case off > on:
		l.Other = false
		l.Row = append(l.Row[:0], l.Row[from+off:]...)
	}
}

// typed takes how much was typed so far.
func (l *typedLines) typed(total int64, columns int, emit func(string)) {
	n := total - l.Seen
	if l.Seen = total; n <= 0 || l.Other {
		return
	}
	again := l.decide(columns, emit)
	if !l.Begun && !again {
		before, after := l.render(columns)
		if strings.TrimSpace(before) != "" { // else the prompt is still to come, and may be the last one
			l.Prompt, l.Right = before, strings.TrimSpace(after)
			l.Typing = 0 // what came before was taken by something else
		}
	}
	l.Begun = true
	l.Typing += n
}

// left is told that the cursor leaves the line while something was typed.
func (l *typedLines) left(at time.Duration, columns int, emit func(string)) {
	line, prompted := l.line(columns)
	if line == "" {
		if prompted {
			l.Typing = 0 // nothing, or nothing that was shown
		}
		return // what was typed before the prompt came is shown once more behind it
	}
	l.decide(columns, emit)
	l.Entered, l.At = line, at
	// Where more was typed than the line has, more lines may follow at prompts of their own.
	l.Typing = max(0, l.Typing-int64(len(line))-1)
}

// line is what stands behind the prompt in the line that ends, if it begins with the prompt.
func (l *typedLines) line(columns int) (line string, prompted bool) {
	if l.Prompt == "" {
		return "", false
	}
	before, after := l.render(columns)
	rest, ok := strings.CutPrefix(before+after, l.Prompt)
	if !ok { // without the blank at its end
		if rest, ok = strings.CutPrefix(strings.TrimSpace(before+after), strings.TrimSpace(l.Prompt)); !ok {
			return "", false
		}
	}
	if l.Right != "" {
		rest = strings.TrimSuffix(strings.TrimRight(rest, " "), l.Right)
	}
	return strings.TrimSpace(rest), true
}

// render is what the line looks like. What is plain needs no terminal for it.
func (l *typedLines) render(columns int) (before, after string) {
	if l.Lost || len(l.Row) == 0 {
		return "", ""
	}
	row := bytes.TrimRight(l.Row, "\r")
	if len(row) < columns && !bytes.ContainsFunc(row, func(r rune) bool { return r < ' ' || r > '~' }) {
		return string(row), ""
	}
	if l.Renders++; l.Renders > maxRenders {
		return "", ""
	}
	picture := terminal.NewPicture(columns, 0)
	picture.Write(l.Row)
	return picture.Line()
}

// decide emits the line that was left, unless it has been written again and so is still being typed: then it reports true.
func (l *typedLines) decide(columns int, emit func(string)) (again bool) {
	if l.Entered == "" {
		return false
	}
	line := l.Entered
	l.Entered = ""
	if again, _ := l.line(columns); again != "" && strings.HasPrefix(again, line) {
		l.Begun, l.Typing = true, max(l.Typing, int64(len(line)))
		return true
	}
	emit(line)
	return false
}

// screenLines emits lines as items.
func screenLines(out func(recorder.Item)) func(string) {
	return func(line string) {
		out(recorder.Item{Kind: recorder.ItemCommand, Via: ViaScreen, Command: printable(line), Fields: map[string]string{"heuristic": "read from the screen"}})
	}
}

// ViaScreen is the Via of a command that was read from what a terminal showed: a guess, where all others are what was sent.
const ViaScreen = recorder.ViaScreen
