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
	"time"

	"filippo.io/age"

	"sallyport/configs"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/recorder/transparency/ledger"
)

// openings is how many sessions begin in a second, openFor how long.
const (
	openings = 100
	openFor  = 10 * time.Second
)

// opens measures what the opening of a session waits for: its recording's header on stable storage, and its leaf in the log over all
// recordings, which is synced too. Sessions come evenly, whether those before them are done or not, and end at once.
func opens(ctx context.Context, o options, w io.Writer) error {
	fmt.Fprintf(w, "open: %d sessions a second begin, each with its recording's header and its leaf synced, and end; to reach with its leaf: p99 <= 25 ms\n\n", openings)
	fmt.Fprintf(w, "%-22s %8s %10s %10s %10s %10s %9s\n", "", "sessions", "p50", "p99", "max", "a second", "sync")
	for _, way := range []string{"without leaf", "with its leaf", "with its leaf, locked"} {
		if err := opening(ctx, o, w, way); err != nil {
			return fmt.Errorf("%s: %w", way, err)
		}
	}
	return nil
}

func opening(ctx context.Context, o options, w io.Writer, way string) (err error) {
	dir, err := os.MkdirTemp(o.dir, "open")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	options := recorder.Options{Dir: dir, Config: configs.Recording{Durability: configs.Synced, AllowVolatile: true}}
	if way != "without leaf" {
		signer, key, err := ledger.LoadKey(filepath.Join(dir, "keys"), "bench/log")
		if err != nil {
			return err
		}
		log, err := ledger.Open(ctx, ledger.Options{Dir: dir, Signer: signer, Key: key})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, log.Close(context.WithoutCancel(ctx))) }()
		options.Ledger = log
	}
	if way == "with its leaf, locked" {
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			return err
		}
		options.Recipients = func(string) []string { return []string{identity.Recipient().String()} }
	}
	r, err := recorder.Open(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(context.WithoutCancel(ctx))) }()
	before, err := bareLoop(dir)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var took []time.Duration
	var errs []error
	var all sync.WaitGroup
	tick := time.NewTicker(time.Second / openings)
	defer tick.Stop()
	began := time.Now()
	for n := range int(openFor.Seconds() * openings) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		all.Go(func() {
			start := time.Now()
			rec, err := r.Begin(ctx, format.Header{Session: fmt.Sprint("s", n), Protocol: "bench", Target: "bench"}, "")
			mu.Lock()
			took = append(took, time.Since(start))
			mu.Unlock()
			if err == nil {
				err = rec.End(format.End{Reason: "done"})
			}
			if err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	elapsed := time.Since(began)
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	after, err := bareLoop(dir)
	if err != nil {
		return err
	}
	slices.Sort(took)
	at := func(part float64) time.Duration { return took[int(part*float64(len(took)-1))] }
	_, err = fmt.Fprintf(w, "%-22s %8d %10s %10s %10s %10.0f %9s\n", way, len(took), short(at(.5)), short(at(.99)), short(at(1)), float64(len(took))/elapsed.Seconds(), short((before+after)/2))
	return err
}
