//go:build linux

// Command grants measures how soon access is gone once somebody takes a grant away: with a thousand live sessions, each under a
// grant of its own and each with something running on its target, it revokes one grant after the other through the API, and
// looks at both ends when the session is over.
//
// It promises that nobody's word is taken for it: the client's end is when the client's socket says that it is closed, the
// target's end is when the operating system says that the process has ended which ran the statement or the command (for
// commands of root without a terminal that of sshd), and, for PostgreSQL, when pg_stat_activity does not list it any more. All times are from just before the call of the API. Sessions
// that were not revoked have to be alive at the end. It runs within the rig: test/tools/with-rig. `make bench` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/client"
	"sallyport/test/bench/run"
	"sallyport/web/api"
)

type options struct {
	sessions, revokes int
	durability        string
	parts, out        string
}

func main() { run.Main(measure, nil) }

func measure(ctx context.Context, arguments []string) (err error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.sessions, "sessions", 1000, "`sessions` that are live all the time, beside those that are revoked")
	flags.IntVar(&o.revokes, "revokes", 300, "`grants` that are revoked, one after the other")
	flags.StringVar(&o.durability, "durability", "synced", "`level` at which the sessions are recorded")
	flags.StringVar(&o.parts, "parts", "postgres,ssh,terminal", "what is measured")
	flags.StringVar(&o.out, "out", "", "write the report to this `file` too")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if o.sessions < 1 || o.revokes < 1 {
		return errors.New("-sessions and -revokes are numbers above 0")
	}
	b, err := start(ctx, o)
	if b != nil {
		defer func() { err = errors.Join(err, b.close()) }()
	}
	if err != nil {
		return err
	}
	b.say("%s, %s, load %s; %d sessions live beside those revoked, %d grants revoked one after the other, recorded at level %s\n\n",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), machine(), load(), o.sessions, o.revokes, o.durability)
	b.say("ms after the call of the API, p50 / p99 / most:\n\n| | the API answers | the client's connection is closed | the target's process has ended | gone from pg_stat_activity |\n|---|---|---|---|---|\n")
	for _, part := range []struct {
		name, title string
		open        func(context.Context, *bench, int) (live, error)
	}{
		{"postgres", "PostgreSQL, a statement runs", openPostgres},
		{"ssh", "SSH, a command runs", openCommand},
		{"terminal", "SSH, a command runs on a terminal", openTerminal},
	} {
		if !slices.Contains(strings.Split(o.parts, ","), part.name) {
			continue
		}
		if part.name == "ssh" && os.Getuid() == 0 {
			part.title += " (as root, whose commands sshd sends no signals to: its own process)"
		}
		if err := b.part(ctx, part.title, part.open); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if o.out != "" {
		return os.WriteFile(o.out, []byte(b.report.String()), 0o644)
	}
	return nil
}

// live is one open session, with something running on its target.
type live struct {
	grant   string
	name    string               // what it is for
	process int                  // of the target, which runs it; see openSSH
	closed  <-chan time.Time     // when the client's connection was closed by the other side
	listed  func() (bool, error) // whether the target's own list has it; nil: it has no list
	close   func() error         // by the client; nil once closed
	said    func() error         // once closed: an error unless the client was told why
}

// ends is when one revocation was seen where.
type ends struct{ answered, client, target, list time.Duration }

// part opens the sessions, revokes some and reports.
func (b *bench) part(ctx context.Context, title string, open func(context.Context, *bench, int) (live, error)) (err error) {
	n := b.options.sessions + b.options.revokes
	began := time.Now()
	sessions := make([]live, n)
	errs := make([]error, n)
	places := make(chan struct{}, 8)
	var all sync.WaitGroup
	for i := range n {
		places <- struct{}{}
		all.Go(func() {
			sessions[i], errs[i] = open(ctx, b, i)
			<-places
		})
	}
	all.Wait()
	defer func() {
		for _, s := range sessions {
			if s.close != nil {
				err = errors.Join(err, s.close())
			}
		}
	}()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("session %d: %w", i, err)
		}
	}
	fmt.Fprintf(os.Stderr, "%s: %d sessions open after %s\n", title, n, time.Since(began).Round(time.Second))
	var cuts []ends
	for i := range b.options.revokes {
		e, err := b.revoke(ctx, sessions[i])
		if err != nil {
			return fmt.Errorf("revocation %d: %w", i, err)
		}
		cuts = append(cuts, e)
		b.granted.Delete(sessions[i].name)
		sessions[i].close = nil
	}
	for i, s := range sessions[b.options.revokes:] {
		select {
		case <-s.closed:
			return fmt.Errorf("session %d ended, and nobody had revoked its grant", i+b.options.revokes)
		default:
		}
	}
	b.say("| %s | %s | %s | %s |", title, column(cuts, func(e ends) time.Duration { return e.answered }),
		column(cuts, func(e ends) time.Duration { return e.client }), column(cuts, func(e ends) time.Duration { return e.target }))
	if sessions[b.options.revokes].listed != nil {
		b.say(" %s", column(cuts, func(e ends) time.Duration { return e.list }))
	}
	b.say(" |\n")
	return nil
}

