package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newHoldCommand() *cobra.Command {
	var reason string
	var release bool
	command := &cobra.Command{
		Use:   "hold [ID]",
		Short: "Keep a recording from being deleted when its time is over; list those on hold",
		Long: `Put the recording of session ID on hold: it is not deleted when its time (recording.keep) is over, until --release. Without an
ID, list the recordings on hold.`,
		Example: `  sallyport hold s-0abc --reason "case 7"
  sallyport hold s-0abc --release`,
		Args: atMost(1),
		RunE: func(command *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && (release || reason != ""):
				return usage(command, "ID is missing")
			case len(args) == 0:
				return listHolds(command)
			case reason == "" && !release:
				return usage(command, "--reason is missing: say why the recording is to be kept")
			}
			path := "/v1/sessions/" + url.PathEscape(args[0])
			if release {
				return done(command, http.MethodPost, path+"/unhold", api.Decision{Comment: reason}, "The recording of session %s goes when its time is over.", args[0])
			}
			h, err := post[api.Hold](command, path+"/hold", api.Decision{Comment: reason})
			if err != nil {
				return err
			}
			if asJSON(command) {
				return printJSON(command.OutOrStdout(), h)
			}
			_, err = fmt.Fprintf(command.OutOrStdout(), "The recording of session %s is kept until: sallyport hold %s --release\n", h.Session, h.Session)
			return err
		},
	}
	command.Flags().StringVar(&reason, "reason", "", "`WHY`, for the record")
	command.Flags().BoolVar(&release, "release", false, "end the hold")
	return command
}

func listHolds(command *cobra.Command) error {
	holds, err := get[[]api.Hold](command, "/v1/holds")
	if err != nil {
		return err
	}
	return show(command, holds, func(t *table) {
		t.row("ID", "WHO", "ACCOUNT@TARGET", "STARTED", "HELD BY", "SINCE", "REASON")
		for _, h := range holds {
			t.row(h.Session, h.Person, h.Account+"@"+h.Target, local(h.Started), h.By, local(h.Since), h.Reason)
		}
	})
}
