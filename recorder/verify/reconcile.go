package verify

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sallyport/recorder/format"
)

// Login is one that a target's own log tells of.
type Login struct {
	Line    int       `json:"line"` // of the file, from 1
	Time    time.Time `json:"time,omitzero"`
	Account string    `json:"account"`
	From    string    `json:"from"` // address and port, as the target saw them
	PID     uint32    `json:"pid,omitempty"`
	Serial  uint64    `json:"certificate_serial,omitempty"`
	Method  string    `json:"method,omitempty"`
	Session string    `json:"session,omitempty"` // whose it is
	Note    string    `json:"note,omitempty"`
}

// Reconciliation compares a target's own log with the recordings.
type Reconciliation struct {
	Kind    string  `json:"kind"` // "postgres" or "ssh"
	Logins  int     `json:"logins"`
	Matched int     `json:"matched"`
	Acts    []Login `json:"acts,omitempty"`      // that fit acts of the gateway's own (ending a statement, a check), one for each
	Foreign []Login `json:"foreign"`             // that no recording tells of: they did not come through the gateway
	Purged  int     `json:"purged"`              // recordings that are gone: logins of their time can't be told from foreign ones
	Unseen  int     `json:"unseen"`              // connections of recordings that the file does not tell of; it may cover less time
	Skipped int     `json:"unreadable,omitzero"` // lines that could not be read
}

// ReconcileOptions narrow Reconcile.
type ReconcileOptions struct {
	// Target is the one whose log it is; empty: any.
	Target string
	// Zone is that of times whose zone is not said; nil: UTC.
	Zone *time.Location
	// Now is when the file was copied, which tells the year of syslog's times; zero: now.
	Now time.Time
}

const (
	// maxLine bounds a line of a target's log.
	maxLine = 1 << 20
	// sameTime is how far clocks may differ where only a process id ties a login to a session, sameDay where both ends of the
	// connection do: then it only tells reuse of a port from the same connection, whatever zone the log's times are in.
	sameTime = 30 * time.Second
	sameDay  = 26 * time.Hour
)

// Reconcile reads a target's own log and compares its logins with the report's recordings. The file is PostgreSQL's csvlog,
// with log_connections on, or what sshd writes (auth.log, or journalctl -o short-iso).
func (r *Report) Reconcile(file io.Reader, o ReconcileOptions) (*Reconciliation, error) {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	buffered := bufio.NewReaderSize(file, 64<<10)
	head, err := buffered.Peek(4096)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, fmt.Errorf("read the target's log: %w", err)
	}
	out := &Reconciliation{Foreign: []Login{}, Purged: len(r.Purged)}
	var logins []Login
	if csvTime.Match(head) {
		out.Kind = "postgres"
		logins, err = readCSV(buffered, o, out)
	} else {
		out.Kind = "ssh"
		logins, err = readAuth(buffered, o, out)
	}
	if err != nil {
		return nil, fmt.Errorf("read the target's log: %w", err)
	}
	if len(logins) == 0 {
		return nil, errors.New("it has no login: is it the right file? PostgreSQL writes them to its csvlog with log_connections on, sshd to auth.log")
	}
	out.match(logins, r.connections(o.Target, out.Kind))
	return out, nil
}

// made is a connection of a recording, or an act.
type made struct {
	connection
	session string
	used    bool
}

// connections lists what the recordings have.
func (r *Report) connections(target, protocol string) (all []*made) {
	for _, f := range r.Recordings {
		if f.Protocol != protocol || target != "" && f.header.Target != target {
			continue
		}
		for _, c := range f.connected {
			all = append(all, &made{connection: c, session: f.Session})
		}
	}
	return all
}

func (out *Reconciliation) match(logins []Login, all []*made) {
	gateways := map[netip.Addr]bool{}
	for _, m := range all {
		if at, err := netip.ParseAddrPort(m.Local); err == nil && !m.act {
			gateways[at.Addr().Unmap()] = true
		}
	}
	out.Logins = len(logins)
	for _, login := range logins {
		if m := connectionOf(all, login); m != nil {
			m.used = true
			out.Matched++
			continue
		}
		from, err := netip.ParseAddrPort(login.From)
		own := err == nil && gateways[from.Addr().Unmap()]
		if m := findAct(all, login); own && m != nil {
			m.used = true
			login.Session, login.Note = m.session, "an act of the gateway's own"
			out.Acts = append(out.Acts, login)
			continue
		}
		if own {
			login.Note = "it came from an address of the gateway, and no recording tells of it"
		}
		out.Foreign = append(out.Foreign, login)
	}
	for _, m := range all {
		if !m.used && !m.act {
			out.Unseen++
		}
	}
}

// connectionOf finds the connection that a login is.
func connectionOf(all []*made, login Login) *made {
	var near *made
	for _, m := range all {
		if m.used || m.act {
			continue
		}
		apart := login.Time.Sub(m.at).Abs()
		if login.Time.IsZero() {
			apart = 0
		}
		sameEnd := m.Local == login.From
		switch {
		case login.Serial != 0 || m.Serial != 0:
			if login.Serial == m.Serial && (sameEnd || apart < sameDay) {
				return m
			}
		case sameEnd && apart < sameDay && (m.BackendPID == 0 || login.PID == 0 || m.BackendPID == login.PID):
			return m
		case m.BackendPID != 0 && m.BackendPID == login.PID && !login.Time.IsZero() && apart < sameTime: // another address is between
			near = m
		}
	}
	return near
}

func findAct(all []*made, login Login) *made {
	for _, m := range all {
		if m.act && !m.used && login.Time.Sub(m.at).Abs() < sameTime {
			return m
		}
	}
	return nil
}

