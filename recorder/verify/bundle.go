package verify

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/recorder/format"
	"sallyport/recorder/transparency"
)

// A bundle is evidence of some sessions in one file, which is handed to somebody who has nothing else: a ZIP file with the
// recordings, for each the leaves that opened and ended it with a proof that they are in the log (c2sp.org/tlog-proof), the
// checkpoint that the proofs lead to, and documents of the gateway's own.
const (
	BundleFormat     = "sallyport-evidence/1"
	BundleManifest   = "manifest.json"
	BundleCheckpoint = "checkpoint"
)

// Manifest says what is in a bundle.
type Manifest struct {
	Format   string            `json:"format"`
	Made     time.Time         `json:"made"`
	Gateway  string            `json:"gateway,omitempty"` // its version
	LogKey   string            `json:"log_key"`           // for people; who verifies has it from elsewhere
	Sessions []ManifestSession `json:"sessions"`
}

// ManifestSession says where in a bundle things of a session are.
type ManifestSession struct {
	Session   string `json:"session"`
	Recording string `json:"recording"`
	Opened    string `json:"opened,omitempty"` // the proof of its opening leaf; none where the recording is older than the log
	Ended     string `json:"ended"`
}

const (
	maxManifest   = 16 << 20
	maxProof      = 256 << 10
	maxBundled    = 1 << 16 // sessions
	bundleFarther = "that these are all of the grant's sessions, or all of anybody's: only the whole log tells (sallyport-verify DIRECTORY)"
)

// Proof makes the bytes of a proof that a leaf is in the tree of a checkpoint.
func Proof(entry []byte, index int64, hashes []tlog.Hash, checkpoint []byte) []byte {
	p := proof.TLogProof{Index: uint64(index), Checkpoint: checkpoint, ExtraData: entry}
	for _, h := range hashes {
		p.Hashes = append(p.Hashes, h)
	}
	return p.Marshal()
}

// BundledSession is one session of a bundle as it was found.
type BundledSession struct {
	File
	Person    string   `json:"person"`
	Target    string   `json:"target"`
	Account   string   `json:"account"`
	Grant     string   `json:"grant"`
	Reason    string   `json:"reason,omitempty"`
	Approvers []string `json:"approvers,omitempty"`
	OpenLeaf  int64    `json:"open_leaf"` // -1: none
	EndLeaf   int64    `json:"end_leaf"`
}

// Bundle is what CheckBundle found.
type Bundle struct {
	Whole     bool                       `json:"whole"`
	Proven    bool                       `json:"proven"`
	Origin    string                     `json:"origin,omitempty"`
	Trusted   bool                       `json:"trusted"` // the log's key was given
	Size      int64                      `json:"size"`    // leaves that the checkpoint covers
	Cosigned  []transparency.Cosignature `json:"cosigned,omitempty"`
	Sessions  []BundledSession           `json:"sessions"`
	Problems  []Finding                  `json:"problems,omitempty"`
	NotProven []string                   `json:"not_proven"`
}

func (b *Bundle) add(kind, session, format string, args ...any) {
	b.Problems = append(b.Problems, Finding{Kind: kind, Session: session, Leaf: none, What: fmt.Sprintf(format, args...)})
}

