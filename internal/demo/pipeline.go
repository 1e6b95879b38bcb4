//go:build unix

package demo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"sallyport/web/api"
)

// markMigration and markRestart are what the pipeline leaves in its sessions.
const (
	markMigration = "story: a migration"
	markRestart   = "story-restart"
)

// job is the environment of a job in GitHub Actions: nobody is signed in there, and the runner hands tokens out.
func (d *Demo) job() ([]string, error) {
	home, err := d.subdirectory("homes", "ci")
	return plainEnvironment(
		"SALLYPORT_HOME="+home, "SALLYPORT_GATEWAY="+d.gateway.url, "SALLYPORT_CA="+d.authority.file, "PGCONNECT_TIMEOUT=15",
		"GITHUB_ACTIONS=true", "ACTIONS_ID_TOKEN_REQUEST_URL="+d.provider.CI.Issuer+"/token", "ACTIONS_ID_TOKEN_REQUEST_TOKEN="+d.provider.CI.RequestToken,
		"SSL_CERT_FILE="+d.authority.file, // for the runner's address; the gateway's authority is named above
		"TMPDIR="+home,
	), err
}

// pipeline runs both protocols in one `sallyport run`, with no more than the job's own token.
func (s *story) pipeline(ctx context.Context) error {
	env, err := s.job()
	if err != nil {
		return err
	}
	out, err := run(ctx, env, s.options.Binary, "run", pgAccount+"@"+pgTarget, sshAccount+"@"+sshTarget, "--reason", "deploy 4f2a9c1", "--duration", "5m", "--need", "2m", "--",
		"sh", "-c", `psql -X -A -t -v ON_ERROR_STOP=1 -c "BEGIN" -c "UPDATE orders SET item = item" -c "SELECT current_user, '`+markMigration+`'" -c "COMMIT" &&
			psql -X -A -t -w "$ORDERS_DATABASE_URL" -c "SELECT 'by address'" &&
			ssh -F "$SALLYPORT_SSH_CONFIG" -o BatchMode=yes `+sshTarget+` 'echo `+markRestart+`' && test -z "$SALLYPORT_TOKEN" && exit 7`)
	if err != nil {
		return err
	}
	if err := out.says(7, pgAccount+"|"+markMigration, "by address", markRestart); err != nil {
		return err
	}
	// The superuser's account is for people with an approver, not for pipelines.
	if out, err = run(ctx, env, s.options.Binary, "run", pgSuperuser+"@"+pgTarget, "--reason", "deploy 4f2a9c1", "--", "echo", "started"); err != nil {
		return err
	}
	if err := out.says(121, "no policy lets you have"); err != nil {
		return err
	}
	if strings.Contains(out.stdout, "started") {
		return errors.New("the command was started without a grant")
	}
	return nil
}

// pipelineOver checks that grants, sign-in and keys of the pipeline have ended with it.
func (s *story) pipelineOver(ctx context.Context) error {
	var all []api.Grant
	if err := s.carol.ask(ctx, &all, "grants", "--all"); err != nil {
		return err
	}
	ended := 0
	for _, g := range all {
		if g.Identity.Kind != "workload" {
			continue
		}
		if g.State != "ended" || g.EndReason != "released" || !strings.HasPrefix(g.Identity.Subject, "shop deploy:") {
			return fmt.Errorf("grant %s of %s is %s (%s), not released", g.ID, g.Identity.Subject, g.State, g.EndReason)
		}
		ended++
	}
	if ended != 2 {
		return fmt.Errorf("%d grants of the pipeline are listed, not 2", ended)
	}
	left, err := filepath.Glob(filepath.Join(s.dir, "homes", "ci", "sallyport-run-*"))
	if err != nil || len(left) > 0 {
		return fmt.Errorf("the pipeline left keys behind: %v, %w", left, err)
	}
	out, err := s.carol.sallyport(ctx, "audit")
	if err != nil {
		return err
	}
	return holds(out, "workload.exchanged", "credential.issued", "credential.revoked")
}
