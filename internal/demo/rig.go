//go:build unix

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Rig is the demo for programs: it starts everything, has every account of the demo granted to Alice for the run, writes
// a file of shell exports once all of it is ready, and stays up until the context ends. docs/rig.md is its contract. The
// directory is kept, without the database's files.
func Rig(ctx context.Context, o Options, file string) (err error) {
	if file, err = filepath.Abs(file); err != nil {
		return err
	}
	d, err := start(ctx, o, true)
	if err != nil {
		return interrupted(ctx, err)
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.steps.do(ctx, "alice is granted everything for the run", d.grantEverything); err != nil {
		return interrupted(ctx, err)
	}
	exports, err := d.exports()
	if err != nil {
		return err
	}
	if err := writeWhole(file, []byte(exports), 0o600); err != nil {
		return fmt.Errorf("write the exports: %w", err)
	}
	fmt.Fprintf(o.Out, "\nReady. In another terminal:\n\n  . %s\n\nCtrl-C ends it; %s stays.\n", file, d.dir)
	<-ctx.Done()
	return nil
}

// runLength is how long the rig's grants last.
const runLength = "12h"

func (d *Demo) grantEverything(ctx context.Context) error {
	for _, account := range []string{pgAccount + "@" + pgTarget, pgSuperuser + "@" + pgTarget, sshAccount + "@" + sshTarget} {
		if _, err := d.people["alice"].grant(ctx, account, runLength, "the rig's run"); err != nil {
			return err
		}
	}
	return nil
}

// exports writes the files that the variables name and returns the shell text.
func (d *Demo) exports() (string, error) {
	alice := d.people["alice"].home
	direct := filepath.Join(d.dir, "sshd", "ssh_config")
	if err := os.WriteFile(direct, []byte(d.sshd.clientConfig()), 0o600); err != nil {
		return "", err
	}
	through := func(user string) string {
		return fmt.Sprintf("host=localhost port=%d dbname=%s user=%s sslmode=verify-full sslrootcert=%s sslcert=%s sslkey=%s",
			d.port(portGatewayOrders), pgDatabase, user, quoteValue(d.authority.file), quoteValue(alice.Path("tls.crt")), quoteValue(alice.Path("tls.key")))
	}
	passwords := make(map[string]string, len(names))
	for _, name := range names {
		passwords[name] = d.people[name].user.Password
	}
	people, err := json.Marshal(passwords)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(d.secretFile("people.json"), people, 0o600); err != nil {
		return "", err
	}
	var errs []error
	straight := func(user string) string {
		// libpq's password file, which keeps the password out of command lines: host:port:database:user:password.
		passwords := d.secretFile(user + ".pgpass")
		line := fmt.Sprintf("localhost:%d:*:%s:%s\n", d.postgres.port, user, d.postgres.passwords[user])
		errs = append(errs, os.WriteFile(passwords, []byte(line), 0o600))
		return fmt.Sprintf("host=localhost port=%d dbname=%s user=%s passfile=%s sslmode=verify-full sslrootcert=%s",
			d.postgres.port, pgDatabase, user, quoteValue(passwords), quoteValue(d.authority.file))
	}
	variables := [][2]string{
		{"SALLYPORT_BIN", d.options.Binary},
		{"SALLYPORT_URL", d.gateway.url},
		{"SALLYPORT_CA", d.authority.file},
		{"SALLYPORT_ISSUER", d.provider.Issuer},
		{"SALLYPORT_PASSWORDS", d.secretFile("people.json")},
		{"SALLYPORT_STATE", d.dir},
		{"SALLYPORT_PID_FILE", d.gateway.pidFile},
		{"SALLYPORT_PG", through(pgAccount)},
		{"SALLYPORT_PG_DIRECT", straight(pgAccount)},
		{"SALLYPORT_PG_SUPERUSER", through(pgSuperuser)},
		{"SALLYPORT_PG_SUPERUSER_DIRECT", straight(pgSuperuser)},
		{"SALLYPORT_TARGET_LOG", d.postgres.log},
		{"SALLYPORT_SSH_CONFIG", alice.Path("ssh_config")},
		{"SALLYPORT_SSH_DIRECT_CONFIG", direct},
		{"SALLYPORT_HOME_ALICE", alice.Dir},
		{"SALLYPORT_HOME_BOB", d.people["bob"].home.Dir},
		{"SALLYPORT_HOME_CAROL", d.people["carol"].home.Dir},
	}
	var b strings.Builder
	for _, v := range variables {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuote(v[1]))
	}
	return b.String(), errors.Join(errs...)
}

// shellQuote puts a word in single quotes, where nothing is special but the quote itself.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
