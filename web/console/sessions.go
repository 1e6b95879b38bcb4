package console

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/recorder"
	"sallyport/recorder/item"
	"sallyport/recorder/replay"
	"sallyport/session"
	"sallyport/web/api"
)

// pageOfSessions is how many sessions stand on one page of the register.
const pageOfSessions = 50

// sealing is how long the page after a kill waits for the recording's end.
const sealing = 2 * time.Second

// sessionView is a session with what the pages say of it beside the API's fields.
type sessionView struct {
	api.Session
	Mine  bool
	Kills bool // whoever looks may cut it
	Reads bool // whoever looks may replay it
	Looks bool // whoever looks may watch it
	Takes bool // whoever looks may take it away as evidence
	Took  time.Duration
}

func (s *server) sessionView(who Caller, i api.Session) sessionView {
	v := sessionView{Session: i, Mine: i.Identity.Issuer+" "+i.Identity.Subject == who.Key()}
	v.Kills = i.Live && (v.Mine || s.Desk.May(who.Identity, grant.KillSessions, i.Target))
	v.Looks = i.Live && s.Desk.May(who.Identity, grant.WatchSessions, i.Target)
	v.Takes = !i.Live && s.Desk.May(who.Identity, grant.Export, i.Target)
	v.Reads = s.Desk.May(who.Identity, grant.ReadRecordings, i.Target)
	v.Took = time.Since(i.Started)
	if i.Ended != nil {
		v.Took = i.Ended.Sub(i.Started)
	}
	return v
}

// day reads a date of a form; until's is the end of that day.
func day(v *visit, name string) (time.Time, error) {
	text := v.URL.Query().Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return t, refusal.New(refusal.Invalid, "%s is no date", name).WithDetail("write it as 2006-01-31")
	}
	if name == "until" {
		t = t.AddDate(0, 0, 1)
	}
	return t, nil
}

// field reads a field of a form in the address, in bounds.
func field(v *visit, name string) string {
	text := strings.TrimSpace(v.URL.Query().Get(name))
	return strings.ToValidUTF8(text[:min(len(text), 1000)], "")
}

// sessions lists what lives and the register of all there were.
func (s *server) sessions(v *visit) error {
	since, err := day(v, "since")
	if err != nil {
		return err
	}
	until, err := day(v, "until")
	if err != nil {
		return err
	}
	live, err := s.Desk.FindSessions(v.Context(), v.who, session.Filter{Live: true, Limit: 200})
	if err != nil {
		return err
	}
	f := session.Filter{
		Person: field(v, "person"), Target: field(v, "target"), Account: field(v, "account"), Protocol: field(v, "protocol"),
		Grant: field(v, "grant"), Since: since, Until: until, Before: field(v, "before"), Limit: pageOfSessions + 1,
	}
	found, err := s.Desk.FindSessions(v.Context(), v.who, f)
	if err != nil {
		return err
	}
	var body struct {
		Live, Found []sessionView
		Query       url.Values
		Filtered    bool
		Targets     []string
		Older       string // address of the next page
		Newest      string // address of the first page, where this is another
		Others      bool   // other people's sessions may be seen
	}
	body.Query = v.URL.Query()
	for i := range live {
		body.Live = append(body.Live, s.sessionView(v.who, live[i]))
	}
	for i := range found[:min(len(found), pageOfSessions)] {
		body.Found = append(body.Found, s.sessionView(v.who, found[i]))
	}
	if len(found) > pageOfSessions {
		body.Older = with(v.URL, "before", found[pageOfSessions-1].ID)
	}
	if f.Before != "" {
		body.Newest = with(v.URL, "before", "")
	}
	for _, name := range []string{"person", "target", "account", "protocol", "grant", "since", "until"} {
		body.Filtered = body.Filtered || field(v, name) != ""
	}
	for name := range s.Desk.Targets() {
		if s.Desk.May(v.who.Identity, grant.ListSessions, name) {
			body.Targets = append(body.Targets, name)
		}
	}
	slices.Sort(body.Targets)
	body.Others = len(body.Targets) > 0 || s.Desk.May(v.who.Identity, grant.ListSessions, "")
	s.show(v, http.StatusOK, "sessions.html", page{Title: "Sessions", Path: "/console/sessions", Body: body})
	return nil
}

