package recorder

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sort"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/refusal"
	"sallyport/recorder/format"
	"sallyport/recorder/transparency"
)

// Integrity is what was found of one recording, read to its end: whether it is what was written, and which checkpoint of the
// log over all recordings says so.
type Integrity struct {
	Session string    `json:"session"`
	At      time.Time `json:"at"` // when it was read, by the gateway's clock
	Events  uint64    `json:"events"`
	Blocks  uint64    `json:"blocks"`
	Bytes   int64     `json:"bytes"` // of the file
	Chain   string    `json:"chain"` // after its last block, in hexadecimal
	// Whole says that the file has its ending, and no place that is not what was written.
	Whole    bool     `json:"whole"`
	Problems []string `json:"problems,omitempty"`
	// Bound says that the log's leaf about the ending names this very chain, and that the checkpoint's root has the leaf.
	Bound bool  `json:"bound"`
	Leaf  int64 `json:"leaf"` // its index; -1: none
	// Checkpoint is what Bound was checked against; nil where there is no leaf, or no log.
	Checkpoint *IntegrityCheckpoint `json:"checkpoint,omitempty"`
}

// IntegrityCheckpoint is a signed checkpoint: all leaves before Size have that root.
type IntegrityCheckpoint struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   string `json:"root"` // in hexadecimal
	// Cosigned are the witnesses that had seen it, and when; none: it is the gateway's word alone.
	Cosigned []transparency.Cosignature `json:"cosigned,omitempty"`
	// Awaited says that there are witnesses, none of which has cosigned one that has the leaf, and mostly will within a second.
	Awaited bool `json:"awaited,omitempty"`
}

// Size is how many bytes a session's recording takes on disk.
func (r *Recorder) Size(session string) (int64, error) {
	file, _, _, err := r.open(session)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("look at the recording of session %s: %w", session, err)
	}
	return info.Size(), nil
}

// Integrity reads a recording that has ended to its end, which takes as long as that, and compares it with the log: with the
// newest checkpoint that witnesses cosigned, or, where none of these covers it, with the gateway's own. A locked recording is
// compared like any other: what is bound is its blocks as they are stored. It refuses sessions that live (Conflict), and ones
// whose recordings are gone (NotFound).
func (r *Recorder) Integrity(ctx context.Context, session string) (*Integrity, error) {
	file, live, reader, err := r.open(session)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if live != nil {
		return nil, refusal.New(refusal.Conflict, "session %s has not ended", session).WithHint("what is whole can be compared when it has ended")
	}
	fail := func(err error) (*Integrity, error) {
		return nil, fmt.Errorf("check the recording of session %s: %w", session, err)
	}
	out := &Integrity{Session: session, At: time.Now(), Leaf: -1}
	info, err := file.Stat()
	if err != nil {
		return fail(err)
	}
	out.Bytes = info.Size()
	var ended time.Time
	for {
		event, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if damage, ok := errors.AsType[*format.Damage](err); ok {
			if len(out.Problems) < 10 {
				out.Problems = append(out.Problems, damage.Error())
			}
			continue
		}
		if err != nil {
			return fail(err)
		}
		if event.Type == format.TypeEnd {
			ended = reader.Header().Started.Add(event.At)
		}
	}
	state := reader.State()
	out.Events, out.Blocks, out.Chain = state.Sequence, state.Number, hex.EncodeToString(state.Chain[:])
	if !reader.Sealed() {
		out.Problems = append(out.Problems, "its ending is missing")
	}
	if out.Whole = len(out.Problems) == 0; r.Ledger == nil {
		return out, nil
	}
	return out, r.compareWithLog(out, ended)
}

