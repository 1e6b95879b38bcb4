// Package lock locks recordings to age recipients, so that the gateway can write what it cannot read afterwards.
//
// Each recording has a key of its own, fresh from the system's randomness. The recording's header has it as an age file
// (c2sp.org/age) for the recipients, X25519 or the post-quantum hybrid; the gateway knows no identity that opens it. How
// blocks are locked with the key is sallyport/recorder/format's.
package lock

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"sallyport/configs"
	"sallyport/recorder/format"
)

// ErrNotForYou is wrapped by Open's error where none of the identities is one of the recipients.
var ErrNotForYou = errors.New("it is not locked to that identity")

// maxIdentities is how many bytes a file of identities has at most.
const maxIdentities = 1 << 20

// New makes a recording's key and the Lock for its header. The raw key is wiped before it returns; what the format.Key
// holds is wiped by its own Release. What age computes with on the way stays in this process's memory until that is used
// again: a gateway has a Smith instead.
func New(_ context.Context, session string, recipients []string) (*format.Key, *format.Lock, error) {
	to, err := configs.ParseRecipients(recipients)
	if err != nil {
		return nil, nil, fmt.Errorf("lock the recording: %w", err)
	}
	one := made{raw: new([format.KeySize]byte)}
	rand.Read(one.raw[:]) // never fails
	if one.wrapped, err = wrap(one.raw[:], to); err != nil {
		clear(one.raw[:])
		return nil, nil, fmt.Errorf("lock the recording: %w", err)
	}
	return one.forSession(session, recipients)
}

// Open unwraps the key of a locked recording. The error wraps ErrNotForYou if no identity opens it.
func Open(h format.Header, identities ...age.Identity) (*format.Key, error) {
	return open(h.Session, h.Lock, identities)
}

// OpenInput is Open for the key of what is for stricter recipients, which the recording must have.
func OpenInput(h format.Header, identities ...age.Identity) (*format.Key, error) {
	return open(h.Session, h.Lock.Input, identities)
}

func open(session string, l *format.Lock, identities []age.Identity) (*format.Key, error) {
	r, err := age.Decrypt(bytes.NewReader(l.Key), identities...)
	if _, none := errors.AsType[*age.NoIdentityMatchError](err); none {
		return nil, fmt.Errorf("open the recording of session %s: %w; its recipients are: %s", session, ErrNotForYou, strings.Join(l.Recipients, ", "))
	} else if err != nil {
		return nil, fmt.Errorf("open the recording of session %s: %w", session, err)
	}
	raw, err := io.ReadAll(io.LimitReader(r, format.KeySize+1))
	defer clear(raw)
	if err != nil {
		return nil, fmt.Errorf("open the recording of session %s: %w", session, err)
	}
	if subtle.ConstantTimeCompare(format.KeyCheck(session, raw), l.Check) != 1 {
		return nil, fmt.Errorf("open the recording of session %s: the key in its header is not the one it was locked with", session)
	}
	return format.NewKey(raw)
}

// Identities reads a file of age identities, as age-keygen writes it. One that is locked with a passphrase, as `age -p`
// does, has ask called for it.
func Identities(file io.Reader, ask func() (string, error)) ([]age.Identity, error) {
	content, err := io.ReadAll(io.LimitReader(file, maxIdentities+1))
	if err != nil {
		return nil, err
	}
	defer clear(content)
	if len(content) > maxIdentities {
		return nil, fmt.Errorf("a file of identities has at most %d bytes", maxIdentities)
	}
	var locked io.Reader
	switch {
	case bytes.HasPrefix(content, []byte("age-encryption.org/v1\n")):
		locked = bytes.NewReader(content)
	case bytes.HasPrefix(content, []byte(armor.Header)):
		locked = armor.NewReader(bytes.NewReader(content))
	default:
		return age.ParseIdentities(bytes.NewReader(content))
	}
	passphrase, err := ask()
	if err != nil {
		return nil, err
	}
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, err
	}
	opened, err := age.Decrypt(locked, identity)
	if err != nil {
		return nil, fmt.Errorf("the passphrase does not open it: %w", err)
	}
	return age.ParseIdentities(io.LimitReader(opened, maxIdentities))
}
