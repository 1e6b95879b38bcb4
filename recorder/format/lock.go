package format

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
)

// KeySize is the length of a recording's key.
const KeySize = 32

const (
	flagLocked = 2 // in a block: its payload is locked
	flagStrict = 4 // beside it: with the key of Lock.Input
	keyTag     = "sallyport srec key\n"
	clearTop   = 8  // of a locked payload: the time of its last frame, in the clear
	lockedEnd  = 16 // the authentication tag
	lockedRoom = clearTop + lockedEnd
	lockedAAD  = ChainSize + 8 + 8 + 2 + 2 + clearTop
)

// Lock says to whom a recording is locked, and has its key for them.
type Lock struct {
	// Recipients are age recipients (c2sp.org/age).
	Recipients []string `json:"recipients"`
	// Key is an age file for them, with the KeySize bytes of the key.
	Key []byte `json:"key"`
	// Check is KeyCheck of the key: AES-GCM alone does not tie a file to one key.
	Check []byte `json:"check"`
	// Input has another key, for what is typed and for the parameters of statements, if its recipients are stricter ones.
	Input *Lock `json:"input,omitempty"`
}

// ErrWiped is what reading says when the key was wiped: the recording has ended.
var ErrWiped = errors.New("the recording's key is gone: it has ended")

// KeyCheck is the hash that a Lock has of a session's key.
func KeyCheck(session string, key []byte) []byte {
	// In one piece, which is overwritten: a hash that is written to keeps what it was given last.
	all := make([]byte, 0, 512)
	all = append(append(append(append(all, keyTag...), session...), 0), key...)
	defer clear(all)
	sum := sha256.Sum256(all)
	return sum[:]
}

// Key is the key of one recording. Who makes it has it, others Hold it; with the last Release it is wiped. It is safe for
// concurrent use.
type Key struct {
	mu    sync.RWMutex
	block cipher.Block
	aead  cipher.AEAD // nil once it was wiped
	held  int
}

// NewKey makes a Key of KeySize bytes, which stay the caller's to wipe.
func NewKey(raw []byte) (*Key, error) {
	if len(raw) != KeySize {
		return nil, fmt.Errorf("a recording's key has %d bytes, not %d", KeySize, len(raw))
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &Key{block: block, aead: aead, held: 1}, nil
}

// Hold keeps the key from being wiped; false if it was.
func (k *Key) Hold() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.aead == nil {
		return false
	}
	k.held++
	return true
}

// Release ends a Hold, or having made the key.
func (k *Key) Release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held--; k.held == 0 {
		k.wipe()
	}
}

// Wipe wipes the key whoever holds it.
func (k *Key) Wipe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wipe()
}

// wipe overwrites the key where the ciphers keep it, which they offer no way to do themselves. The lock is held.
func (k *Key) wipe() {
	if k.aead == nil {
		return
	}
	reflect.ValueOf(k.block).Elem().SetZero()
	reflect.ValueOf(k.aead).Elem().SetZero()
	k.block, k.aead = nil, nil
}

// nonce is a block's number: a number is locked at most once, because what takes the place of a block that could not be
// written is an ending, which is in the clear.
func (b *block) nonce() []byte {
	nonce := make([]byte, 12)
	binary.BigEndian.PutUint64(nonce[4:], b.number)
	return nonce
}

// bound is what a locked payload is bound to: the recording, and the block's place in it.
func (b *block) bound(origin Chain, top []byte) []byte {
	aad := make([]byte, 0, lockedAAD)
	aad = append(aad, origin[:]...)
	aad = binary.BigEndian.AppendUint64(aad, b.number)
	aad = binary.BigEndian.AppendUint64(aad, b.first)
	aad = binary.BigEndian.AppendUint16(aad, b.frames)
	aad = binary.BigEndian.AppendUint16(aad, b.flags)
	return append(aad, top...)
}

// lock locks the frames that stand behind clearTop bytes of room in payload, in place but for the tag, for which
// there must be room behind it. It panics if the key was wiped, which is a mistake in the caller.
func (k *Key) lock(b *block, origin Chain, payload []byte, last uint64) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.aead == nil {
		panic("a recording is written whose key was wiped")
	}
	top := payload[:clearTop]
	binary.BigEndian.PutUint64(top, last)
	k.aead.Seal(payload[clearTop:clearTop], b.nonce(), payload[clearTop:], b.bound(origin, top))
}

// unlock returns the frames of a locked block; false where this key does not open it.
func (k *Key) unlock(b *block, origin Chain) ([]byte, bool, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.aead == nil {
		return nil, false, ErrWiped
	}
	top, locked := b.payload[:clearTop], b.payload[clearTop:]
	frames, err := k.aead.Open(nil, b.nonce(), locked, b.bound(origin, top))
	return frames, err == nil && hasFrames(frames, uint64(b.frames)), nil
}

// isLocked reports whether the payload is locked.
func (b *block) isLocked() bool { return b.flags&flagLocked != 0 }

// isStrict reports whether that is with the stricter key.
func (b *block) isStrict() bool { return b.flags&flagStrict != 0 }

// lastAt is when the last frame of a locked block was, which is in the clear.
func (b *block) lastAt() time.Duration {
	return time.Duration(min(binary.BigEndian.Uint64(b.payload), 1<<53)) * time.Microsecond
}

// staysClear reports whether an event of a locked recording is not locked: what ties it to the target's own log, and what
// the gateway says when it ends or repairs one, which it must be able to without the key.
func staysClear(e Event) bool {
	switch e.Type {
	case TypeEnd, TypeConnected:
		return true
	case TypeNote:
		return strings.HasPrefix(string(e.Data[:min(len(e.Data), 32)]), `{"kind":"act"`)
	default:
		return false
	}
}

// mayBeClear reports whether frames may stand unlocked in a locked recording.
func mayBeClear(payload []byte) bool {
	for len(payload) > 0 {
		f, rest, ok := parseFrame(payload)
		if !ok || f.kind != TypeEnd && f.kind != TypeConnected && f.kind != TypeNote {
			return false
		}
		payload = rest
	}
	return true
}

// Unlock has the locked blocks read with a key; without one they are checked, as far as sums and chain go, and passed over.
func (r *Reader) Unlock(key *Key) { r.key = key }

// UnlockStrict has those read, too, that are locked with the stricter of two keys.
func (r *Reader) UnlockStrict(key *Key) { r.strict = key }

// Strict reports whether it reads what is locked with the stricter of two keys, so that nothing need stand in for it.
func (r *Reader) Strict() bool { return r.strict != nil }

// openCurrent makes the frames of the current block those to give. What it says is wrong is for a Damage.
func (r *Reader) openCurrent() (what string, err error) {
	if r.header.Lock == nil || !r.current.isLocked() {
		if r.header.Lock != nil && !mayBeClear(r.payload) {
			return "a block stands in the clear that was not written so", nil
		}
		return "", nil
	}
	r.payload = nil
	r.latest = max(r.latest, r.current.lastAt())
	key := r.key
	if r.current.isStrict() {
		key = r.strict
	}
	if key == nil {
		return "", nil
	}
	frames, ok, err := key.unlock(&r.current, r.origin)
	if err != nil {
		return "", err
	}
	if !ok {
		return "the block does not open with the recording's key", nil
	}
	r.payload = frames
	return "", nil
}
