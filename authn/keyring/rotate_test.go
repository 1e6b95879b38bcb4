package keyring

import (
	"crypto"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func open(t *testing.T, dir string) *Keyring {
	t.Helper()
	k, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestRotate: each authority gets another key, the old one's public half stays for its time and its private half is gone
// from the disk; all others stay as they are; and a restart finds the same.
func TestRotate(t *testing.T) {
	for _, name := range Names {
		t.Run(string(name), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "keys")
			first := open(t, dir)
			until := time.Now().Add(time.Hour).Truncate(time.Second)
			k := first
			if name.Published() {
				var err error
				if k, err = first.Prepare(name); err != nil {
					t.Fatal(err)
				}
				if again, err := k.Prepare(name); err != nil || !again.Next[name].Equal(k.Next[name]) {
					t.Fatalf("preparing twice: %v", err)
				}
				if !equal(k.Current(name).Public(), first.Current(name).Public()) {
					t.Error("it is used already")
				}
			} else if _, err := first.Prepare(name); err == nil {
				t.Error("it was prepared for nobody")
			}
			next := k.Next[name]
			rotated, err := k.Rotate(name, until)
			if err != nil {
				t.Fatal(err)
			}
			for _, now := range []*Keyring{rotated, open(t, dir)} {
				if equal(now.Current(name).Public(), first.Current(name).Public()) {
					t.Fatal("the key did not change")
				}
				if next != nil && !equal(now.Current(name).Public(), next.Public()) {
					t.Error("it is not the key that was prepared")
				}
				if len(now.Next) != 0 || len(now.Old[name]) != 1 || !equal(now.Old[name][0].Public, first.Current(name).Public()) || !now.Old[name][0].Until.Equal(until) {
					t.Errorf("next %v, old %+v", now.Next, now.Old)
				}
				for _, other := range Names {
					if other != name && !equal(now.Current(other).Public(), first.Current(other).Public()) {
						t.Errorf("%s changed too", other)
					}
				}
				if !equal(now.ClientCACertificate.PublicKey, now.Current(ClientCA).Public()) {
					t.Error("the client authority's certificate is for another key")
				}
			}
			private, err := x509.MarshalPKCS8PrivateKey(first.Current(name))
			if err != nil {
				t.Fatal(err)
			}
			files, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				blocks, err := readAll(filepath.Join(dir, f.Name()))
				if err != nil {
					t.Errorf("%s: %v", f.Name(), err)
				}
				for _, b := range blocks {
					if string(b.Bytes) == string(private) {
						t.Errorf("%s still has the old private key", f.Name())
					}
				}
			}
			refused, err := rotated.Refuse(name)
			if err != nil || len(refused.Old[name]) != 0 || len(open(t, dir).Old[name]) != 0 {
				t.Errorf("old keys after Refuse: %v, %v", refused, err)
			}
		})
	}
}

// TestRotateOften: old keys whose time is over are forgotten, and their number is bounded.
func TestRotateOften(t *testing.T) {
	k := open(t, filepath.Join(t.TempDir(), "keys"))
	var err error
	for range maxRetired + 3 {
		if k, err = k.Rotate(LoginCA, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(k.Old[LoginCA]); n != maxRetired {
		t.Errorf("%d old keys", n)
	}
	for i := range k.Old[LoginCA] {
		k.Old[LoginCA][i].Until = time.Now().Add(-time.Second)
	}
	if k, err = k.Rotate(LoginCA, time.Now().Add(-time.Second)); err != nil || len(k.Old[LoginCA]) != 0 {
		t.Errorf("%d old keys, %v", len(k.Old[LoginCA]), err)
	}
}

// TestCrashWhileRotating: whatever moment it stops at, the next start has keys, and what the old one signed counts.
func TestCrashWhileRotating(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	k := open(t, dir)
	if err := k.retire(ClientCA, time.Now().Add(time.Hour)); err != nil { // and no further
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".new-1234"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if !again.ClientCACertificate.Equal(k.ClientCACertificate) || len(again.Old[ClientCA]) != 1 {
		t.Errorf("%+v", again.Old)
	}
}

func TestDamagedOldKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := open(t, dir).Rotate(LoginCA, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "login_ca.old.pem")
	for name, text := range map[string]string{
		"no time": "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n",
		"no PEM":  "x", "empty": "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func equal(a, b crypto.PublicKey) bool {
	return a.(interface{ Equal(x crypto.PublicKey) bool }).Equal(b)
}
