package main

import (
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newShredCommand() *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:   "shred ID",
		Short: "Destroy a recording for good, before its time",
		Long: `Destroy the recording of session ID, which has ended: its file with the key in it, and what the gateway has derived from it. The
log over all recordings and the audit log keep that it was, its hash, and who destroyed it when and why; verify says so. It
takes the permission recordings.shred, not be a session of yours, and not be on hold. What the archive has of it is deleted there, once
no lock keeps it any more: sallyport archive status. Other copies, of the recording, of disks or of an auditor's index, are not
reached. There is no way back.`,
		Example: `  sallyport shred s-0abc --reason "erasure request 2026-113"`,
		Args:    exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			if reason == "" {
				return usage(command, "--reason is missing: say why the recording is to be destroyed")
			}
			return done(command, http.MethodPost, "/v1/sessions/"+url.PathEscape(args[0])+"/shred", api.Decision{Comment: reason},
				"The recording of session %s is destroyed. What it was is still in the log: sallyport verify", args[0])
		},
	}
	command.Flags().StringVar(&reason, "reason", "", "`WHY`, for the record")
	return command
}
