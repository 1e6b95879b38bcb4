package authn

import (
	"crypto/tls"
	"testing"
)

// Nobody is signed in to a store that was brought back from a backup, and nothing that was issued before proves anything.
func TestRestoredSignsEverybodyOut(t *testing.T) {
	r := newRig(t)
	knock := func(p pair, issued Certificates) error {
		_, err := r.handshake(tls.Certificate{Certificate: [][]byte{issued.TLS}, PrivateKey: p.tls})
		return err
	}
	_, old, before := r.certified()
	if err := knock(old, before); err != nil {
		t.Fatal(err)
	}
	if err := r.store.MarkRestored(t.Context(), r.now()); err != nil {
		t.Fatal(err)
	}
	if err := endRestored(t.Context(), r.store, r.now()); err != nil {
		t.Fatal(err)
	}
	if err := knock(old, before); err == nil {
		t.Error("a certificate of before is good")
	}
	// It is done once: who signs in now stays.
	_, fresh, after := r.certified()
	if err := endRestored(t.Context(), r.store, r.now()); err != nil {
		t.Fatal(err)
	}
	if err := knock(fresh, after); err != nil {
		t.Error(err)
	}
}