// patience is how long an end is waited for; one that comes so late is a failure of its own.
const patience = 10 * time.Second

// revoke takes one grant away and waits until both ends are gone.
func (b *bench) revoke(ctx context.Context, s live) (e ends, err error) {
	exited, err := watch(s.process)
	if err != nil {
		return e, fmt.Errorf("watch process %d of the target: %w", s.process, err)
	}
	began := time.Now()
	unlisted := make(chan seen, 1)
	go func() { unlisted <- s.leaves(began) }()
	if err := b.security.Do(ctx, http.MethodPost, "/v1/grants/"+s.grant+"/revoke", api.Decision{Comment: "measuring"}, nil); err != nil {
		return e, err
	}
	e.answered = time.Since(began)
	late := time.After(patience)
	for range 2 {
		select {
		case at := <-s.closed:
			e.client, s.closed = at.Sub(began), nil
		case at := <-exited:
			if at.IsZero() {
				return e, errors.New("the target's process could not be watched")
			}
			e.target, exited = at.Sub(began), nil
		case <-late:
			return e, fmt.Errorf("after %s not both are gone: client closed %t, process ended %t", patience, s.closed == nil, exited == nil)
		}
	}
	listed := <-unlisted
	e.list = listed.after
	return e, errors.Join(listed.err, s.said())
}

type seen struct {
	after time.Duration
	err   error
}

// leaves waits until the target's own list has the session no more.
func (s live) leaves(began time.Time) seen {
	if s.listed == nil {
		return seen{}
	}
	for {
		there, err := s.listed()
		switch after := time.Since(began); {
		case err != nil || !there:
			return seen{after, err}
		case after > patience:
			return seen{after, errors.New("the target still lists it")}
		}
		time.Sleep(time.Millisecond) // looking again at once would take the processors from what is measured
	}
}

// column is p50 / p99 / most, in ms.
func column(cuts []ends, of func(ends) time.Duration) string {
	times := make([]time.Duration, len(cuts))
	for i, e := range cuts {
		times[i] = of(e)
	}
	slices.Sort(times)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	// The p-th of n, rounded up: of 300 the 297th, so that three are above it.
	at := func(p int) time.Duration { return times[min((len(times)*p+99)/100, len(times))-1] }
	return fmt.Sprintf("%.1f / %.1f / %.1f", ms(at(50)), ms(at(99)), ms(times[len(times)-1]))
}

// grant is alice's for one of the accounts; it is asked for where she has none.
func (b *bench) grant(ctx context.Context, target string, i int) (id string, err error) {
	name := account(i) + "@" + target
	if had, ok := b.granted.Load(name); ok {
		return had.(string), nil
	}
	var g api.Grant
	err = b.engineer.Do(ctx, http.MethodPost, "/v1/requests", api.GrantRequest{Target: target, Account: account(i), Duration: "6h", Reason: "measuring"}, &g)
	if err == nil {
		b.granted.Store(name, g.ID)
	}
	return g.ID, err
}

func account(i int) string { return fmt.Sprintf("a%04d", i) }

// person makes the API's client of one of the rig's people.
func (b *bench) person(variable string) (*client.Client, error) {
	return client.Open(client.Home{Dir: b.env(variable)})
}

// say prints a piece of the report and keeps it.
func (b *bench) say(format string, arguments ...any) {
	text := fmt.Sprintf(format, arguments...)
	fmt.Print(text)
	b.report.WriteString(text)
}

func machine() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // without it the report only says less
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return fmt.Sprintf("%d x %s", runtime.NumCPU(), strings.TrimSpace(value))
		}
	}
	return fmt.Sprintf("%d processors", runtime.NumCPU())
}

func load() string {
	text, _ := os.ReadFile("/proc/loadavg") // as above
	fields := strings.Fields(string(text))
	return strings.Join(fields[:min(3, len(fields))], " ")
}
