package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"sallyport/client/job"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/web/api"
)

// RunOptions say what to run with which access.
type RunOptions struct {
	// Gateway and CA are as for login; empty: those of the home.
	Gateway, CA string
	// TokenFile holds the job's token; empty: the environment's, else the sign-in of the home. Audience is whom a token is
	// asked for where there is a choice; empty: the gateway's address.
	TokenFile, Audience string
	// Accounts are those to be had, in order: the first of a target is the one that its plain names mean.
	Accounts []Account
	// Reason and Ticket stand in each request; the ticket where the policy asks for one.
	Reason, Ticket string
	// Duration is how long each grant is asked for; empty: the policy's default.
	Duration string
	// Need is how much time must be left for Command to be started, Wait how long to wait for approval.
	Need, Wait time.Duration
	Command    []string
	// Progress is where people read what happens.
	Progress io.Writer
}

// Account is an account on a target.
type Account struct{ Name, Target string }

func (a Account) String() string { return a.Name + "@" + a.Target }

// Stopped is the error of a run that did not come to its command's own end.
type Stopped struct {
	Why StoppedWhy
	Err error
}

// StoppedWhy tells programs apart what happened.
type StoppedWhy string

// What stops a run.
const (
	StoppedRefused  StoppedWhy = "refused"     // a policy or a person said no, or the job is not known
	StoppedTimedOut StoppedWhy = "timed out"   // nobody decided in time, or too little time was left
	StoppedEarly    StoppedWhy = "ended early" // a grant ended while the command ran, which then failed
)

func (s *Stopped) Error() string { return s.Err.Error() }

// Unwrap gives errors.As the refusal.
func (s *Stopped) Unwrap() error { return s.Err }

// Run runs a command with access to targets: it signs in with the job's token, asks for a grant for each account, waits
// until all are approved, gives the command what stock programs need to connect, and gives all of it back when the
// command has ended, however it did. It returns the command's exit status. Keys stand in a private directory that goes with
// it. Signals that would end this process end the waiting, and go to the command once it runs.
func Run(ctx context.Context, home Home, o RunOptions) (status int, err error) {
	waiting, stop := notify(ctx)
	defer stop()
	r := &run{o: o}
	defer r.giveBack(context.WithoutCancel(ctx))
	if err := r.signIn(waiting, home); err != nil {
		return 0, refusedAs(err)
	}
	if err := r.ask(waiting); err != nil {
		return 0, refusedAs(err)
	}
	environment, err := r.prepare(waiting)
	if err != nil {
		return 0, refusedAs(err)
	}
	if err := r.enough(); err != nil {
		return 0, err
	}
	if waiting.Err() != nil {
		return 0, waiting.Err()
	}
	return r.command(context.WithoutCancel(ctx), environment)
}

// run is one Run.
type run struct {
	o      RunOptions
	client *Client
	who    api.Identity
	dir    string       // private, removed at the end
	grants []*heldGrant // in the order of the accounts
	own    bool         // the sign-in was made for this run, and ends with it
	issued string       // id of the credential made for this run
}

// heldGrant is a grant that the run works under.
type heldGrant struct {
	api.Grant
	account Account
	asked   bool // by this run, which gives it back
	warned  bool
	over    bool
	kept    time.Time // when the gateway was last told that it is in use
}

// refusedAs marks refusals.
func refusedAs(err error) error {
	var already *Stopped
	if refusal.Of(err) == nil || errors.As(err, &already) {
		return err
	}
	return &Stopped{StoppedRefused, err}
}

// say tells people what happens.
func (r *run) say(format string, args ...any) {
	fmt.Fprintln(r.o.Progress, "sallyport: "+printable(fmt.Sprintf(format, args...)))
}

// signIn makes the client and its private directory.
func (r *run) signIn(ctx context.Context, home Home) (err error) {
	if r.dir, err = os.MkdirTemp("", "sallyport-run-*"); err != nil { // 0700
		return fmt.Errorf("make a directory for keys: %w", err)
	}
	private := Home{Dir: r.dir}
	if err := private.plainPath(); err != nil {
		return err
	}
	gateway, authority, err := home.chooseGateway(LoginOptions{Gateway: r.o.Gateway, CA: r.o.CA})
	if err != nil {
		return err
	}
	audience := r.o.Audience
	if audience == "" {
		audience = gateway
	}
	token, err := job.Token(ctx, r.o.TokenFile, audience)
	if err != nil {
		return err
	}
	if token == "" {
		return r.signedIn(ctx, home, private, gateway)
	}
	plain, err := httpClient(authority)
	if err != nil {
		return err
	}
	facts, err := fetchGateway(ctx, plain, gateway)
	if err != nil {
		return err
	}
	access, err := exchangeToken(ctx, plain, gateway, token)
	if err != nil {
		return err
	}
	r.own = true
	if facts.CA != "" {
		authority = []byte(facts.CA)
	}
	if len(authority) > 0 {
		if err := private.write(fileAuthority, authority, 0o644); err != nil {
			return err
		}
	}
	// The token stays in memory: what the command needs are certificates.
	r.client = &Client{home: private, gateway: gateway, http: plain, tokens: &tokens{home: private, gateway: gateway, http: plain, cached: access}}
	return r.known(ctx)
}

