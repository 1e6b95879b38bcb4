package postgres

import "sync"

// clientWriter is the way to the client. The relay and those who have something of the gateway's own to say write, one at a
// time, and never into the middle of a frame.
type clientWriter struct {
	client *client
	mu     sync.Mutex
	at     boundary
	// answered is how many ReadyForQuery messages of the target were written, without the one of the login.
	answered int64
	notice   []byte // waits for a boundary at which the client may be told
	broken   bool   // a write failed, and how much of it arrived is not known
}

// boundary is where a chunk ends.
type boundary struct {
	inside bool  // of a frame
	ready  bool  // behind a ReadyForQuery
	status byte  // of the transaction, as the last ReadyForQuery said
	passed int64 // ReadyForQuery messages in the chunk
}

func (w *clientWriter) write(chunk []byte, at boundary) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at.status == 0 {
		at.status = w.at.status
	}
	w.at = at
	if err := w.client.ahead.WriteWhole(w.client.conn, chunk); err != nil {
		w.broken = true
		return err
	}
	w.answered += at.passed
	if at.ready && w.notice != nil {
		return w.say(w.notice)
	}
	return nil
}

// say writes whole frames of the gateway's own. The lock is held.
func (w *clientWriter) say(frames []byte) error {
	w.notice = nil
	if _, err := w.client.conn.Write(frames); err != nil {
		w.broken = true
		return err
	}
	return nil
}

// tellWhenIdle writes a notice as soon as the client has the answer to all that was asked before.
func (w *clientWriter) tellWhenIdle(frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.broken:
	case w.at.ready:
		_ = w.say(frame) // a client that is gone is noticed by others
	default:
		w.notice = frame
	}
}

// answer writes the gateway's own answer to something that was not passed on; false says that it would not stand where the
// client expects it: before it answers to what was passed on, asked in number, are still to come, or there is a transaction
// in which the target knows nothing of it.
func (w *clientWriter) answer(frames []byte, asked int64) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.at.ready || w.at.status != 'I' || w.answered != asked {
		return false, nil
	}
	return true, w.say(frames)
}