// CheckBundle checks a bundle. The error is one of reading.
func CheckBundle(path string, o Options) (*Bundle, error) {
	archive, err := zip.OpenReader(path)
	if err != nil {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	defer archive.Close()
	b := &Bundle{Sessions: []BundledSession{}, NotProven: []string{}}
	fail := func(err error) (*Bundle, error) { return nil, fmt.Errorf("read the bundle: %w", err) }
	var manifest Manifest
	content, err := readEntry(archive, BundleManifest, maxManifest)
	if err == nil {
		err = json.Unmarshal(content, &manifest)
	}
	if err == nil && (manifest.Format != BundleFormat || len(manifest.Sessions) > maxBundled) {
		err = fmt.Errorf("it is not of the form %s", BundleFormat)
	}
	if err != nil {
		return fail(err)
	}
	key := o.LogKey
	if b.Trusted = key.Verifier != nil; !b.Trusted {
		if key, err = transparency.ParseLogKey(manifest.LogKey); err != nil {
			return fail(err)
		}
	}
	b.Origin = key.Name()
	signed, err := readEntry(archive, BundleCheckpoint, transparency.MaxCheckpoint)
	if err != nil {
		return fail(err)
	}
	checkpoint, err := transparency.ParseCheckpoint(signed, key, o.Witnesses...)
	if err != nil {
		b.add(NotSigned, "", "%v", err)
		return b, nil
	}
	b.Size, b.Cosigned = checkpoint.Tree.N, checkpoint.Cosigned
	if missing := o.quorum() - len(checkpoint.Cosigned); len(o.Witnesses) > 0 && missing > 0 {
		b.add(NotWitnessed, "", "of the cosignatures that the checkpoint should have, %d are missing", missing)
	}
	for _, s := range manifest.Sessions {
		if err := b.check(archive, s, checkpoint.Tree); err != nil {
			return fail(err)
		}
	}
	if len(manifest.Sessions) == 0 {
		b.add(Gone, "", "the bundle has no session")
	}
	b.Whole = len(b.Problems) == 0
	b.Proven = b.Whole && b.Trusted && len(b.Cosigned) > 0
	b.say(len(o.Witnesses) > 0)
	return b, nil
}

func (b *Bundle) say(witnessed bool) {
	if !b.Trusted {
		b.NotProven = append(b.NotProven, "that this is the gateway's log: its key was taken from the bundle itself, not from somebody you trust (--log-key)")
	}
	if !witnessed {
		b.NotProven = append(b.NotProven, "that nobody who holds the gateway's keys made this up: no witness's key was given (--witness-key)")
	}
	b.NotProven = append(b.NotProven, bundleFarther,
		"what grant.json and audit.jsonl say: they are the gateway's word; what a recording's own beginning says (person, grant, reason, approvers) is bound with it")
}

// check checks one session.
func (b *Bundle) check(archive *zip.ReadCloser, s ManifestSession, tree tlog.Tree) error {
	marks := newLeaves()
	found := BundledSession{OpenLeaf: none, EndLeaf: none}
	for _, path := range []string{s.Opened, s.Ended} {
		if path == "" {
			continue
		}
		content, err := readEntry(archive, path, maxProof)
		if err != nil {
			return err
		}
		leaf, index, err := openProof(content, tree)
		if err != nil {
			b.add(Rewritten, s.Session, "%s: %v", path, err)
			return nil
		}
		if leaf.Session != s.Session {
			b.add(Changed, s.Session, "%s is a leaf of another session", path)
			return nil
		}
		marks.take(index, leaf)
	}
	bound := marks.sessions[s.Session]
	if bound == nil || bound.end == none || bound.open == none && bound.kind != transparency.Adopted {
		b.add(Unended, s.Session, "the proofs do not open and end the session")
		return nil
	}
	found.OpenLeaf, found.EndLeaf = bound.open, bound.end
	file, err := archive.Open(s.Recording)
	if err != nil {
		return err
	}
	defer file.Close()
	r := result{file: File{Path: s.Recording}}
	reader, err := format.NewReader(file)
	if errors.Is(err, format.ErrNotRecording) {
		b.add(Changed, s.Session, "%s: %v", s.Recording, err)
		return nil
	} else if err != nil {
		return err
	}
	if reader.Header().Session != s.Session {
		b.add(Changed, s.Session, "%s is the recording of session %s", s.Recording, reader.Header().Session)
		return nil
	}
	if err := r.read(reader, marks); err != nil {
		return err
	}
	r.state(reader, false, Options{})
	found.File = r.file
	h := r.file.header
	found.Person, found.Target, found.Account, found.Grant, found.Reason, found.Approvers = h.Identity.Name, h.Target, h.Account, h.Grant, h.Reason, h.Approvers
	for _, damage := range r.file.Problems {
		b.add(Changed, s.Session, "%s: %v", s.Recording, damage)
	}
	log := &Ledger{}
	bound.judge(&found.File, marks, log)
	b.Problems = append(b.Problems, log.Problems...)
	b.Sessions = append(b.Sessions, found)
	return nil
}

// openProof takes a proof apart and checks it.
func openProof(content []byte, tree tlog.Tree) (transparency.Leaf, int64, error) {
	var p proof.TLogProof
	if err := p.Unmarshal(content); err != nil {
		return transparency.Leaf{}, 0, err
	}
	if len(p.Hashes) > 64 || p.Index >= uint64(tree.N) {
		return transparency.Leaf{}, 0, errors.New("the leaf is beyond the checkpoint")
	}
	hashes := make(tlog.RecordProof, 0, len(p.Hashes))
	for _, h := range p.Hashes {
		hashes = append(hashes, h)
	}
	if err := tlog.CheckRecord(hashes, tree.N, tree.Hash, int64(p.Index), tlog.RecordHash(p.ExtraData)); err != nil {
		return transparency.Leaf{}, 0, fmt.Errorf("the leaf is not in the log: %w", err)
	}
	leaf, err := transparency.Decode(p.ExtraData)
	return leaf, int64(p.Index), err
}

// readEntry reads a small file of the bundle.
func readEntry(archive *zip.ReadCloser, name string, most int64) ([]byte, error) {
	f, err := archive.Open(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("it has no %s", name)
		}
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("%s is longer than %d bytes", name, most)
	}
	return content, err
}

// WriteTo prints for people.
func (b *Bundle) WriteTo(w io.Writer) (int64, error) {
	var out strings.Builder
	for _, p := range b.Problems {
		say(&out, "%s: %s\n", p.Kind, p.What)
	}
	for _, s := range b.Sessions {
		say(&out, "%s: %s as %s@%s, grant %s, %s, ended %s: %s; leaves %d and %d\n", s.Session, s.Person, s.Account, s.Target, s.Grant,
			s.Started.UTC().Format(time.RFC3339), s.ended.UTC().Format(time.RFC3339), s.Ending, s.OpenLeaf, s.EndLeaf)
		if s.Reason != "" {
			say(&out, "  reason: %q; approved by: %s\n", s.Reason, strings.Join(s.Approvers, ", "))
		}
	}
	say(&out, "log over all recordings: %s, checkpoint over %d leaves", b.Origin, b.Size)
	for _, c := range b.Cosigned {
		say(&out, ", cosigned by %s %s", c.Witness, c.Time.Format(time.RFC3339))
	}
	out.WriteByte('\n')
	for _, n := range b.NotProven {
		say(&out, "not proven: %s\n", n)
	}
	switch {
	case b.Proven:
		out.WriteString("proven\n")
	case b.Whole:
		out.WriteString("whole\n")
	default:
		out.WriteString("not whole\n")
	}
	n, err := io.WriteString(w, out.String())
	return int64(n), err
}
