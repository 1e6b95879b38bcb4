package format

import (
	"encoding/binary"
	"encoding/json"
	"strconv"
	"time"
)

// Type says what an Event is. The numbers are the file format and never change their meaning.
type Type uint16

// Types below 32 belong to every protocol; 32–63 are Postgres's and 64–95 SSH's, declared in their rooms.
const (
	// TypeEnd is the last event of a sealed recording; Data is an End as JSON.
	TypeEnd Type = 1
	// TypeNote is something the gateway did or noticed; Data is a Note as JSON.
	TypeNote Type = 2
	// TypeSaid are raw bytes that the client sent, before they were passed on.
	TypeSaid Type = 3
	// TypeAnswered are raw bytes that the target sent, before the client saw them.
	TypeAnswered Type = 4
	// TypeAnsweredError is TypeAnswered for the error stream, where the protocol has one.
	TypeAnsweredError Type = 5
	// TypeBulk stands for bytes kept by length and hash only; Data is a Bulk as JSON.
	TypeBulk Type = 6
	// TypeConnected is written once the target's connection stands; Data is a Connected as JSON.
	TypeConnected Type = 7
	// TypeAudit is an event of the control plane in the audit log; Data is JSON with at least the event's "number".
	TypeAudit Type = 8
	// TypeStandIn is what those are given who cannot open the Strict events before it: Data is a type as two bytes, and the data of
	// an event of it. Who can open them passes it over.
	TypeStandIn Type = 9

	FirstPostgres Type = 32
	FirstSSH      Type = 64
)

// Event is one entry of a recording. Data is at most MaxEvent bytes.
type Event struct {
	Type Type
	// At is the time since Header.Started by a clock that does not jump. The recorder sets it.
	At time.Duration
	// Channel tells apart the channels of one SSH connection; 0 where there is only one.
	Channel uint32
	// Data is the payload; its form is Type's. Whoever hands an Event to the recorder may reuse Data when the call returns.
	Data []byte
	// Strict has it locked with the stricter of a recording's two keys, where there are two. Reading does not set it.
	Strict bool
}

// StandIn is the event that stands in for Strict ones.
func StandIn(e Event) Event {
	e.Data = append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(e.Data)), uint16(e.Type)), e.Data...)
	e.Type, e.Strict = TypeStandIn, false
	return e
}

// StandsFor is the event that a stand-in brings.
func (e Event) StandsFor() Event {
	if e.Type != TypeStandIn || len(e.Data) < 2 {
		return e
	}
	e.Type, e.Data = Type(binary.BigEndian.Uint16(e.Data)), e.Data[2:]
	return e
}

// Party is a person or workload as written in a recording's header.
type Party struct {
	Issuer  string   `json:"issuer"`
	Subject string   `json:"subject"`
	Name    string   `json:"name,omitempty"`
	Email   string   `json:"email,omitempty"`
	Kind    string   `json:"kind,omitempty"`
	Groups  []string `json:"groups,omitempty"`
}

// Header opens a recording: who, what, when, why. It is durable before the target is dialled.
type Header struct {
	Session  string `json:"session"`  // the session's and recording's id
	Protocol string `json:"protocol"` // "postgres", "ssh", "audit"
	Identity Party  `json:"identity"`
	// Method is how the identity was proven, Credential the id of what proved it.
	Method     string    `json:"method,omitempty"`
	Credential string    `json:"credential,omitempty"`
	Target     string    `json:"target"`
	Account    string    `json:"account"`
	Grant      string    `json:"grant"`
	Reason     string    `json:"reason,omitempty"`
	Ticket     string    `json:"ticket,omitempty"` // of another system, if the request named one
	Approvers  []string  `json:"approvers,omitempty"`
	Until      time.Time `json:"until,omitzero"`
	Client     string    `json:"client,omitempty"` // the client's address as the gateway saw it
	Durability string    `json:"durability"`
	Gateway    string    `json:"gateway,omitempty"` // the gateway's version
	Started    time.Time `json:"started"`
	// Mask is what is hidden in whatever is shown of the recording, as the configuration had it when the session began.
	Mask *Mask `json:"mask,omitempty"`
	// Lock is there where the recording is locked: only its recipients can read what follows the header.
	Lock *Lock `json:"lock,omitempty"`
}

// Mask says what is hidden in whatever is shown of a recording; see sallyport/recorder/mask. The recording has it all.
type Mask struct {
	// Cards are numbers of payment cards.
	Cards    bool          `json:"cards,omitempty"`
	Patterns []MaskPattern `json:"patterns,omitempty"`
}

// MaskPattern is what a regular expression (RE2) matches.
type MaskPattern struct {
	Name   string `json:"name"`
	Regexp string `json:"regexp"`
}

// End says why a session ended. Reason is a stable word, Detail is for people.
type End struct {
	Reason string    `json:"reason"`
	Detail string    `json:"detail,omitempty"`
	Ended  time.Time `json:"ended"`
}

// Note is something the gateway did or noticed in a session: an act on the target and its outcome, a warning shown, a
// place where the interpreter lost the thread.
type Note struct {
	Kind   string            `json:"kind"`
	Text   string            `json:"text,omitempty"`
	Fields map[string]string `json:"fields,omitempty"`
}

// Bulk stands for bytes of which only length and hash are kept.
type Bulk struct {
	FromClient bool   `json:"from_client,omitempty"`
	Stream     string `json:"stream,omitempty"`
	Bytes      int64  `json:"bytes"` // since the session began
	SHA256     string `json:"sha256"`
	Why        string `json:"why,omitempty"`
}

// Append appends b as the JSON that Data of a TypeBulk is. It allocates nothing beyond what dst has no room for: a recording has
// one for each key that is typed.
func (b Bulk) Append(dst []byte) []byte {
	dst = append(dst, '{')
	if b.FromClient {
		dst = append(dst, `"from_client":true,`...)
	}
	if b.Stream != "" {
		dst = append(appendString(append(dst, `"stream":`...), b.Stream), ',')
	}
	dst = strconv.AppendInt(append(dst, `"bytes":`...), b.Bytes, 10)
	dst = appendString(append(dst, `,"sha256":`...), b.SHA256)
	if b.Why != "" {
		dst = appendString(append(dst, `,"why":`...), b.Why)
	}
	return append(dst, '}')
}

// appendString appends a string as JSON.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string has no error
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// Connected are both ends of the connection to the target, and what ties it to the target's own log.
type Connected struct {
	Local      string `json:"local"`
	Remote     string `json:"remote"`
	BackendPID uint32 `json:"backend_pid,omitempty"`
	Serial     uint64 `json:"certificate_serial,omitempty"`
	Server     string `json:"server,omitempty"` // the target's version as it says
}

// JSON returns an event of that type whose Data is v. It panics where v cannot be JSON, which is a mistake in the caller.
func JSON(t Type, channel uint32, v any) Event {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return Event{Type: t, Channel: channel, Data: data}
}
