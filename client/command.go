package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"golang.org/x/term"

	"sallyport/internal/refusal"
)

// watchEvery is how often the grants are looked at while the command runs, and warnAt how long before the end people are
// warned.
const (
	watchEvery = 2 * time.Second
	warnAt     = 2 * time.Minute
)

// notify is a context that ends with the signals that would end this process.
func notify(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, forwarded...)
}

// command runs the command to its end and returns its exit status.
func (r *run) command(ctx context.Context, environment []string) (int, error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)

	cmd := exec.Command(r.o.Command[0], r.o.Command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = os.Stdin, os.Stdout, os.Stderr, environment
	// With a terminal the command stays in the foreground, and the terminal sends it Ctrl-C itself. Without one it leads
	// a group of its own, so that a signal reaches all that it started.
	group := !term.IsTerminal(int(os.Stdin.Fd()))
	if group {
		leadGroup(cmd)
	}
	if err := cmd.Start(); err != nil {
		return startStatus(err), err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	every := time.NewTicker(watchEvery)
	defer every.Stop()
	for {
		select {
		case s := <-signals:
			forward(cmd.Process, s, group)
		case <-every.C:
			r.watch(ctx)
		case err := <-ended:
			return r.ended(ctx, cmd, err)
		}
	}
}

// ended makes a result of how the command ended.
func (r *run) ended(ctx context.Context, cmd *exec.Cmd, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	status := exitStatus(cmd.ProcessState)
	if status == 0 {
		return 0, nil
	}
	r.watch(ctx) // the end of a grant may be what it failed of
	for _, g := range r.grants {
		if g.over {
			return status, &Stopped{StoppedEarly, refusal.New(refusal.NoGrant, "the command failed with status %d after the grant for %s had ended: %s", status, g.account, g.EndReason).
				WithHint("ask for more with --duration, or see who ended it and why: sallyport grants --all")}
		}
	}
	return status, nil
}

// watch looks whether grants still stand, and says what changed.
func (r *run) watch(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, g := range r.grants {
		if g.over {
			continue
		}
		if err := r.refresh(ctx, g); err != nil {
			continue // the gateway cuts what is over, whether it can be asked or not
		}
		if !open(g.Grant) {
			g.over = true
			by := ""
			if g.EndedBy != "" {
				by = " by " + g.EndedBy
			}
			r.say("the grant for %s has ended (%s%s); its connections are cut", g.account, g.EndReason, by)
			continue
		}
		end := g.Until
		if end.IsZero() || r.who.Expires.Before(end) {
			end = r.who.Expires
		}
		r.keep(ctx, g)
		if left := time.Until(end); !g.warned && left < min(warnAt, g.Duration/4) {
			g.warned = true
			r.say("the access to %s ends in %s, at %s", g.account, brief(left), clock(end))
		}
	}
}

// keepEvery is how often the gateway is told that a grant is in use: often enough for any idle time that makes sense.
const keepEvery = 15 * time.Second

// keep keeps a grant from ending as idle while the command has no connection open.
func (r *run) keep(ctx context.Context, g *heldGrant) {
	if g.State != "active" || time.Since(g.kept) < keepEvery {
		return
	}
	if r.client.Do(ctx, http.MethodPost, "/v1/grants/"+url.PathEscape(g.ID)+"/keep", nil, nil) == nil {
		g.kept = time.Now()
	}
}

// startStatus is what shells answer for a command that can't be started.
func startStatus(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return 127
	}
	return 126
}
