// Package passkeytest is a person's authenticator for tests, in software: it makes keys and signs with them as WebAuthn says
// (https://www.w3.org/TR/webauthn-3, sections 6 and 7), and as wrongly as a test wants.
package passkeytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
)

// Flags of authenticator data (section 6.1).
const (
	present  = 1 << 0
	verified = 1 << 2
	synced   = 1 << 3 // backup eligible
	attested = 1 << 6
)

// Key is one that it has made. A test may change what it says before Sign.
type Key struct {
	ID, Handle []byte
	RP, Origin string // what it was made for, and where
	Counter    uint32 // of the last signature
	Counts     bool
	Unverified bool // it asks for a touch only
	Synced     bool

	private *ecdsa.PrivateKey
}

// creation and request are what of the options counts here.
type creation struct {
	Challenge string `json:"challenge"`
	RP        struct {
		ID string `json:"id"`
	} `json:"rp"`
	User struct {
		ID string `json:"id"`
	} `json:"user"`
}

type request struct {
	Challenge string `json:"challenge"`
}

// Make makes a key by what navigator.credentials.create would be given at that origin, and what it would answer, as JSON.
func Make(options []byte, origin string, change ...func(*Key)) (*Key, []byte, error) {
	var asked creation
	if err := json.Unmarshal(options, &asked); err != nil {
		return nil, nil, err
	}
	handle, err := base64.RawURLEncoding.DecodeString(asked.User.ID)
	if err != nil {
		return nil, nil, fmt.Errorf("the person's handle: %w", err)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	k := &Key{ID: make([]byte, 32), Handle: handle, RP: asked.RP.ID, Origin: origin, Counts: true, private: private}
	rand.Read(k.ID)
	for _, f := range change {
		f(k)
	}
	public, err := private.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return nil, nil, err
	}
	cose := join(head(5, 5), // a map of five: RFC 9053, section 7.1.1
		integer(1), integer(2), // kty: EC2
		integer(3), integer(-7), // alg: ES256
		integer(-1), integer(1), // crv: P-256
		integer(-2), octets(public[1:33]),
		integer(-3), octets(public[33:65]))
	data := join(k.data(attested), make([]byte, 16), binary.BigEndian.AppendUint16(nil, uint16(len(k.ID))), k.ID, cose)
	object := join(head(5, 3), text("fmt"), text("none"), text("attStmt"), head(5, 0), text("authData"), octets(data))
	answer, err := json.Marshal(map[string]any{
		"id": encoded(k.ID), "rawId": encoded(k.ID), "type": "public-key", "clientExtensionResults": map[string]any{},
		"response": map[string]any{"clientDataJSON": encoded(k.client("webauthn.create", asked.Challenge)), "attestationObject": encoded(object)},
	})
	return k, answer, err
}

// Sign answers what navigator.credentials.get would be given, as JSON.
func (k *Key) Sign(options []byte) ([]byte, error) {
	var asked request
	if err := json.Unmarshal(options, &asked); err != nil {
		return nil, err
	}
	if k.Counts {
		k.Counter++
	}
	data, client := k.data(0), k.client("webauthn.get", asked.Challenge)
	hash := sha256.Sum256(client)
	signed := sha256.Sum256(join(data, hash[:]))
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, signed[:])
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{
		"id": encoded(k.ID), "rawId": encoded(k.ID), "type": "public-key", "clientExtensionResults": map[string]any{},
		"response": map[string]any{
			"clientDataJSON": encoded(client), "authenticatorData": encoded(data), "signature": encoded(signature), "userHandle": encoded(k.Handle),
		},
	})
}

// data is authenticator data without what it attests.
func (k *Key) data(flags byte) []byte {
	flags |= present
	if !k.Unverified {
		flags |= verified
	}
	if k.Synced {
		flags |= synced
	}
	rp := sha256.Sum256([]byte(k.RP))
	return binary.BigEndian.AppendUint32(append(rp[:], flags), k.Counter)
}

func (k *Key) client(kind, challenge string) []byte {
	data, _ := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": k.Origin, "crossOrigin": false}) // of texts it can't fail
	return data
}

func encoded(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// head, integer, octets and text are CBOR (RFC 8949, section 3).
func head(major byte, n int) []byte {
	switch {
	case n < 24:
		return []byte{major<<5 | byte(n)}
	case n < 1<<8:
		return []byte{major<<5 | 24, byte(n)}
	}
	return []byte{major<<5 | 25, byte(n >> 8), byte(n)}
}

func integer(n int) []byte {
	if n < 0 {
		return head(1, -1-n)
	}
	return head(0, n)
}

func octets(b []byte) []byte { return append(head(2, len(b)), b...) }
func text(s string) []byte   { return append(head(3, len(s)), s...) }