// with is an address with one parameter changed, or taken out.
func with(u *url.URL, name, value string) string {
	q := u.Query()
	q.Del("done")
	if q.Set(name, value); value == "" {
		q.Del(name)
	}
	if len(q) == 0 {
		return u.EscapedPath()
	}
	return u.EscapedPath() + "?" + q.Encode()
}

// kill cuts a session.
func (s *server) kill(v *visit) error {
	id := v.PathValue("id")
	info, err := s.Desk.Kill(v.Context(), v.who, id, v.PostForm.Get("comment"))
	if err != nil {
		return err
	}
	// Nothing passes any more; the recording is sealed a moment later, and the next page had better show that.
	for deadline := time.Now().Add(sealing); err == nil && info.Live && time.Now().Before(deadline); {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-v.Context().Done():
			return v.Context().Err()
		}
		info, err = s.Desk.Session(v.Context(), v.who, id)
	}
	if err != nil { // who may cut it need not be one who may look at it
		return v.redirect("/console/sessions", "kill")
	}
	return v.redirect("/console/sessions/"+url.PathEscape(id), "kill")
}

// session shows one session and, to those who may read it, what happened in it.
func (s *server) session(v *visit) error {
	id := v.PathValue("id")
	info, err := s.Desk.Session(v.Context(), v.who, id)
	if err != nil {
		return err
	}
	c := choice{Show: cmp.Or(field(v, "show"), "all"), Text: field(v, "text"), Slow: 100 * time.Millisecond}
	if c.From, err = number(v, "from", 1); err != nil {
		return err
	}
	slow, err := number(v, "slow", 100)
	if err != nil {
		return err
	}
	c.Slow = time.Duration(slow) * time.Millisecond
	var body struct {
		S             sessionView
		T             timeline
		Choice        choice
		SlowMS        int
		Shows         any
		Next, First   string // addresses of pages of the timeline
		Hit           int    // the moment that the address is about
		Cast          string // address of what the player plays; empty: nothing to play
		Large         bool
		Segmented     bool // the player gets it in pieces
		Channel       uint32
		Start         string // seconds
		HasPlayer     bool
		MayVerify     bool
		ReplayCommand string
		Locked        bool // it can be replayed only where a recipient's identity is
		Integrity     *recorder.Integrity
		Gateway       string // of a locked one: its address
		Lines         []line // of a locked one: how to replay it
		CheckLink     string // address that compares it with the log, where that is not done by itself
	}
	body.S, body.Choice, body.SlowMS, body.Shows, body.HasPlayer = s.sessionView(v.who, info), c, slow, shows, hasPlayer()
	body.MayVerify = s.Desk.May(v.who.Identity, grant.VerifyLog, "")
	body.ReplayCommand = "sallyport replay " + info.ID
	if body.S.Reads {
		// A place that a search found is come to without what was before it.
		var from time.Duration
		if ms, err := number(v, "at", 0); err != nil {
			return err
		} else if ms > 0 {
			from = time.Duration(ms) * time.Millisecond
		}
		items, err := s.Desk.Replay(v.Context(), v.who, id, from)
		if refusal.Is(err, refusal.Locked) {
			body.Locked = true
			gateway, err := s.Desk.Gateway()
			if err != nil {
				return err
			}
			body.Gateway = gateway.URL
			body.Lines = []line{
				{"Replay it", body.ReplayCommand + " --identity FILE"},
				{"Or keep a copy, and replay that without the gateway", "sallyport export " + info.ID + " --format srec --output " + info.ID + ".srec"},
				{"The copy", "sallyport replay " + info.ID + ".srec --identity FILE"},
			}
			if body.Integrity, body.CheckLink, err = s.integrity(v, info); err != nil {
				return err
			}
			s.show(v, http.StatusOK, "session.html", page{Title: info.Account + "@" + info.Target, Path: "/console/sessions", Body: body})
			return nil
		}
		if err != nil {
			return err
		}
		if body.T, err = follow(items, info.Protocol, c); err != nil {
			return err
		}
		if body.Integrity, body.CheckLink, err = s.integrity(v, info); err != nil {
			return err
		}
		if body.T.Next > 0 {
			body.Next = with(v.URL, "from", strconv.Itoa(body.T.Next)) + "#timeline"
		}
		if c.From > 1 {
			body.First = with(v.URL, "from", "") + "#timeline"
		}
		if body.Hit, err = number(v, "hit", 0); err != nil {
			return err
		}
		if err := s.player(v, info, body.T, &body.Cast, &body.Channel, &body.Start); err != nil {
			return err
		}
		if body.Cast != "" && body.T.Output > mostWhole {
			pieces, err := s.Desk.Segments(v.Context(), v.who, id)
			if err != nil {
				return err
			}
			if body.Segmented = len(pieces.Starts) > 1; body.Segmented {
				body.Cast = strings.Replace(body.Cast, "/cast?", "/segments?", 1)
				if i := slices.IndexFunc(body.T.Channels, func(c channel) bool { return c.Number == body.Channel }); i >= 0 {
					c := body.T.Channels[i]
					body.Cast += fmt.Sprintf("&columns=%d&lines=%d", c.Columns, c.Lines)
				}
			}
		}
		body.Large = !body.Segmented && body.T.Output > mostOutput && field(v, "large") == ""
	}
	s.show(v, http.StatusOK, "session.html", page{
		Title: info.Account + "@" + info.Target, Path: "/console/sessions", Player: body.Cast != "" && body.HasPlayer && !body.Large, Body: body,
	})
	return nil
}

