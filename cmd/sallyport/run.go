package main

import (
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/configs"
)

// The exit codes of run that are its own and not the command's; docs/pipelines.md promises them.
const (
	exitRunRefused = 121
	exitRunTimeout = 122
	exitRunEarly   = 123
	exitRunFailed  = 125 // before the command was started; 126 and 127 are as in shells
)

// exitStatus is an error that is only an exit code: the command's own, or one whose words have been printed.
type exitStatus struct {
	code int
	err  error // nil: nothing to say
}

func (e *exitStatus) Error() string {
	if e.err == nil {
		return "the command failed"
	}
	return e.err.Error()
}

func (e *exitStatus) Unwrap() error { return e.err }

func newRunCommand() *cobra.Command {
	o := client.RunOptions{}
	need, wait := "0s", "10m"
	command := &cobra.Command{
		Use:   "run ACCOUNT@TARGET… -- COMMAND",
		Short: "Run a command with access: for pipelines",
		Long: `Run COMMAND with access to accounts on targets: sign in with the job's own token, ask for a grant for each, wait for approval,
and give all of it back when COMMAND ends, however it ends.

The token is that of --token-file, of $SALLYPORT_TOKEN or $SALLYPORT_ID_TOKEN, or what GitHub Actions gives the job; without any
of them your own sign-in is used. COMMAND finds PG* variables, PGSERVICEFILE, DATABASE_URL and JDBC_URL for the first PostgreSQL
target, the same behind a prefix for each (ORDERS_DATABASE_URL), SALLYPORT_SSH_CONFIG and GIT_SSH_COMMAND.

The exit status is COMMAND's, or: 121 refused, 122 timed out or too little time left, 123 a grant ended early and COMMAND failed,
125 failed before COMMAND was started, 126 and 127 COMMAND can't be run or is not there.`,
		Example: `  sallyport run app@orders --reason "deploy $SHA" -- psql -f migrate.sql
  sallyport run app@orders deploy@web-1 --reason "deploy $SHA" --duration 15m --need 5m -- ./deploy.sh`,
		Args: func(command *cobra.Command, args []string) error {
			at := command.ArgsLenAtDash()
			switch {
			case at < 0 || at == len(args):
				return usage(command, "the command is missing; write it behind --")
			case at == 0:
				return usage(command, "ACCOUNT@TARGET is missing")
			}
			return nil
		},
		RunE: func(command *cobra.Command, args []string) error {
			at := command.ArgsLenAtDash()
			for _, text := range args[:at] {
				account, target, found := cutAccount(text)
				if !found {
					return usage(command, "%q is not ACCOUNT@TARGET", text)
				}
				o.Accounts = append(o.Accounts, client.Account{Name: account, Target: target})
			}
			for _, d := range []struct {
				flag, text string
				to         *time.Duration
			}{{"need", need, &o.Need}, {"wait", wait, &o.Wait}} {
				parsed, err := configs.ParseDuration(d.text)
				if err != nil {
					return usage(command, "--%s: %v", d.flag, err)
				}
				*d.to = parsed.D()
			}
			if o.Gateway == "" {
				o.Gateway = os.Getenv("SALLYPORT_GATEWAY")
			}
			if o.CA == "" {
				o.CA = os.Getenv("SALLYPORT_CA")
			}
			o.Command, o.Progress = args[at:], command.ErrOrStderr()
			home, err := client.DefaultHome()
			if err != nil {
				return err
			}
			status, err := client.Run(command.Context(), home, o)
			return runExit(status, err)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.Reason, "reason", "", "`WHY`, for those who approve and for the record")
	flags.StringVar(&o.Ticket, "ticket", "", "the `TICKET` that it is for, where the policy asks for one: OPS-42")
	flags.StringVar(&o.Duration, "duration", "", "for how `LONG`: 15m, 1h; default: the policy's")
	flags.StringVar(&need, "need", need, "do not start with less `TIME` than this left")
	flags.StringVar(&wait, "wait", wait, "wait for approval this `LONG`")
	flags.StringVar(&o.TokenFile, "token-file", "", "`FILE` with the job's token")
	flags.StringVar(&o.Audience, "audience", "", "whom to ask a token for; default: the gateway's `ADDRESS`")
	flags.StringVar(&o.Gateway, "gateway", "", "the gateway's `ADDRESS`; default: $SALLYPORT_GATEWAY, else where you are signed in")
	flags.StringVar(&o.CA, "ca", "", "PEM `FILE` with the authority of the gateway's certificate; default: $SALLYPORT_CA")
	return command
}

// runExit is the exit code of a run.
func runExit(status int, err error) error {
	if err == nil && status == 0 {
		return nil
	}
	var stopped *client.Stopped
	switch {
	case errors.As(err, &stopped):
		return &exitStatus{map[client.StoppedWhy]int{
			client.StoppedRefused: exitRunRefused, client.StoppedTimedOut: exitRunTimeout, client.StoppedEarly: exitRunEarly,
		}[stopped.Why], err}
	case err != nil && status == 0:
		return &exitStatus{exitRunFailed, err}
	}
	return &exitStatus{status, err}
}
