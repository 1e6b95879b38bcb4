//go:build unix

package verify

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"sallyport/recorder/format"
)

// BenchmarkCheck measures how much of a recording is checked in a second of one processor: "cpu-MB/s" counts the time that
// this process was given, which on a machine that others use is less than what passed.
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
			began := spent(b)
			for b.Loop() {
				report, err := Check(dir, Options{})
				if err != nil || !report.Whole {
					b.Fatalf("%+v %v", report, err)
				}
			}
			b.ReportMetric(float64(b.N)*float64(len(content))/1e6/(spent(b)-began).Seconds(), "cpu-MB/s")
		})
	}
}

// spent is the processor time of this process.
func spent(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
