package verify

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"sallyport/recorder/format"
)

// BenchmarkCheck measures how much of a recording a second is checked, on one processor.
func BenchmarkCheck(b *testing.B) {
	for _, size := range []int{300, 8 << 10} {
		b.Run(fmt.Sprintf("events=%d", size), func(b *testing.B) {
			before := runtime.GOMAXPROCS(1)
			defer runtime.GOMAXPROCS(before)
			dir := b.TempDir()
			content, builder, err := format.Create(format.Header{Session: "s1", Protocol: "test", Started: time.Now()})
			if err != nil {
				b.Fatal(err)
			}
			event := format.Event{Type: format.TypeAnswered, Data: bytes.Repeat([]byte("abcdefgh"), size/8)}
			for i := 0; builder.Len() < 64<<20; i++ {
				if err := builder.Add(event); err != nil {
					b.Fatal(err)
				}
				if i%16 == 15 {
					builder.Finish()
				}
			}
			if err := builder.Seal(format.End{Reason: "done"}, time.Second); err != nil {
				b.Fatal(err)
			}
			content = append(content, builder.Bytes()...)
			for _, folder := range []string{"recordings", "audit"} {
				if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
					b.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "recordings", "s1.srec"), content, 0o600); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				report, err := Check(dir, Options{})
				if err != nil || !report.Whole {
					b.Fatalf("%+v %v", report, err)
				}
			}
		})
	}
}
