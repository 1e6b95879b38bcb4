package recorder

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"sync/atomic"

	"sallyport/recorder/format"
)

// Follow is Read that goes on with a live recording: what becomes safe at its level is given as soon as it is, and
// nothing before, until the recording has its ending or can't be written any more. It reads the file, as far as the
// caller keeps up; nothing waits for the caller. A locked recording can be followed while it lives, with the key that it is
// written with.
func (r *Recorder) Follow(ctx context.Context, session string) (format.Header, iter.Seq2[Event, error], error) {
	file, live, reader, err := r.open(session)
	if err != nil {
		return format.Header{}, nil, err
	}
	file.Close()
	if live == nil {
		return r.Read(ctx, session)
	}
	return reader.Header(), func(yield func(Event, error) bool) {
		file, live, reader, err := r.open(session)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer file.Close()
		if live != nil { // else it has ended meanwhile, and is read as what it is now
			if reader, err = format.NewReader(&growing{ctx: ctx, rec: live, file: file}); err != nil {
				yield(Event{}, fmt.Errorf("follow the recording of session %s: %w", session, err))
				return
			}
		}
		if reader.Header().Lock != nil {
			if live == nil || !live.key.Hold() {
				yield(Event{}, RefuseLocked(session))
				return
			}
			defer live.key.Release()
			reader.Unlock(live.key)
		}
		for event, err := range eventsOf(ctx, reader) {
			if err != nil {
				err = fmt.Errorf("follow the recording of session %s: %w", session, err)
			}
			if !yield(event, err) {
				return
			}
		}
	}, nil
}

// FollowItems is Follow through the protocol's Interpreter, as Items is of Read.
func (r *Recorder) FollowItems(ctx context.Context, session string) (iter.Seq2[Item, error], error) {
	header, events, err := r.Follow(ctx, session)
	if err != nil {
		return nil, err
	}
	return r.itemsBy((*Recorder).newMaskedTeller, header, events), nil
}

// FollowLines is FollowItems with what terminals show in lines, for whoever puts these together (terminal.Lines) and then masks each, whole.
func (r *Recorder) FollowLines(ctx context.Context, session string) (items iter.Seq2[Item, error], mask func(line string) string, err error) {
	header, events, err := r.Follow(ctx, session)
	if err != nil {
		return nil, nil, err
	}
	return r.itemsBy((*Recorder).newLinesTeller, header, events), r.masker(header).Text, nil
}

// Live reports whether the session's recording is being written.
func (r *Recorder) Live(session string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live[session] != nil
}

// growing reads a live recording's file as far as it is safe, and then waits for more.
type growing struct {
	ctx  context.Context
	rec  *Recording
	file *os.File
	at   int64
}

func (g *growing) Read(p []byte) (int, error) {
	for {
		grown := g.rec.grown.channel() // before looking, so that nothing that happens after is missed
		ended := g.rec.over()          // and this too: what it grew by until then is seen
		if left := g.rec.safe.Load() - g.at; left > 0 {
			n, err := g.file.ReadAt(p[:min(int64(len(p)), left)], g.at)
			g.at += int64(n)
			if n > 0 {
				return n, nil
			}
			return 0, err
		}
		if ended {
			return 0, io.EOF
		}
		select {
		case <-grown:
		case <-g.ctx.Done():
			return 0, g.ctx.Err()
		}
	}
}

// over reports whether nothing more will be written.
func (r *Recording) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// signal tells those who follow a recording that it has grown or ended. It costs the writer one atomic operation.
type signal struct {
	waiting atomic.Pointer[chan struct{}]
}

// channel is closed at the next wake.
func (s *signal) channel() <-chan struct{} {
	for {
		if c := s.waiting.Load(); c != nil {
			return *c
		}
		c := make(chan struct{})
		if s.waiting.CompareAndSwap(nil, &c) {
			return c
		}
	}
}

func (s *signal) wake() {
	if s.waiting.Load() == nil {
		return
	}
	if c := s.waiting.Swap(nil); c != nil {
		close(*c)
	}
}
