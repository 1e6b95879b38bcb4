package transparency

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/transparency-dev/formats/log"
	cosignature "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxCheckpoint bounds a checkpoint's bytes, with all its signatures.
const MaxCheckpoint = 64 << 10

// GenerateKey makes a key of that name for a log or a witness, in the encoding of golang.org/x/mod/sumdb/note. A log's name
// is its origin. Names have no spaces and no plus signs.
func GenerateKey(name string) (private, public string, err error) {
	return note.GenerateKey(rand.Reader, name)
}

// GenerateWitnessKey makes a witness's key. The public one is in the form that says what it is for.
func GenerateWitnessKey(name string) (private, public string, err error) {
	if private, public, err = GenerateKey(name); err == nil {
		public, err = cosignature.VKeyToCosignatureV1(public)
	}
	return private, public, err
}

// LogKey is a log's public key.
type LogKey struct {
	note.Verifier
	Text string
}

// ParseLogKey reads a log's public key. Its name is the log's origin.
func ParseLogKey(text string) (LogKey, error) {
	text = strings.TrimSpace(text)
	v, err := note.NewVerifier(text)
	if err != nil {
		return LogKey{}, fmt.Errorf("%.200q is no log's public key (NAME+HASH+KEY on one line): %w", text, err)
	}
	return LogKey{v, text}, nil
}

// WitnessKey is a witness's public key.
type WitnessKey struct {
	note.Verifier
	Text string
}

// ParseWitnessKey reads a witness's public key: Ed25519, or ML-DSA-44.
func ParseWitnessKey(text string) (WitnessKey, error) {
	text = strings.TrimSpace(text)
	v, err := cosignature.NewVerifierForCosignatureV1(text)
	if err != nil {
		return WitnessKey{}, fmt.Errorf("%.200q is no witness's public key (NAME+HASH+KEY on one line): %w", text, err)
	}
	return WitnessKey{v, text}, nil
}

// Checkpoint is what a log was at some time, as it signed it.
type Checkpoint struct {
	Origin string
	Tree   tlog.Tree
	// Note is the signed note whole, with all signatures.
	Note []byte
	// Cosigned are the witnesses whose cosignatures were found good, and when they cosigned.
	Cosigned []Cosignature
}

// Cosignature is one witness's word that the log had only grown.
type Cosignature struct {
	Witness string    `json:"witness"`
	Time    time.Time `json:"time"`
}

// Sign makes a signed checkpoint.
func Sign(signer note.Signer, tree tlog.Tree) (Checkpoint, error) {
	body := log.Checkpoint{Origin: signer.Name(), Size: uint64(tree.N), Hash: tree.Hash[:]}
	signed, err := note.Sign(&note.Note{Text: string(body.Marshal())}, signer)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("sign a checkpoint: %w", err)
	}
	return Checkpoint{Origin: signer.Name(), Tree: tree, Note: signed}, nil
}

// ParseCheckpoint reads a checkpoint whose log's signature must be good. Of the witnesses' it says which are.
func ParseCheckpoint(signed []byte, key LogKey, witnesses ...WitnessKey) (Checkpoint, error) {
	if len(signed) > MaxCheckpoint {
		return Checkpoint{}, fmt.Errorf("a checkpoint of %d bytes, at most %d will do", len(signed), MaxCheckpoint)
	}
	var others []note.Verifier
	for _, w := range witnesses {
		others = append(others, w)
	}
	body, _, opened, err := log.ParseCheckpoint(signed, key.Name(), key, others...)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	c := Checkpoint{Origin: body.Origin, Tree: tlog.Tree{N: int64(body.Size)}, Note: signed}
	if body.Size > 1<<62 || len(body.Hash) != tlog.HashSize {
		return Checkpoint{}, errors.New("checkpoint: its size or root makes no sense")
	}
	copy(c.Tree.Hash[:], body.Hash)
	for _, signature := range opened.Sigs {
		cosigned := slices.ContainsFunc(witnesses, func(w WitnessKey) bool { return w.Name() == signature.Name && w.KeyHash() == signature.Hash })
		if !cosigned {
			continue
		}
		when, err := cosignature.CoSigV1Timestamp(signature)
		if err != nil {
			return Checkpoint{}, fmt.Errorf("checkpoint: the cosignature of %s: %w", signature.Name, err)
		}
		c.Cosigned = append(c.Cosigned, Cosignature{Witness: signature.Name, Time: when.UTC()})
	}
	return c, nil
}

// Cosign is a checkpoint's text with a witness's signature as of now: what a witness answers with.
func Cosign(c Checkpoint, private string) (signature []byte, err error) {
	signer, err := cosignature.NewSignerForCosignatureV1(private)
	if err != nil {
		return nil, fmt.Errorf("the witness's key: %w", err)
	}
	text, _, ok := strings.Cut(string(c.Note), "\n\n")
	if !ok {
		return nil, errors.New("cosign: no checkpoint")
	}
	signed, err := note.Sign(&note.Note{Text: text + "\n"}, signer)
	if err != nil {
		return nil, fmt.Errorf("cosign: %w", err)
	}
	_, lines, _ := strings.Cut(string(signed), "\n\n")
	return []byte(lines), nil
}

// WithSignatures adds signature lines to a checkpoint.
func (c Checkpoint) WithSignatures(lines []byte) []byte {
	return append(slices.Clone(c.Note), lines...)
}

// SignerOf reads a private key. The error does not show it.
func SignerOf(private string) (note.Signer, error) {
	signer, err := note.NewSigner(strings.TrimSpace(private))
	if err != nil {
		return nil, errors.New("this is no private key of a log or witness (PRIVATE+KEY+NAME+HASH+KEY on one line)")
	}
	return signer, nil
}
