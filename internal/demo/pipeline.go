//go:build unix

package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

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

// service is a program on the host that a pipeline restarts, with what a service manager would have for it: whoever started it starts
// it again when it ends, and a command ends it and waits until it runs again.
type service struct {
	process *process
	pidFile string
	restart string // a command line for a shell
}

func (d *Demo) startService(ctx context.Context) (*service, error) {
	dir, err := d.subdirectory("service")
	if err != nil {
		return nil, err
	}
	v := &service{pidFile: filepath.Join(dir, "pid"), restart: "sh " + shellQuote(filepath.Join(dir, "restart"))}
	file := shellQuote(v.pidFile)
	if err := os.WriteFile(filepath.Join(dir, "restart"), []byte(`old=$(cat `+file+`) && kill "$old" || exit 1
for try in $(seq 300); do
	new=$(cat `+file+`)
	[ "$new" != "$old" ] && kill -0 "$new" && echo "`+markRestart+` $old $new" && exit 0
	sleep 0.1
done
exit 1
`), 0o600); err != nil {
		return nil, err
	}
	keep := exec.Command("sh", "-c", `trap 'kill "$service"; exit 0' TERM
while :; do sleep 86400 & service=$!; echo "$service" >`+file+`.new && mv `+file+`.new `+file+`; wait "$service"; done`)
	if v.process, err = d.register.start("service", keep, syscall.SIGTERM); err != nil {
		return nil, err
	}
	for {
		if _, err := v.pid(); err == nil {
			return v, nil
		}
		select {
		case <-ctx.Done():
			v.process.end(time.Second)
			return nil, fmt.Errorf("the service does not start: %w", ctx.Err())
		case <-v.process.done:
			return nil, fmt.Errorf("the service does not start: %w", v.process.err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (v *service) pid() (int, error) {
	data, err := os.ReadFile(v.pidFile)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// pipeline runs both protocols in one `sallyport run`, with no more than the job's own token, and looks on the targets for what it did.
func (s *story) pipeline(ctx context.Context) error {
	env, err := s.job()
	if err != nil {
		return err
	}
	service, err := s.startService(ctx)
	if err != nil {
		return err
	}
	defer service.process.end(time.Second)
	before, err := service.pid()
	if err != nil {
		return err
	}
	if _, _, err := s.migrated(ctx); err == nil {
		return errors.New("the database was migrated before")
	}
	out, err := run(ctx, append(env, "STORY_RESTART="+service.restart), s.options.Binary, "run", pgAccount+"@"+pgTarget, sshAccount+"@"+sshTarget, "--reason", "deploy 4f2a9c1", "--duration", "5m", "--need", "2m", "--",
		"sh", "-c", `psql -X -A -t -v ON_ERROR_STOP=1 -c "BEGIN" -c "CREATE TABLE shipments (order_id integer PRIMARY KEY, sent timestamptz)" \
				-c "INSERT INTO shipments (order_id) SELECT id FROM orders" -c "SELECT current_user, '`+markMigration+`'" -c "COMMIT" &&
			psql -X -A -t -w "$ORDERS_DATABASE_URL" -c "SELECT 'by address', count(*) FROM shipments" &&
			ssh -F "$SALLYPORT_SSH_CONFIG" -o BatchMode=yes `+sshTarget+` "$STORY_RESTART" && test -z "$SALLYPORT_TOKEN" && exit 7`)
	if err != nil {
		return err
	}
	after, err := service.pid()
	if err != nil {
		return err
	}
	if err := out.says(7, pgAccount+"|"+markMigration, "by address|", fmt.Sprintf("%s %d %d", markRestart, before, after)); err != nil {
		return err
	}
	if before == after || syscall.Kill(before, 0) == nil || syscall.Kill(after, 0) != nil {
		return fmt.Errorf("the service was process %d before and is %d: it was not restarted", before, after)
	}
	owner, missing, err := s.migrated(ctx)
	if err != nil {
		return fmt.Errorf("the migration is not in the database: %w", err)
	}
	if owner != pgAccount || missing != 0 {
		return fmt.Errorf("the migration is not whole: the table belongs to %s and lacks %d orders", owner, missing)
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

// migrated asks the database itself for what the migration makes: whose the table is, and how many orders it lacks.
func (s *story) migrated(ctx context.Context) (owner string, missing int, err error) {
	straight, err := s.postgres.connect(ctx, s.Demo, pgSuperuser, pgDatabase)
	if err != nil {
		return "", 0, err
	}
	defer straight.Close(context.WithoutCancel(ctx))
	err = straight.QueryRow(ctx, `SELECT (SELECT tableowner FROM pg_tables WHERE tablename = 'shipments'), count(*)
		FROM orders WHERE id NOT IN (SELECT order_id FROM shipments)`).Scan(&owner, &missing)
	return owner, missing, err
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
