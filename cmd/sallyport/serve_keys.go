//go:build unix

package main

import (
	"context"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"sallyport/configs"
	"sallyport/recorder/lock"
)

const makeKeys = "make-keys"

// newMakeKeysCommand is what a gateway runs for itself: see lock.Smith.
func newMakeKeysCommand() *cobra.Command {
	return &cobra.Command{
		Use:    makeKeys,
		Short:  "Make keys of recordings, for serve",
		Hidden: true,
		Args:   noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			return lock.Make(command.InOrStdin(), command.OutOrStdout())
		},
	}
}

// newSmith makes the keys of locked recordings in processes of their own, and begins where the configuration has recipients.
func newSmith(config *configs.Config) *lock.Smith {
	smith := &lock.Smith{Command: func(ctx context.Context) *exec.Cmd {
		program, err := os.Executable()
		if err != nil {
			program = os.Args[0]
		}
		cmd := exec.CommandContext(ctx, program, makeKeys) //nolint:gosec // this very program
		cmd.Env = []string{}                               // not the gateway's, which may have secrets
		return cmd
	}}
	prepare := func(recipients, input []string) {
		if len(recipients) == 0 {
			return
		}
		smith.Prepare(configs.WithInputRecipients(recipients, input))
		if len(input) > 0 {
			smith.Prepare(input)
		}
	}
	prepare(config.Recording.Recipients, config.Recording.RecipientsInput)
	for _, t := range config.Targets {
		prepare(t.Recipients, t.RecipientsInput)
	}
	return smith
}
