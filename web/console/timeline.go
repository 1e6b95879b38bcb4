package console

import (
	"iter"
	"slices"
	"strings"
	"time"

	"sallyport/recorder/item"
	"sallyport/recorder/replay"
	"sallyport/recorder/terminal"
)

const (
	// pageOfMoments is how many moments of a session stand on one page.
	pageOfMoments = 200
	// mostOpen is how many statements may wait for their results before they are shown without.
	mostOpen = 512
	// mostText is how many bytes of a statement are shown; the recording has all of it.
	mostText = 16 << 10
	// mostOutput is how much terminal output a browser is given to play without being asked.
	mostOutput = 64 << 20
	// mostWhole is how much of it a browser is given at once, where the recording can be given in pieces.
	mostWhole = 2 << 20
)

// moment is one thing in a session's timeline.
type moment struct {
	Number  int
	At      time.Duration
	Kind    item.Kind
	Text    string   // the statement, command or what happened; harmless, but as it was written
	Cut     bool     // there is more of Text than is shown
	Params  []string // as SQL would have them
	Outcome string   // how it ended; empty: not, or not known
	Failed  bool
	Took    time.Duration
	Writes  bool // changes rows
	Schema  bool // changes definitions or rights

	ref   int
	waits bool // for its result
}

// choice narrows a timeline.
type choice struct {
	Show string // all, writes, ddl, errors, slow
	Text string // part of the statement, in any case of letters
	Slow time.Duration
	From int // the number of the first moment of the page
}

// shows are the values of choice.Show, with what they are called.
var shows = []struct{ Value, Name string }{
	{"all", "everything"}, {"writes", "writes"}, {"ddl", "definitions and rights"}, {"errors", "errors"}, {"slow", "slow ones"},
}

func (c choice) admits(m *moment) bool {
	if m.Number < c.From {
		return false
	}
	if c.Text != "" && !strings.Contains(strings.ToLower(m.Text), strings.ToLower(c.Text)) {
		return false
	}
	switch c.Show {
	case "writes":
		return m.Writes
	case "ddl":
		return m.Schema
	case "errors":
		return m.Failed
	case "slow":
		return m.Took >= c.Slow
	}
	return true
}

// channel is one of an SSH connection's that has output to play.
type channel struct {
	Number   uint32
	Command  string
	Terminal bool
	Columns  int
	Lines    int
}

// timeline is a page of a session's moments, and what was seen on the way to its end.
type timeline struct {
	Moments  []*moment
	Next     int  // the number of the first moment of the next page; 0: there is none
	Complete bool // everything was read, to the recording's end
	Damaged  int  // places that are not what was written
	Output   int64
	Channels []channel
}

// follow reads a session's items into the page that was chosen. Of a database session it stops where the page is full;
// of others it reads on, as far as mostOutput, for what there is to play.
func follow(items iter.Seq2[item.Item, error], protocol string, c choice) (timeline, error) {
	t := timeline{Moments: []*moment{}}
	var open []*moment // in order; those before the first that waits are in the page already
	full := false
	settle := func(m *moment) {
		switch {
		case !c.admits(m) || t.Next > 0:
		case len(t.Moments) == pageOfMoments:
			t.Next, full = m.Number, true
		default:
			t.Moments = append(t.Moments, m)
		}
	}
	advance := func(all bool) {
		for len(open) > 0 && (all || !open[0].waits || len(open) > mostOpen) {
			settle(open[0])
			open = open[1:]
		}
	}
	channels := map[uint32]*channel{}
	var order []uint32
	for it, err := range items {
		if err != nil {
			return t, err
		}
		switch it.Kind {
		case item.Result, item.Exit:
			if i := slices.IndexFunc(open, func(m *moment) bool { return m.ref == it.Ref && m.waits && it.Ref != 0 }); i >= 0 {
				open[i].end(it)
				advance(false)
				continue
			}
		case item.Output:
			if it.Via == item.Picture {
				continue // what was shown before the place at which this begins
			}
			t.Output += it.Bytes
			if it.Bytes == 0 {
				t.Output += int64(len(it.Data))
			}
			if ch := channels[it.Channel]; ch == nil && protocol == "ssh" {
				channels[it.Channel] = &channel{Number: it.Channel}
				order = append(order, it.Channel)
			}
		case item.Command:
			if channels[it.Channel] == nil {
				channels[it.Channel] = &channel{Number: it.Channel}
				order = append(order, it.Channel)
			}
			if it.Guess() { // what a line on the screen says is no command of the channel's own
				break
			}
			what := it.Command
			if what == "" {
				what = it.Via
			}
			channels[it.Channel].Command, channels[it.Channel].Terminal = terminal.Text(what, false), it.Columns > 0
			channels[it.Channel].Columns, channels[it.Channel].Lines = it.Columns, it.Lines
		case item.Note:
			if it.Command == "damage" {
				t.Damaged++
			}
		}
		if m := momentOf(it, protocol); m != nil {
			open = append(open, m)
			advance(false)
		}
		if full && protocol != "ssh" || t.Output > mostOutput {
			break
		}
		t.Complete = it.Kind == item.End
	}
	advance(true)
	for _, n := range order {
		t.Channels = append(t.Channels, *channels[n])
	}
	return t, nil
}

