// Package recorder is the session log: what was done, by whom, when, kept before it happens.
//
// CONTRACT (to be built here): see the doc comments.
package recorder

import (
	"context"
	"errors"
	"iter"
	"log/slog"

	"sallyport/configs"
	"sallyport/internal/store"
	"sallyport/recorder/format"
)

var errTODO = errors.New("recorder: not built")

// Options configure Open.
type Options struct {
	// Dir is the state directory; recordings are Dir/recordings/**/*.srec, the audit log Dir/audit/*.srec.
	Dir string
	// Config has the default level, the reserve of free space and whether a volatile file system will do.
	Config configs.Recording
	// Store has the outbox of audit events, which Open's mover appends to the audit log.
	Store *store.Store
	// Interpreters has a constructor for each protocol by Header.Protocol.
	Interpreters map[string]func(format.Header) Interpreter
	// Version is the gateway's version, for headers.
	Version string
	Log     *slog.Logger
}

// Recorder is the session log of one gateway. All methods are safe for concurrent use.
type Recorder struct{ Options }

// Open recovers what an earlier run left (torn tails cut, open recordings closed as "crashed") and starts the mover of
// audit events.
func Open(ctx context.Context, o Options) (*Recorder, error) { return nil, errTODO }

// Crashed lists the headers of the sessions that Open found open and closed as crashed; the gateway ends what they may
// have left running on their targets.
func (r *Recorder) Crashed() []format.Header { return nil }

// Ready returns nil while new recordings can be begun and kept; else a *refusal.Refusal (RecorderFailed) that says why
// not: disk full, failed sync.
func (r *Recorder) Ready() error { return errTODO }

// Begin creates a recording and returns when its header is safe at the level. Header.Started and Gateway are set here.
func (r *Recorder) Begin(ctx context.Context, header format.Header, level configs.Durability) (*Recording, error) {
	return nil, errTODO
}

// Close seals nothing: it waits for what is queued to be written, moves the outbox a last time, and closes.
func (r *Recorder) Close(ctx context.Context) error { return errTODO }

// Recording is one session's, being written. Its methods are safe for concurrent use; the order of the calls that have
// returned is the order of the events.
type Recording struct{}

// Record writes events and returns when they are safe at the recording's level. After an error the recording is dead.
func (r *Recording) Record(ctx context.Context, events ...Event) error { return errTODO }

// Note queues events to be written within 50 ms. It waits only for room in the queue; it never drops.
func (r *Recording) Note(events ...Event) error { return errTODO }

// Failed is closed when the recording can't be written any more; Err says why.
func (r *Recording) Failed() <-chan struct{} { return nil }

// Err is nil or what went wrong.
func (r *Recording) Err() error { return errTODO }

// End writes the ending and seals the file. There is always room for it.
func (r *Recording) End(end format.End) error { return errTODO }

// Header returns the recording's header as written.
func (r *Recording) Header() format.Header { return format.Header{} }

// Read opens the session's recording for reading, finished or live. The caller ranges over the events; an error ends them.
func (r *Recorder) Read(ctx context.Context, session string) (format.Header, iter.Seq2[Event, error], error) {
	return format.Header{}, nil, errTODO
}

// Items is Read through the protocol's Interpreter: start, what happened, end (with Reason "unfinished" where there is none yet).
func (r *Recorder) Items(ctx context.Context, session string) (iter.Seq2[Item, error], error) {
	return nil, errTODO
}

// Sessions lists the ids of all recordings, oldest first.
func (r *Recorder) Sessions(ctx context.Context) ([]format.Header, error) { return nil, errTODO }

// Query narrows a Search.
type Query struct {
	Text   string // matched in statements, commands, paths, terminal lines; case-insensitive substring
	Person string // part of name, e-mail or subject
	Target string
	Grant  string
	// Since and Until as time.Time are added by the recorder's builder.
	Limit int
}

// Match is one place where Query.Text was found.
type Match struct {
	Session string        `json:"session"`
	Header  format.Header `json:"header"`
	Item    Item          `json:"item"`
	Line    string        `json:"line"`
}

// Search finds statements, commands and terminal lines.
func (r *Recorder) Search(ctx context.Context, q Query) iter.Seq2[Match, error] { return nil }