// mostChecked is how many bytes a recording may take on disk that is compared with the log whenever its page is opened.
const mostChecked = 8 << 20

// integrity compares a recording with the log: one that is small, or where it was asked for. Else it returns the address that
// asks for it.
func (s *server) integrity(v *visit, info api.Session) (*recorder.Integrity, string, error) {
	if info.Live {
		return nil, "", nil
	}
	most := int64(mostChecked)
	if field(v, "check") != "" {
		most = math.MaxInt64
	}
	found, err := s.Desk.Integrity(v.Context(), v.who, info.ID, most)
	if refusal.Is(err, refusal.Conflict) { // it is over and not sealed yet
		err = nil
	}
	if found == nil && err == nil {
		return nil, with(v.URL, "check", "1"), nil
	}
	return found, "", err
}

// proof is the badge alone, which a page looks at again as long as a witness is still to see the recording's ending.
func (s *server) proof(v *visit) error {
	found, err := s.Desk.IntegrityAgain(v.Context(), v.who, v.PathValue("id"), mostChecked)
	if err != nil {
		return err
	}
	if found == nil {
		return refusal.New(refusal.Conflict, "the recording is too large to be read in passing").WithHint("open its page")
	}
	s.fragment(v, "session.html", "proof", found)
	return nil
}

// player works out what of an SSH session is played, and from where.
func (s *server) player(v *visit, info api.Session, t timeline, cast *string, chosen *uint32, start *string) error {
	if info.Protocol != "ssh" || len(t.Channels) == 0 || t.Output == 0 {
		return nil
	}
	wanted, err := number(v, "channel", -1)
	if err != nil {
		return err
	}
	best := slices.IndexFunc(t.Channels, func(c channel) bool { return int(c.Number) == wanted })
	if best < 0 {
		best = max(0, slices.IndexFunc(t.Channels, func(c channel) bool { return c.Terminal }))
	}
	*chosen = t.Channels[best].Number
	*cast = fmt.Sprintf("/console/sessions/%s/cast?channel=%d", url.PathEscape(info.ID), *chosen)
	if at, err := strconv.ParseFloat(field(v, "t"), 64); err == nil && at > 0 && at < 1e9 {
		*start = strconv.FormatFloat(max(0, at-1), 'f', 3, 64) // a second before, so that what comes is seen coming
	}
	return nil
}

// number reads a whole number of a form in the address.
func number(v *visit, name string, otherwise int) (int, error) {
	text := field(v, name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, refusal.New(refusal.Invalid, "%s is no number", name)
	}
	return n, nil
}