// momentOf makes a moment of an item, or nil of what is not shown by itself: what a terminal showed is the player's.
func momentOf(it item.Item, protocol string) *moment {
	m := &moment{Number: it.Number, At: it.At, Kind: it.Kind, ref: it.Ref}
	switch it.Kind {
	case item.Start:
		return nil
	case item.Output, item.Input:
		if protocol == "ssh" {
			return nil
		}
		m.Text = replay.Tell(it)
	case item.Statement:
		m.Text, m.waits = strings.TrimSpace(it.SQL), it.Ref != 0
		for _, p := range it.Params {
			m.Params = append(m.Params, plain(replay.Parameter(p)))
		}
		m.classify(firstWord(it.SQL))
	case item.Command:
		if m.Text, m.waits = it.Command, it.Ref != 0; m.Text == "" {
			m.Text = it.Via
		}
		if it.Terminal != "" {
			m.Params = []string{"terminal " + plain(it.Terminal)}
		}
		if it.Guess() {
			m.Params = []string{item.Guessed}
		}
	case item.Note:
		m.Failed = it.Command == "damage"
		m.Text = replay.Tell(it)
	case item.File, item.Other:
		m.Failed = it.Error != ""
		m.Text = replay.Tell(it)
	case item.Result: // of a statement that is not in the recording
		m.end(it)
		m.Text = replay.Tell(it)
		m.Outcome = ""
	default:
		if m.Text = replay.Tell(it); m.Text == "" {
			return nil
		}
	}
	if len(m.Text) > mostText {
		m.Text, m.Cut = strings.ToValidUTF8(m.Text[:mostText], ""), true
	}
	m.Text = plain(m.Text)
	return m
}

// end notes how a statement or command ended.
func (m *moment) end(it item.Item) {
	m.waits = false
	m.Took = it.Duration
	m.Failed = it.Error != "" || it.SQLState != "" || it.Signal != "" || it.ExitStatus != nil && *it.ExitStatus != 0
	it.Ref, it.Duration = 0, 0
	m.Outcome = plain(strings.TrimSpace(replay.Tell(it)))
	if it.Tag != "" {
		m.Writes, m.Schema = false, false
		m.classify(it.Tag) // the server knows better than the first word
	}
}

// The first words of statements and of command tags.
var (
	writing  = []string{"INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "COPY"}
	defining = []string{"CREATE", "ALTER", "DROP", "GRANT", "REVOKE", "COMMENT", "REINDEX", "SECURITY", "IMPORT", "REASSIGN", "TRUNCATE"}
)

func (m *moment) classify(text string) {
	word := strings.ToUpper(firstWord(text))
	m.Writes = slices.Contains(writing, word) || word == "SELECT" && strings.HasPrefix(strings.ToUpper(text), "SELECT INTO")
	m.Schema = slices.Contains(defining, word)
}

// firstWord is a statement's first word, behind comments and brackets. It only labels: nothing is decided by it.
func firstWord(sql string) string {
	for {
		sql = strings.TrimLeft(sql, " \t\r\n\f(;")
		switch {
		case strings.HasPrefix(sql, "--"):
			_, rest, _ := strings.Cut(sql, "\n")
			sql = rest
		case strings.HasPrefix(sql, "/*"):
			_, rest, _ := strings.Cut(sql, "*/")
			sql = rest
		default:
			if i := strings.IndexFunc(sql, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') }); i >= 0 {
				return sql[:i]
			}
			return sql
		}
	}
}
