package recorder

import (
	"time"

	"sallyport/recorder/format"
)

// Event is one entry of a recording.
type Event = format.Event

// Interpreter turns the raw events of one recording into what they meant. Each protocol has one; it is pure, so that
// meaning can be worked out again from the recording at any time, by a newer interpreter too. It must stand any
// bytes: a recording holds what a hostile peer sent. It is used by one goroutine at a time.
type Interpreter interface {
	// Interpret is given each event of a recording in order and emits the items that are complete with it.
	Interpret(event Event, emit func(Item))
	// Finish emits what was still open when the recording ended.
	Finish(emit func(Item))
}

// ItemKind says what an Item is; a stable word of the JSON Lines export.
type ItemKind string

// The kinds of item.
const (
	ItemStart     ItemKind = "start"     // the session's header
	ItemStatement ItemKind = "statement" // a statement was sent to run: SQL, Params
	ItemResult    ItemKind = "result"    // how the statement with the same Ref ended
	ItemCommand   ItemKind = "command"   // an SSH exec, shell or subsystem: Command
	ItemOutput    ItemKind = "output"    // bytes the client was shown: Data, Stream
	ItemInput     ItemKind = "input"     // bytes the client typed or sent
	ItemResize    ItemKind = "resize"
	ItemExit      ItemKind = "exit"  // an SSH command ended: ExitStatus or Signal
	ItemFile      ItemKind = "file"  // a file operation: Command is the operation, Path the file
	ItemOther     ItemKind = "other" // anything else the client asked for: Command names it
	ItemNote      ItemKind = "note"
	ItemBulk      ItemKind = "bulk"
	ItemEnd       ItemKind = "end"
)

// Item is one thing that happened in a session, in the words people use. Its JSON is the JSON Lines export; the fields
// `session`, `sql` and `command` are a stable contract.
type Item struct {
	Session string        `json:"session"`
	Number  int           `json:"number"` // counts the items of a session from 1
	At      time.Duration `json:"at_ns"`  // since the session began
	Time    time.Time     `json:"time"`
	Kind    ItemKind      `json:"kind"`
	Channel uint32        `json:"channel,omitempty"`
	// Ref ties a result to its statement, and an exit to its command.
	Ref      int           `json:"ref,omitempty"`
	SQL      string        `json:"sql,omitempty"`
	Params   []Param       `json:"params,omitempty"`
	Via      string        `json:"via,omitempty"` // "simple", "execute", "copy", "function"; "shell", "exec", "subsystem"
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
