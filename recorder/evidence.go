package recorder

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sallyport/internal/refusal"
	"sallyport/recorder/transparency"
	"sallyport/recorder/verify"
)

// witnessPatience is how long evidence waits for a witness to see its leaves.
const witnessPatience = 10 * time.Second

// readMe is what a bundle says of itself.
const readMe = `This is evidence of sessions through a Sallyport gateway.

Check it with sallyport-verify, which needs no network and no gateway:

  sallyport-verify %s --log-key log.pub --witness-key witness.pub

log.pub is the gateway's public log key and witness.pub the public key of a witness that somebody else runs. Get both from
people you trust, not from here: manifest.json names the log's key only so that you can see which one to ask for.

  recordings/   what was recorded, bound by a chain of hashes (docs/recordings.md)
  proofs/       for each, the leaves of the log that opened and ended it, proven to be in it (c2sp.org/tlog-proof)
  checkpoint    the log's signed root with its witnesses' cosignatures (c2sp.org/tlog-checkpoint)
  grant.json    the grant as the gateway has it, with who approved it, if it was asked for
  audit.jsonl   what the gateway's audit log tells of the sessions and their grant

To replay a recording: sallyport replay, on a machine that has Sallyport's command line (docs/auditors.md).
`

// EvidenceBundle is a bundle (see sallyport/recorder/verify) to be written.
type EvidenceBundle struct {
	recorder   *Recorder
	sessions   []string
	leaves     map[string][]provenLeaf
	checkpoint transparency.Checkpoint
}

// provenLeaf is a leaf with its place.
type provenLeaf struct {
	index int64
	entry []byte
	end   bool
}

// PrepareEvidence finds all that a bundle of sessions needs, and waits a moment for the witnesses to see it. It refuses
// sessions that live (Conflict), and ones whose recordings are gone (NotFound).
func (r *Recorder) PrepareEvidence(ctx context.Context, sessions []string) (*EvidenceBundle, error) {
	if r.Ledger == nil {
		return nil, refusal.New(refusal.Unsupported, "this gateway keeps no log over all recordings")
	}
	for _, session := range sessions {
		if r.Live(session) {
			return nil, refusal.New(refusal.Conflict, "session %s has not ended", session).WithHint("evidence is of what is whole; ask again when it has ended")
		}
		if !r.has(session) {
			return nil, refusal.New(refusal.NotFound, "there is no recording of session %.80q", session).WithHint("if its time was over it was purged; the log tells when")
		}
	}
	b := &EvidenceBundle{recorder: r, sessions: sessions, leaves: map[string][]provenLeaf{}}
	last, err := b.find()
	if err != nil {
		return nil, err
	}
	b.checkpoint, err = r.covering(ctx, last)
	return b, err
}

// find finds the leaves of the sessions, and the index of the last.
func (b *EvidenceBundle) find() (last int64, err error) {
	open := map[string]bool{}
	for _, s := range b.sessions {
		open[s] = true
	}
	err = b.recorder.Ledger.Recent(func(index int64, leaf transparency.Leaf) bool {
		if !open[leaf.Session] {
			return true
		}
		end := leaf.Kind == transparency.Close || leaf.Kind == transparency.Crashed || leaf.Kind == transparency.Adopted
		if !end && leaf.Kind != transparency.Open {
			return true
		}
		entry, failed := b.recorder.Ledger.Entry(index)
		if failed != nil {
			err = failed
			return false
		}
		b.leaves[leaf.Session] = append(b.leaves[leaf.Session], provenLeaf{index, entry, end})
		last = max(last, index)
		if !end || leaf.Kind == transparency.Adopted {
			delete(open, leaf.Session)
		}
		return len(open) > 0
	})
	if err != nil {
		return 0, err
	}
	for _, s := range b.sessions {
		if !slices.ContainsFunc(b.leaves[s], func(l provenLeaf) bool { return l.end }) {
			return 0, refusal.New(refusal.Conflict, "the log has no ending of session %s", s).WithHint("sallyport verify says more")
		}
	}
	return last, nil
}

// covering is a checkpoint over that leaf: one that a witness cosigned, if that takes no longer than a moment.
func (r *Recorder) covering(ctx context.Context, leaf int64) (transparency.Checkpoint, error) {
	head, err := r.Ledger.Publish()
	if err != nil || len(r.Ledger.WitnessKeys()) == 0 {
		return head, err
	}
	deadline := time.Now().Add(witnessPatience)
	for {
		if c := r.Ledger.Witnessed(); c.Tree.N > leaf {
			return c, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return head, ctx.Err()
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// Witnessed reports whether a witness has cosigned what the bundle leads to.
func (b *EvidenceBundle) Witnessed() bool { return len(b.checkpoint.Cosigned) > 0 }

// Write writes the bundle, whose file will have that name, with further documents by their names in it.
func (b *EvidenceBundle) Write(w io.Writer, name string, documents map[string][]byte) error {
	archive := zip.NewWriter(w)
	manifest := verify.Manifest{
		Format: verify.BundleFormat, Made: time.Now().UTC().Truncate(time.Second), Gateway: b.recorder.Version,
		LogKey: b.recorder.Ledger.Key().Text, Sessions: []verify.ManifestSession{},
	}
	add := func(path string, content []byte) error {
		f, err := archive.Create(path)
		if err == nil {
			_, err = f.Write(content)
		}
		return err
	}
	err := add("README.txt", fmt.Appendf(nil, readMe, name))
	for _, session := range b.sessions {
		if err != nil {
			break
		}
		var entry verify.ManifestSession
		if entry, err = b.writeSession(archive, session, add); err == nil {
			manifest.Sessions = append(manifest.Sessions, entry)
		}
	}
	if err == nil {
		err = add(verify.BundleCheckpoint, b.checkpoint.Note)
	}
	for _, path := range slices.Sorted(maps.Keys(documents)) {
		if err == nil {
			err = add(path, documents[path])
		}
	}
	var content []byte
	if err == nil {
		content, err = json.MarshalIndent(manifest, "", "  ")
	}
	if err == nil {
		err = add(verify.BundleManifest, append(content, '\n'))
	}
	if err = errors.Join(err, archive.Close()); err != nil {
		return fmt.Errorf("write evidence: %w", err)
	}
	return nil
}

func (b *EvidenceBundle) writeSession(archive *zip.Writer, session string, add func(string, []byte) error) (verify.ManifestSession, error) {
	entry := verify.ManifestSession{Session: session, Recording: "recordings/" + session + extension}
	for _, leaf := range b.leaves[session] {
		hashes, err := b.recorder.Ledger.Inclusion(leaf.index, b.checkpoint.Tree.N)
		if err != nil {
			return entry, err
		}
		path := "proofs/" + session + ".opened"
		if leaf.end {
			path = "proofs/" + session + ".ended"
			entry.Ended = path
		} else {
			entry.Opened = path
		}
		if err := add(path, verify.Proof(leaf.entry, leaf.index, hashes, b.checkpoint.Note)); err != nil {
			return entry, err
		}
	}
	b.recorder.mu.Lock()
	path := b.recorder.paths[session]
	b.recorder.mu.Unlock()
	file, err := os.Open(filepath.Join(b.recorder.Dir, path))
	if err != nil {
		return entry, err
	}
	defer file.Close()
	into, err := archive.CreateHeader(&zip.FileHeader{Name: entry.Recording, Method: zip.Deflate, Modified: time.Now()})
	if err != nil {
		return entry, err
	}
	_, err = io.Copy(into, file)
	return entry, err
}
