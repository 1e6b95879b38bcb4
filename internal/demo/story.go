//go:build unix

package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/web/api"
)

// Marks are what the story leaves in its sessions, to be found again in their recordings.
const (
	markSimple   = "story: a simple statement"
	markPrepared = "story: a bound parameter"
	markCommand  = "story-command"
	markShell    = "story-shell"
)

// atOnce is how long a cut may take until the user's program has ended and the target is idle. What it takes is
// milliseconds; the story runs on busy machines too.
const atOnce = 5 * time.Second

// story is the demo telling itself.
type story struct {
	*Demo
	alice, bob, carol *person
	database, host    api.Grant // the grants under which Alice works
}

// Check tells the whole story without a person: every step is what users do, with the command line and the stock psql and
// ssh. Its error names the step that failed.
func Check(ctx context.Context, o Options) (err error) {
	began := time.Now()
	d, err := start(ctx, o, o.Dir != "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	s := &story{Demo: d, alice: d.people["alice"], bob: d.people["bob"], carol: d.people["carol"]}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"psql without a grant is refused, and says how to ask for one", s.psqlRefused},
		{"ssh without a grant is refused, and says how to ask for one", s.sshRefused},
		{"alice asks for the database and the host", s.ask},
		{"alice can't approve her own request", s.approveOwn},
		{"bob approves", s.approve},
		{"psql runs a simple statement", s.simple},
		{"a prepared statement runs with parameters", s.prepared},
		{"ssh runs a command: output, errors and exit status apart", s.command},
		{"ssh opens an interactive shell with a terminal", s.shell},
		{"a reconnect does not lengthen the grant", s.reconnect},
		{"revocation ends a running statement and an open shell", s.revocation},
		{"expiry ends a running statement and an open shell", s.expiry},
		{"a pipeline migrates the database and restarts a service in one run", s.pipeline},
		{"what a pipeline had is over with it", s.pipelineOver},
		{"every session can be replayed", s.replay},
		{"what was done can be found", s.search},
		{"the control plane's log tells of it", s.audit},
		{"the log is whole", s.verify},
	} {
		if err := d.steps.do(ctx, step.name, step.do); err != nil {
			return err
		}
	}
	fmt.Fprintf(o.Out, "\nThe whole story in %.1f s.\n", time.Since(began).Seconds())
	return nil
}

// psql runs the stock psql as Alice.
func (s *story) psql(ctx context.Context, args ...string) (outcome, error) {
	return run(ctx, s.alice.env(), "psql", append([]string{"-X", "-w", "-A", "-t", "-v", "ON_ERROR_STOP=1", "service=" + pgTarget}, args...)...)
}

// ssh runs the stock ssh as Alice.
func (s *story) ssh(ctx context.Context, args ...string) (outcome, error) {
	return run(ctx, s.alice.env(), "ssh", append([]string{"-F", s.alice.home.Path("ssh_config"), "-o", "BatchMode=yes", sshTarget}, args...)...)
}

// says checks that an outcome has that exit code and that its text holds every phrase.
func (o outcome) says(code int, phrases ...string) error {
	text := o.stdout + o.stderr
	if o.code != code {
		return fmt.Errorf("exit %d instead of %d:\n%s", o.code, code, text)
	}
	return holds(text, phrases...)
}

func holds(text string, phrases ...string) error {
	for _, phrase := range phrases {
		if !strings.Contains(text, phrase) {
			return fmt.Errorf("%q is not in what was said:\n%s", phrase, text)
		}
	}
	return nil
}

func (s *story) psqlRefused(ctx context.Context) error {
	out, err := s.psql(ctx, "-c", "SELECT 1")
	if err != nil {
		return err
	}
	return out.says(2, "FATAL:", "DETAIL:", "HINT:", "sallyport request "+pgAccount+"@"+pgTarget+" --duration 30m --reason")
}

func (s *story) sshRefused(ctx context.Context) error {
	out, err := s.ssh(ctx, "true")
	if err != nil {
		return err
	}
	if out.stdout != "" {
		return fmt.Errorf("the refusal is on standard output: %q", out.stdout)
	}
	return out.says(1, "sallyport: ", "sallyport request "+sshAccount+"@"+sshTarget+" --duration 30m --reason")
}

func (s *story) ask(ctx context.Context) error {
	for account, g := range map[string]*api.Grant{pgAccount + "@" + pgTarget: &s.database, sshAccount + "@" + sshTarget: &s.host} {
		if err := s.alice.ask(ctx, g, "request", account, "--duration", "30m", "--reason", "INC-42: slow checkout"); err != nil {
			return err
		}
		if g.State != "pending" {
			return fmt.Errorf("the request for %s is %s, not pending", account, g.State)
		}
	}
	return nil
}

func (s *story) approveOwn(ctx context.Context) error {
	out, err := s.alice.try(ctx, "approve", s.database.ID)
	if err != nil {
		return err
	}
	if out.code == 0 {
		return errors.New("it was taken")
	}
	var now []api.Grant
	if err := s.alice.ask(ctx, &now, "requests"); err != nil {
		return err
	}
	for _, g := range now {
		if g.ID == s.database.ID && g.State == "pending" {
			return out.says(3, "sallyport: ")
		}
	}
	return fmt.Errorf("the request does not wait any more: %+v", now)
}

func (s *story) approve(ctx context.Context) error {
	for _, g := range []*api.Grant{&s.database, &s.host} {
		if err := s.bob.ask(ctx, g, "approve", g.ID); err != nil {
			return err
		}
		if g.State != "approved" {
			return fmt.Errorf("grant %s is %s, not approved", g.ID, g.State)
		}
		if !g.From.IsZero() {
			return fmt.Errorf("the time of grant %s runs before anybody has connected", g.ID)
		}
	}
	return nil
}

