package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/recorder/transparency"
)

const (
	// workers is how many objects are on their way at once.
	workers = 4
	// batch is how many that wait are read at once.
	batch = 256
	// mostFailures is after how many objects in a row that failed the store is left alone for a while.
	mostFailures = 4
	// unseen is how long a witness may be behind before a checkpoint goes without its cosignature.
	unseen = time.Minute
)

// pass brings to the store what has ended since the last one, and deletes there what was destroyed here, as far as its newest
// checkpoint says so: a copy of the bucket always says why it lacks something. What keeps the first does not keep the second.
func (a *Archive) pass(ctx context.Context) error {
	at, err := a.position(ctx)
	if err != nil {
		return err
	}
	covered, err := a.bring(ctx, at)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, a.shredAll(ctx, covered))
}

// bring brings what has ended, then the log up to a checkpoint, and that checkpoint last: it never names an ending whose recording is
// not there. It returns how many leaves the newest checkpoint there covers.
func (a *Archive) bring(ctx context.Context, at position) (covered int64, err error) {
	if !a.lockKnown {
		if err := a.bucket.canLock(ctx); err != nil {
			return at.checkpoint, err
		}
		a.lockKnown = true
	}
	checkpoint := a.checkpoint(time.Now())
	if err := a.scan(ctx, at.leaves, checkpoint.Tree.N); err != nil {
		return at.checkpoint, err
	}
	if err := a.uploadAll(ctx, checkpoint.Tree.N); err != nil {
		return at.checkpoint, err
	}
	if checkpoint.Tree.N <= at.checkpoint {
		return at.checkpoint, nil
	}
	if time.Since(at.saved) < a.o.Config.Checkpoints.D() {
		if urgent, err := a.shredsAfter(ctx, at.checkpoint); err != nil || !urgent {
			return at.checkpoint, err
		}
	}
	if err := a.uploadTiles(ctx, at.checkpoint, checkpoint.Tree.N); err != nil {
		return at.checkpoint, err
	}
	name := fmt.Sprintf("%s/%s/%s", transparency.Folder, transparency.CheckpointsFolder, transparency.CheckpointName(checkpoint))
	if err := a.small(ctx, name, checkpoint.Note); err != nil {
		return at.checkpoint, err
	}
	return checkpoint.Tree.N, a.saveCheckpoint(ctx, checkpoint.Tree.N)
}

// checkpoint is what the log is archived up to: the newest that a witness has seen, or, while none answers, the newest.
func (a *Archive) checkpoint(now time.Time) transparency.Checkpoint {
	witnessed, head := a.o.Ledger.Witnessed(), a.o.Ledger.Checkpoint()
	if witnessed.Note == nil || witnessed.Tree.N < head.Tree.N && a.o.Ledger.Unwitnessed() > unseen {
		return head
	}
	return witnessed
}

// scan reads the leaves from one up to another, and notes what they say has ended.
func (a *Archive) scan(ctx context.Context, from, to int64) error {
	for from < to {
		n := from >> transparency.Height
		width := min(to-n<<transparency.Height, transparency.Width)
		data, err := a.o.Ledger.Bundle(n, int(width))
		if err != nil {
			return fmt.Errorf("read the log over all recordings: %w", err)
		}
		entries, _, _ := transparency.Entries(data)
		var rows []row
		for i := from - n<<transparency.Height; i < int64(len(entries)); i++ {
			leaf, err := transparency.Decode(entries[i])
			if err != nil {
				return fmt.Errorf("read the log over all recordings: %w", err)
			}
			switch leaf.Kind {
			case transparency.Close, transparency.Crashed, transparency.Adopted:
				rows = append(rows, row{session: leaf.Session, leaf: n<<transparency.Height + i, ended: leaf.Time, chain: leaf.Chain.String()})
			case transparency.Purge:
				rows = append(rows, row{session: leaf.Session, state: gone})
			case transparency.Shred:
				rows = append(rows, row{session: leaf.Session, leaf: n<<transparency.Height + i, ended: leaf.Time, state: shredded})
			}
		}
		from = n<<transparency.Height + width
		if err := a.found(ctx, rows, from); err != nil {
			return err
		}
	}
	return nil
}

// uploadAll brings all to the store that wait among the leaves before one. What fails does not keep the others, unless it is
// several in a row: then the store is left alone, and the pass fails.
func (a *Archive) uploadAll(ctx context.Context, before int64) error {
	var failed error
	for after := int64(-1); ; {
		rows, err := a.waiting(ctx, after, before, batch)
		if err != nil || len(rows) == 0 {
			return errors.Join(failed, err)
		}
		after = rows[len(rows)-1].leaf
		var mu sync.Mutex
		var next, inRow atomic.Int64
		var all sync.WaitGroup
		for range min(workers, len(rows)) {
			all.Go(func() {
				for i := next.Add(1) - 1; i < int64(len(rows)) && inRow.Load() < mostFailures && ctx.Err() == nil; i = next.Add(1) - 1 {
					err := a.upload(ctx, rows[i])
					if err == nil {
						inRow.Store(0)
					} else {
						inRow.Add(1)
						mu.Lock()
						if failed == nil { // the others are mostly the same
							failed = err
						}
						mu.Unlock()
					}
					a.overdue(ctx)
				}
			})
		}
		all.Wait()
		if err := ctx.Err(); err != nil {
			return err
		}
		if inRow.Load() >= mostFailures {
			return failed
		}
	}
}

// uploadTiles brings the log's leaves and hashes to the store, from the size that is there to another. What is full never
// changes; of what is not, each width is an object of its own, as c2sp.org/tlog-tiles has it.
func (a *Archive) uploadTiles(ctx context.Context, from, to int64) error {
	for level := -1; level == -1 || to>>(transparency.Height*level) > 0; level++ {
		shift := transparency.Height * max(0, level)
		had, has := from>>shift, to>>shift
		for n := had >> transparency.Height; n<<transparency.Height < has; n++ {
			width := int(min(has-n<<transparency.Height, transparency.Width))
			var name string
			var data []byte
			var err error
			if level == -1 {
				name = transparency.BundlePath(n, width)
				data, err = a.o.Ledger.Bundle(n, width)
			} else {
				name = transparency.TilePath(level, n, width)
				data, err = a.o.Ledger.Tile(level, n, width)
			}
			if err != nil {
				return fmt.Errorf("read the log over all recordings: %w", err)
			}
			if err := a.small(ctx, transparency.Folder+"/"+name, data); err != nil {
				return err
			}
		}
	}
	return nil
}

// small writes a small object that is determined by its name, and reads it back.
func (a *Archive) small(ctx context.Context, object string, data []byte) error {
	c := content{source: bytes.NewReader(data), size: int64(len(data)), sum: sha256.Sum256(data)}
	err := a.bucket.put(ctx, object, c, a.until(time.Now()))
	if err != nil {
		return err
	}
	// It may have been written earlier, by a gateway that died before it could say so.
	_, err = a.bucket.readBack(ctx, object, "", c, a.until(time.Now()).Add(-a.o.Config.Lock.For.D()/2))
	return err
}

// digestOf is the SHA-256 that an object's name says its content has, or none.
func digestOf(sum string) (digest [sha256.Size]byte, ok bool) {
	raw, err := hex.DecodeString(sum)
	if err != nil || len(raw) != sha256.Size {
		return digest, false
	}
	return [sha256.Size]byte(raw), true
}
