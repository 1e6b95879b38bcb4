package recorder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"filippo.io/age"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/recorder/format"
	"sallyport/recorder/lock"
)

// keyLinger is how long those who watch a locked recording have, once it has ended, to come to its end.
const keyLinger = 10 * time.Second

// keyPair are the keys of a recording that is locked, the second of which is for stricter recipients and may be nil.
type keyPair struct{ key, strict *format.Key }

func (k keyPair) wipe() {
	for _, key := range []*format.Key{k.key, k.strict} {
		if key != nil {
			key.Wipe()
		}
	}
}

// lock makes the keys of a recording that is to be locked, and puts its Lock into the header; none where it is not. Stricter
// recipients can open everything.
func (r *Recorder) lock(ctx context.Context, header *format.Header) (keys keyPair, err error) {
	if r.Recipients == nil {
		return keys, nil
	}
	recipients := r.Recipients(header.Target)
	if len(recipients) == 0 {
		return keys, nil
	}
	var input []string
	if r.InputRecipients != nil {
		input = r.InputRecipients(header.Target)
	}
	keys.key, header.Lock, err = r.NewKey(ctx, header.Session, configs.WithInputRecipients(recipients, input))
	if err == nil && len(input) > 0 {
		keys.strict, header.Lock.Input, err = r.NewKey(ctx, header.Session, input)
	}
	if err != nil {
		keys.wipe()
		return keyPair{}, refusal.New(refusal.RecorderFailed, "the recording could not be locked to its recipients").
			WithHint("ask whoever runs the gateway to look at recipients in its configuration: sallyport check").Because(err)
	}
	return keys, nil
}

// noteLocked remembers a locked recording for searches, which cannot look into it.
func (r *Recorder) noteLocked(h format.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.locked[h.Session] = format.Header{
		Session: h.Session, Protocol: h.Protocol, Identity: h.Identity, Target: h.Target, Account: h.Account, Grant: h.Grant, Started: h.Started,
	}
}

// RefuseLocked refuses to read a locked recording.
func RefuseLocked(session string) *refusal.Refusal {
	return refusal.New(refusal.Locked, "the recording of session %.80q is locked", session).
		WithDetail("the gateway has no key that opens it; replay, export and search run where the identity of one of its recipients is").
		WithHint("sallyport replay %.80s --identity FILE", session)
}

// wipeKey gives up the key with which the recording was written: at once, or a moment later if somebody still reads. The
// lock is held.
func (r *Recording) wipeKey() {
	if r.key == nil {
		return
	}
	if r.strict != nil { // nobody reads with it
		r.strict.Wipe()
	}
	r.key.Release()
	time.AfterFunc(keyLinger, r.key.Wipe)
}

// Copy is a recording's file, read without a gateway, by somebody who has an identity if it is locked.
type Copy struct {
	Header format.Header
	// Unmasked has Items and Export hide nothing; else they hide what the header says.
	Unmasked bool
	path     string
	key      *format.Key
	strict   *format.Key // nil: what is for stricter recipients stays closed
	by       *Recorder   // only what makes items of events
}

// OpenCopy opens a file for reading. A locked one takes an identity of one of its recipients: without any the refusal
// (Locked) says so. Close it, which wipes the key.
func OpenCopy(path string, interpreters map[string]func(format.Header) Interpreter, identities ...age.Identity) (*Copy, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	reader, err := format.NewReader(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	c := &Copy{Header: reader.Header(), path: path, by: &Recorder{Options: Options{Interpreters: interpreters}}}
	if c.Header.Lock == nil {
		return c, nil
	}
	if len(identities) == 0 {
		return nil, RefuseLocked(c.Header.Session)
	}
	if c.key, err = lock.Open(c.Header, identities...); err != nil || c.Header.Lock.Input == nil {
		return c, err
	}
	if c.strict, err = lock.OpenInput(c.Header, identities...); errors.Is(err, lock.ErrNotForYou) {
		err = nil
	}
	if err != nil {
		c.Close()
	}
	return c, err
}

// Items is as Recorder's; of a file without an ending the last is "unfinished". It may be ranged over more than once.
func (c *Copy) Items(ctx context.Context) iter.Seq2[Item, error] {
	return c.items(ctx, (*Recorder).newMaskedTeller)
}

func (c *Copy) items(ctx context.Context, make tellers) iter.Seq2[Item, error] {
	if c.Unmasked {
		make = (*Recorder).newTeller
	}
	return c.by.itemsBy(make, c.Header, func(yield func(Event, error) bool) {
		file, err := os.Open(c.path)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer file.Close()
		reader, err := format.NewReader(file)
		if err != nil {
			yield(Event{}, fmt.Errorf("read %s: %w", c.path, err))
			return
		}
		reader.Unlock(c.key)
		if c.strict != nil {
			reader.UnlockStrict(c.strict)
		}
		eventsOf(ctx, reader)(yield)
	})
}

// Export is as Recorder's, in a form other than Stored.
func (c *Copy) Export(ctx context.Context, form string, w io.Writer, o ExportOptions) error {
	if !c.Unmasked {
		o.mask = c.by.masker(c.Header).Text
	}
	return export(ctx, c.Header.Session, c.items(ctx, maskedFor(form)), form, w, o)
}

// Close wipes the key.
func (c *Copy) Close() {
	keyPair{c.key, c.strict}.wipe()
}
