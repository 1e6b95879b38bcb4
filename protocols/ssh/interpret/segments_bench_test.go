package interpret

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/recorder/replay"
)

// BenchmarkOpenLarge measures how long the player waits for a place in a long terminal recording of SALLYPORT_BENCH_MIB MiB
// (256): the index, then the piece that holds the place.
func BenchmarkOpenLarge(b *testing.B) {
	mib := 256
	if n, err := strconv.Atoi(os.Getenv("SALLYPORT_BENCH_MIB")); err == nil {
		mib = n
	}
	r, err := recorder.Open(b.Context(), recorder.Options{
		Dir: b.TempDir(), Config: configs.Recording{Durability: configs.Written},
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
	began := time.Now()
	recordBuild(b, rec, mib<<20, 64<<10)
	if err := rec.End(format.End{Reason: "done"}); err != nil {
		b.Fatal(err)
	}
	lasted := time.Since(began)
	var keys []time.Duration
	for deadline := time.Now().Add(30 * time.Minute); len(keys) == 0; time.Sleep(50 * time.Millisecond) {
		if keys, err = r.Keys("s1"); err != nil || time.Now().After(deadline) {
			b.Fatal("it has no keys", err)
		}
	}
	b.Logf("%d MiB, recorded in %s, packed after %s more, %d keys", mib, lasted.Round(time.Second), (time.Since(began) - lasted).Round(time.Second), len(keys))
	for _, place := range []int{0, 50, 99} {
		b.Run(fmt.Sprintf("at-%d-percent", place), func(b *testing.B) {
			for b.Loop() {
				keys, err := r.Keys("s1")
				if err != nil {
					b.Fatal(err)
				}
				s := replay.Divide(keys, lasted)
				n := len(s.Starts) * place / 100
				from, _, _ := s.Bounds(n)
				items, err := r.ItemsFrom(b.Context(), "s1", from)
				if err != nil {
					b.Fatal(err)
				}
				written := counter{}
				if err := s.Segment(items, &written, n, 1); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(written.n), "piece-bytes")
			}
		})
	}
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}