// cast is a terminal's recording for the player: as an asciicast, without what reaches beyond the picture.
func (s *server) cast(v *visit) error {
	channel, err := number(v, "channel", 0)
	if err != nil {
		return err
	}
	items, err := s.Desk.Replay(v.Context(), v.who, v.PathValue("id"), 0)
	if err != nil {
		return err
	}
	out := &pieces{w: v.w, control: http.NewResponseController(v.w)}
	v.w.Header().Set("Content-Type", "application/x-asciicast")
	err = replay.Asciicast(v.Context(), items, out, replay.Cast{Channel: uint32(channel)})
	switch {
	case err == nil:
		return nil
	case out.begun: // the player must not take what it got for the whole
		s.Log.Error("a recording could not be read to its end", "session", v.PathValue("id"), "error", err)
		panic(http.ErrAbortHandler)
	case errors.Is(err, replay.ErrNoTerminal):
		return refusal.New(refusal.NotFound, "there is nothing to play in this session")
	}
	return err
}

// pieces gives each piece of a recording its own time to be read in.
type pieces struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (p *pieces) Write(b []byte) (int, error) {
	p.begun = true
	if err := p.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return p.w.Write(b)
}

// The sizes of a terminal that are taken at their word.
const mostColumns, mostLines = 500, 200

// segments is the index of a large recording, which the player gets in pieces.
func (s *server) segments(v *visit) error {
	channel, err := number(v, "channel", 0)
	if err != nil {
		return err
	}
	columns, err := number(v, "columns", 80)
	if err != nil {
		return err
	}
	lines, err := number(v, "lines", 24)
	if err != nil {
		return err
	}
	id := v.PathValue("id")
	all, err := s.Desk.Segments(v.Context(), v.who, id)
	if err != nil {
		return err
	}
	marks, err := s.marks(v, id, uint32(channel))
	if err != nil {
		return err
	}
	index := all.Index(min(max(columns, 1), mostColumns), min(max(lines, 1), mostLines), marks, func(n int) string {
		return fmt.Sprintf("/console/sessions/%s/segments/%d?channel=%d", url.PathEscape(id), n, channel)
	})
	v.w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(&pieces{w: v.w, control: http.NewResponseController(v.w)}).Encode(index)
}

// mostMarks is how many places the player is given to jump to.
const mostMarks = 500

// marks are the places in a channel's output at which a command begins: its own, and those read from the screen. They are looked
// for as far as a timeline is.
func (s *server) marks(v *visit, id string, channel uint32) ([]replay.Marker, error) {
	items, err := s.Desk.Part(v.Context(), v.who, id, 0)
	if err != nil {
		return nil, err
	}
	var output int64
	var all []replay.Marker
	for it, err := range items {
		if err != nil {
			return nil, err
		}
		if output += int64(len(it.Data)); output > mostOutput || len(all) == mostMarks {
			break
		}
		if it.Kind == item.Command && it.Channel == channel {
			label := cmp.Or(it.Command, it.Via)
			if it.Guess() {
				label += " " + item.Guessed
			}
			all = append(all, replay.Marker{At: it.At, Label: plain(label)})
		}
	}
	return all, nil
}

// segment is one piece of it.
func (s *server) segment(v *visit) error {
	channel, err := number(v, "channel", 0)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(v.PathValue("n"))
	if err != nil {
		return s.nothing(v)
	}
	id := v.PathValue("id")
	all, err := s.Desk.Segments(v.Context(), v.who, id)
	if err != nil {
		return err
	}
	from, _, ok := all.Bounds(n)
	if !ok {
		return s.nothing(v)
	}
	items, err := s.Desk.Part(v.Context(), v.who, id, from)
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriterSize(&pieces{w: v.w, control: http.NewResponseController(v.w)}, 64<<10)
	err = errors.Join(all.Segment(items, out, n, uint32(channel)), out.Flush())
	if err != nil { // the player must not take what it got for the whole
		s.Log.Error("a piece of a recording could not be read to its end", "session", id, "error", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// evidence gives a session away in one file that proves itself.
func (s *server) evidence(v *visit) error {
	id := v.PathValue("id")
	write, err := s.Desk.Evidence(v.Context(), v.who, id)
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "application/zip")
	v.w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": "evidence-" + id + ".zip"}))
	out := &pieces{w: v.w, control: http.NewResponseController(v.w)}
	switch err := write(v.Context(), out); {
	case err == nil:
		return nil
	case out.begun: // nobody must take what they got for the whole
		s.Log.Error("a bundle of evidence could not be written to its end", "session", id, "error", err)
		panic(http.ErrAbortHandler)
	default:
		v.w.Header().Del("Content-Disposition")
		return err
	}
}
