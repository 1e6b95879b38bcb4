package live

import (
	"context"
	"io"
	"iter"
	"strconv"
	"sync"
	"time"

	"sallyport/recorder/item"
	"sallyport/web/api"
	"sallyport/web/sse"
)

const (
	// batchEvery is how often those who watch a session are told what it did.
	batchEvery = 250 * time.Millisecond
	// mostBatch is how many things one batch tells; people read no more of them in a quarter of a second.
	mostBatch = 60
)

// batcher gathers what a session does between two batches.
type batcher struct {
	mu      sync.Mutex
	items   []api.Item
	skipped int
	total   int
	over    bool
	err     error
	changed chan struct{} // holds one when there is something to tell
}

// tells says whether an item is told in batches, and whether it counts: what a terminal shows is the screen's.
func tells(kind item.Kind) (told, counts bool) {
	switch kind {
	case item.Statement, item.Command, item.File:
		return true, true
	case item.Result, item.Exit, item.Other, item.Note, item.Start, item.End:
		return true, false
	}
	return false, false
}

func (b *batcher) add(it api.Item, after int) {
	told, counts := tells(it.Kind)
	if !told {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if counts {
		b.total++
	}
	if it.Number <= after {
		return
	}
	if len(b.items) == mostBatch {
		b.items = b.items[:copy(b.items, b.items[1:])]
		b.skipped++
	}
	b.items = append(b.items, it)
	b.wake()
}

func (b *batcher) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over, b.err = true, err
	b.wake()
}

func (b *batcher) wake() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// take returns what was gathered.
func (b *batcher) take() (api.Batch, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := api.Batch{Items: b.items, Skipped: b.skipped, Total: b.total, Over: b.over && b.err == nil}
	b.items, b.skipped = make([]api.Item, 0, mostBatch), 0
	return out, b.err
}

// Batches are what happens in a live session, a few times a second, however much it is: what is between is counted. Of items only
// those with numbers above after are told. A batch without items and not over says only that the stream is there. stop is called at the
// end; it ends the items.
func Batches(ctx context.Context, items iter.Seq2[api.Item, error], stop func(), after int) iter.Seq2[api.Batch, error] {
	return func(yield func(api.Batch, error) bool) {
		defer stop()
		b := &batcher{items: make([]api.Item, 0, mostBatch), changed: make(chan struct{}, 1)}
		go func() {
			for it, err := range items {
				if err != nil {
					b.end(err)
					return
				}
				b.add(it, after)
			}
			b.end(nil)
		}()
		pace := time.NewTicker(batchEvery)
		defer pace.Stop()
		idle := time.NewTicker(sse.Heartbeat)
		defer idle.Stop()
		for {
			select {
			case <-b.changed:
			case <-idle.C:
			case <-ctx.Done():
				return
			}
			batch, err := b.take()
			if err != nil {
				yield(batch, err)
				return
			}
			if !yield(batch, nil) || batch.Over {
				return
			}
			idle.Reset(sse.Heartbeat)
			select {
			case <-pace.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// WriteBatches writes batches as server-sent events; the id of each is the number of its last item.
func WriteBatches(w io.Writer, batches iter.Seq2[api.Batch, error]) error {
	for batch, err := range batches {
		if err != nil {
			return err
		}
		id := ""
		if n := len(batch.Items); n > 0 {
			id = strconv.Itoa(batch.Items[n-1].Number)
		}
		if err := sse.Write(w, "", id, batch); err != nil {
			return err
		}
		if batch.Over {
			return sse.Write(w, "done", "", struct{}{})
		}
	}
	return nil
}
