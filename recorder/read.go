package recorder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/internal/refusal"
	"sallyport/recorder/format"
)

// Read opens the session's recording for reading, finished or live; of a live one it gives what is safe at its level
// when the ranging begins. The caller ranges over the events; an error ends them. Where the file is damaged, a Note of
// kind "damage", which is not in the file, stands for what is missing, and the events after it follow. The events can be
// ranged over more than once. A locked recording has a header that can be read; its events are refused (Locked).
func (r *Recorder) Read(ctx context.Context, session string) (format.Header, iter.Seq2[Event, error], error) {
	file, _, reader, err := r.open(session)
	if err != nil {
		return format.Header{}, nil, err
	}
	file.Close()
	return reader.Header(), func(yield func(Event, error) bool) {
		if reader.Header().Lock != nil {
			yield(Event{}, RefuseLocked(session))
			return
		}
		file, _, reader, err := r.open(session)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer file.Close()
		for event, err := range eventsOf(ctx, reader) {
			if err != nil {
				err = fmt.Errorf("read the recording of session %s: %w", session, err)
			}
			if !yield(event, err) {
				return
			}
		}
	}, nil
}

// open opens a recording, a live one as far as it is safe, and says which it is.
func (r *Recorder) open(session string) (*os.File, *Recording, *format.Reader, error) {
	r.mu.Lock()
	path, ok := r.paths[session]
	r.mu.Unlock()
	if !ok || !strings.HasPrefix(path, "recordings") {
		return nil, nil, nil, refusal.New(refusal.NotFound, "there is no recording of session %.80q", session).WithHint("list sessions with: sallyport sessions --all")
	}
	file, live, err := r.openFile(path)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open the recording of session %s: %w", session, err)
	}
	var source io.Reader = file
	if live != nil {
		source = io.NewSectionReader(file, 0, live.safe.Load())
	}
	reader, err := format.NewReader(source)
	if err != nil {
		file.Close()
		return nil, nil, nil, fmt.Errorf("read the recording of session %s: %w", session, err)
	}
	return file, live, reader, nil
}

// openFile opens a recording's file and says who writes it, if somebody does. In this order: the file of a recording that is
// live after it was opened cannot have been packed before.
func (r *Recorder) openFile(path string) (*os.File, *Recording, error) {
	file, err := os.Open(filepath.Join(r.Dir, path))
	if err != nil {
		return nil, nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return file, r.live[sessionOf(path)], nil
}

// eventsOf reads all there is, with notes in place of damage.
func eventsOf(ctx context.Context, reader *format.Reader) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			event, err := eventOf(ctx, reader)
			if errors.Is(err, io.EOF) || !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// eventOf reads one event, or a note in place of damage. The error is io.EOF at the end.
func eventOf(ctx context.Context, reader *format.Reader) (Event, error) {
	event, err := reader.Next()
	for err == nil && event.Type == format.TypeStandIn && reader.Strict() {
		event, err = reader.Next()
	}
	event = event.StandsFor()
	if damage, ok := errors.AsType[*format.Damage](err); ok {
		event = format.JSON(format.TypeNote, 0, format.Note{Kind: "damage", Text: damage.Error()})
		event.At, err = reader.Latest(), nil
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return Event{}, err
	}
	return event, nil
}

// Sessions lists the headers of all recordings, oldest first. A recording whose header is damaged is logged and left out;
// Verify names it.
func (r *Recorder) Sessions(ctx context.Context) ([]format.Header, error) {
	return r.headers(ctx, r.sessions())
}

// headers reads the headers of recordings, oldest first; what has none that can be read is left out.
func (r *Recorder) headers(ctx context.Context, sessions []string) ([]format.Header, error) {
	headers := make([]format.Header, 0, len(sessions))
	for _, session := range sessions {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		header, err := r.header(session)
		if err != nil {
			// One that is just being begun or could not be has no file.
			if !isMissing(err) {
				r.Log.Error("a recording is left out of the list", "error", err)
			}
			continue
		}
		headers = append(headers, header)
	}
	slices.SortFunc(headers, byAge)
	return headers, nil
}

// isMissing reports whether an error says that there is no such recording.
func isMissing(err error) bool {
	return errors.Is(err, os.ErrNotExist) || refusal.Is(err, refusal.NotFound)
}

// byAge orders headers, the oldest first.
func byAge(a, b format.Header) int {
	return cmp.Or(a.Started.Compare(b.Started), strings.Compare(a.Session, b.Session))
}

func (r *Recorder) header(session string) (format.Header, error) {
	file, _, reader, err := r.open(session)
	if err != nil {
		return format.Header{}, err
	}
	return reader.Header(), file.Close()
}

// sessions are the ids of all recordings.
func (r *Recorder) sessions() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	sessions := make([]string, 0, len(r.paths))
	for session, path := range r.paths {
		if strings.HasPrefix(path, "recordings") {
			sessions = append(sessions, session)
		}
	}
	return sessions
}

// listed are the ids of all recordings, and whether each is being written.
func (r *Recorder) listed() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]bool, len(r.paths))
	for session, path := range r.paths {
		if strings.HasPrefix(path, "recordings") {
			all[session] = r.live[session] != nil
		}
	}
	return all
}

// Stored is the path of a session's recording, or of an audit file, below the state directory; it is empty where there is none.
// Settled says that it has ended and is not about to be packed.
func (r *Recorder) Stored(session string) (path string, settled bool) {
	r.mu.Lock()
	path, live := r.paths[session], r.live[session] != nil
	r.mu.Unlock()
	return path, path != "" && !live && !r.packer.has(session)
}
