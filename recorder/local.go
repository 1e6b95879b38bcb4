package recorder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"sallyport/internal/refusal"
	"sallyport/recorder/format"
	"sallyport/recorder/index"
	"sallyport/recorder/lock"
)

// LocalIndex is what became of an index of files.
type LocalIndex struct {
	// Recordings are in the index now, of which Added are new; Gone were in it, and their files are no more.
	Recordings int `json:"recordings"`
	Added      int `json:"added"`
	Gone       int `json:"gone"`
	// Locked are not in it, because no identity opens them.
	Locked int `json:"locked"`
	// Unreadable are the files that could not be read, and why.
	Unreadable []string `json:"unreadable"`
}

// IndexFiles brings the recordings below dir, a copy of a gateway's or of some of them, into an index in the file at path,
// which is made or, where it is one, brought up to date: only files that are new or have grown are read. What locked ones
// say stands in it in the clear. It is no gateway's: those have theirs from Open.
func IndexFiles(ctx context.Context, dir, path string, interpreters map[string]func(format.Header) Interpreter, identities ...age.Identity) (LocalIndex, error) {
	var sum LocalIndex
	found, err := filesBelow(dir, &sum)
	if err != nil {
		return sum, err
	}
	x, _, err := index.Open(ctx, path)
	if err != nil {
		return sum, err
	}
	l := &localIndex{ctx: ctx, index: x, interpreters: interpreters, identities: identities, sum: &sum}
	err = l.fill(found)
	return sum, errors.Join(err, x.Close())
}

// SearchFiles searches an index that IndexFiles made, as Recorder.Search does a gateway's.
func SearchFiles(ctx context.Context, path string, q Query) iter.Seq2[Match, error] {
	return func(yield func(Match, error) bool) {
		if _, err := os.Stat(path); err != nil { // or an empty one would be made
			yield(Match{}, err)
			return
		}
		x, _, err := index.Open(ctx, path)
		if err != nil {
			yield(Match{}, err)
			return
		}
		defer x.Close()
		left := q.Limit
		for hit, err := range x.Search(ctx, index.Query{
			Text: q.Text, Protocol: q.Protocol, Target: q.Target, Account: q.Account, Grant: q.Grant,
			Errors: q.Errors, Since: q.Since, Until: q.Until, Admit: q.admits,
		}) {
			if err != nil {
				yield(Match{}, err)
				return
			}
			left--
			if !yield(Match{Session: hit.Header.Session, Header: *hit.Header, Item: hit.Item, Line: hit.Line}, nil) || left == 0 {
				return
			}
		}
	}
}

// localFile is a recording's file.
type localFile struct {
	path   string
	header format.Header
	bytes  int64 // it had before it was packed
}

// filesBelow finds the recordings below a directory, the oldest first. The audit log's files are none.
func filesBelow(dir string, sum *LocalIndex) ([]localFile, error) {
	var all []localFile
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.Type().IsRegular() || !strings.HasSuffix(path, extension) {
			return nil
		}
		one, err := lookAt(path)
		switch {
		case err != nil:
			sum.Unreadable = append(sum.Unreadable, fmt.Sprintf("%s: %v", path, err))
		case one.header.Protocol != protocolAudit:
			all = append(all, one)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for recordings: %w", err)
	}
	slices.SortFunc(all, func(a, b localFile) int { return cmp.Or(byAge(a.header, b.header), strings.Compare(a.path, b.path)) })
	return slices.CompactFunc(all, func(a, b localFile) bool { return a.header.Session == b.header.Session }), nil
}

func lookAt(path string) (localFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return localFile{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return localFile{}, err
	}
	reader, err := format.NewReader(f)
	if err != nil {
		return localFile{}, err
	}
	found, err := format.Look(f, info.Size())
	return localFile{path, reader.Header(), found.Content}, err
}

// localIndex is one index being filled.
type localIndex struct {
	ctx          context.Context
	index        *index.Index
	interpreters map[string]func(format.Header) Interpreter
	identities   []age.Identity
	sum          *LocalIndex
}

func (l *localIndex) fill(files []localFile) error {
	had, err := l.index.Sessions(l.ctx)
	if err != nil {
		return err
	}
	for _, f := range files {
		state, known := had[f.header.Session]
		delete(had, f.header.Session)
		if state.Bytes == f.bytes && state.Bytes > 0 {
			l.sum.Recordings++
			continue
		}
		if known {
			if err := l.index.Clear(l.ctx, f.header.Session); err != nil {
				return err
			}
		}
		if err := l.bring(f); err != nil {
			return err
		}
	}
	for session := range had {
		if err := l.index.Forget(l.ctx, session); err != nil {
			return err
		}
		l.sum.Gone++
	}
	return nil
}

// bring reads one recording into the index. One that can't be read is counted, and does not keep the others.
func (l *localIndex) bring(f localFile) error {
	recording, err := OpenCopy(f.path, l.interpreters, l.identities...)
	if refusal.Is(err, refusal.Locked) || errors.Is(err, lock.ErrNotForYou) {
		l.sum.Locked++
		return nil
	}
	if err == nil {
		defer recording.Close()
		if err = l.index.Register(l.ctx, []format.Header{f.header}); err == nil {
			err = l.read(f, recording)
		}
	}
	if l.ctx.Err() != nil || errors.Is(err, index.ErrDamaged) {
		return err
	}
	if err != nil {
		l.sum.Unreadable = append(l.sum.Unreadable, fmt.Sprintf("%s: %v", f.path, err))
		return l.index.Forget(l.ctx, f.header.Session)
	}
	l.sum.Recordings++
	l.sum.Added++
	return nil
}

func (l *localIndex) read(f localFile, recording *Copy) error {
	batch := index.Batch{Mask: nameOf(f.header.Mask)}
	bytes := 0
	flush := func() error {
		if err := l.index.Append(l.ctx, f.header.Session, batch); err != nil {
			return err
		}
		batch, bytes = index.Batch{Mask: batch.Mask, From: batch.From + int64(len(batch.Entries))}, 0
		return nil
	}
	x := index.Extractor{
		Mask: recording.by.masker(f.header).Text,
		Emit: func(e index.Entry) {
			batch.Entries = append(batch.Entries, e)
			for _, text := range e.Texts {
				bytes += len(text)
			}
		},
		Failed: func(n int64) { batch.Failed = append(batch.Failed, n) },
	}
	for item, err := range recording.items(l.ctx, (*Recorder).newLinesTeller) {
		if err != nil {
			return err
		}
		if x.Item(item); len(batch.Entries) >= batchEntries || bytes >= batchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	batch.Entries = append(batch.Entries, x.Pending()...) // of one without an ending
	batch.Whole, batch.Bytes = true, f.bytes
	return flush()
}
