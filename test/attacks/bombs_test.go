//go:build unix

package attacks

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/json"
	"errors"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sallyport/recorder/verify"
)

// bomb is what a part of a bundle unpacks to, far more than any honest one has.
const bomb = 128 << 20

// bombs hands over bundles that unpack to far more than they are: the auditor's program says no, in little memory.
func (e *evidence) bombs(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "whole.zip")
	if out := e.As("carol", "evidence", e.sessions[2], "-o", whole); out.Code != 0 {
		t.Fatal(out.Text())
	}
	if code, text := e.verifyWithin(t, whole); code != 0 {
		t.Fatalf("the whole bundle: exit %d\n%s", code, text)
	}
	archive, err := zip.OpenReader(whole)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	var manifest verify.Manifest
	var parts []string
	for _, f := range archive.File {
		if f.Name == verify.BundleManifest {
			content, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			if err := json.NewDecoder(content).Decode(&manifest); err != nil {
				t.Fatal(err)
			}
			content.Close()
		}
	}
	for _, s := range manifest.Sessions {
		parts = append(parts, s.Recording, s.Opened, s.Ended)
	}
	if len(parts) != 3 {
		t.Fatalf("the bundle has %v", manifest)
	}
	for _, name := range append(parts, verify.BundleManifest, verify.BundleCheckpoint) {
		for kind, filler := range map[string]byte{"spaces": ' ', "zeros": 0} {
			if kind == "spaces" && name != verify.BundleManifest { // JSON's own
				continue
			}
			bundle := filepath.Join(t.TempDir(), "bomb.zip")
			rebundle(t, archive, bundle, name, filler)
			if code, text := e.verifyWithin(t, bundle); code != 1 && code != 2 || strings.Contains(text, "out of memory") {
				t.Errorf("%s of %s: exit %d\n%.2000s", name, kind, code, text)
			}
		}
	}
}

// rebundle writes a bundle with one part replaced by a bomb.
func rebundle(t *testing.T, from *zip.ReadCloser, to, name string, filler byte) {
	t.Helper()
	file, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := zip.NewWriter(file)
	for _, f := range from.File {
		if f.Name != name {
			if err := out.Copy(f); err != nil {
				t.Fatal(err)
			}
			continue
		}
		packed, sum := packedBomb(t, filler)
		w, err := out.CreateRaw(&zip.FileHeader{Name: name, Method: zip.Deflate, CRC32: sum, CompressedSize64: uint64(len(packed)), UncompressedSize64: bomb})
		if err == nil {
			_, err = w.Write(packed)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// packedBomb is a bomb as deflate has it, of a MiB that is packed once: what a flush ends stands for itself, so that it may come again.
func packedBomb(t *testing.T, filler byte) (packed []byte, sum uint32) {
	t.Helper()
	piece := slices.Repeat([]byte{filler}, 1<<20)
	var one, end bytes.Buffer
	w, err := flate.NewWriter(&one, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(piece)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Reset(&end)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for range bomb / len(piece) {
		packed, sum = append(packed, one.Bytes()...), crc32.Update(sum, crc32.IEEETable, piece)
	}
	return append(packed, end.Bytes()...), sum
}

// verifyWithin runs the auditor's binary with less memory than a bomb takes, where the system bounds it.
func (e *evidence) verifyWithin(t *testing.T, bundle string) (code int, text string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -d `+strconv.Itoa(bomb>>10)+` && exec "$@"`, "sh", e.verifier, bundle, "--json", "--log-key", e.logKey, "--witness-key", e.witnessKey)
	out, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}
