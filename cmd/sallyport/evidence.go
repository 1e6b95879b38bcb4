package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

func newEvidenceCommand() *cobra.Command {
	var output, reason string
	command := &cobra.Command{
		Use:   "evidence SESSION|GRANT",
		Short: "Write one file that proves what a session was",
		Long: `Write a bundle of one session, or of all sessions under a grant: recordings, proofs that they are in the log over all
recordings, its checkpoint with the witnesses' cosignatures, the grant with its approvals, and how to check all that. Who gets
the file needs nothing else but sallyport-verify and two public keys (docs/auditors.md). You need the permission to export
the recordings, and the audit log tells of it. A bundle has recordings whole: where one is not locked and masking hides something in it, you need
the permission recordings.unmask too, and --reason. Sessions that live can't be bundled.`,
		Example: "  sallyport evidence g-7k3mq2 --output incident-42.zip\n  sallyport-verify incident-42.zip --log-key log.pub --witness-key witness.pub",
		Args:    exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			of := "sessions"
			if strings.HasPrefix(args[0], "g-") {
				of = "grants"
			}
			if output == "" {
				output = args[0] + ".evidence.zip"
			}
			c, err := open()
			if err != nil {
				return err
			}
			path := "/v1/" + of + "/" + url.PathEscape(args[0]) + "/evidence"
			if reason != "" {
				path += "?" + url.Values{"reason": {reason}}.Encode()
			}
			body, err := c.Stream(command.Context(), path)
			if err != nil {
				return err
			}
			defer body.Close()
			if err := writeWhole(output, body); err != nil {
				return err
			}
			if asJSON(command) {
				return printJSON(command.OutOrStdout(), map[string]string{"file": output})
			}
			_, err = fmt.Fprintf(command.OutOrStdout(), "%s\nCheck it with: sallyport-verify %s --log-key log.pub --witness-key witness.pub\n", output, output)
			return err
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "", "`FILE` to write; default: the ID and .evidence.zip")
	command.Flags().StringVar(&reason, "reason", "", "why, where what masking hides is in it: a `TEXT` for the audit log")
	return command
}
