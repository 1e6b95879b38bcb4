package interpret

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/recorder/item"
	"sallyport/recorder/terminal"
)

// A long terminal session that has ended is read from its middle, and the terminal looks as if all had been read.
func TestReadingFromTheMiddle(t *testing.T) {
	dir := t.TempDir()
	r, err := recorder.Open(t.Context(), recorder.Options{
		Dir: dir, Config: configs.Recording{Durability: configs.Written},
		Interpreters: map[string]func(format.Header) recorder.Interpreter{"ssh": func(h format.Header) recorder.Interpreter { return New(h) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(context.Background())
	rec, err := r.Begin(t.Context(), format.Header{Session: "s1", Protocol: "ssh"}, "")
	if err != nil {
		t.Fatal(err)
	}
	record := func(events ...format.Event) {
		if err := rec.Record(t.Context(), events...); err != nil {
			t.Fatal(err)
		}
	}
	record(Open(1, "session", nil), Request(1, "pty-req", true, ssh.Marshal(ptyRequest{Terminal: "xterm", Columns: 80, Lines: 24})),
		Request(1, "shell", true, nil))
	for n := range 5000 {
		record(answered(1, fmt.Sprintf("\x1b[3%dmline %d\x1b[0m %s\r\n", n%8, n, strings.Repeat("x", n%1000))))
		if n%500 == 0 {
			record(answered(1, fmt.Sprintf("\x1b[%d;1H", 1+n%24)))
		}
	}
	record(TargetRequest(1, "exit-status", false, ssh.Marshal(exitStatus{3})))
	if err := rec.End(format.End{Reason: "done"}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "recordings/*/*/*/s1.srec"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	packed := func() bool {
		f, err := os.Open(files[0])
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		found, err := format.Look(f, info.Size())
		return err == nil && found.Packed
	}
	for deadline := time.Now().Add(2 * time.Minute); !packed(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is never packed")
		}
	}
	all := collect(t, r.Items, "s1")
	for _, n := range []int{len(all) / 2, len(all) - 5} {
		from := all[n].At
		part := collect(t, func(ctx context.Context, session string) (iter.Seq2[recorder.Item, error], error) {
			return r.ItemsFrom(ctx, session, from)
		}, "s1")
		if part[0].Kind != item.Start || part[1].Via != item.Picture || part[2].Number < 1000 || part[2].At > from {
			t.Fatalf("from %v: %d items, %+v, %+v", from, len(part), part[1], part[2])
		}
		rest := all[part[2].Number-1:]
		if len(rest) != len(part)-2 {
			t.Fatalf("%d items instead of %d", len(part)-2, len(rest))
		}
		for i, it := range part[2:] {
			if it.Number != rest[i].Number || it.At != rest[i].At || it.Text != rest[i].Text || it.Kind != rest[i].Kind || it.Duration != rest[i].Duration {
				t.Fatalf("item %d: %+v instead of %+v", i, it, rest[i])
			}
		}
		if got, want := shown(part), shown(all); got != want {
			t.Errorf("from %v the terminal shows in the end\n%q\ninstead of\n%q", from, got, want)
		}
	}
}

func collect(t *testing.T, read func(context.Context, string) (iter.Seq2[recorder.Item, error], error), session string) (all []recorder.Item) {
	t.Helper()
	items, err := read(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	for it, err := range items {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, it)
	}
	return all
}

func shown(items []recorder.Item) string {
	p := terminal.NewPicture(80, 24)
	for _, it := range items {
		if it.Kind == item.Output {
			p.Write(it.Data)
		}
	}
	return string(p.Paint())
}
