package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func made(t *testing.T, recordings bool) (file []byte, key *age.X25519Identity) {
	t.Helper()
	state := t.TempDir()
	write(t, state+"/keys/login", "a secret key")
	write(t, state+"/recordings/2026/s-1.srec", strings.Repeat("bytes", 1000))
	write(t, state+"/lock", "")
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	_, err = Write(t.Context(), &out, Source{
		State:    state,
		Snapshot: func(_ context.Context, to string) error { write(t, to+"/sallyport.db", "rows"); return nil },
		Manifest: Manifest{Store: "sqlite", Recordings: recordings},
	}, key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(state + "/.backup-*"); err != nil || len(left) > 0 {
		t.Errorf("left over: %v %v", left, err)
	}
	return out.Bytes(), key
}

func back(t *testing.T, state string, file []byte, key age.Identity, restore func(from string) error) error {
	t.Helper()
	_, err := Restore(t.Context(), bytes.NewReader(file), Destination{State: state, Store: "sqlite", Restore: func(_ context.Context, from string, _ time.Time) error { return restore(from) }}, key)
	return err
}

func TestRoundTrip(t *testing.T) {
	for _, recordings := range []bool{false, true} {
		file, key := made(t, recordings)
		if bytes.Contains(file, []byte("a secret key")) {
			t.Error("the key can be read in the backup")
		}
		state := filepath.Join(t.TempDir(), "new")
		var rows string
		if err := back(t, state, file, key, func(from string) error { rows = read(t, from+"/sallyport.db"); return nil }); err != nil {
			t.Fatal(err)
		}
		if rows != "rows" || read(t, state+"/keys/login") != "a secret key" {
			t.Errorf("%q", rows)
		}
		if _, err := os.Stat(state + "/recordings/2026/s-1.srec"); (err == nil) != recordings {
			t.Errorf("recordings: %v, %v", recordings, err)
		}
		if info, err := os.Stat(state + "/keys/login"); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		if err := back(t, state, file, key, func(string) error { t.Error("the database was brought back over keys"); return nil }); err == nil || !strings.Contains(err.Error(), "overwrites nothing") {
			t.Errorf("got %v", err)
		}
	}
}

// Whatever is wrong with a backup, nothing of it is brought back.
func TestNothingOfABadBackup(t *testing.T) {
	file, key := made(t, false)
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(file)
	flipped[len(flipped)-20] ^= 1
	pack := func(manifest string, names ...string) []byte {
		var out bytes.Buffer
		sealed, err := age.Encrypt(&out, key.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		packed, err := zstd.NewWriter(sealed)
		if err != nil {
			t.Fatal(err)
		}
		archive := tar.NewWriter(packed)
		for _, name := range append([]string{manifestName}, names...) {
			text := "x"
			if name == manifestName {
				text = manifest
			}
			if err := entry(archive, name, time.Now(), strings.NewReader(text), int64(len(text))); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(archive.Close(), packed.Close(), sealed.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	const one = `{"format": 1, "store": "sqlite", "files": 1, "bytes": 1}`
	for name, tt := range map[string]struct {
		file []byte
		key  age.Identity
	}{
		"another's key":         {file, stranger},
		"cut short":             {file[:len(file)-100], key},
		"a flipped bit":         {flipped, key},
		"out of the directory":  {pack(one, "store/../../x"), key},
		"an absolute path":      {pack(one, "/etc/x"), key},
		"another folder":        {pack(one, "else/x"), key},
		"another folder within": {pack(one, "state/secrets/x"), key},
		"recordings unsaid":     {pack(one, "state/recordings/x"), key},
		"a file less":           {pack(one), key},
		"a file more":           {pack(one, "store/a", "store/b"), key},
		"another kind of store": {pack(`{"format": 1, "store": "postgres"}`), key},
		"another format":        {pack(`{"format": 2, "store": "sqlite"}`), key},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			state := filepath.Join(parent, "state")
			err := back(t, state, tt.file, tt.key, func(string) error { t.Error("a database was brought back"); return nil })
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, dir := range []string{state, parent} {
				entries, err := os.ReadDir(dir)
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
				for _, e := range entries {
					if e.Name() != "state" {
						t.Errorf("left over: %s", e.Name())
					}
				}
			}
		})
	}
	state := filepath.Join(t.TempDir(), "state")
	if err := back(t, state, file, key, func(string) error { return errors.New("no database today") }); err == nil {
		t.Fatal("no error")
	}
	if left, err := os.ReadDir(state); err != nil || len(left) > 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}
