package recorder

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/mask"
)

// maxMaskers is how many are kept.
const maxMaskers = 64

// maskers are those in use, by their rules. The zero value is ready; it is safe for concurrent use.
type maskers struct {
	mu  sync.Mutex
	all map[string]*mask.Masker
}

// get is the masker of some rules. Ones that cannot be had mask everything there is: a recording's header may say anything.
func (m *maskers) get(rules *format.Mask) *mask.Masker {
	name := nameOf(rules)
	m.mu.Lock()
	defer m.mu.Unlock()
	if known, ok := m.all[name]; ok {
		return known
	}
	made, err := mask.New(rules)
	if err != nil {
		made, _ = mask.New(&format.Mask{Cards: true, Patterns: []format.MaskPattern{{Name: "all", Regexp: `.+`}}}) // compiles
	}
	if m.all == nil || len(m.all) >= maxMaskers {
		m.all = map[string]*mask.Masker{}
	}
	m.all[name] = made
	return made
}

// nameOf tells rules apart; it is empty where there are none.
func nameOf(rules *format.Mask) string {
	if rules == nil || !rules.Cards && len(rules.Patterns) == 0 {
		return ""
	}
	name, err := json.Marshal(rules)
	if err != nil {
		panic(err) // of plain strings
	}
	return string(name)
}

// maskOf is what is hidden in what is shown of a recording: what was to be when the session began, and what is to be now.
func (r *Recorder) maskOf(header format.Header) *format.Mask {
	if r.Mask == nil {
		return header.Mask
	}
	now := r.Mask(header.Target)
	if now == nil || header.Mask == nil || nameOf(now) == nameOf(header.Mask) {
		if now == nil {
			return header.Mask
		}
		return now
	}
	both := &format.Mask{Cards: now.Cards || header.Mask.Cards, Patterns: slices.Clone(now.Patterns)}
	for _, p := range header.Mask.Patterns {
		if !slices.Contains(both.Patterns, p) {
			both.Patterns = append(both.Patterns, p)
		}
	}
	return both
}

func (r *Recorder) masker(header format.Header) *mask.Masker { return r.masks.get(r.maskOf(header)) }

// Masked reports whether something is hidden in what is shown of a recording.
func (r *Recorder) Masked(header format.Header) bool { return r.masker(header) != nil }

// Masked is a text of the session's as it may stand elsewhere, in the audit log and what is told of that: whole, and before it is cut.
func (r *Recording) Masked(text string) string { return r.recorder.masker(r.header).Text(text) }

// masking has items masked on their way; what terminals show as it stands on their screens, or in lines.
func masking(m *mask.Masker, lines bool, yield func(Item, error) bool) func(Item, error) bool {
	if m == nil {
		return yield
	}
	return (&mask.Items{Masker: m, Lines: lines, Yield: yield}).Item
}

// UnmaskedItems is ItemsFrom with nothing hidden, for those who may see that.
func (r *Recorder) UnmaskedItems(ctx context.Context, session string, from time.Duration) (iter.Seq2[Item, error], error) {
	return r.itemsFrom(ctx, session, from, (*Recorder).newTeller)
}

// maskNow is nameOf what is hidden in a recording; empty too where its header cannot be read, which is noticed elsewhere.
func (r *Recorder) maskNow(session string) string {
	header, err := r.header(session)
	if err != nil {
		return ""
	}
	return nameOf(r.maskOf(header))
}

// errOtherMask ends an index, which is opened again and compared with what is to be hidden in it.
var errOtherMask = errors.New("what is hidden in the search index is to be something else")

// Remask has what is derived from recordings made again where other things are to be hidden in it now.
func (r *Recorder) Remask() {
	if r.indexer != nil {
		r.indexer.rebuild(errOtherMask)
	}
}
