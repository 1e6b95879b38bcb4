package main

import (
	"fmt"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"sallyport/internal/refusal"
	"sallyport/recorder"
	"sallyport/web/api"
)

func newIndexCommand() *cobra.Command {
	var identity, output string
	command := &cobra.Command{
		Use:   "index [DIR]",
		Short: "A search index of your own, of recordings' files; the gateway's",
		Long: `Make a search index of the recordings below DIR, a copy of a gateway's state directory or of some recordings, without a gateway;
sallyport search TEXT --index FILE searches it. Locked recordings take --identity, a file of age identities; the index then
has in the clear what was recorded in them: keep it where you keep the identity. Called again, it reads what is new, and
forgets what is not in DIR any more.`,
		Example: `  sallyport index copy/recordings --identity audit-key.txt --output audit.db
  sallyport search "drop table" --index audit.db`,
		Args: atMost(1),
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 0 {
				if identity != "" || output != "" {
					return usage(command, "DIR is missing: where the recordings are")
				}
				return command.Help()
			}
			if output == "" {
				return usage(command, "--output is missing: where the index is to be")
			}
			return indexFiles(command, args[0], identity, output)
		},
	}
	identityFlag(command.Flags(), &identity)
	command.Flags().StringVarP(&output, "output", "o", "", "`FILE` of the index")
	command.AddCommand(&cobra.Command{
		Use:     "rebuild",
		Short:   "Make the search index anew, from the recordings",
		Example: "  sallyport index rebuild",
		Long: `Throw the gateway's search index away and make it anew from the recordings, in the background. Searches find everything
meanwhile; they read what is not in the index yet, which takes longer. sallyport status says how far it is.`,
		Args: noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			index, err := post[api.Index](command, "/v1/index/rebuild", nil)
			if err != nil {
				return err
			}
			if asJSON(command) {
				return printJSON(command.OutOrStdout(), index)
			}
			_, err = fmt.Fprintln(command.OutOrStdout(), "The search index is being made anew.")
			return err
		},
	})
	return command
}

// indexFiles makes an index here.
func indexFiles(command *cobra.Command, dir, identity, output string) error {
	var identities []age.Identity
	if identity != "" {
		var err error
		if identities, err = readIdentities(command, identity); err != nil {
			return err
		}
	}
	sum, err := recorder.IndexFiles(command.Context(), dir, output, interpreters, identities...)
	if err != nil {
		return err
	}
	for _, what := range sum.Unreadable {
		fmt.Fprintf(command.ErrOrStderr(), "Not read: %s\n", visible(what))
	}
	if asJSON(command) {
		err = printJSON(command.OutOrStdout(), sum)
	} else {
		_, err = fmt.Fprintf(command.OutOrStdout(), "%s has %d recordings: %d are new, %d are gone.\n", output, sum.Recordings, sum.Added, sum.Gone)
	}
	switch {
	case err != nil:
		return err
	case sum.Locked > 0:
		return refusal.New(refusal.Locked, "locked recordings were not indexed: %d", sum.Locked).
			WithDetail("what there is of others is whole").WithHint("--identity FILE, with an identity of one of their recipients")
	case len(sum.Unreadable) > 0:
		return fmt.Errorf("files could not be read: %d", len(sum.Unreadable))
	}
	return nil
}