func (s *story) simple(ctx context.Context) error {
	out, err := s.psql(ctx, "-c", "SELECT current_user, current_database(), '"+markSimple+"' || ' ' || 6*7")
	if err != nil {
		return err
	}
	return out.says(0, pgAccount+"|"+pgDatabase+"|"+markSimple+" 42")
}

func (s *story) prepared(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, "service="+pgTarget+" servicefile="+quoteValue(s.alice.home.Path("pg_service.conf")))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Prepare(ctx, "by_customer", "SELECT item, $2::text FROM orders WHERE customer = $1"); err != nil {
		return err
	}
	for customer, want := range map[string]string{"Ada": "lamp", "Grace": "clock"} {
		var item, echo string
		if err := conn.QueryRow(ctx, "by_customer", customer, markPrepared).Scan(&item, &echo); err != nil {
			return err
		}
		if item != want || echo != markPrepared {
			return fmt.Errorf("%s ordered %q (%q), expected %q", customer, item, echo, want)
		}
	}
	return conn.Close(ctx)
}

func (s *story) command(ctx context.Context) error {
	out, err := s.ssh(ctx, "echo "+markCommand+"; echo to the side >&2; exit 7")
	if err != nil {
		return err
	}
	if out.stdout != markCommand+"\n" || out.stderr != "to the side\n" || out.code != 7 {
		return fmt.Errorf("output %q, errors %q, exit %d", out.stdout, out.stderr, out.code)
	}
	return nil
}

func (s *story) shell(ctx context.Context) error {
	shell, err := s.openShell(ctx)
	if err != nil {
		return err
	}
	defer shell.close()
	// What the terminal echoes is what was typed; only a shell makes 42 of it.
	if err := shell.enter("echo "+markShell+"-$((6*7)); stty size\n", markShell+"-42", "40 120"); err != nil {
		return err
	}
	if err := shell.resize(50, 132); err != nil {
		return err
	}
	// The new size travels beside what is typed, so the shell waits for it.
	if err := shell.enter("until [ \"$(stty size)\" = '50 132' ]; do sleep 0.05; done; echo resized-$((6*7))\n", "resized-42"); err != nil {
		return err
	}
	if err := shell.enter("exit 3\n"); err != nil {
		return err
	}
	if code, err := shell.wait(ctx, 20*time.Second); err != nil || code != 3 {
		return fmt.Errorf("the shell ended with %d, %w; expected 3", code, err)
	}
	return nil
}

// current is the grant as it stands now.
func (s *story) current(ctx context.Context, id string) (api.Grant, error) {
	var all []api.Grant
	if err := s.alice.ask(ctx, &all, "grants", "--all"); err != nil {
		return api.Grant{}, err
	}
	for _, g := range all {
		if g.ID == id {
			return g, nil
		}
	}
	return api.Grant{}, fmt.Errorf("grant %s is not listed", id)
}

func (s *story) reconnect(ctx context.Context) error {
	before, err := s.current(ctx, s.database.ID)
	if err != nil {
		return err
	}
	if before.State != "active" || before.Until.Sub(before.From) != 30*time.Minute {
		return fmt.Errorf("the grant is %s from %s until %s, not active for 30 minutes", before.State, before.From, before.Until)
	}
	for range 3 {
		out, err := s.psql(ctx, "-c", "SELECT 1")
		if err != nil {
			return err
		}
		if err := out.says(0, "1"); err != nil {
			return err
		}
	}
	after, err := s.current(ctx, s.database.ID)
	if err != nil {
		return err
	}
	if !after.Until.Equal(before.Until) || !after.From.Equal(before.From) {
		return fmt.Errorf("it lasted from %s until %s before, and from %s until %s after", before.From, before.Until, after.From, after.Until)
	}
	return nil
}

func (s *story) replay(ctx context.Context) error {
	var sessions []api.Session
	if err := s.carol.ask(ctx, &sessions, "sessions", "--all"); err != nil {
		return err
	}
	var said strings.Builder
	for _, one := range sessions {
		if one.Live || one.Ended == nil || one.EndReason == "" {
			return fmt.Errorf("session %s is still open", one.ID)
		}
		out, err := s.carol.sallyport(ctx, "replay", one.ID, "--speed", "1000", "--idle-limit", "10ms")
		if err != nil {
			return err
		}
		if out == "" {
			return fmt.Errorf("the replay of session %s (%s@%s) shows nothing", one.ID, one.Account, one.Target)
		}
		said.WriteString(out)
	}
	return holds(said.String(), markSimple, "SELECT item, $2::text FROM orders WHERE customer = $1", markPrepared, markCommand, markShell+"-42", "pg_sleep(60)", markMigration, markRestart)
}

func (s *story) search(ctx context.Context) error {
	for _, text := range []string{markSimple, "from ORDERS where customer", markCommand, markShell + "-42"} {
		out, err := s.carol.sallyport(ctx, "search", text)
		if err != nil {
			return err
		}
		if strings.TrimSpace(out) == "" {
			return fmt.Errorf("%q is not found", text)
		}
	}
	out, err := s.alice.try(ctx, "search", markSimple)
	if err != nil {
		return err
	}
	return out.says(3, "sallyport: ") // she has no permission to look
}

func (s *story) audit(ctx context.Context) error {
	out, err := s.carol.sallyport(ctx, "audit")
	if err != nil {
		return err
	}
	return holds(out, "login.succeeded", "session.refused", "grant.requested", "grant.approved", "grant.active", "grant.ended", "session.started", "session.ended", "api.refused")
}

func (s *story) verify(ctx context.Context) error {
	_, err := s.carol.sallyport(ctx, "verify")
	return err
}
