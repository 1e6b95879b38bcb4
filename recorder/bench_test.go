package recorder

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/recorder/format"
	"sallyport/recorder/wal"
)

// BenchmarkSessions measures how long a Record of 300 bytes takes and how many there are in a second, with that many
// sessions that each record one after the other; beside it, the same blocks in a file a session with a sync each, which
// is how level synced would be kept without a shared log. The ratios are to a bare loop of write and sync on one file that
// is filled before, measured before and after in the same run: "x_rate" is records per sync of the loop, "x_p99" how many
// of its median syncs the slowest hundredth takes.
func BenchmarkSessions(b *testing.B) {
	for _, sessions := range []int{1, 16, 128, 1000} {
		b.Run(fmt.Sprintf("written/%d", sessions), func(b *testing.B) { benchmarkRecorder(b, sessions, configs.Written) })
		b.Run(fmt.Sprintf("synced/%d", sessions), func(b *testing.B) { benchmarkRecorder(b, sessions, configs.Synced) })
		if sessions <= 128 {
			b.Run(fmt.Sprintf("file-per-session/%d", sessions), func(b *testing.B) { benchmarkFiles(b, sessions) })
		}
	}
}

var benchmarked = Event{Type: format.TypeSaid, Data: make([]byte, 300)}

func benchmarkRecorder(b *testing.B, sessions int, level configs.Durability) {
	disk := &counting{}
	on := system()
	on.Log = disk
	r, err := open(b.Context(), Options{Dir: b.TempDir(), Config: configs.Recording{Durability: level, AllowVolatile: true}}, on)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close(context.Background())
	recs := make([]*Recording, sessions)
	for i := range recs {
		recs[i] = begin(b, r, fmt.Sprint("s", i))
	}
	syncs := disk.syncs.Load()
	compare(b, sessions, func(i int) error { return recs[i].Record(b.Context(), benchmarked) })
	if level == configs.Synced {
		b.ReportMetric(float64(b.N)/float64(disk.syncs.Load()-syncs), "records/sync")
	}
}

// counting is a disk that counts the syncs of the log.
type counting struct {
	wal.System
	syncs atomic.Int64
}

func (c *counting) Create(path string, size int64) (wal.File, error) {
	f, err := c.System.Create(path, size)
	return &countedFile{f, c}, err
}

type countedFile struct {
	wal.File
	disk *counting
}

func (f *countedFile) Sync() error {
	f.disk.syncs.Add(1)
	return f.File.Sync()
}

func benchmarkFiles(b *testing.B, sessions int) {
	type one struct {
		*format.Builder
		file File
		at   int64
	}
	dir := b.TempDir()
	files := make([]*one, sessions)
	for i := range files {
		first, builder, err := format.Create(header(fmt.Sprint("s", i)))
		if err != nil {
			b.Fatal(err)
		}
		f, err := system().Create(dir, fmt.Sprint(i), first)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		files[i] = &one{builder, f, int64(len(first))}
	}
	compare(b, sessions, func(i int) error {
		f := files[i]
		if err := f.Add(benchmarked); err != nil {
			return err
		}
		f.Finish()
		block := f.Take(nil)
		if _, err := f.file.WriteAt(block, f.at); err != nil {
			return err
		}
		f.at += int64(len(block))
		return f.file.Sync()
	})
}

// compare has each session do b.N/sessions things, and reports their times beside a bare loop's.
func compare(b *testing.B, sessions int, do func(session int) error) {
	before, _ := bareLoop(b)
	times := make([][]time.Duration, sessions)
	var left atomic.Int64
	left.Store(int64(b.N))
	var all sync.WaitGroup
	b.ResetTimer()
	for i := range sessions {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				began := time.Now()
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
				times[i] = append(times[i], time.Since(began))
			}
		})
	}
	all.Wait()
	b.StopTimer()
	elapsed := b.Elapsed()
	after, worst := bareLoop(b)
	sorted := slices.Concat(times...)
	slices.Sort(sorted)
	bare := (before + after) / 2
	at := func(part float64) time.Duration { return sorted[int(part*float64(len(sorted)-1))] }
	rate := float64(len(sorted)) / elapsed.Seconds()
	b.ReportMetric(float64(at(0.5))/1e3, "p50_µs")
	b.ReportMetric(float64(at(0.99))/1e3, "p99_µs")
	b.ReportMetric(rate, "records/s")
	b.ReportMetric(float64(bare)/1e3, "sync_µs")
	b.ReportMetric(float64(worst)/1e3, "sync_p99_µs")
	b.ReportMetric(rate*bare.Seconds(), "x_rate")
	b.ReportMetric(float64(at(0.99))/float64(bare), "x_p99")
}

// bareLoop is the mean, and the 99th percentile, of the time of writing 4 KiB to a file that is filled before and syncing it, one after the other.
func bareLoop(b *testing.B) (mean, p99 time.Duration) {
	const writes = 1000
	f, err := wal.System{}.Create(filepath.Join(b.TempDir(), "bare"), writes*4096)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	var took []time.Duration
	for i := range int64(writes) {
		began := time.Now()
		if _, err := f.WriteAt(block, i*4096); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	var all time.Duration
	for _, t := range took {
		all += t
	}
	slices.Sort(took)
	return all / writes, took[len(took)*99/100]
}
