package recorder

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"sallyport/configs"
	"sallyport/recorder/format"
)

// TestMasking states that what is to be hidden is neither found nor in the index's file, though it came in pieces, live or ended; that it
// is hidden in exports and in a copy read elsewhere; that the recording itself has it; and that the index follows when something else is to be
// hidden.
func TestMasking(t *testing.T) {
	dir := t.TempDir()
	var rules atomic.Pointer[format.Mask]
	rules.Store(&format.Mask{Cards: true})
	r, err := Open(t.Context(), Options{
		Dir: dir, Log: testLog(t), Index: filepath.Join(dir, "index.db"), Interpreters: talking,
		Config: configs.Recording{Durability: configs.Written}, Mask: func(string) *format.Mask { return rules.Load() },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(context.Background()) })
	for _, end := range []bool{true, false} {
		rec, err := r.Begin(t.Context(), header(fmt.Sprint("s-", end)), "")
		if err != nil {
			t.Fatal(err)
		}
		if got := rec.Masked("pay 4111 1111 1111 1111 now"); got != "pay [card ••••••••1111] now" {
			t.Errorf("elsewhere it is %q", got)
		}
		for _, e := range []Event{
			said("pay 5500-0000-0000-0004 now"), shown("card 4111 11"), shown("\x1b[1m11 1111\x1b[m "), shown("1111 ok\r\n"), shown("37828224631000x\b5 typed\r\n"), shown("secret-7 $ "),
		} {
			if err := rec.Record(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		if end {
			if err := rec.End(format.End{Reason: "over"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	indexed(t, r)
	found := func(text string) int { return len(collect(t, r.Search(t.Context(), Query{Text: text}))) }
	for text, want := range map[string]int{"4111": 0, "1111 1111": 0, "5500-0000": 0, "378282246310005": 0, "pay": 2, "1111] ok": 2, "0005] typed": 2, "secret-7": 2} {
		if got := found(text); got != want {
			t.Errorf("%q is found %d times, want %d", text, got, want)
		}
	}
	inFiles := func(glob, text string) bool {
		paths, err := filepath.Glob(filepath.Join(dir, glob))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no %s: %v", glob, err)
		}
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(content, []byte(text)) {
				return true
			}
		}
		return false
	}
	numbers := []string{"4111 11", "5500-0000-0000-0004", "378282246310005", "37828224631000"}
	for _, number := range numbers {
		if inFiles("index.db*", number) {
			t.Errorf("%s is in the index's files", number)
		}
	}
	if !inFiles("recordings/*/*/*/s-false.srec", "5500-0000-0000-0004") {
		t.Error("the recording itself does not have what was said")
	}
	path, err := filepath.Glob(filepath.Join(dir, "recordings/*/*/*/s-true.srec"))
	if err != nil || len(path) != 1 {
		t.Fatal(path, err)
	}
	copied, err := OpenCopy(path[0], talking)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{"jsonl", "text", "asciicast"} {
		var here, there bytes.Buffer
		if err := r.Export(t.Context(), "s-true", form, &here, ExportOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := copied.Export(t.Context(), form, &there, ExportOptions{}); err != nil {
			t.Fatal(err)
		}
		if here.String() != there.String() {
			t.Errorf("%s is another elsewhere:\n%s\n%s", form, here.String(), there.String())
		}
		for _, number := range numbers[:2] {
			if strings.Contains(here.String(), number) {
				t.Errorf("%s has %s:\n%s", form, number, here.String())
			}
		}
		here.Reset()
		if err := r.Export(t.Context(), "s-true", form, &here, ExportOptions{Unmasked: true}); err != nil || form != "asciicast" && !strings.Contains(here.String(), "5500-0000-0000-0004") {
			t.Errorf("unmasked %s: %v\n%s", form, err, here.String())
		}
	}
	rules.Store(&format.Mask{Cards: true, Patterns: []format.MaskPattern{{Name: "word", Regexp: `secret-\d`}}})
	r.Remask()
	eventually(t, "the index follows", func() bool { return found("secret-7") == 0 && found("[masked: word]") == 2 })
	indexed(t, r)
	if found("5500") != 0 || found("pay") != 2 {
		t.Error("the index lost something, or found it")
	}
}

func shown(text string) Event { return Event{Type: format.TypeAnswered, Data: []byte(text)} }
