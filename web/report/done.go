package report

import (
	"strconv"
	"strings"

	"sallyport/recorder/item"
)

// Done is what a session did.
type Done struct {
	Count int      // statements, commands and operations on files
	First []string // the first of them, shortened
	// Unread is why it is not known, or not all of it; empty: it is.
	Unread string
}

const (
	mostFirst   = 3
	longestLine = 100 // characters
)

// Add takes the next that a search found of the session, in order. What a terminal showed is not counted: it was not done.
func (d *Done) Add(kind item.Kind, line string) {
	if kind != item.Statement && kind != item.Command && kind != item.File {
		return
	}
	if d.Count++; len(d.First) == mostFirst {
		return
	}
	text := []rune(strings.Join(strings.Fields(line), " "))
	if len(text) > longestLine {
		text = append(text[:longestLine-1], '…')
	}
	d.First = append(d.First, string(text))
}

// done is what was done by those who had access.
func (b builder) done(f Facts) {
	if f.Done == nil {
		return
	}
	t := b.table("What was done", "session", "grant", "person", "access", "reason", "approved by", "started", "ended", "statements, commands and files", "the first of them", "not known because")
	for _, s := range f.Sessions {
		d := f.Done[s.ID]
		t.Rows = append(t.Rows, []string{
			s.ID, s.Grant, s.Identity.Label(), s.Account + "@" + s.Target, s.Reason, strings.Join(s.Approvers, ", "), when(s.Started), when(s.Ended),
			strconv.Itoa(d.Count), strings.Join(d.First, "; "), d.Unread,
		})
	}
	b.count("sessions", *t, all)
	b.count("sessions of which not all is known that was done", *t, func(row map[string]string) bool { return row["not known because"] != "" })
}
