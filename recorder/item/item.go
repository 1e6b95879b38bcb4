// Package item is what happened in a session, in the words people use: what recordings mean, as opposed to the bytes
// they hold. It is plain data, so that the client can show recordings without a part of the gateway in it.
package item

import (
	"time"

	"sallyport/recorder/format"
)

// Kind says what an Item is; a stable word of the JSON Lines export.
type Kind string

// The kinds of item.
const (
	Start     Kind = "start"     // the session's header
	Statement Kind = "statement" // a statement was sent to run: SQL, Params
	Result    Kind = "result"    // how the statement with the same Ref ended
	Command   Kind = "command"   // an SSH exec, shell or subsystem: Command
	Output    Kind = "output"    // bytes the client was shown: Data, Stream
	Input     Kind = "input"     // bytes the client typed or sent
	Resize    Kind = "resize"
	Exit      Kind = "exit"  // an SSH command ended: ExitStatus or Signal
	File      Kind = "file"  // a file operation: Command is the operation, Path the file
	Other     Kind = "other" // anything else the client asked for: Command names it
	Note      Kind = "note"
	Bulk      Kind = "bulk"
	End       Kind = "end"
)

// Picture is the Via of an output that stands for what a terminal showed at that moment: it comes first where a recording is
// read from its middle, and is not in the recording itself.
const Picture = "picture"

// Screen is the Via of a command that was read from what a terminal showed.
const Screen = "screen"

// Guess says that a command is one that was read from what a terminal showed, where all others are what was sent.
func (it Item) Guess() bool { return it.Kind == Command && it.Via == Screen }

// Guessed follows such a command wherever people read it.
const Guessed = "(read from the screen)"

// Item is one thing that happened in a session, in the words people use. Its JSON is the JSON Lines export; the fields
// `session`, `sql` and `command` are a stable contract.
type Item struct {
	Session string        `json:"session"`
	Number  int           `json:"number"` // counts the items of a session from 1
	At      time.Duration `json:"at_ns"`  // since the session began
	Time    time.Time     `json:"time"`
	Kind    Kind          `json:"kind"`
	Channel uint32        `json:"channel,omitempty"`
	// Ref ties a result to its statement, and an exit to its command.
	Ref      int           `json:"ref,omitempty"`
	SQL      string        `json:"sql,omitempty"`
	Params   []Param       `json:"params,omitempty"`
	Via      string        `json:"via,omitempty"` // "simple", "execute", "copy", "function"; "shell", "exec", "subsystem", or "screen": a guess, read from a terminal
	Rows     *int64        `json:"rows,omitempty"`
	Tag      string        `json:"tag,omitempty"` // Postgres's command tag
	SQLState string        `json:"sqlstate,omitempty"`
	Error    string        `json:"error,omitempty"`
	Duration time.Duration `json:"duration_ns,omitempty"`
	Command  string        `json:"command,omitempty"`
	Path     string        `json:"path,omitempty"`
	Stream   string        `json:"stream,omitempty"` // "stdout", "stderr", "stdin"
	// Data are raw bytes (base64 in JSON); Text the same as text where it is some.
	Data       []byte            `json:"data,omitempty"`
	Text       string            `json:"text,omitempty"`
	Bytes      int64             `json:"bytes,omitempty"`
	SHA256     string            `json:"sha256,omitempty"`
	Columns    int               `json:"columns,omitempty"` // terminal size, of resize and of commands with a terminal
	Lines      int               `json:"lines,omitempty"`
	Terminal   string            `json:"terminal,omitempty"` // TERM, where the command has a terminal
	ExitStatus *int              `json:"exit_status,omitempty"`
	Signal     string            `json:"signal,omitempty"`
	Fields     map[string]string `json:"fields,omitempty"`
	Header     *format.Header    `json:"header,omitempty"` // of start
	Reason     string            `json:"reason,omitempty"` // of end
}

// Param is one bound parameter.
type Param struct {
	Null   bool   `json:"null,omitempty"`
	Text   string `json:"text,omitempty"`
	Binary []byte `json:"binary,omitempty"` // base64 in JSON, when the format was binary and no text is known
}
