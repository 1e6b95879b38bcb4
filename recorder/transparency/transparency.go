// Package transparency is the form of the log over all recordings: what a leaf says, where tiles stand, how checkpoints are
// signed and cosigned. It is what the auditor's binary stands on, and does no writing.
//
// The log is one Merkle tree a gateway, as RFC 6962 hashes it, kept and served as C2SP tlog-tiles (c2sp.org/tlog-tiles):
// recordings are bound to it by their chain values, so that nothing of a recording stands in it. A leaf is written when a
// session opens, before its first byte passes; at intervals while it lives; when it ends or is found crashed; when a
// recording is put on hold, purged, or its key destroyed; for credentials; and when the gateway starts, stops, and every
// hour. The gateway signs checkpoints (c2sp.org/tlog-checkpoint) with a key that does nothing else; witnesses that other
// people run cosign them (c2sp.org/tlog-cosignature) once they have seen that the log only grew. So who holds every key of
// the gateway can still not change what a witness, or an auditor who kept a checkpoint, has seen.
//
// Room ledger writes the log, room witness is one that cosigns, sallyport/recorder/verify checks it.
package transparency

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sallyport/recorder/format"
)

// Kind says what a leaf tells of. The words are the log's format and never change their meaning.
type Kind string

// The kinds of leaf.
const (
	// Open stands before a session's first byte passes; Chain is c_0, over the recording's header.
	Open Kind = "open"
	// Progress binds what the recordings under Live had so far.
	Progress Kind = "progress"
	// Close binds a recording that has ended, whole.
	Close Kind = "close"
	// Crashed is Close, written by the next start of a gateway that died.
	Crashed Kind = "crashed"
	// Adopted binds a recording that was there before the log was.
	Adopted Kind = "adopted"
	// Hold and Release say that a recording is kept whatever its age, and no longer.
	Hold    Kind = "hold"
	Release Kind = "release"
	// Purge stands before a recording is deleted because its time is over; it binds what is deleted.
	Purge Kind = "purge"
	// Shred stands before a recording's key is destroyed, after which nobody can read it.
	Shred Kind = "shred"
	// Issue tells of a credential; Number is that of the audit event which says more.
	Issue Kind = "issue"
	// Start, Stop and Heartbeat are the gateway's: silence is said, not inferred.
	Start     Kind = "start"
	Stop      Kind = "stop"
	Heartbeat Kind = "heartbeat"
)

// MaxLeaf bounds a leaf's bytes, as c2sp.org/tlog-tiles does.
const MaxLeaf = 1<<16 - 1

// Leaf is one entry of the log. It names no person, account or target: whoever has the log has only random ids, times and
// hashes. Recordings are those of sessions and the audit log's files.
type Leaf struct {
	Kind Kind      `json:"kind"`
	Time time.Time `json:"time"` // by the gateway's clock
	Recording
	// Reason is why a recording ended or is purged; a stable word.
	Reason string `json:"reason,omitempty"`
	// Live are the recordings of a Progress.
	Live []Recording `json:"live,omitempty"`
	// Credential is the id of an Issue's credential, Number the number of its audit event.
	Credential string `json:"credential,omitempty"`
	Number     uint64 `json:"number,omitempty"`
	// Version and Program (SHA-256 of its file) are what a Start started.
	Version string `json:"version,omitempty"`
	Program string `json:"program,omitempty"`
	// Settled says of a Start that every recording of earlier runs has its ending in the log.
	Settled bool `json:"settled,omitempty"`
}

// Recording is how far a recording had come.
type Recording struct {
	Session string `json:"session,omitempty"`
	Blocks  uint64 `json:"blocks,omitempty"`
	Events  uint64 `json:"events,omitempty"`
	Chain   Chain  `json:"chain,omitzero"` // after the last of the blocks
}

// Of is how far the recording of a session had come in that state.
func Of(session string, s format.State) Recording {
	return Recording{Session: session, Blocks: s.Number, Events: s.Sequence, Chain: Chain(s.Chain)}
}

// Chain is a recording's chain value, which JSON has in hexadecimal.
type Chain format.Chain

// MarshalText implements encoding.TextMarshaler.
func (c Chain) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, c[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Chain) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(c)) {
		return fmt.Errorf("a chain value of %d letters", len(text))
	}
	_, err := hex.Decode(c[:], text)
	return err
}

func (c Chain) String() string { return hex.EncodeToString(c[:]) }

// Encode returns the leaf's bytes in the log.
func (l Leaf) Encode() ([]byte, error) {
	l.Time = l.Time.UTC().Truncate(time.Millisecond)
	entry, err := json.Marshal(l)
	if err == nil && len(entry) > MaxLeaf {
		err = fmt.Errorf("%d bytes, at most %d will do", len(entry), MaxLeaf)
	}
	if err != nil {
		return nil, fmt.Errorf("leaf %s: %w", l.Kind, err)
	}
	return entry, nil
}

// Decode reads a leaf. Fields it does not know are passed over: a later gateway may write more.
func Decode(entry []byte) (Leaf, error) {
	var l Leaf
	if err := json.Unmarshal(entry, &l); err != nil {
		return l, fmt.Errorf("leaf: %w", err)
	}
	if l.Kind == "" {
		return l, errors.New("leaf: it has no kind")
	}
	return l, nil
}
