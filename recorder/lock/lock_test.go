package lock

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"sallyport/recorder/format"
)

func TestLockAndOpen(t *testing.T) {
	one, _ := age.GenerateX25519Identity()
	other, _ := age.GenerateX25519Identity()
	key, locked, err := New(t.Context(), "s1", []string{one.Recipient().String(), other.Recipient().String()})
	if err != nil {
		t.Fatal(err)
	}
	key.Release()
	h := format.Header{Session: "s1", Lock: locked}
	for _, who := range []age.Identity{one, other} {
		opened, err := Open(h, who)
		if err != nil {
			t.Fatal(err)
		}
		opened.Release()
	}
	stranger, _ := age.GenerateX25519Identity()
	if _, err := Open(h, stranger); !errors.Is(err, ErrNotForYou) {
		t.Errorf("a stranger: %v", err)
	}
	// The key of one recording in the header of another does not pass.
	h.Session = "s2"
	if _, err := Open(h, one); err == nil || errors.Is(err, ErrNotForYou) {
		t.Errorf("another session's key: %v", err)
	}
	// Classic and post-quantum recipients don't mix.
	hybrid, _ := age.GenerateHybridIdentity()
	if _, _, err := New(t.Context(), "s3", []string{one.Recipient().String(), hybrid.Recipient().String()}); err == nil {
		t.Error("they were mixed")
	}
}

func TestIdentityLockedWithAPassphrase(t *testing.T) {
	one, _ := age.GenerateX25519Identity()
	to, err := age.NewScryptRecipient("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	to.SetWorkFactor(10)
	var plain, armored bytes.Buffer
	w, err := age.Encrypt(&plain, to)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(one.String() + "\n"))
	w.Close()
	a := armor.NewWriter(&armored)
	a.Write(plain.Bytes())
	a.Close()
	for _, file := range [][]byte{plain.Bytes(), armored.Bytes()} {
		all, err := Identities(bytes.NewReader(file), func() (string, error) { return "correct horse", nil })
		if err != nil || len(all) != 1 {
			t.Errorf("%d identities, %v", len(all), err)
		}
		if _, err := Identities(bytes.NewReader(file), func() (string, error) { return "wrong", nil }); err == nil {
			t.Error("a wrong passphrase opens it")
		}
	}
	never := func() (string, error) { t.Error("it asks for a passphrase"); return "", nil }
	all, err := Identities(strings.NewReader("# created\n"+one.String()+"\n"), never)
	if err != nil || slices.Contains(all, nil) || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}
