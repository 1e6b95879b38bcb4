package wal

import "fmt"

// Scrub overwrites with zeros all that the log has of what is finished, so that nothing of a file that is to be forgotten
// stands in it: the segments that wait to be used again, and then the one in use, which is given up for another. It
// returns once that is on stable storage. Those who append wait no longer than for any full segment.
func (l *Log) Scrub() error {
	l.start.Lock()
	defer l.start.Unlock()
	if !l.started {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.scrubbing = true
	defer func() {
		l.scrubbing = false
		l.freed.Signal()
	}()
	if err := l.spareOne(); err != nil {
		return err
	}
	if err := l.zeroFree(); err != nil {
		return err
	}
	for l.committing && l.err == nil { // a group is on its way to the segment
		l.settled.Wait()
	}
	if l.current != nil && l.err == nil {
		l.sealed = append(l.sealed, l.current)
		l.current = nil
		l.behind.Signal()
	}
	last := l.generation
	for l.err == nil && len(l.sealed) > 0 && l.sealed[0].generation <= last {
		l.settled.Wait()
	}
	if l.err != nil {
		return l.err
	}
	return l.zeroFree()
}

// spareOne makes a segment to go on with where there is none. The lock is held, and let go of meanwhile.
func (l *Log) spareOne() error {
	if len(l.free) > 0 || l.current == nil {
		return nil
	}
	size := l.current.size
	var s *segment
	var err error
	l.unlocked(func() { s, err = l.create(size) })
	if err != nil {
		return fmt.Errorf("scrub the write-ahead log: %w", err)
	}
	s.zero = true
	l.release(s)
	return nil
}

// zeroFree overwrites the segments that wait to be used again, the oldest first, one at a time. The lock is held, and let go of
// meanwhile.
func (l *Log) zeroFree() error {
	for {
		oldest := -1
		for i, s := range l.free {
			if !s.zero && (oldest < 0 || s.generation < l.free[oldest].generation) {
				oldest = i
			}
		}
		if oldest < 0 {
			return nil
		}
		s := l.free[oldest]
		l.free = append(l.free[:oldest:oldest], l.free[oldest+1:]...)
		var err error
		l.unlocked(func() { err = s.overwrite() })
		if err != nil {
			l.unlocked(func() { err = l.fail(fmt.Errorf("scrub: %w", err)) })
			return err
		}
		s.zero = true
		l.release(s)
	}
}

// overwrite fills the segment with zeros, its header first, so that it is none in use whatever happens meanwhile.
func (s *segment) overwrite() error {
	zeros := make([]byte, min(s.size, fillStep))
	if _, err := s.file.WriteAt(zeros[:page], 0); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	for at := int64(0); at < s.size; at += int64(len(zeros)) {
		if _, err := s.file.WriteAt(zeros[:min(int64(len(zeros)), s.size-at)], at); err != nil {
			return err
		}
	}
	return s.file.Sync()
}
