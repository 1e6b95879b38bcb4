package lock

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"

	"filippo.io/age"

	"sallyport/configs"
	"sallyport/recorder/format"
)

const (
	// batch is how many keys one process makes, and low at how many left the next is started. Those that are left are keys of
	// sessions that have not begun.
	batch = 16
	low   = 6
	// smithPatience is how long a process may take.
	smithPatience = 20 * time.Second
	// maxWrapped bounds an age file of one key: 32 post-quantum recipients take 50 KiB.
	maxWrapped = 128 << 10
	maxOrder   = 256 << 10
	// maxLists is how many lists of recipients have keys in stock.
	maxLists = 64
)

// order is what a process that makes keys reads.
type order struct {
	Recipients []string `json:"recipients"`
	Count      int      `json:"count"`
}

// Smith makes keys as New does, in processes that end once they have made a few. Locking a key to its recipients leaves
// behind, on a heap that nobody can wipe, what opens it again: the age file's own key, shared secrets, ephemeral keys. In
// the gateway's memory all that never is; here there is nothing but the keys, each until its format.Key is wiped. It is
// safe for concurrent use.
type Smith struct {
	// Command is the program that runs Make on its standard input and output.
	Command func(context.Context) *exec.Cmd

	mu    sync.Mutex
	lists map[string]*stock
}

// stock are the keys for one list of recipients.
type stock struct {
	keys   []made
	making chan struct{} // closed when a process under way has ended; nil: there is none
	err    error         // of the last
}

type made struct {
	raw     *[format.KeySize]byte
	wrapped []byte
}

// New is lock.New, with a key that another process has locked. It waits for one where there is none in stock.
func (s *Smith) New(ctx context.Context, session string, recipients []string) (*format.Key, *format.Lock, error) {
	one, err := s.take(ctx, recipients)
	if err != nil {
		return nil, nil, fmt.Errorf("lock the recording: %w", err)
	}
	return one.forSession(session, recipients)
}

// Prepare has keys made for those recipients, so that the next session need not wait for one.
func (s *Smith) Prepare(recipients []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin(recipients)
}

func (m made) forSession(session string, recipients []string) (*format.Key, *format.Lock, error) {
	defer clear(m.raw[:])
	key, err := format.NewKey(m.raw[:])
	if err != nil {
		return nil, nil, fmt.Errorf("lock the recording: %w", err)
	}
	return key, &format.Lock{Recipients: recipients, Key: m.wrapped, Check: format.KeyCheck(session, m.raw[:])}, nil
}

func (s *Smith) take(ctx context.Context, recipients []string) (made, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		st := s.begin(recipients)
		if n := len(st.keys); n > 0 {
			one := st.keys[n-1]
			st.keys = st.keys[:n-1]
			return one, nil
		}
		making := st.making
		s.mu.Unlock()
		select {
		case <-making:
		case <-ctx.Done():
			s.mu.Lock()
			return made{}, ctx.Err()
		}
		s.mu.Lock()
		if len(st.keys) == 0 && st.err != nil {
			return made{}, st.err
		}
	}
}

// begin starts a process where few keys are left. The lock is held.
func (s *Smith) begin(recipients []string) *stock {
	name := strings.Join(recipients, "\n")
	st := s.lists[name]
	if st == nil {
		if s.lists == nil || len(s.lists) >= maxLists { // lists that a configuration had once
			s.forget()
		}
		st = &stock{}
		s.lists[name] = st
	}
	if len(st.keys) > low || st.making != nil {
		return st
	}
	st.making = make(chan struct{})
	go func() {
		keys, err := s.have(order{recipients, batch})
		s.mu.Lock()
		defer s.mu.Unlock()
		if st.keys, st.err = append(st.keys, keys...), err; s.lists[name] != st { // forgotten meanwhile
			st.wipe()
		}
		close(st.making)
		st.making = nil
	}()
	return st
}

// forget wipes what is in stock. The lock is held.
func (s *Smith) forget() {
	for _, st := range s.lists {
		st.wipe()
	}
	s.lists = map[string]*stock{}
}

func (st *stock) wipe() {
	for _, k := range st.keys {
		clear(k.raw[:])
	}
	st.keys = nil
}

// Close wipes the keys that nobody has used.
func (s *Smith) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
}

// have runs one process.
func (s *Smith) have(o order) (keys []made, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), smithPatience)
	defer cancel()
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	cmd := s.Command(ctx)
	cmd.Stdin = bytes.NewReader(text)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the process that makes keys: %w", err)
	}
	for range o.Count {
		one, err := readMade(out)
		if err != nil {
			cancel()
			ended := cmd.Wait() // only then is all there that it said
			return keys, errors.Join(fmt.Errorf("the process that makes keys: %.200s: %w", strings.TrimSpace(said.String()), err), ended)
		}
		keys = append(keys, one)
	}
	if err := cmd.Wait(); err != nil {
		return keys, fmt.Errorf("the process that makes keys: %w", err)
	}
	return keys, nil
}

// readMade reads one key straight to where it will be wiped.
func readMade(from io.Reader) (made, error) {
	one := made{raw: new([format.KeySize]byte)}
	if _, err := io.ReadFull(from, one.raw[:]); err != nil {
		return made{}, err
	}
	var length [4]byte
	if _, err := io.ReadFull(from, length[:]); err != nil {
		return made{}, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxWrapped {
		return made{}, fmt.Errorf("a locked key of %d bytes", n)
	}
	one.wrapped = make([]byte, n)
	_, err := io.ReadFull(from, one.wrapped)
	return one, err
}

// Make reads what keys a Smith wants and writes them: each its bytes, and its age file behind a length of four bytes. The
// process should end then, for what is left in its memory opens them.
func Make(from io.Reader, to io.Writer) error {
	var o order
	if err := json.NewDecoder(io.LimitReader(from, maxOrder)).Decode(&o); err != nil {
		return fmt.Errorf("read what keys are wanted: %w", err)
	}
	recipients, err := configs.ParseRecipients(o.Recipients)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(to)
	for range min(o.Count, batch) {
		var raw [format.KeySize]byte
		rand.Read(raw[:]) // never fails
		wrapped, err := wrap(raw[:], recipients)
		if err != nil {
			return err
		}
		// A bufio.Writer keeps its first error for Flush.
		_, _ = w.Write(raw[:])
		_, _ = w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(wrapped))))
		_, _ = w.Write(wrapped)
	}
	return w.Flush()
}

// wrap makes an age file of a key.
func wrap(raw []byte, recipients []age.Recipient) ([]byte, error) {
	var wrapped bytes.Buffer
	w, err := age.Encrypt(&wrapped, recipients...)
	if err == nil {
		_, err = w.Write(raw)
	}
	if err == nil {
		err = w.Close()
	}
	return wrapped.Bytes(), err
}