// compareWithLog finds the leaf of a recording's ending and the checkpoint that has it.
func (r *Recorder) compareWithLog(out *Integrity, ended time.Time) error {
	index, entry, err := r.endingLeaf(out.Session, ended)
	if err != nil || index < 0 {
		return err
	}
	leaf, err := transparency.Decode(entry)
	if err != nil {
		return fmt.Errorf("leaf %d of the log: %w", index, err)
	}
	out.Leaf = index
	checkpoint := r.Ledger.Witnessed()
	if checkpoint.Tree.N <= index {
		if checkpoint, err = r.Ledger.Publish(); err != nil {
			return err
		}
	}
	out.Checkpoint = &IntegrityCheckpoint{
		Origin: r.Ledger.Key().Name(), Size: checkpoint.Tree.N, Root: hex.EncodeToString(checkpoint.Tree.Hash[:]), Cosigned: checkpoint.Cosigned,
		Awaited: len(checkpoint.Cosigned) == 0 && len(r.Ledger.Witnesses()) > 0,
	}
	if checkpoint.Tree.N <= index { // it was signed by somebody who does not know the leaf
		return fmt.Errorf("the newest checkpoint is over %d leaves, and leaf %d is there", checkpoint.Tree.N, index)
	}
	proof, err := r.Ledger.Inclusion(index, checkpoint.Tree.N)
	if err != nil {
		return fmt.Errorf("prove leaf %d: %w", index, err)
	}
	switch err := tlog.CheckRecord(proof, checkpoint.Tree.N, checkpoint.Tree.Hash, index, tlog.RecordHash(entry)); {
	case err != nil:
		out.Problems = append(out.Problems, "the checkpoint's root does not have the leaf about it")
	case leaf.Chain.String() != out.Chain || leaf.Blocks != out.Blocks || leaf.Events != out.Events:
		out.Problems = append(out.Problems, fmt.Sprintf("the log has bound %d events in %d blocks with chain %.16s…, which is not what is here", leaf.Events, leaf.Blocks, leaf.Chain.String()))
	default:
		out.Bound = true
	}
	out.Whole = len(out.Problems) == 0
	return nil
}

// nearby is how many bundles of leaves are looked through for one whose time is known.
const nearby = 8

// endingLeaf finds the leaf about a recording's ending: where its time says, or else from the newest back. Its index is -1
// where there is none.
func (r *Recorder) endingLeaf(session string, ended time.Time) (int64, []byte, error) {
	is := func(leaf transparency.Leaf) bool {
		return leaf.Session == session && (leaf.Kind == transparency.Close || leaf.Kind == transparency.Crashed || leaf.Kind == transparency.Adopted)
	}
	bundles := (r.Ledger.Size() + transparency.Width - 1) / transparency.Width
	var failed error
	first := int64(sort.Search(int(bundles), func(n int) bool {
		entry, err := r.Ledger.Entry(int64(n) * transparency.Width)
		if err != nil {
			failed = err
			return true
		}
		leaf, err := transparency.Decode(entry)
		failed = errors.Join(failed, err)
		return err == nil && leaf.Time.After(ended.Add(-time.Second))
	}))
	if failed != nil {
		return -1, nil, fmt.Errorf("the log over all recordings: %w", failed)
	}
	first = max(0, first-1) // that one begins before
	for n := first; n < min(bundles, first+nearby); n++ {
		width := min(r.Ledger.Size()-n*transparency.Width, transparency.Width)
		data, err := r.Ledger.Bundle(n, int(width))
		if err != nil {
			return -1, nil, fmt.Errorf("the log over all recordings: %w", err)
		}
		entries, _, _ := transparency.Entries(data)
		for i, entry := range entries {
			if leaf, err := transparency.Decode(entry); err == nil && is(leaf) {
				return n*transparency.Width + int64(i), entry, nil
			}
		}
	}
	found := int64(-1)
	err := r.Ledger.Recent(func(index int64, leaf transparency.Leaf) bool {
		if is(leaf) {
			found = index
		}
		return found < 0
	})
	if err != nil || found < 0 {
		return -1, nil, err
	}
	entry, err := r.Ledger.Entry(found)
	return found, entry, err
}
