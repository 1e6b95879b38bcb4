package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/recorder"
	"sallyport/recorder/disk"
	"sallyport/recorder/format"
	"sallyport/recorder/wal"
)

// record is what a statement of some length is.
var record = format.Event{Type: format.TypeSaid, Data: make([]byte, 300)}

// What synced is to reach with that many sessions, in rates and mean times of one sync.
var targets = map[int]string{128: "x_rate >= 30, x_p99 <= 10; better 50"}

// appends measures how long a Record takes and how many there are in a second.
func appends(ctx context.Context, o options, w io.Writer) error {
	fmt.Fprintf(w, "append: a record of %d bytes, each session one after the other; x_rate: records in the time of one bare write and sync of\n"+
		"4 KiB, x_p99: how many of these the slowest hundredth takes\n\n", len(record.Data))
	fmt.Fprintf(w, "%-18s %8s %10s %10s %12s %9s %8s %8s  %s\n", "", "sessions", "p50", "p99", "records/s", "sync", "x_rate", "x_p99", "to reach")
	for _, sessions := range []int{1, 16, 128, 1000} {
		for _, way := range []string{"written", "synced", "file-per-session"} {
			if way == "file-per-session" && sessions > 128 {
				continue // seconds for each record
			}
			if err := cell(ctx, o, w, way, sessions); err != nil {
				return fmt.Errorf("%s with %d sessions: %w", way, sessions, err)
			}
		}
	}
	return nil
}

func cell(ctx context.Context, o options, w io.Writer, way string, sessions int) (err error) {
	dir, err := os.MkdirTemp(o.dir, way)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var do func(int) error
	var end func() error
	if way == "file-per-session" {
		do, end, err = filePerSession(dir, sessions)
	} else {
		do, end, err = sharedLog(ctx, dir, sessions, configs.Durability(way))
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	before, err := bareLoop(dir)
	if err != nil {
		return err
	}
	times, elapsed, err := run(ctx, sessions, o.each, do)
	if err != nil {
		return err
	}
	after, err := bareLoop(dir)
	if err != nil {
		return err
	}
	slices.Sort(times)
	at := func(part float64) time.Duration { return times[int(part*float64(len(times)-1))] }
	sync, rate := (before+after)/2, float64(len(times))/elapsed.Seconds()
	reach := ""
	if way == "synced" {
		reach = targets[sessions]
	}
	fmt.Fprintf(w, "%-18s %8d %10s %10s %12.0f %9s %8.1f %8.1f  %s\n", way, sessions, short(at(.5)), short(at(.99)), rate, short(sync),
		rate*sync.Seconds(), float64(at(.99))/float64(sync), reach)
	return nil
}

// run has each session do one thing after the other for a while.
func run(ctx context.Context, sessions int, each time.Duration, do func(int) error) (all []time.Duration, elapsed time.Duration, err error) {
	times, errs := make([][]time.Duration, sessions), make([]error, sessions)
	began := time.Now()
	var work sync.WaitGroup
	for i := range sessions {
		work.Go(func() {
			for last := began; last.Sub(began) < each && ctx.Err() == nil; {
				if errs[i] = do(i); errs[i] != nil {
					return
				}
				now := time.Now()
				times[i] = append(times[i], now.Sub(last))
				last = now
			}
		})
	}
	work.Wait()
	return slices.Concat(times...), time.Since(began), errors.Join(append(errs, ctx.Err())...)
}

func sharedLog(ctx context.Context, dir string, sessions int, level configs.Durability) (func(int) error, func() error, error) {
	r, err := recorder.Open(ctx, recorder.Options{Dir: dir, Config: configs.Recording{Durability: level, AllowVolatile: true}})
	if err != nil {
		return nil, nil, err
	}
	recs := make([]*recorder.Recording, sessions)
	for i := range recs {
		if recs[i], err = r.Begin(ctx, format.Header{Session: fmt.Sprint("s", i), Protocol: "bench"}, ""); err != nil {
			return nil, nil, errors.Join(err, r.Close(ctx))
		}
	}
	return func(i int) error { return recs[i].Record(ctx, record) }, func() error { return r.Close(context.WithoutCancel(ctx)) }, nil
}

// filePerSession is how level synced would be kept without a shared log: the same blocks, a file and a sync of its own for
// each session.
func filePerSession(dir string, sessions int) (func(int) error, func() error, error) {
	type one struct {
		*format.Builder
		file *os.File
		at   int64
	}
	files := make([]*one, sessions)
	for i := range files {
		first, builder, err := format.Create(format.Header{Session: fmt.Sprint("s", i)})
		if err != nil {
			return nil, nil, err
		}
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			return nil, nil, err
		}
		if _, err := f.Write(first); err != nil {
			return nil, nil, err
		}
		files[i] = &one{builder, f, int64(len(first))}
	}
	do := func(i int) error {
		f := files[i]
		if err := f.Add(record); err != nil {
			return err
		}
		f.Finish()
		block := f.Take(nil)
		if _, err := f.file.WriteAt(block, f.at); err != nil {
			return err
		}
		f.at += int64(len(block))
		return disk.SyncData(f.file)
	}
	return do, func() (err error) {
		for _, f := range files {
			err = errors.Join(err, f.file.Close())
		}
		return err
	}, nil
}

// bareLoop is the mean time of writing 4 KiB to a file that is filled before and syncing it.
func bareLoop(dir string) (time.Duration, error) {
	const writes = 1000
	path := filepath.Join(dir, "bare")
	f, err := wal.System{}.Create(path, writes*4096)
	if err != nil {
		return 0, err
	}
	defer os.Remove(path)
	defer f.Close()
	block := make([]byte, 4096)
	began := time.Now()
	for i := range int64(writes) {
		if _, err := f.WriteAt(block, i*4096); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return time.Since(began) / writes, nil
}

// hotPath is what a record costs at level written.
func hotPath(ctx context.Context, o options, w io.Writer) error {
	do, end, err := sharedLog(ctx, o.dir, 1, configs.Written)
	if err != nil {
		return err
	}
	var failed error
	r := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if failed = do(0); failed != nil {
				b.FailNow()
			}
		}
	})
	fmt.Fprintf(w, "hot path at level written: %.2f µs a record, %d allocations (to reach: <= 3 µs, 0)\n",
		float64(r.T.Nanoseconds())/float64(r.N)/1e3, r.AllocsPerOp())
	return errors.Join(failed, end())
}

func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.1fµs", float64(d)/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.2fms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.2fs", d.Seconds())
}
