package keyring

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeysAreMadeOnceAndApart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "keys")
	log := slog.New(slog.DiscardHandler)
	first, err := Open(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		if strings.HasPrefix(d.Name(), ".new") {
			t.Errorf("%s is left over", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	if !again.SSHHost.Equal(first.SSHHost) || !again.HostCA.Equal(first.HostCA) || !again.LoginCA.Equal(first.LoginCA) || !again.TargetCA.Equal(first.TargetCA) ||
		!again.ClientCA.Equal(first.ClientCA) || !again.Issuer.Equal(first.Issuer) || again.Token != first.Token || !again.ClientCACertificate.Equal(first.ClientCACertificate) {
		t.Fatal("other keys at the second start")
	}
	seen := map[string]bool{}
	for _, key := range [][]byte{first.SSHHost, first.HostCA, first.LoginCA, first.TargetCA} {
		if seen[string(key)] {
			t.Fatal("two authorities have the same key")
		}
		seen[string(key)] = true
	}
	if first.ClientCA.Equal(first.Issuer) {
		t.Fatal("the client authority's key is the issuer's")
	}
	if ca := first.ClientCACertificate; !ca.IsCA || !ca.MaxPathLenZero || ca.CheckSignatureFrom(ca) != nil {
		t.Fatalf("%+v", ca)
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for name, spoil := range map[string]func(path, other string) error{
		"readable by others": func(path, _ string) error { return os.Chmod(path, 0o640) },
		"empty":              func(path, _ string) error { return os.WriteFile(path, nil, 0o600) },
		"cut off": func(path, _ string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, data[:len(data)/2], 0o600)
		},
		"huge":            func(path, _ string) error { return os.WriteFile(path, bytes.Repeat([]byte("a"), maxFile+1), 0o600) },
		"of another kind": func(path, other string) error { return os.Rename(other, path) },
		"a directory":     func(path, _ string) error { return os.Remove(path) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := Open(dir, log); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "login_ca.pem")
			if err := spoil(path, filepath.Join(dir, "issuer.pem")); err != nil {
				t.Fatal(err)
			}
			if name == "a directory" {
				if err := os.Mkdir(path, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			before, _ := os.ReadFile(path)
			_, err := Open(dir, log)
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v", err)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Fatal("the file was changed")
			}
		})
	}
	t.Run("a certificate of another key", func(t *testing.T) {
		dir := t.TempDir()
		if _, err := Open(dir, log); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "client_ca.pem")); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, log); err == nil || !strings.Contains(err.Error(), "client_ca") {
			t.Fatalf("got %v", err)
		}
	})
}

// A key file that somebody else made meanwhile is never replaced.
func TestWriteNeverReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k.pem")
	block, err := makeSymmetric()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := write(path, block); err == nil {
		t.Fatal("replaced")
	}
	if data, _ := os.ReadFile(path); string(data) != "theirs" {
		t.Fatalf("now holds %q", data)
	}
}
