package wal

import (
	"cmp"
	"fmt"
	"slices"
)

// want asks for a segment of a size, unless there is one or there will be. The lock is held.
func (l *Log) want(size int64) {
	for _, list := range [][]*segment{l.free, l.sealed} {
		if slices.ContainsFunc(list, func(s *segment) bool { return s.size >= size }) {
			return
		}
	}
	l.wanted = size
	l.behind.Signal()
}

// checkpointAll is the checkpointer: it syncs the files behind full segments, so that these can be used again, and makes
// new segments.
func (l *Log) checkpointAll() {
	defer close(l.cleaned)
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.err != nil || l.drained:
			return
		case l.wanted > 0: // first: the syncs of many files take longer, and the current segment may be full before
			size := l.wanted
			l.wanted = 0
			l.mu.Unlock()
			s, err := l.create(size)
			l.mu.Lock()
			if err != nil {
				l.o.Log.Warn("the write-ahead log cannot grow; it goes on with what it has", "bytes", size, "error", err)
			} else {
				l.release(s)
			}
		case len(l.sealed) > 0:
			if !l.checkpoint(l.sealed[0]) {
				return
			}
			l.release(l.sealed[0])
			l.sealed = l.sealed[1:]
			l.settled.Broadcast()
		default:
			l.behind.Wait()
		}
	}
}

// checkpoint syncs the files behind a segment and reports whether all are. The lock is held, and let go of meanwhile.
func (l *Log) checkpoint(s *segment) bool {
	l.unlocked(func() { l.o.At(BeforeCheckpoint, nil) })
	for len(s.files) > 0 && l.err == nil {
		var f Syncer
		for f = range s.files {
			break
		}
		if l.syncing[f] { // by Finish, after which it is gone from here
			l.synced.Wait()
			continue
		}
		full := slices.Clone(l.sealed)
		if err := l.sync(f); err != nil {
			return false
		}
		for _, s := range full { // what stands in these was in the file before it was synced
			delete(s.files, f)
		}
	}
	l.unlocked(func() { l.o.At(AfterCheckpoint, nil) })
	return l.err == nil
}

// sync syncs a file, or ends the log. Nobody else does so meanwhile: the kernel tells of an error only once. The lock is
// held, and let go of meanwhile.
func (l *Log) sync(f Syncer) error {
	for l.syncing[f] {
		l.synced.Wait()
	}
	if l.err != nil {
		return l.err
	}
	l.syncing[f] = true
	var err error
	l.unlocked(func() {
		if err = f.Sync(); err != nil {
			err = l.fail(fmt.Errorf("sync a file behind it: %w", err))
		}
	})
	delete(l.syncing, f)
	l.synced.Broadcast()
	return err
}

func (l *Log) unlocked(f func()) {
	l.mu.Unlock()
	defer l.mu.Lock()
	f()
}

// release makes a segment one that can be used. Of several only the largest is kept. The lock is held.
func (l *Log) release(s *segment) {
	l.free = append(l.free, s)
	slices.SortFunc(l.free, func(a, b *segment) int { return cmp.Compare(a.size, b.size) })
	for len(l.free) > 1 && l.free[0].size < l.o.Segment {
		small := l.free[0]
		l.free = l.free[1:]
		if err := small.file.Close(); err != nil {
			l.o.Log.Error("close a part of the write-ahead log", "file", small.path, "error", err)
		}
		if err := l.o.Disk.Remove(small.path); err != nil {
			l.o.Log.Error("remove a part of the write-ahead log", "file", small.path, "error", err)
		}
	}
	l.freed.Signal()
}

// Finish syncs a file that will have no more records and forgets it. The caller may close the file afterwards. An error is
// that of a log which has ended, perhaps by this.
func (l *Log) Finish(f Syncer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.sync(f); err != nil {
		return err
	}
	for _, s := range l.sealed {
		delete(s.files, f)
	}
	if l.current != nil {
		delete(l.current.files, f)
	}
	return nil
}