// signedIn uses the home's sign-in, with keys of the run's own.
func (r *run) signedIn(ctx context.Context, home, private Home, gateway string) error {
	c, err := Open(home)
	if err != nil {
		return errors.Join(job.Missing(), err)
	}
	if c.gateway != gateway {
		return refusal.New(refusal.NotAuthenticated, "you are signed in at another gateway, %s", c.gateway).WithHint("sallyport login --gateway %s", gateway)
	}
	authority, err := os.ReadFile(home.Path(fileAuthority))
	if err == nil {
		err = private.write(fileAuthority, authority, 0o644)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	r.client = &Client{home: private, gateway: c.gateway, http: c.http, tokens: c.tokens}
	return r.known(ctx)
}

func (r *run) known(ctx context.Context) error {
	if err := r.client.Do(ctx, http.MethodGet, "/v1/me", nil, &r.who); err != nil {
		return err
	}
	r.say("signed in at %s as %s until %s", r.client.gateway, r.who.Label(), clock(r.who.Expires))
	return nil
}

// ask asks for all grants, and waits until all are approved.
func (r *run) ask(ctx context.Context) error {
	// A request that is on its way is not let go of when somebody interrupts: what the gateway files has to be known to be given back.
	asking, done := lingering(ctx, 15*time.Second)
	defer done()
	for _, a := range r.o.Accounts {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		g := &heldGrant{account: a, asked: true}
		err := r.client.Do(asking, http.MethodPost, "/v1/requests", api.GrantRequest{Target: a.Target, Account: a.Name, Duration: r.o.Duration, Reason: r.o.Reason, Ticket: r.o.Ticket}, &g.Grant)
		if refusal.Is(err, refusal.Conflict) {
			g.asked = false
			g.Grant, err = r.held(ctx, a, err)
		}
		if err != nil {
			return err
		}
		r.grants = append(r.grants, g)
	}
	until := time.Now().Add(r.o.Wait)
	for _, g := range r.grants {
		if err := r.await(ctx, g, until); err != nil {
			return err
		}
	}
	return nil
}

// lingering is a context that ends a while after ctx does.
func lingering(ctx context.Context, while time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(while):
			cancel()
		case <-out.Done():
		}
	})
	return out, func() { stop(); cancel() }
}

// held is the grant that stands in the way of a request: the identity's own for the same, which will do.
func (r *run) held(ctx context.Context, a Account, conflict error) (api.Grant, error) {
	for _, path := range []string{"/v1/grants", "/v1/requests"} {
		var all []api.Grant
		if err := r.client.Do(ctx, http.MethodGet, path, nil, &all); err != nil {
			return api.Grant{}, err
		}
		for _, g := range all {
			if g.Identity.Issuer == r.who.Issuer && g.Identity.Subject == r.who.Subject && g.Target == a.Target && g.Account == a.Name && open(g) {
				r.say("%s: you have grant %s already, which is used and left as it is", a, g.ID)
				return g, nil
			}
		}
	}
	return api.Grant{}, conflict
}

// open tells whether a grant is one that is or may still be good.
func open(g api.Grant) bool {
	return g.State == "pending" || g.State == "approved" || g.State == "active"
}

// poll is how often the gateway is asked; tell how often people are told that it still waits.
const (
	poll = time.Second
	tell = time.Minute
)

