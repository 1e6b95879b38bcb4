package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newReviewCommand() *cobra.Command {
	var comment string
	var all bool
	command := &cobra.Command{
		Use:   "review [ID]",
		Short: "Look at what was done in emergencies, and say so",
		Long: `Look at what was done in emergencies, and say so. Whoever breaks the glass waits for nobody's approval; so somebody else has to
look at what they did, in time, or they can't do it again. Without an ID: what waits to be looked at.

Look at the sessions of a grant with: sallyport sessions --all, sallyport replay ID.`,
		Example: `  sallyport review
  sallyport review g-7k3mq2 --comment "restarted the primary, as INC-42 says"`,
		Args: func(command *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage(command, "one ID, or none")
			}
			return nil
		},
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 1 {
				return transition(command, "/v1/grants/"+url.PathEscape(args[0])+"/review", comment)
			}
			path := "/v1/reviews"
			if all {
				path += "?all=true"
			}
			reviews, err := get[[]api.Review](command, path)
			if err != nil {
				return err
			}
			return show(command, reviews, func(t *table) {
				t.row("GRANT", "WHO", "ACCOUNT@TARGET", "WHY", "DUE", "BY", "REVIEWED")
				for _, r := range reviews {
					by, done := strings.Join(r.Groups, ", "), ""
					if !r.Done.IsZero() {
						by, done = r.By, fmt.Sprintf("%s: %s", local(r.Done), r.Comment)
					}
					t.row(r.Grant.ID, r.Grant.Identity.Label(), r.Grant.Account+"@"+r.Grant.Target, r.Grant.Reason, local(r.Due), by, done)
				}
			})
		},
	}
	command.Flags().StringVar(&comment, "comment", "", "what you have `FOUND`")
	command.Flags().BoolVar(&all, "all", false, "those that were reviewed too")
	return command
}
