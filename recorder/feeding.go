package recorder

import (
	"errors"
	"io"
	"os"
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/index"
)

// feeder brings one recording's items into the index, in batches.
type feeder struct {
	filling   *filling
	session   string
	extractor index.Extractor
	batch     index.Batch
	bytes     int
	began     time.Time // the batch
}

func (f *filling) newFeeder(header format.Header) *feeder {
	d := &feeder{filling: f, session: header.Session}
	d.batch.Mask = nameOf(f.recorder.maskOf(header))
	d.extractor = index.Extractor{
		Mask: f.recorder.masker(header).Text,
		Emit: func(e index.Entry) {
			if len(d.batch.Entries) == 0 {
				d.began = time.Now()
			}
			d.batch.Entries = append(d.batch.Entries, e)
			for _, text := range e.Texts {
				d.bytes += len(text)
			}
		},
		Failed: func(n int64) { d.batch.Failed = append(d.batch.Failed, n) },
	}
	return d
}

// item takes the next item.
func (d *feeder) item(item Item) error {
	d.extractor.Item(item)
	if len(d.batch.Entries) >= batchEntries || d.bytes >= batchBytes {
		return d.flush()
	}
	return nil
}

// flush brings in what was taken, and then rests for a while.
func (d *feeder) flush() error {
	if len(d.batch.Entries) == 0 && len(d.batch.Failed) == 0 && !d.batch.Whole {
		return nil
	}
	f := d.filling
	if err := f.recorder.spare(); err != nil {
		return err
	}
	if err := onOwnStack(func() error { return f.index.Append(f.ctx, d.session, d.batch) }); err != nil {
		return err
	}
	d.batch = index.Batch{Mask: d.batch.Mask, From: d.batch.From + int64(len(d.batch.Entries))}
	d.bytes = 0
	if !d.began.IsZero() {
		f.rest(time.Since(d.began))
	}
	d.began = time.Time{}
	return nil
}

// whole says that all of a recording that has ended was taken.
func (d *feeder) whole() (err error) {
	d.batch.Whole = true
	if d.batch.Bytes, err = d.filling.recorder.size(d.session); err != nil {
		return err
	}
	return d.flush()
}

// live is a live recording on its way into the index. Nothing waits for it to grow: when its turn comes it is read as far as
// it is safe by then. So a session that says nothing costs no goroutine, and many of them next to nothing.
type live struct {
	rec    *Recording
	file   *os.File
	reader *format.Reader
	teller teller
	feeder *feeder
	failed error // of the feeder

	at    int64 // what was read of the file
	limit int64 // and what may be
	ended bool  // there will be no more than that
	done  int64 // how far it was looked at: what the reader has read ahead is not all of it
}

// follow begins with a live recording; nil says that it has ended already.
func (f *filling) follow(header format.Header) (*live, error) {
	r := f.recorder
	file, rec, _, err := r.open(header.Session)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		return nil, file.Close()
	}
	l := &live{rec: rec, file: file, feeder: f.newFeeder(header)}
	l.see()
	if l.reader, err = format.NewReader(l); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	l.teller = r.newLinesTeller(header, func(item Item, err error) bool {
		if err == nil {
			err = l.feeder.item(item)
		}
		l.failed = err
		return err == nil
	})
	l.teller.start()
	return l, l.failed
}

// see notes how far the recording can be read now.
func (l *live) see() {
	l.ended = l.rec.over() // before looking: what it grew by until then is seen
	l.limit = l.rec.safe.Load()
}

// Read reads what could be read when see looked.
func (l *live) Read(p []byte) (int, error) {
	left := l.limit - l.at
	switch {
	case left > 0:
		n, err := l.file.ReadAt(p[:min(int64(len(p)), left)], l.at)
		l.at += int64(n)
		if n > 0 {
			err = nil
		}
		return n, err
	case l.ended:
		return 0, io.EOF
	default:
		return 0, format.ErrMore
	}
}

// look brings in what has become safe since the last look, and reports whether that was all there will be.
func (l *live) look() (over bool, err error) {
	if l.see(); !l.ended && l.done == l.limit {
		return false, nil
	}
	for {
		event, err := eventOf(l.feeder.filling.ctx, l.reader)
		switch {
		case errors.Is(err, format.ErrMore):
			l.done = l.limit
			return false, l.feeder.flush()
		case errors.Is(err, io.EOF):
			if l.teller.finish(); l.failed != nil {
				return false, l.failed
			}
			return true, l.feeder.whole()
		case err != nil:
			return false, err
		}
		if l.teller.take(event); l.failed != nil {
			return false, l.failed
		}
	}
}

// readLive looks at all live recordings at each tick, one after the other.
func (f *filling) readLive() {
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, s := range f.open {
			if s.follows != nil {
				s.follows.file.Close()
			}
		}
	}()
	for f.ctx.Err() == nil {
		var due []*source
		f.mu.Lock()
		changed, tick := f.changed, f.tick
		for _, s := range f.open {
			if s.live && s.seen < tick {
				due = append(due, s)
			}
		}
		f.mu.Unlock()
		if len(due) == 0 {
			select {
			case <-changed:
			case <-f.ctx.Done():
			}
			continue
		}
		for _, s := range due {
			f.lookAt(s, tick)
		}
		f.mu.Lock()
		f.change()
		f.mu.Unlock()
	}
}

// lookAt is one live recording's turn.
func (f *filling) lookAt(s *source, tick uint64) {
	if f.ctx.Err() != nil {
		return
	}
	var over bool
	var err error
	if s.follows == nil {
		s.follows, err = f.follow(s.header)
	}
	if err == nil && s.follows != nil {
		over, err = s.follows.look()
	}
	switch {
	case err == nil && s.follows == nil: // it is read like all that have ended
		f.mu.Lock()
		s.live = false
		f.backlog = append(f.backlog, s)
		f.mu.Unlock()
	case over || err != nil:
		if s.follows != nil {
			s.follows.file.Close()
			s.follows = nil
		}
		f.finished(s, err)
	default:
		f.mu.Lock()
		s.seen, s.pending = tick, s.follows.feeder.extractor.Pending()
		f.mu.Unlock()
	}
}