// await waits until a request is decided.
func (r *run) await(ctx context.Context, g *heldGrant, until time.Time) error {
	every := time.NewTicker(poll)
	defer every.Stop()
	var told time.Time
	for g.State == "pending" {
		if now := time.Now(); now.Sub(told) >= tell {
			told = now
			r.say("%s: request %s waits for %s, until %s at the latest", g.account, g.ID, g.WaitsFor(), clock(until))
		}
		if !time.Now().Before(until) {
			return &Stopped{StoppedTimedOut, refusal.New(refusal.NotPermitted, "nobody decided on request %s for %s within %s", g.ID, g.account, configs.Duration(r.o.Wait)).
				WithHint("wait longer with --wait, or have one of %s ready", strings.Join(g.Asked(), ", "))}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-every.C:
		}
		if err := r.refresh(ctx, g); err != nil {
			return err
		}
	}
	if !open(g.Grant) {
		no := refusal.New(refusal.NotPermitted, "request %s for %s was not granted: it is %s", g.ID, g.account, g.State)
		for _, v := range g.Votes {
			if !v.Approve {
				no = no.WithDetail("%s said no: %s", v.Name, v.Comment)
			}
		}
		return no
	}
	r.say("%s: grant %s for %s, approved by %s", g.account, g.ID, configs.Duration(g.Duration), strings.Join(g.Approvers, ", "))
	return nil
}

// refresh reads a grant as it stands. A gateway that can't be reached for a moment changes nothing.
func (r *run) refresh(ctx context.Context, g *heldGrant) error {
	var now api.Grant
	err := r.client.Do(ctx, http.MethodGet, "/v1/grants/"+url.PathEscape(g.ID), nil, &now)
	switch {
	case err == nil:
		g.Grant = now
	case refusal.Of(err) != nil || ctx.Err() != nil:
		return err
	}
	return nil
}

// enough refuses to start a command that would be cut off.
func (r *run) enough() error {
	for _, g := range r.grants {
		left := g.Duration // its time begins with the first connection
		if !g.Until.IsZero() {
			left = time.Until(g.Until)
		}
		left = min(left, time.Until(r.who.Expires))
		if left < r.o.Need {
			return &Stopped{StoppedTimedOut, refusal.New(refusal.NotPermitted, "only %s are left of the access to %s, and --need is %s", brief(left), g.account, configs.Duration(r.o.Need)).
				WithHint("ask for more with --duration, as far as the policy and the sign-in (until %s) go", clock(r.who.Expires))}
		}
	}
	return nil
}

// giveBack ends all that was made for this run: its grants and requests, its credential, its sign-in, its directory. It
// is done however the run went, and takes what time that takes, within bounds. What can't be ended now ends by itself.
func (r *run) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	try := func(what, method, path string) {
		err := r.insist(ctx, func() error { return r.client.Do(ctx, method, path, nil, nil) })
		if err != nil && refusal.Of(err) == nil { // a refusal: it is over already
			r.say("%s could not be given back and ends by itself: %v", what, err)
		}
	}
	for _, g := range r.grants {
		if g.asked {
			try("grant "+g.ID, http.MethodPost, "/v1/grants/"+url.PathEscape(g.ID)+"/release")
		}
	}
	if r.issued != "" {
		try("credential "+r.issued, http.MethodDelete, "/v1/credentials/"+url.PathEscape(r.issued))
	}
	if r.own {
		if err := r.client.forget(ctx); err != nil {
			r.say("the sign-in could not be ended and ends by itself: %v", err)
		}
	}
	if r.dir != "" {
		if err := os.RemoveAll(r.dir); err != nil {
			r.say("remove the keys: %v", err)
		}
	}
}

// insist tries again where the gateway can't be reached: it may be restarting.
func (r *run) insist(ctx context.Context, do func() error) error {
	every := time.NewTicker(poll)
	defer every.Stop()
	for {
		err := do()
		if err == nil || refusal.Of(err) != nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-every.C:
		}
	}
}

// forget revokes the access token (RFC 7009).
func (c *Client) forget(ctx context.Context) error {
	token, err := c.tokens.access(ctx, "")
	if err != nil {
		return nil // it has run out, which is as good
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}, "client_id": {clientID}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.gateway+"/oauth/revoke", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := c.http.Do(request)
	if err != nil {
		return unreachable(c.gateway, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the gateway answers %s", answer.Status)
	}
	return nil
}

// brief writes a length of time as people do, to the second.
func brief(d time.Duration) configs.Duration { return configs.Duration(d.Round(time.Second)) }

// clock writes a time as people do, with its day where that is not today.
func clock(t time.Time) string {
	t = t.Local()
	if now := time.Now(); t.YearDay() != now.YearDay() || t.Year() != now.Year() {
		return t.Format("2006-01-02 15:04:05")
	}
	return t.Format("15:04:05")
}

// retrieveError is the issuer's answer inside an error.
func retrieveError(err error) (*oauth2.RetrieveError, bool) {
	var no *oauth2.RetrieveError
	return no, errors.As(err, &no)
}
