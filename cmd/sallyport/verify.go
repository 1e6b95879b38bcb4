package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sallyport/recorder/verify"
)

// verification is what `verify` is asked for.
type verification struct {
	state, logKey           string
	witnesses, kept         []string
	quorum                  int
	reconcile, target, zone string
}

func newVerifyCommand() *cobra.Command {
	var v verification
	command := &cobra.Command{
		Use:   "verify",
		Short: "Check whether the log is whole",
		Long: `Check every recording, the audit log, and the Merkle log that binds them: sums, numbers, chains, endings, and whether
anything was changed, cut, deleted or put there. What is wrong, and where, is printed, and what could not be proven. Exit 0
if everything is whole, 1 if something is not.

Without --state the gateway checks its own log, with what only it knows: which recordings are being written just now. With
--state the files of a gateway's state directory, or of a copy of it, are read here, without any gateway. Auditors have a
program of their own that does the same and nothing else, sallyport-verify (docs/auditors.md).`,
		Example: `  sallyport verify
  sallyport verify --state /var/lib/sallyport --log-key log.pub --witness-key witness.pub --checkpoint last-year.checkpoint
  sallyport verify --state COPY --reconcile postgresql.csv --target orders`,
		Args: noArguments,
		RunE: func(command *cobra.Command, _ []string) error { return v.run(command) },
	}
	flags := command.Flags()
	flags.StringVar(&v.state, "state", "", "check the files in this state `DIRECTORY`, without a gateway")
	flags.StringVar(&v.logKey, "log-key", "", "with --state: the log's public `KEY`, or a file with it")
	flags.StringArrayVar(&v.witnesses, "witness-key", nil, "with --state: a witness's public `KEY`, or a file with some")
	flags.IntVar(&v.quorum, "quorum", 0, "with --state: how `MANY` witnesses must have cosigned; 0: all")
	flags.StringArrayVar(&v.kept, "checkpoint", nil, "with --state: a `FILE` with a checkpoint that was kept")
	flags.StringVar(&v.reconcile, "reconcile", "", "with --state: compare with a target's own log in `FILE`: PostgreSQL's csvlog or sshd's auth.log")
	flags.StringVar(&v.target, "target", "", "with --reconcile: whose log that is")
	flags.StringVar(&v.zone, "zone", "UTC", "with --reconcile: the `ZONE` of times that do not say theirs")
	return command
}

func (v *verification) run(command *cobra.Command) error {
	if v.state == "" && (v.logKey != "" || len(v.witnesses) > 0 || len(v.kept) > 0 || v.reconcile != "") {
		return usage(command, "keys, checkpoints and --reconcile are for --state: the gateway's word on itself needs none")
	}
	report, err := v.check(command)
	if err != nil {
		return err
	}
	out := struct {
		*verify.Report
		Reconciliation *verify.Reconciliation `json:"reconciliation,omitempty"`
	}{Report: report}
	if v.reconcile != "" {
		if out.Reconciliation, err = v.compare(report); err != nil {
			return err
		}
	}
	stdout := command.OutOrStdout()
	if asJSON(command) {
		err = printJSON(stdout, out)
	} else if _, err = report.WriteTo(stdout); err == nil && out.Reconciliation != nil {
		_, err = out.Reconciliation.WriteTo(stdout)
	}
	switch {
	case err != nil:
		return err
	case !report.Whole:
		return quiet{errors.New("the log is damaged")}
	case out.Reconciliation != nil && len(out.Reconciliation.Foreign) > 0:
		return quiet{errors.New("somebody logged in without the gateway")}
	}
	return nil
}

func (v *verification) check(command *cobra.Command) (*verify.Report, error) {
	if v.state != "" {
		if info, err := os.Stat(filepath.Join(v.state, "recordings")); err != nil || !info.IsDir() {
			return nil, fmt.Errorf("%s is no state directory of a gateway, nor a copy: there is no directory \"recordings\" in it; the gateway's configuration names it (state)", v.state)
		}
		o, err := verify.Trust(v.logKey, v.witnesses, v.kept)
		if err != nil {
			return nil, err
		}
		o.Quorum = v.quorum
		var damages []string
		if o.Ahead, damages, err = verify.Ahead(v.state); err != nil {
			return nil, err
		}
		for _, damage := range damages {
			fmt.Fprintf(command.ErrOrStderr(), "the write-ahead log is damaged; what it lacks may be lacking in recordings: %s\n", damage)
		}
		return verify.Check(v.state, o)
	}
	c, err := open()
	if err != nil {
		return nil, err
	}
	body, err := c.Stream(command.Context(), "/v1/verify") // which may take long
	if err != nil {
		return nil, err
	}
	defer body.Close()
	report := new(verify.Report)
	if err := json.NewDecoder(body).Decode(report); err != nil {
		return nil, fmt.Errorf("read the gateway's report: %w", err)
	}
	return report, nil
}

func (v *verification) compare(report *verify.Report) (*verify.Reconciliation, error) {
	zone, err := time.LoadLocation(v.zone)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(v.reconcile)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return report.Reconcile(file, verify.ReconcileOptions{Target: v.target, Zone: zone})
}
