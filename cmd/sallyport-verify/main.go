// Sallyport-verify is what auditors run: it proves, offline and from public keys alone, that a copy of a gateway's session
// log is whole, or says what is not. It is made of nothing of the gateway but the forms of its files.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
	_ "time/tzdata" // an auditor's machine may have none

	"sallyport/recorder/verify"
)

const help = `Check a copy of a gateway's state directory: every recording, the audit log, and the Merkle log over all of them.

  sallyport-verify DIRECTORY [flags]
  sallyport-verify BUNDLE [flags]       evidence of some sessions in one file (sallyport evidence)

  --log-key KEY         the gateway's public log key (its keys/log.pub), or a file with it
  --witness-key KEY     a witness's public key, or a file with some; may be given more than once
  --quorum N            how many of the witnesses must have cosigned; all, if not given
  --checkpoint FILE     a checkpoint that you kept, or got from a witness; may be given more than once
  --archive             the directory is a copy of an archive (a bucket): it has only what had ended
  --reconcile FILE      also compare with a target's own log: PostgreSQL's csvlog, or sshd's auth.log
  --target NAME         whose log that is
  --zone ZONE           the zone of times in it that do not say theirs, like Europe/Berlin; UTC, if not given
  --save FILE           write the newest good checkpoint there, to be given with --checkpoint the next time
  --json                print the report as JSON

Exit codes: 0 proven; 1 something is wrong; 2 wrong usage, or the files can't be read; 3 nothing is wrong, but nobody outside
the gateway vouches for it (no --log-key, or neither a witness nor a kept checkpoint covers anything).
`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// The exit codes.
const (
	exitProven   = 0
	exitWrong    = 1
	exitUsage    = 2
	exitUnproven = 3
)

// texts is a flag that may be given more than once.
type texts []string

func (t *texts) String() string     { return fmt.Sprint(*t) }
func (t *texts) Set(s string) error { *t = append(*t, s); return nil }

type options struct {
	directory, logKey, reconcile, target, zone, save string
	witnesses, kept                                  texts
	quorum                                           int
	json, archive                                    bool
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("sallyport-verify", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.logKey, "log-key", "", "")
	flags.Var(&o.witnesses, "witness-key", "")
	flags.IntVar(&o.quorum, "quorum", 0, "")
	flags.Var(&o.kept, "checkpoint", "")
	flags.StringVar(&o.reconcile, "reconcile", "", "")
	flags.StringVar(&o.target, "target", "", "")
	flags.StringVar(&o.zone, "zone", "UTC", "")
	flags.StringVar(&o.save, "save", "", "")
	flags.BoolVar(&o.json, "json", false, "")
	flags.BoolVar(&o.archive, "archive", false, "")
	for {
		if err := flags.Parse(args); err != nil {
			return o, err
		}
		if flags.NArg() == 0 {
			break
		}
		if o.directory != "" {
			return o, errors.New("say one directory")
		}
		o.directory, args = flags.Arg(0), flags.Args()[1:] // flags may follow it
	}
	if o.directory == "" {
		return o, errors.New("say which directory")
	}
	return o, nil
}

// output is what --json prints.
type output struct {
	*verify.Report
	Proven         bool                   `json:"proven"`
	Reconciliation *verify.Reconciliation `json:"reconciliation,omitempty"`
}

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, help)
		return exitProven
	}
	if err == nil {
		var code int
		if code, err = check(o, stdout, stderr); err == nil {
			return code
		}
	}
	fmt.Fprintf(stderr, "sallyport-verify: %s\nTry: sallyport-verify --help\n", verify.Visible(err.Error()))
	return exitUsage
}

func check(o options, stdout, stderr io.Writer) (int, error) {
	trust, err := verify.Trust(o.logKey, o.witnesses, o.kept)
	if err != nil {
		return 0, err
	}
	trust.Quorum, trust.Archive = o.quorum, o.archive
	zone, err := time.LoadLocation(o.zone)
	if err != nil {
		return 0, err
	}
	if info, err := os.Stat(o.directory); err != nil {
		return 0, err
	} else if info.Mode().IsRegular() {
		return checkBundle(o, trust, stdout)
	}
	var damages []string
	if trust.Ahead, damages, err = verify.Ahead(o.directory); err != nil {
		return 0, err
	}
	for _, damage := range damages {
		fmt.Fprintf(stderr, "the write-ahead log is damaged; what it lacks may be lacking in recordings: %s\n", verify.Visible(damage))
	}
	report, err := verify.Check(o.directory, trust)
	if err != nil {
		return 0, err
	}
	out := output{Report: report, Proven: report.Proven()}
	if o.reconcile != "" {
		file, err := os.Open(o.reconcile)
		if err != nil {
			return 0, err
		}
		defer file.Close()
		if out.Reconciliation, err = report.Reconcile(file, verify.ReconcileOptions{Target: o.target, Zone: zone}); err != nil {
			return 0, err
		}
	}
	if o.save != "" && report.Log != nil && report.Log.Checkpoint != "" && report.Whole {
		if err := os.WriteFile(o.save, []byte(report.Log.Checkpoint), 0o644); err != nil {
			return 0, err
		}
	}
	if err := print(stdout, o, out); err != nil {
		return 0, err
	}
	switch {
	case !report.Whole, out.Reconciliation != nil && len(out.Reconciliation.Foreign) > 0:
		return exitWrong, nil
	case !out.Proven:
		return exitUnproven, nil
	}
	return exitProven, nil
}

// checkBundle checks evidence of some sessions in one file.
func checkBundle(o options, trust verify.Options, stdout io.Writer) (int, error) {
	if len(o.kept) > 0 || o.reconcile != "" || o.save != "" {
		return 0, errors.New("--checkpoint, --reconcile and --save are for a directory: a bundle has not the whole log")
	}
	bundle, err := verify.CheckBundle(o.directory, trust)
	if err != nil {
		return 0, err
	}
	if o.json {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(bundle)
	} else {
		_, err = bundle.WriteTo(stdout)
	}
	switch {
	case err != nil:
		return 0, err
	case !bundle.Whole:
		return exitWrong, nil
	case !bundle.Proven:
		return exitUnproven, nil
	}
	return exitProven, nil
}

func print(w io.Writer, o options, out output) error {
	if o.json {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(out)
	}
	if _, err := out.Report.WriteTo(w); err != nil {
		return err
	}
	if out.Reconciliation != nil {
		if _, err := out.Reconciliation.WriteTo(w); err != nil {
			return err
		}
	}
	return nil
}
