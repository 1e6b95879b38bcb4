package interpret

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/recorder"
	"sallyport/recorder/format"
)

// BenchmarkSearchUnindexed measures how long a search reads a recording of 28 MiB that is in no index: a terminal's lines, as they
// come from a shell (in pieces of 1 KiB), with and without something to hide in them.
func BenchmarkSearchUnindexed(b *testing.B) {
	for name, mask := range map[string]*format.Mask{"plain": nil, "masked": {Cards: true}} {
		b.Run(name, func(b *testing.B) {
			r, err := recorder.Open(b.Context(), recorder.Options{
				Dir: b.TempDir(), Config: configs.Recording{Durability: configs.Written, AllowVolatile: true}, Mask: func(string) *format.Mask { return mask },
				Interpreters: map[string]func(format.Header) recorder.Interpreter{"ssh": func(h format.Header) recorder.Interpreter { return New(h) }},
			})
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close(context.Background())
			rec, err := r.Begin(b.Context(), format.Header{Session: "s1", Protocol: "ssh"}, "")
			if err != nil {
				b.Fatal(err)
			}
			const size = 28 << 20
			recordBuild(b, rec, size, 1<<10)
			if err := rec.End(format.End{Reason: "done"}); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
			for b.Loop() {
				for _, err := range r.Search(b.Context(), recorder.Query{Text: "is nowhere"}) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// recordBuild records a terminal on which a build shows its lines: so many bytes, as they come from a shell, in pieces.
func recordBuild(b *testing.B, rec *recorder.Recording, size, piece int) {
	b.Helper()
	record := func(events ...format.Event) {
		if err := rec.Record(b.Context(), events...); err != nil {
			b.Fatal(err)
		}
	}
	record(Open(1, "session", nil), Request(1, "pty-req", true, ssh.Marshal(ptyRequest{Terminal: "xterm", Columns: 120, Lines: 40})),
		Request(1, "shell", true, nil))
	for n, line := 0, 0; n < size; {
		var out strings.Builder
		for out.Len() < piece {
			line++
			fmt.Fprintf(&out, "\x1b[3%dm%08d\x1b[0m %s a line of a build's output\r\n", line%8, line, strings.Repeat("=", line%60))
		}
		record(answered(1, out.String()))
		n += out.Len()
	}
}
