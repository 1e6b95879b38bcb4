package recorder

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"sallyport/internal/refusal"
	"sallyport/recorder/replay"
)

// Formats are the forms in which Export writes a recording.
var Formats = []string{"jsonl", "asciicast", "asciicast-v2", "text"}

// ExportOptions say what goes into an export.
type ExportOptions struct {
	// Raw keeps terminal sequences that reach beyond the picture; see sallyport/recorder/terminal. JSON Lines always
	// has the exact bytes.
	Raw bool
	// Input adds what was typed to an asciicast.
	Input bool
}

// Export writes a session's recording in one of Formats: "jsonl" is one Item a line, everything there is; "asciicast" and
// "asciicast-v2" play in asciinema; "text" is plain text to read and to grep.
func (r *Recorder) Export(ctx context.Context, session, form string, w io.Writer, o ExportOptions) error {
	items, err := r.Items(ctx, session)
	if err != nil {
		return err
	}
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
		err = replay.Text(ctx, items, w, replay.Options{})
	default:
		return refusal.New(refusal.Invalid, "there is no such form of export: %.40q", form).WithHint("jsonl, asciicast, asciicast-v2 or text")
	}
	if errors.Is(err, replay.ErrNoTerminal) {
		return refusal.New(refusal.Unsupported, "session %s has no terminal's output", session).WithHint("export it as jsonl or text").Because(err)
	}
	return err
}
