// Package evidence reads what other systems know and policies ask for: tickets, who is on call, jobs.
//
// What it promises:
//
//   - Evidence is data. It is read outside of decisions, with a deadline and bounded in size, and decisions only look at what
//     was read (Known).
//   - It fails closed: what could not be read for longer than is tolerated is missing, and so is what says of itself that it is
//     over. What was read last counts while that is tolerated, so that a hiccup ends nothing.
//   - What a request says never chooses whom the gateway talks to, only what it asks there.
//   - One system that does not answer delays nothing that hangs on others, and one that asks for patience is left in peace.
package evidence

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/authn"
	"sallyport/configs"
)

const (
	readTimeout = 5 * time.Second
	maxBody     = 64 << 10        // bytes of what is read
	maxKept     = 50_000          // readings
	retry       = 5 * time.Second // after it could not be read
	maxQuiet    = 5 * time.Minute // the longest that a system's wish not to be asked is heeded
)

// About is the request that evidence is about.
type About struct {
	Ticket, Subject, Issuer, Email, Account, Target string
	// StartedBy is the person behind a job that asks.
	StartedBy authn.Starter
}

// Fact is what is known of one piece of evidence.
type Fact struct {
	// Missing says why there is none; empty: there is.
	Missing string
	// Unread is set where it is missing because nobody has tried to read it yet.
	Unread bool
	// Lost is set where it is missing because it could not be read, rather than because it is over.
	Lost bool
	Data map[string]any
	// Until is when it ends; zero: that is not known.
	Until time.Time
}

// Reading is what a source says.
type Reading struct {
	Data  map[string]any
	Until time.Time
	// Over says that there is no such thing, or no longer: "OPS-42 is closed".
	Over string
}

// Source is where evidence of one name is read. Safe for concurrent use. An error means that it is not known.
type Source interface {
	Read(ctx context.Context, about About) (Reading, error)
}

// Reader reads evidence and remembers it for a while. Safe for concurrent use.
type Reader struct {
	sources map[string]named
	now     func() time.Time

	mu    *sync.Mutex // of all readers that share readings, one after the other: what an earlier one still reads, a later one looks at
	known map[key]*reading
	quiet map[string]time.Time // by name: until when its system has asked not to be asked
}

type named struct {
	Source
	config configs.Evidence
}

type key struct {
	name  string
	about About
}

type reading struct {
	busy  sync.Mutex // held while it is read
	tried time.Time  // first, without success since
	at    time.Time  // of what was read last; zero: nothing was
	last  time.Time  // when it was tried last
	Reading
	err error
}

// New makes a reader. open makes the source of kinds that this package does not know, which is Jira. What before has read of
// the same evidence is taken over.
func New(config *configs.Config, open func(configs.Evidence) (Source, error), now func() time.Time, before *Reader) (*Reader, error) {
	r := &Reader{sources: map[string]named{}, now: now, mu: &sync.Mutex{}, known: map[key]*reading{}, quiet: map[string]time.Time{}}
	if before != nil {
		r.mu = before.mu
	}
	same := map[string]bool{}
	for _, c := range config.Evidence {
		var s Source
		var err error
		switch {
		case c.File != "":
			s = file{c}
		case c.URL != "":
			s, err = newAddress(c)
		default:
			s, err = open(c)
		}
		if err != nil {
			return nil, fmt.Errorf("evidence %s: %w", c.Name, err)
		}
		r.sources[c.Name] = named{s, c}
		if before != nil {
			old, was := before.sources[c.Name]
			same[c.Name] = was && fmt.Sprintf("%+v", old.config) == fmt.Sprintf("%+v", c)
		}
	}
	if before != nil {
		before.mu.Lock()
		defer before.mu.Unlock()
		for k, v := range before.known {
			if same[k.name] {
				r.known[k] = v
			}
		}
		for name, until := range before.quiet {
			if same[name] {
				r.quiet[name] = until
			}
		}
	}
	return r, nil
}

// Names are those of all evidence there is.
func (r *Reader) Names() []string { return slices.Sorted(maps.Keys(r.sources)) }

// Ends is why a grant ends that loses that evidence; it is one of the words of grant.End….
func (r *Reader) Ends(name string) string {
	switch r.sources[name].config.Kind {
	case configs.KindTicket:
		return "ticket_closed"
	case configs.KindOnCall:
		return "shift_over"
	case configs.KindJob:
		return "task_completed"
	}
	return "evidence_gone"
}

