package recorder

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"math"

	"sallyport/internal/refusal"
	"sallyport/recorder/replay"
)

// Formats are the forms in which Export writes a recording.
var Formats = []string{"jsonl", "asciicast", "asciicast-v2", "text", Stored}

// Stored is the form in which a recording is stored: a copy of its file, which is locked if that is.
const Stored = "srec"

// ExportOptions say what goes into an export.
type ExportOptions struct {
	// Raw keeps terminal sequences that reach beyond the picture; see sallyport/recorder/terminal. JSON Lines always
	// has the exact bytes.
	Raw bool
	// Input adds what was typed to an asciicast.
	Input bool
	// Unmasked hides nothing, for those who may see everything; the file as it is stored has everything anyhow.
	Unmasked bool

	mask func(string) string
}

// Export writes a session's recording in one of Formats: "jsonl" is one Item a line, everything there is; "asciicast" and
// "asciicast-v2" play in asciinema; "text" is plain text to read and to grep; "srec" is
// the file as it is stored, of a live recording as far as it is safe.
func (r *Recorder) Export(ctx context.Context, session, form string, w io.Writer, o ExportOptions) error {
	if form == Stored {
		return r.copyStored(ctx, session, w)
	}
	make := maskedFor(form)
	if o.Unmasked {
		make = (*Recorder).newTeller
	} else {
		header, err := r.header(session)
		if err != nil {
			return err
		}
		o.mask = r.masker(header).Text
	}
	items, err := r.items(ctx, session, make)
	if err != nil {
		return err
	}
	return export(ctx, session, items, form, w, o)
}

// maskedFor is how items are masked for a form. Text has lines, which are masked once more.
func maskedFor(form string) tellers {
	if form == "text" {
		return (*Recorder).newLinesTeller
	}
	return (*Recorder).newMaskedTeller
}

func (r *Recorder) copyStored(ctx context.Context, session string, w io.Writer) error {
	file, live, _, err := r.open(session)
	if err != nil {
		return err
	}
	defer file.Close()
	size := int64(math.MaxInt64)
	if live != nil {
		size = live.safe.Load()
	}
	_, err = io.Copy(w, &unlessDone{ctx, io.NewSectionReader(file, 0, size)})
	return err
}

// export writes items in one of the forms that are made of them.
func export(ctx context.Context, session string, items iter.Seq2[Item, error], form string, w io.Writer, o ExportOptions) (err error) {
	switch form {
	case "jsonl":
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		for item, err := range items {
			if err != nil {
				return err
			}
			if err := encoder.Encode(item); err != nil {
				return err
			}
		}
		return nil
	case "asciicast":
		err = replay.Asciicast(ctx, items, w, replay.Cast{Version: 3, Raw: o.Raw, Input: o.Input})
	case "asciicast-v2":
		err = replay.Asciicast(ctx, items, w, replay.Cast{Version: 2, Raw: o.Raw, Input: o.Input})
	case "text":
		err = replay.Text(ctx, items, w, replay.Options{Mask: o.mask})
	default:
		return refusal.New(refusal.Invalid, "there is no such form of export: %.40q", form).WithHint("jsonl, asciicast, asciicast-v2, text or srec")
	}
	if errors.Is(err, replay.ErrNoTerminal) {
		return refusal.New(refusal.Unsupported, "session %s has no terminal's output", session).WithHint("export it as jsonl or text").Because(err)
	}
	return err
}
