package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sallyport/recorder/verify"
)

func newVerifyCommand() *cobra.Command {
	var state string
	command := &cobra.Command{
		Use:   "verify",
		Short: "Check whether the log is whole",
		Long: `Check every recording and the audit log: sums, numbers, chains, endings. What is damaged, and where, is printed. Exit 0 if
everything is whole, 1 if something is damaged or missing.

Without --state the gateway checks its own log, with what only it knows: which recordings are being written just now. With
--state the files of a gateway's state directory, or of a copy of it, are read here, without any gateway.`,
		Args: noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			report, err := checkLog(command, state)
			if err != nil {
				return err
			}
			out := command.OutOrStdout()
			if asJSON(command) {
				err = printJSON(out, report)
			} else {
				_, err = report.WriteTo(out)
			}
			if err == nil && !report.Whole {
				err = quiet{errors.New("the log is damaged")}
			}
			return err
		},
	}
	command.Flags().StringVar(&state, "state", "", "check the files in this state `DIRECTORY`, without a gateway")
	return command
}

func checkLog(command *cobra.Command, state string) (*verify.Report, error) {
	if state != "" {
		return verify.Check(state, verify.Options{})
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