// Learn reads what is not known freshly enough, all at once, and returns when that is done or its time is over.
func (r *Reader) Learn(ctx context.Context, names []string, about About) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var group sync.WaitGroup
	for _, name := range names {
		if s, ok := r.sources[name]; ok {
			group.Go(func() { r.learn(ctx, name, s, about) })
		}
	}
	group.Wait()
}

func (r *Reader) learn(ctx context.Context, name string, s named, about About) {
	k := key{name, about}
	r.mu.Lock()
	e := r.known[k]
	if e == nil {
		if len(r.known) >= maxKept {
			r.forget()
		}
		e = &reading{}
		r.known[k] = e
	}
	r.mu.Unlock()
	e.busy.Lock()
	defer e.busy.Unlock()
	now := r.now()
	r.mu.Lock()
	every := s.config.Every.D()
	if e.err != nil {
		every = min(every, retry)
	}
	fresh := !e.last.IsZero() && now.Sub(e.last) >= 0 && now.Sub(e.last) < every
	quiet := r.quiet[name]
	r.mu.Unlock()
	if fresh {
		return
	}
	var got Reading
	var err error
	if now.Before(quiet) {
		err = Busy{quiet.Sub(now)}
	} else {
		got, err = s.Read(ctx, about)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e.last, e.err = r.now(), err
	if busy, ok := errors.AsType[Busy](err); ok && !now.Before(quiet) {
		r.quiet[name] = e.last.Add(min(max(busy.After, time.Second), maxQuiet))
	}
	if err != nil {
		if e.tried.IsZero() {
			e.tried = e.last
		}
		return
	}
	e.tried, e.at, e.Reading = time.Time{}, e.last, got
}

// forget drops what was tried longest ago, and nothing that is being read for the first time; called with mu held.
func (r *Reader) forget() {
	var oldest key
	var at time.Time
	for k, v := range r.known {
		if !v.last.IsZero() && (at.IsZero() || v.last.Before(at)) {
			oldest, at = k, v.last
		}
	}
	delete(r.known, oldest)
}

// Known is what is known of evidence, without asking anybody.
func (r *Reader) Known(name string, about About) Fact {
	s, ok := r.sources[name]
	if !ok {
		return Fact{Missing: "there is no such evidence"}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.known[key{name, about}]
	now := r.now()
	switch {
	case e == nil || e.last.IsZero():
		return Fact{Missing: "it was not read yet", Unread: true}
	case e.err != nil && (e.at.IsZero() || now.Sub(e.at) > s.config.Tolerance.D()):
		// While nothing was ever read, only trying for longer than is tolerated is a loss to those who had it before.
		return Fact{Missing: "it can't be read: " + e.err.Error(), Unread: e.at.IsZero() && now.Sub(e.tried) <= s.config.Tolerance.D(), Lost: true}
	case now.Sub(e.at) > s.config.Every.D()+s.config.Tolerance.D():
		return Fact{Missing: "it was read too long ago", Lost: true, Unread: true}
	case e.Over != "":
		return Fact{Missing: e.Over}
	case !e.Until.IsZero() && !now.Before(e.Until):
		return Fact{Missing: "it held until " + e.Until.UTC().Format("2006-01-02 15:04 UTC")}
	}
	return Fact{Data: e.Data, Until: e.Until}
}

// fill puts what the request says into a text, each piece escaped. What it says is not filled in turn.
func fill(text string, about About, escape func(string) string) (string, error) {
	var pairs []string
	for name, value := range map[string]string{"{ticket}": about.Ticket, "{subject}": about.Subject, "{email}": about.Email, "{account}": about.Account, "{target}": about.Target} {
		if !strings.Contains(text, name) {
			continue
		}
		if value == "" {
			return "", fmt.Errorf("the request has no %s", strings.Trim(name, "{}"))
		}
		if value == "." || value == ".." {
			return "", fmt.Errorf("the request's %s is no name", strings.Trim(name, "{}"))
		}
		pairs = append(pairs, name, escape(value))
	}
	return strings.NewReplacer(pairs...).Replace(text), nil
}

// until reads the time until which something holds.
func until(data map[string]any, field string) (time.Time, error) {
	if field == "" {
		return time.Time{}, nil
	}
	text, _ := data[field].(string)
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("its field %s is no time", field)
	}
	return t, nil
}

// addressEscape is for what stands in an address, in its path or in its query: of what has a meaning in either, nothing is
// left, so that no request adds a parameter or a step to what is asked.
func addressEscape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
