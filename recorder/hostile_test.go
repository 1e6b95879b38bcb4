package recorder

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"sallyport/configs"
	"sallyport/recorder/format"
)

// FuzzHostileRecording: whatever stands in a recording, as a file that somebody else made or as what a session's peer said,
// replay, search and export stand it.
func FuzzHostileRecording(f *testing.F) {
	said := func(t testing.TB, data []byte) []byte {
		file, b, err := format.Create(header("x"))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; len(data) > 0; i++ { // in pieces of all kinds
			n := min(len(data), 1+int(data[0])%64)
			if err := b.Add(Event{Type: format.Type(data[0] % 10), Channel: uint32(i % 3), Data: data[:n]}); err != nil {
				t.Fatal(err)
			}
			data = data[n:]
		}
		if err := b.Seal(format.End{Reason: "done"}, 0); err != nil {
			t.Fatal(err)
		}
		return append(file, b.Bytes()...)
	}
	whole := said(f, bytes.Repeat([]byte("\x03SELECT 1; \x1b]52;c;?\x07\x04\xff\xfe"), 500))
	var packed bytes.Buffer
	if _, err := format.Pack(bytes.NewReader(whole), &packed, (&Recorder{}).newKeyer(header("x"))); err != nil {
		f.Fatal(err)
	}
	f.Add(whole, true)
	f.Add(packed.Bytes(), true)
	f.Add([]byte("\x02{\"kind\":\"\x1b[2J\"}\x06{\"bytes\":-1}\x07null"), false)
	r := openRecorder(f, f.TempDir(), configs.Written)
	r.Interpreters = talking
	dir := filepath.Join(r.Dir, "recordings")
	f.Fuzz(func(t *testing.T, data []byte, file bool) {
		if !file {
			data = said(t, data)
		}
		path := filepath.Join("recordings", "x"+extension)
		if err := os.WriteFile(filepath.Join(dir, "x"+extension), data, 0o600); err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		r.paths["x"] = path
		r.mu.Unlock()
		for _, form := range Formats {
			_ = r.Export(t.Context(), "x", form, io.Discard, ExportOptions{})
		}
		for range r.Search(t.Context(), Query{Text: "select"}) {
		}
		if items, err := r.ItemsFrom(t.Context(), "x", 1); err == nil {
			for range items {
			}
		}
		_, _ = format.Pack(bytes.NewReader(data), io.Discard, r.newKeyer(header("x")))
	})
}
