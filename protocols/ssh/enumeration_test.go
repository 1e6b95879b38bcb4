package ssh

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/internal/store"
)

// asks asks whether a key would do, and returns all that is answered.
func (c *raw) asks(user string, key xssh.PublicKey) (answers [][]byte) {
	c.t.Helper()
	c.send(c.authRequest(user, false, key))
	for {
		p := c.read(rawKeyOK, rawAuthFailure, rawAuthBanner)
		if p[0] == rawKeyOK {
			return append(answers, p[:1]) // the rest is the key
		}
		if answers = append(answers, p); p[0] == rawAuthFailure {
			return answers
		}
	}
}

// bind has a plain key stand for alice.
func (r *rig) bind(t *testing.T, key xssh.PublicKey) {
	t.Helper()
	sum := sha256.Sum256(key.Marshal())
	err := r.store.Do(t.Context(), func(tx *store.Tx) error {
		_, err := tx.ExecContext(t.Context(), `INSERT INTO ssh_keys (id, sign_in, ssh_key, source, fingerprint, issued, expires)
			SELECT 'k-test', id, ?, '127.0.0.1', ?, 0, ? FROM sign_ins LIMIT 1`, sum[:], xssh.FingerprintSHA256(key), time.Now().Add(time.Hour).UnixNano())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestStrangersLearnNothing: whether a key or a certificate is known, and which targets and accounts there are, is nothing that
// whoever shows somebody else's key finds out, by what is answered or by how long that takes. No measuring of time is needed for it: the
// answer is the same to the byte, and it comes with the store shut, where all that is known of anybody stands.
func TestStrangersLearnNothing(t *testing.T) {
	r := newRig(t)
	r.config.Targets[0].SSO = true
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	known, unknown, mallory := newSigner(t), newSigner(t), r.mallory(t)
	r.bind(t, known.PublicKey())
	if c, err := r.dial("me@web-1", known); err != nil {
		t.Fatal("the known key is not known: ", err)
	} else {
		c.Close()
	}
	certificate := r.signer.PublicKey().(*xssh.Certificate)
	foreign := *certificate
	foreign.KeyId, foreign.ValidPrincipals = "c-nobody", []string{"c-nobody"}
	if err := foreign.SignCert(rand.Reader, unknown); err != nil {
		t.Fatal(err)
	}
	ask := func(user string, key xssh.PublicKey) []byte {
		c := r.raw(t)
		defer c.conn.Close()
		c.service()
		return bytes.Join(c.asks(user, key), nil)
	}
	users := []string{"me@web-1", "me@down", "me@orders", "me@nowhere", "nobody@web-1", "me", "nobody", ""}
	before := map[string][]byte{}
	for _, user := range users {
		before[user] = ask(user, known.PublicKey())
	}
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, user := range users {
		want := before[user]
		if got := ask(user, known.PublicKey()); !bytes.Equal(got, want) {
			t.Errorf("%q: a known key is answered with %q, and with %q when nothing can be looked up", user, want, got)
		}
		if got := ask(user, unknown.PublicKey()); !bytes.Equal(got, want) {
			t.Errorf("%q: a known key is answered with %q, an unknown one with %q", user, want, got)
		}
		for name, key := range map[string]xssh.PublicKey{"alice's": certificate, "mallory's": mallory.PublicKey(), "a foreign": &foreign} {
			if got := ask(user, key); len(got) != 1 || got[0] != rawKeyOK {
				t.Errorf("%q: %s certificate is answered with %q", user, name, got)
			}
		}
	}
	// Of targets, those that take plain keys can be told from all others, as a stranger's key is asked to sign in there.
	want := ask("me@nowhere", unknown.PublicKey())
	for _, user := range []string{"me@down", "me@orders", "nobody@down", "me", "nobody", ""} {
		if got := ask(user, unknown.PublicKey()); !bytes.Equal(got, want) {
			t.Errorf("%q is answered with %q, a target that is not there with %q", user, got, want)
		}
	}
	if got := ask("nobody@web-1", unknown.PublicKey()); !bytes.Equal(got, ask("me@web-1", unknown.PublicKey())) {
		t.Errorf("an account that is not there is answered with %q", got)
	}
}
