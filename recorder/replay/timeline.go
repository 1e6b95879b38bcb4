package replay

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"sallyport/recorder/item"
	"sallyport/recorder/terminal"
)

// mostShown is how many bytes of a parameter or input are shown.
const mostShown = 512

// Timeline prints a session as what happened when: each statement with its parameters, how it ended and how long it took.
func Timeline(ctx context.Context, items iter.Seq2[item.Item, error], w io.Writer, o Options) error {
	for it, err := range Within(items, o) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		for i, line := range o.lines(it) {
			switch {
			case it.Kind == item.Start:
			case i == 0:
				line = clock(it.At) + "  " + line
			default:
				line = strings.Repeat(" ", len(clock(0))+2) + line
			}
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// clock is a time since the session began.
func clock(at time.Duration) string {
	return fmt.Sprintf("%02d:%02d:%02d.%03d", int(at.Hours()), int(at.Minutes())%60, int(at.Seconds())%60, at.Milliseconds()%1000)
}

// lines tells an item in harmless lines.
func (o Options) lines(it item.Item) []string {
	switch it.Kind {
	case item.Start:
		return append(opening(it, o), "")
	case item.Statement:
		lines := strings.Split(terminal.Text(strings.TrimRight(it.SQL, " \t\r\n"), true), "\n")
		for i, line := range lines {
			indent := "     "
			if i == 0 {
				indent = fmt.Sprintf("%-5s", ref(it.Ref))
			}
			lines[i] = indent + strings.TrimRight(line, "\r")
		}
		for i, p := range it.Params {
			lines = append(lines, fmt.Sprintf("     $%d = %s", i+1, parameter(p)))
		}
		return lines
	}
	if what := o.tell(it); what != "" {
		return []string{what}
	}
	return nil
}

func ref(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("[%d]", n)
}

// opening are the first lines of a session.
func opening(it item.Item, o Options) []string {
	h := it.Header
	if h == nil {
		return []string{"session " + safe(it.Session)}
	}
	who := h.Identity.Name
	if who == "" {
		who = h.Identity.Subject
	}
	if h.Identity.Email != "" {
		who += " <" + h.Identity.Email + ">"
	}
	lines := []string{
		fmt.Sprintf("session %s: %s as %s@%s", safe(h.Session), safe(who), safe(h.Account), safe(h.Target)),
		fmt.Sprintf("started %s from %s, recorded at level %s", h.Started.In(o.zone()).Format("2006-01-02 15:04:05.000 MST"), safe(h.Client), safe(h.Durability)),
	}
	grant := "under grant " + safe(h.Grant)
	if h.Reason != "" {
		grant += fmt.Sprintf(" for %q", safe(h.Reason))
	}
	if len(h.Approvers) > 0 {
		grant += ", approved by " + safe(strings.Join(h.Approvers, ", "))
	}
	return append(lines, grant)
}

// tell says an item in one harmless line, or nothing.
func (o Options) tell(it item.Item) string {
	var b strings.Builder
	add := func(format string, args ...any) {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, format, args...)
	}
	switch it.Kind {
	case item.Statement:
		add("%s", safe(it.SQL))
	case item.Result:
		fmt.Fprintf(&b, "%-5s", ref(it.Ref))
		b.WriteString(result(it))
	case item.Command:
		what := it.Command
		if what == "" {
			what = it.Via
		} else if it.Guess() {
			what += "  " + item.Guessed
		} else if it.Via != "" && it.Via != "exec" {
			what = it.Via + " " + what
		}
		add("$ %s", safe(what))
		if it.Terminal != "" {
			add("terminal %s, %d×%d", safe(it.Terminal), it.Columns, it.Lines)
		}
	case item.Exit:
		switch {
		case it.ExitStatus != nil:
			add("exit status %d", *it.ExitStatus)
		case it.Signal != "":
			add("ended by signal %s", safe(it.Signal))
		default:
			add("ended")
		}
		if it.Duration > 0 {
			add("%s", duration(it.Duration))
		}
		if it.Error != "" {
			add("%s", safe(it.Error))
		}
	case item.File, item.Other:
		what := safe(it.Command)
		if it.Path != "" {
			what += " " + safe(it.Path)
		}
		if it.Text != "" {
			what += " " + safe(it.Text)
		}
		add("%s", what)
		if it.Bytes > 0 {
			add("%d bytes", it.Bytes)
		}
		if it.Error != "" {
			add("failed: %s", safe(it.Error))
		}
	case item.Note:
		what := safe(it.Command)
		if it.Text != "" {
			what = strings.TrimPrefix(what+": ", ": ") + safe(it.Text)
		}
		add("note: %s", what)
		for _, name := range slices.Sorted(maps.Keys(it.Fields)) {
			add("%s %s", safe(name), safe(it.Fields[name]))
		}
	case item.Bulk:
		add("%d bytes", it.Bytes)
		if it.Stream != "" {
			add("%s", safe(it.Stream))
		}
		if it.Text != "" {
			add("%s", safe(it.Text))
		}
		if it.SHA256 != "" {
			add("sha256 %s", safe(it.SHA256))
		}
		return "bulk: " + b.String()
	case item.Resize:
		add("terminal is now %d×%d", it.Columns, it.Lines)
	case item.Input, item.Output:
		text := it.Text
		if text == "" {
			text = string(it.Data)
		}
		arrow := map[item.Kind]string{item.Input: ">", item.Output: "<"}[it.Kind]
		add("%s %s", arrow, safe(short(text)))
	case item.End:
		if it.Reason == "unfinished" {
			return "not ended yet"
		}
		add("ended: %s", safe(it.Reason))
		if it.Text != "" {
			add("%s", safe(it.Text))
		}
	default:
		add("%s", safe(string(it.Kind)))
	}
	return b.String()
}

// result says how a statement ended.
func result(it item.Item) string {
	var words []string
	switch {
	case it.Error != "" || it.SQLState != "":
		words = append(words, strings.TrimRight("ERROR "+safe(it.SQLState)+": "+safe(it.Error), ": "))
	case it.Tag != "":
		words = append(words, safe(it.Tag))
	default:
		words = append(words, "no result")
	}
	if it.Rows != nil {
		plural := "s"
		if *it.Rows == 1 {
			plural = ""
		}
		words = append(words, fmt.Sprintf("%d row%s", *it.Rows, plural))
	}
	if it.Bytes > 0 {
		words = append(words, fmt.Sprintf("%d bytes", it.Bytes))
	}
	if it.Duration > 0 {
		words = append(words, duration(it.Duration))
	}
	if it.Text != "" {
		words = append(words, safe(it.Text))
	}
	return strings.Join(words, ", ")
}

func duration(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return d.Round(time.Millisecond).String()
}

// parameter is a bound value as SQL would have it.
func parameter(p item.Param) string {
	switch {
	case p.Null:
		return "NULL"
	case p.Binary != nil:
		return `'\x` + hex.EncodeToString(p.Binary[:min(len(p.Binary), mostShown/2)]) + more(len(p.Binary) > mostShown/2) + "'"
	}
	return "'" + strings.ReplaceAll(safe(short(p.Text)), "'", "''") + "'"
}

// short cuts what is long, at a character.
func short(s string) string {
	if len(s) <= mostShown {
		return s
	}
	return strings.ToValidUTF8(s[:mostShown], "") + more(true)
}

func more(cut bool) string {
	if cut {
		return "…"
	}
	return ""
}

// safe is text on one line that no terminal obeys.
func safe(s string) string { return terminal.Text(s, false) }
