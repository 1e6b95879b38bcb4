package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/curve25519"
	"golang.org/x/crypto/hkdf"

	"sallyport/recorder/format"
	"sallyport/test/rig"
)

// TestNoKeyIsLeft: once a session has ended, neither the gateway's memory nor its disk has a key with which its recording opens:
// not the recording's own, none of those with which that is locked to its recipient, and not the recipient's.
func TestNoKeyIsLeft(t *testing.T) {
	r := rig.Start(t, rig.Binary(t, ""))
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	stricter, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	lockTo(t, r, identity.Recipient().String(), stricter.Recipient().String())
	const canary = "canary-heron-77"
	workBoth(t, r, canary, canary)
	pid, err := r.GatewayPID()
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{"the identity": scalarOf(t, identity), "the identity as text": []byte(identity.String()),
		"the stricter identity": scalarOf(t, stricter), "the stricter identity as text": []byte(stricter.String())}
	for _, protocol := range []string{"postgres", "ssh"} {
		file := filepath.Join(t.TempDir(), "kept.srec")
		if out := r.As("carol", "export", endedSession(r, protocol), "--format", "srec", "-o", file); out.Code != 0 {
			t.Fatalf("%+v", out)
		}
		header := headerOf(t, file)
		if header.Lock.Input == nil {
			t.Fatal("what is typed has no key of its own")
		}
		for class, keys := range map[string]map[string][]byte{
			"all":                   keysOf(t, header.Session, header.Lock, identity),
			"all, for the stricter": keysOf(t, header.Session, header.Lock, stricter),
			"what is typed":         keysOf(t, header.Session, header.Lock.Input, stricter),
		} {
			for name, key := range keys {
				secrets["half of "+name+" to "+class+" of the "+protocol+" session"] = key[:len(key)/2]
				secrets["the rest of "+name+" to "+class+" of the "+protocol+" session"] = key[len(key)/2:]
			}
		}
	}
	strictParameters(t, r, identity.String(), stricter.String())
	memory, err := searchMemory(pid, secrets)
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("this machine does not let a process read another's memory, not even its parent: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, found := range memory {
		t.Errorf("%s stands %d times in the gateway's memory", name, found)
	}
	var words []string
	for _, key := range secrets {
		words = append(words, string(key), hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key))
	}
	nowhere(t, r, words...)

	// The search itself finds what is there: the environment of the gateway has the name of its state directory.
	if found, err := searchMemory(pid, map[string][]byte{"control": []byte(r.Path("recordings"))}); err != nil || found["control"] == 0 {
		t.Errorf("the search finds nothing: %v, %v", found, err)
	}
}

// scalarOf is an identity's secret key, out of its Bech32.
func scalarOf(t *testing.T, identity *age.X25519Identity) []byte {
	t.Helper()
	const alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	_, text, _ := strings.Cut(strings.ToLower(identity.String()), "key-1")
	var scalar []byte
	bits, have := 0, 0
	for _, c := range text[:len(text)-6] {
		bits, have = bits<<5|strings.IndexRune(alphabet, c), have+5
		if have >= 8 {
			have -= 8
			scalar = append(scalar, byte(bits>>have))
			bits &= 1<<have - 1
		}
	}
	if public, err := curve25519.X25519(scalar, curve25519.Basepoint); err != nil || len(public) != 32 {
		t.Fatalf("%d bytes, %v", len(scalar), err)
	}
	return scalar
}

func headerOf(t *testing.T, file string) format.Header {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	reader, err := format.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if reader.Header().Lock == nil {
		t.Fatal("the recording is not locked")
	}
	return reader.Header()
}

// witness is an identity that keeps the key that it unwraps.
type witness struct {
	*age.X25519Identity
	fileKey []byte
	share   string // of the stanza that is its own
}

func (w *witness) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, stanza := range stanzas {
		key, err := w.X25519Identity.Unwrap([]*age.Stanza{stanza})
		if err == nil {
			w.fileKey, w.share = bytes.Clone(key), stanza.Args[0]
			return key, nil
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// keysOf are all the keys each of which opens a recording: its own, and those of the age file in its header, by
// https://c2sp.org/age: the file's, that of its payload, that which wraps the file's, and the shared secret that one is made of.
func keysOf(t *testing.T, session string, l *format.Lock, identity *age.X25519Identity) map[string][]byte {
	t.Helper()
	w := &witness{X25519Identity: identity}
	opened, err := age.Decrypt(bytes.NewReader(l.Key), w)
	if err != nil {
		t.Fatal(err)
	}
	own, err := io.ReadAll(opened)
	if err != nil || !bytes.Equal(format.KeyCheck(session, own), l.Check) {
		t.Fatalf("%d bytes, %v", len(own), err)
	}
	derive := func(secret, salt []byte, info string) []byte {
		key := make([]byte, 32)
		if _, err := io.ReadFull(hkdf.New(sha256.New, secret, salt, []byte(info)), key); err != nil {
			t.Fatal(err)
		}
		return key
	}
	head := bytes.Index(l.Key, []byte("\n--- "))
	payload := bytes.IndexByte(l.Key[head+1:], '\n') + head + 2
	var ephemeral []byte
	scalar := scalarOf(t, identity)
	if ephemeral, err = base64.RawStdEncoding.DecodeString(w.share); err != nil {
		t.Fatal(err)
	}
	shared, err := curve25519.X25519(scalar, ephemeral)
	if err != nil {
		t.Fatal(err)
	}
	public, err := curve25519.X25519(scalar, curve25519.Basepoint)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"the key":            own,
		"the age file's key": w.fileKey,
		"the payload's key":  derive(w.fileKey, l.Key[payload:payload+16], "payload"),
		"the wrapping key":   derive(shared, append(bytes.Clone(ephemeral), public...), "age-encryption.org/v1/X25519"),
		"the shared secret":  shared,
	}
}

// searchMemory counts where secrets stand in a process's memory, in all that it can read itself.
func searchMemory(pid int, secrets map[string][]byte) (map[string]int, error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	found, looked := map[string]int{}, 0
	const overlap = 256
	buffer := make([]byte, 4<<20)
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uint64
		var access string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &access); err != nil {
			return nil, err
		}
		if access[0] != 'r' || to > 1<<63 || strings.Contains(lines.Text(), "[vv") || strings.Contains(lines.Text(), "[vsyscall]") {
			continue
		}
		for at := from; at < to; at += uint64(len(buffer)) - overlap {
			n, err := memory.ReadAt(buffer[:min(uint64(len(buffer)), to-at)], int64(at))
			if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
				return nil, err
			}
			looked += n // a range that was unmapped meanwhile gives an error and nothing
			for name, secret := range secrets {
				found[name] += bytes.Count(buffer[:n], secret)
			}
		}
	}
	if looked < 10<<20 {
		return nil, fmt.Errorf("only %d bytes of the gateway's memory could be read", looked)
	}
	for name, n := range found {
		if n == 0 {
			delete(found, name)
		}
	}
	return found, nil
}
