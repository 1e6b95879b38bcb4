//go:build unix

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sallyport/configs"
	"sallyport/grant"
)

func newPolicyDiffCommand() *cobra.Command {
	var file, since string
	command := &cobra.Command{
		Use:   "diff",
		Short: "Which real requests would have gone another way by these policies",
		Long: `Ask the policies of the configuration files about the requests that the gateway really had, each as it was asked: who, what, when, from
where, with the evidence that was known. Printed are those that would have gone another way: who would get nothing, or get it at once.

It looks into the gateway's database, on its machine and as its user, whether it runs or not; write the new files beside the old ones, with the same
state and store. What was refused when it was asked is not looked at.`,
		Example: "  sallyport policy diff -c new/sallyport.yaml --since 30d",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			length, err := configs.ParseDuration(since)
			if err != nil || length <= 0 {
				return usage(command, "--since %s is no length of time; write it like 30d", since)
			}
			config, err := configs.Load(file)
			if err != nil {
				return err
			}
			db, err := lookIntoStore(command.Context(), config)
			if err != nil {
				return err
			}
			defer db.Close()
			found, asked, err := grant.WhatIfs(command.Context(), config, db, time.Now().Add(-length.D()))
			if err != nil {
				return err
			}
			return showWhatIfs(command, found, asked)
		},
	}
	command.Flags().StringVarP(&file, "config", "c", "sallyport.yaml", "configuration `FILE` with the new policies")
	command.Flags().StringVar(&since, "since", "30d", "requests of the last `TIME`")
	return command
}

// showWhatIfs prints requests that would have gone another way.
func showWhatIfs(command *cobra.Command, found []grant.WhatIf, asked int) error {
	type row struct {
		Grant     string    `json:"grant"`
		Who       string    `json:"who"`
		Account   string    `json:"account"`
		Target    string    `json:"target"`
		Requested time.Time `json:"requested"`
		Change    string    `json:"change"`
		Was       string    `json:"was"`
		Now       string    `json:"now"`
	}
	rows := []row{}
	changes := map[string]int{}
	for _, w := range found {
		changes[w.Change]++
		rows = append(rows, row{w.Grant.ID, w.Grant.Identity.Label(), w.Grant.Account, w.Grant.Target, w.Grant.Requested, w.Change, w.Was, w.Now})
	}
	if err := show(command, rows, func(t *table) {
		if len(rows) > 0 {
			t.row("GRANT", "WHO", "ACCOUNT@TARGET", "REQUESTED", "NOW", "WAS", "WOULD BE")
		}
		for _, r := range rows {
			t.row(r.Grant, r.Who, r.Account+"@"+r.Target, local(r.Requested), r.Change, r.Was, r.Now)
		}
	}); err != nil || asJSON(command) {
		return err
	}
	text := fmt.Sprintf("%d of %d requests would have gone another way", len(rows), asked)
	for _, change := range []string{grant.NowDenied, grant.NowMore, grant.NowAtOnce, grant.NowFewer, grant.NowOthers, grant.NowAnother} {
		if n := changes[change]; n > 0 {
			text += fmt.Sprintf("; %s: %d", change, n)
		}
	}
	_, err := fmt.Fprintln(command.OutOrStdout(), text)
	return err
}