// csvTime is how a line of csvlog begins.
var csvTime = regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [^,]+,`)

// The columns of csvlog (PostgreSQL's documentation, "Using CSV-Format Log Output").
const (
	csvLogTime = 0
	csvUser    = 1
	csvPID     = 3
	csvFrom    = 4
	csvMessage = 13
)

func readCSV(file io.Reader, o ReconcileOptions, out *Reconciliation) ([]Login, error) {
	reader := csv.NewReader(file)
	reader.FieldsPerRecord, reader.ReuseRecord, reader.LazyQuotes = -1, true, false
	var logins []Login
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return logins, nil
		}
		if _, bad := errors.AsType[*csv.ParseError](err); bad {
			out.Skipped++
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(row) <= csvMessage || !strings.HasPrefix(row[csvMessage], "connection authorized:") {
			continue
		}
		line, _ := reader.FieldPos(0)
		pid, _ := strconv.ParseUint(row[csvPID], 10, 32)
		logins = append(logins, Login{
			Line: line, Time: timeIn(row[csvLogTime], "2006-01-02 15:04:05.000", o.Zone), Account: strings.Clone(row[csvUser]),
			From: strings.Clone(row[csvFrom]), PID: uint32(pid),
		})
	}
}

// timeIn reads a time that ends with a zone's abbreviation, which says nothing sure but for UTC.
func timeIn(text, layout string, zone *time.Location) time.Time {
	if at := strings.LastIndexByte(text, ' '); at > 0 {
		if abbreviation := text[at+1:]; abbreviation == "UTC" || abbreviation == "GMT" {
			zone = time.UTC
		}
		text = text[:at]
	}
	when, err := time.ParseInLocation(layout, text, zone)
	if err != nil {
		return time.Time{}
	}
	return when.UTC()
}

var (
	accepted = regexp.MustCompile(`^(?:.{1,200} sshd(?:-session)?\[(\d+)\]: )?Accepted (\S+) for (\S+) from (\S+) port (\d+)`)
	serial   = regexp.MustCompile(`\(serial (\d+)\)`)
)

func readAuth(file io.Reader, o ReconcileOptions, out *Reconciliation) ([]Login, error) {
	scanner := bufio.NewScanner(file)
	scanner.Buffer(make([]byte, 64<<10), maxLine)
	var logins []Login
	for line := 1; scanner.Scan(); line++ {
		text := scanner.Text()
		found := accepted.FindStringSubmatch(text)
		if found == nil {
			continue
		}
		pid, _ := strconv.ParseUint(found[1], 10, 32) // the expression takes digits only; with sshd -E there is none
		login := Login{
			Line: line, Time: syslogTime(text, o), Account: found[3], From: joinPort(found[4], found[5]), PID: uint32(pid), Method: found[2],
		}
		if s := serial.FindStringSubmatch(text); s != nil {
			login.Serial, _ = strconv.ParseUint(s[1], 10, 64)
		}
		logins = append(logins, login)
	}
	return logins, scanner.Err()
}

func joinPort(host, port string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]:" + port
	}
	return host + ":" + port
}

// syslogTime reads how a line of syslog begins: RFC 3339, or month, day and time without year and zone.
func syslogTime(line string, o ReconcileOptions) time.Time {
	first, _, _ := strings.Cut(line, " ")
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05-0700"} {
		if when, err := time.Parse(layout, first); err == nil {
			return when.UTC()
		}
	}
	if len(line) < len(time.Stamp) {
		return time.Time{}
	}
	when, err := time.ParseInLocation(time.Stamp, line[:len(time.Stamp)], o.Zone)
	if err != nil {
		return time.Time{}
	}
	when = when.AddDate(o.Now.Year(), 0, 0)
	if when.After(o.Now.Add(sameDay)) {
		when = when.AddDate(-1, 0, 0)
	}
	return when.UTC()
}

// WriteTo prints for people.
func (out *Reconciliation) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	for _, l := range out.Foreign {
		say(&b, "line %d: %s logged in from %s", l.Line, l.Account, l.From)
		if !l.Time.IsZero() { // sshd's own lines have none where no syslog put it there
			say(&b, " at %s", l.Time.Format(time.RFC3339))
		}
		if l.Method != "" {
			say(&b, " by %s", l.Method)
		}
		fmt.Fprint(&b, ", not through the gateway")
		if l.Note != "" {
			say(&b, ": %s", l.Note)
		}
		b.WriteByte('\n')
	}
	say(&b, "%d logins in the target's own log: %d are sessions, %d the gateway's own acts, %d did not come through the gateway\n",
		out.Logins, out.Matched, len(out.Acts), len(out.Foreign))
	if out.Unseen > 0 {
		say(&b, "%d sessions' connections are not in the file; it may cover less time\n", out.Unseen)
	}
	if out.Purged > 0 {
		say(&b, "%d recordings were purged; logins of their time can't be told from others\n", out.Purged)
	}
	if out.Skipped > 0 {
		say(&b, "%d lines could not be read\n", out.Skipped)
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// connection is one that the gateway had to a target, as a recording says: a session's own, or one of its acts.
type connection struct {
	format.Connected
	at  time.Time
	act bool
}

func connectedAt(event format.Event, started time.Time) connection {
	c := connection{at: started.Add(event.At)}
	_ = json.Unmarshal(event.Data, &c.Connected) // what is no JSON matches no login
	return c
}

// actAt is the act that a note tells of, if it does, once for each.
func actAt(event format.Event, started time.Time) (connection, bool) {
	var note format.Note
	if json.Unmarshal(event.Data, &note) != nil || note.Kind != "act" || note.Fields["state"] != "begun" {
		return connection{}, false
	}
	return connection{at: started.Add(event.At), act: true}, true
}
