package passkey

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sallyport/authn/passkey/passkeytest"
)

const home = "https://gateway.example:8443"

func party(t testing.TB) *Party {
	t.Helper()
	p, err := New(home)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestOnlyNamesOverTLS: an address of numbers, or one without TLS, can't have keys.
func TestOnlyNamesOverTLS(t *testing.T) {
	for address, usable := range map[string]bool{
		home: true, "https://localhost:8443": true, "https://GATEWAY.example": true,
		"https://127.0.0.1:8443": false, "https://[::1]:8443": false, "http://gateway.example": false, "": false, "https://": false,
	} {
		if _, err := New(address); (err == nil) != usable {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// TestKeysProveThemselves: whatever happens to a key's counter between its signatures, an answer is good exactly when the counter has
// grown (or the key does not count), and always only for its own challenge, person and public part.
func TestKeysProveThemselves(t *testing.T) {
	p := party(t)
	handle := []byte("u-alice")
	rapid.Check(t, func(t *rapid.T) {
		counts, synced := rapid.Bool().Draw(t, "counts"), rapid.Bool().Draw(t, "synced")
		options, challenge, err := p.Make(handle, "alice@example.com", "Alice", nil)
		if err != nil {
			t.Fatal(err)
		}
		authenticator, made, err := passkeytest.Make(options, home, func(k *passkeytest.Key) { k.Counts, k.Synced = counts, synced })
		if err != nil {
			t.Fatal(err)
		}
		said, err := ReadNew(made)
		if err != nil || said.Challenge() != challenge {
			t.Fatal(said, err)
		}
		key, err := p.Made(said, challenge, handle)
		if err != nil || !bytes.Equal(key.Credential, authenticator.ID) || key.Synced != synced || key.Counter != 0 {
			t.Fatal(key, err)
		}
		for range rapid.IntRange(1, 6).Draw(t, "signatures") {
			if counts {
				authenticator.Counter = rapid.Uint32Range(0, 5).Draw(t, "counter")
			}
			options, challenge, err := p.Ask()
			if err != nil {
				t.Fatal(err)
			}
			signed, err := authenticator.Sign(options)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := Read(signed)
			if err != nil || answer.Challenge() != challenge || !bytes.Equal(answer.Credential(), key.Credential) {
				t.Fatal(answer, err)
			}
			_, other, _ := p.Ask()
			if _, err := p.Proven(answer, other, handle, key); err == nil || errors.Is(err, ErrCloned) {
				t.Fatalf("for another challenge: %v", err)
			}
			if _, err := p.Proven(answer, challenge, []byte("u-bob"), key); err == nil || errors.Is(err, ErrCloned) {
				t.Fatalf("for another person: %v", err)
			}
			next, err := p.Proven(answer, challenge, handle, key)
			switch grown := authenticator.Counter > key.Counter || !counts; {
			case grown && (err != nil || next != authenticator.Counter):
				t.Fatalf("%d after %d: %v", authenticator.Counter, key.Counter, err)
			case !grown && !errors.Is(err, ErrCloned):
				t.Fatalf("%d after %d is taken: %v", authenticator.Counter, key.Counter, err)
			case grown:
				key.Counter = next
			}
		}
	})
}

// FuzzAnswers: nothing that a browser may send breaks what reads it, and nothing made up proves anything.
func FuzzAnswers(f *testing.F) {
	p := party(f)
	options, _, err := p.Make([]byte("u-alice"), "alice", "Alice", nil)
	if err != nil {
		f.Fatal(err)
	}
	authenticator, made, err := passkeytest.Make(options, home)
	if err != nil {
		f.Fatal(err)
	}
	said, err := ReadNew(made)
	if err != nil {
		f.Fatal(err)
	}
	key, err := p.Made(said, said.Challenge(), []byte("u-alice"))
	if err != nil {
		f.Fatal(err)
	}
	options, challenge, err := p.Ask()
	if err != nil {
		f.Fatal(err)
	}
	signed, err := authenticator.Sign(options)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", "{}", string(made), string(signed), strings.Repeat("[", MaxAnswer), `{"id":"AA","rawId":"AA","type":"public-key","response":{}}`} {
		f.Add([]byte(seed))
	}
	_, other, err := p.Ask()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		if n, err := ReadNew(sent); err == nil {
			if _, err := p.Made(n, other, []byte("u-alice")); err == nil {
				t.Fatal("a key is made for a challenge that nobody has seen")
			}
		}
		a, err := Read(sent)
		if err != nil {
			return
		}
		if _, err := p.Proven(a, other, []byte("u-alice"), key); err == nil {
			t.Fatal("a key has answered a challenge that it has not seen")
		}
		if _, err := p.Proven(a, challenge, []byte("u-bob"), key); err == nil {
			t.Fatal("a key has answered for somebody else")
		}
	})
}
