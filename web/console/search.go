package console

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"sallyport/recorder"
	"sallyport/recorder/item"
	"sallyport/recorder/verify"
	"sallyport/web/api"
)

const (
	// pageOfMatches is how many places a search shows.
	pageOfMatches = 100
	// pageOfEvents is how many audit events stand on one page.
	pageOfEvents = 100
	// mostLine is how many bytes of a line that was found are shown.
	mostLine = 2000
)

// match is a place that was found, with the address of the moment.
type match struct {
	api.Match
	Text    string
	Address string
	Guessed string // what is said of a command that was read from the screen
}

// search finds statements, commands and terminal lines.
func (s *server) search(v *visit) error {
	since, err := day(v, "since")
	if err != nil {
		return err
	}
	until, err := day(v, "until")
	if err != nil {
		return err
	}
	var body struct {
		Query   url.Values
		Asked   bool
		Found   []match
		More    bool
		Problem *api.Problem // what kept the search from finding all
	}
	body.Query = v.URL.Query()
	if text := field(v, "text"); text != "" {
		body.Asked = true
		found, err := s.Desk.Search(v.Context(), v.who, recorder.Query{
			Text: text, Target: field(v, "target"), Person: field(v, "person"), Grant: field(v, "grant"),
			Since: since, Until: until, Limit: pageOfMatches + 1,
		})
		if err != nil {
			return err
		}
		for m, err := range found {
			if err != nil {
				body.Problem = s.Desk.Problem("search", err)
				break
			}
			if body.More = len(body.Found) == pageOfMatches; body.More {
				break
			}
			body.Found = append(body.Found, placeOf(m))
		}
	}
	s.show(v, http.StatusOK, "search.html", page{Title: "Search", Path: "/console/search", Body: body})
	return nil
}

// placeOf is a match as the page shows it.
func placeOf(m api.Match) match {
	to := "/console/sessions/" + url.PathEscape(m.Session) + "?hit=" + fmt.Sprint(m.Item.Number)
	if m.Header.Protocol == "ssh" {
		to += fmt.Sprintf("&t=%.3f&channel=%d#player", m.Item.At.Seconds(), m.Item.Channel)
	} else {
		to += fmt.Sprintf("&at=%d&from=%d#m%d", m.Item.At.Milliseconds(), max(1, m.Item.Number-20), m.Item.Number)
	}
	text := m.Line
	if len(text) > mostLine {
		text = strings.ToValidUTF8(text[:mostLine], "") + "…"
	}
	found := match{Match: m, Text: plain(text), Address: to}
	if m.Item.Guess() {
		found.Guessed = item.Guessed
	}
	return found
}

// audit lists the control plane's own log, newest first.
func (s *server) audit(v *visit) error {
	since, err := day(v, "since")
	if err != nil {
		return err
	}
	until, err := day(v, "until")
	if err != nil {
		return err
	}
	before, err := number(v, "before", 0)
	if err != nil {
		return err
	}
	events, err := s.Desk.Audit(v.Context(), v.who, recorder.AuditFilter{
		Kind: field(v, "kind"), Actor: field(v, "actor"), Target: field(v, "target"), Grant: field(v, "grant"),
		Session: field(v, "session"), Outcome: field(v, "outcome"), Since: since, Until: until, Before: uint64(before), Last: pageOfEvents + 1,
	})
	if err != nil {
		return err
	}
	var last []api.AuditEvent // the newest of those before, oldest first, and one more
	for e, err := range events {
		if err != nil {
			return err
		}
		last = append(last, e)
	}
	var body struct {
		Query         url.Values
		Events        []api.AuditEvent
		Older, Newest string
	}
	body.Query = v.URL.Query()
	slices.Reverse(last)
	if body.Events = last[:min(len(last), pageOfEvents)]; len(last) > pageOfEvents {
		body.Older = with(v.URL, "before", fmt.Sprint(body.Events[pageOfEvents-1].Number))
	}
	if before > 0 {
		body.Newest = with(v.URL, "before", "")
	}
	s.show(v, http.StatusOK, "audit.html", page{Title: "Audit", Path: "/console/audit", Body: body})
	return nil
}

// verify checks the log when it is asked to by a form, for it reads all of it.
func (s *server) verify(v *visit) error {
	var body struct {
		Report  *verify.Report
		Session string
		File    *verify.File // of Session
		Bad     []verify.File
		Blocks  uint64
		Bytes   int64
		Took    time.Duration
		At      time.Time
	}
	if v.Method == http.MethodPost {
		body.Session = v.PostForm.Get("session")
		began := time.Now()
		report, err := s.Desk.Verify(v.Context(), v.who)
		if err != nil {
			return err
		}
		body.Report, body.At, body.Took = report, began, time.Since(began)
		for _, f := range slices.Concat(report.Recordings, report.Audit.Files) {
			body.Blocks, body.Bytes = body.Blocks+f.Blocks, body.Bytes+f.Bytes
			if f.State == verify.Torn || f.State == verify.Damaged {
				body.Bad = append(body.Bad, f)
			}
			if f.Session == body.Session && body.Session != "" {
				body.File = &f
			}
		}
	}
	s.show(v, http.StatusOK, "verify.html", page{Title: "Verify", Path: "/console/verify", Body: body})
	return nil
}
