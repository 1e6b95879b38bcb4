//go:build unix

package demo

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"sallyport/web/api"
)

// work is what Alice has open when a grant ends: a statement that runs for a minute and a shell.
type work struct {
	statement chan outcome // psql's, when it has ended
	failed    chan error
	shell     *terminal
}

// begin opens both and returns when both are running on their targets.
func (s *story) begin(ctx context.Context) (*work, error) {
	w := &work{statement: make(chan outcome, 1), failed: make(chan error, 1)}
	go func() {
		out, err := s.psql(ctx, "-c", "SELECT pg_sleep(60)")
		if err != nil {
			w.failed <- err
			return
		}
		w.statement <- out
	}()
	if err := s.until(ctx, 20*time.Second, "the statement runs on the target", func() (bool, error) {
		select {
		case err := <-w.failed:
			return false, err
		case out := <-w.statement:
			return false, fmt.Errorf("psql ended early:\n%s%s", out.stdout, out.stderr)
		default:
		}
		running, err := s.running(ctx)
		return running > 0, err
	}); err != nil {
		return nil, err
	}
	var err error
	if w.shell, err = s.openShell(ctx); err != nil {
		return nil, err
	}
	if err := w.shell.enter("echo open-$((1+1))\n", "open-2"); err != nil {
		w.shell.close()
		return nil, err
	}
	return w, nil
}

// running counts what Alice's account does on the target itself.
func (s *story) running(ctx context.Context) (count int, err error) {
	admin, err := s.postgres.connect(ctx, s.Demo, pgSuperuser, "postgres")
	if err != nil {
		return 0, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	err = admin.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state = 'active' AND query LIKE '%pg_sleep%'", pgAccount).Scan(&count)
	return count, err
}

// until waits for a condition.
func (s *story) until(ctx context.Context, patience time.Duration, what string, met func() (bool, error)) error {
	deadline := time.Now().Add(patience)
	for {
		ok, err := met()
		if err != nil || ok {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s in vain: %s", patience, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// ends waits for both to end within patience, checks what the user is told and that the target is idle.
func (w *work) ends(ctx context.Context, s *story, patience time.Duration, word string) error {
	defer w.shell.close()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	select {
	case out := <-w.statement:
		if err := out.says(2, "FATAL:", word); err != nil {
			return fmt.Errorf("psql: %w", err)
		}
	case err := <-w.failed:
		return err
	case <-deadline.C:
		return fmt.Errorf("psql still runs after %s", patience)
	}
	code, err := w.shell.wait(ctx, patience)
	if err != nil {
		return err
	}
	if code == 0 {
		return errors.New("ssh ended as if all were well")
	}
	if text := w.shell.text(); !strings.Contains(text, word) {
		return fmt.Errorf("the shell's user was not told %q:\n%s", word, text)
	}
	return s.until(ctx, patience, "the statement is gone from the target's pg_stat_activity", func() (bool, error) {
		n, err := s.running(ctx)
		return n == 0, err
	})
}

func (s *story) revocation(ctx context.Context) error {
	w, err := s.begin(ctx)
	if err != nil {
		return err
	}
	for _, g := range []api.Grant{s.database, s.host} {
		if _, err := s.carol.sallyport(ctx, "revoke", g.ID, "--reason", "that is enough"); err != nil {
			w.shell.close()
			return err
		}
	}
	if err := w.ends(ctx, s, atOnce, "revoked"); err != nil {
		return err
	}
	if err := s.psqlRefused(ctx); err != nil {
		return fmt.Errorf("after the revocation: %w", err)
	}
	return s.ended(ctx, "grant_revoked", s.database.ID, s.host.ID)
}

func (s *story) expiry(ctx context.Context) error {
	// Long enough for both to be open, also on a busy machine: the time starts with the first connection.
	const short = 8 * time.Second
	database, err := s.alice.grant(ctx, pgAccount+"@"+pgTarget, short.String(), "INC-42: one more look")
	if err != nil {
		return err
	}
	host, err := s.alice.grant(ctx, sshAccount+"@"+sshTarget, short.String(), "INC-42: one more look")
	if err != nil {
		return err
	}
	w, err := s.begin(ctx)
	if err != nil {
		return err
	}
	if err := w.ends(ctx, s, short+atOnce, "expired"); err != nil {
		return err
	}
	for _, id := range []string{database.ID, host.ID} {
		g, err := s.current(ctx, id)
		if err != nil {
			return err
		}
		// The earlier of two clocks cuts, so it may end a little before its time by one of them.
		if late := g.EndedAt.Sub(g.Until); g.EndReason != "expired" || late < -time.Second || late > atOnce {
			return fmt.Errorf("grant %s was to end at %s; it ended at %s: %q", id, g.Until, g.EndedAt, g.EndReason)
		}
	}
	if err := s.psqlRefused(ctx); err != nil {
		return fmt.Errorf("after the expiry: %w", err)
	}
	return s.ended(ctx, "grant_expired", database.ID, host.ID)
}

// ended checks that under each of the grants a session ended for that reason. The list is asked until it says so: a
// session is over once its recording is sealed, which is after the user's program has ended.
func (s *story) ended(ctx context.Context, reason string, grants ...string) error {
	for _, grant := range grants {
		if err := s.until(ctx, 20*time.Second, "a session under grant "+grant+" is listed as ended by "+reason, func() (bool, error) {
			var sessions []api.Session
			err := s.carol.ask(ctx, &sessions, "sessions", "--all")
			for _, one := range sessions {
				if one.Grant == grant && one.Ended != nil && one.EndReason == reason {
					return true, nil
				}
			}
			return false, err
		}); err != nil {
			return err
		}
	}
	return nil
}

// openShell opens an interactive shell through the stock ssh, which believes to stand in a terminal of 40 by 120.
func (s *story) openShell(ctx context.Context) (*terminal, error) {
	cmd := exec.CommandContext(ctx, "ssh", "-F", s.alice.home.Path("ssh_config"), "-o", "BatchMode=yes", "-t", sshTarget)
	cmd.Env = append(s.alice.env(), "TERM=xterm")
	return openTerminal(cmd, 40, 120)
}
