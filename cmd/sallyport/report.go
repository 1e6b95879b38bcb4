package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	written "sallyport/client/report"
	"sallyport/web/api"
)

// reportKinds are the reports there are.
var reportKinds = []string{"access", "sessions", "integrity", "review"}

func newReportCommand() *cobra.Command {
	var from, to, form, output string
	command := &cobra.Command{
		Use:   "report access|sessions|integrity|review",
		Short: "Make a report for auditors",
		Long: `Make a report on a period:

  access     who asked for access, why, who decided, what was done with it, and how it ended; refusals
  sessions   what sessions there were, how they ended, and who looked at recordings
  integrity  whether the log is whole, what was purged, held and changed
  review     who may have what and whether they used it, with room to sign off; changes of policies and credentials

Every figure names the records it counts, and the report the clauses that it helps to answer (SOC 2 CC6 and CC7, PCI DSS 7, 8 and
10, ISO 27001 A.5 and A.8, GDPR 30 and 32). It takes the permissions log.verify, grants.list and sessions.list, for everything; what
was done is told to who may also read all recordings.`,
		Example:   "  sallyport report review --from 90d\n  sallyport report access --from 2026-07-01 --to 2026-10-01 --format csv --output access-q3.csv",
		Args:      exactly("the report: access, sessions, integrity or review"),
		ValidArgs: reportKinds,
		RunE: func(command *cobra.Command, args []string) error {
			if !slices.Contains(reportKinds, args[0]) {
				return usage(command, "there is no report %q; there are access, sessions, integrity and review", args[0])
			}
			if asJSON(command) {
				form = "json"
			}
			if !slices.Contains([]string{"markdown", "csv", "json"}, form) {
				return usage(command, "--format is markdown, csv or json")
			}
			now := time.Now()
			since, err := moment(from, now)
			if err != nil {
				return usage(command, "--from: %v", err)
			}
			until := now
			if to != "" {
				if until, err = moment(to, now); err != nil {
					return usage(command, "--to: %v", err)
				}
			}
			q := url.Values{"from": {since.UTC().Format(time.RFC3339Nano)}, "to": {until.UTC().Format(time.RFC3339Nano)}}
			c, err := open()
			if err != nil {
				return err
			}
			body, err := c.Stream(command.Context(), "/v1/reports/"+args[0]+"?"+q.Encode()) // which may take long
			if err != nil {
				return err
			}
			defer body.Close()
			var r api.AuditReport
			if err := json.NewDecoder(body).Decode(&r); err != nil {
				return fmt.Errorf("read the report: %w", err)
			}
			return writeReport(command, r, form, output)
		},
	}
	flags := command.Flags()
	flags.StringVar(&from, "from", "30d", "the period's beginning: a date, a time, or how long ago, like 90d")
	flags.StringVar(&to, "to", "", "its end; default: now")
	flags.StringVar(&form, "format", "markdown", "`FORM`: markdown, csv, json")
	flags.StringVarP(&output, "output", "o", "", "`FILE` to write; default: standard output")
	return command
}

func writeReport(command *cobra.Command, r api.AuditReport, form, output string) (err error) {
	out := command.OutOrStdout()
	if output != "" && output != "-" {
		file, err := os.OpenFile(filepath.Clean(output), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer func() {
			if closed := file.Close(); err == nil {
				err = closed
			}
		}()
		out = file
	}
	if form == "json" {
		return printJSON(out, r)
	}
	return written.Write(out, r, form == "csv")
}
