//go:build unix

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/alert"
	"sallyport/grant/policy"
)

func newCheckCommand() *cobra.Command {
	var file string
	command := &cobra.Command{
		Use:   "check",
		Short: "Validate configuration and policies",
		Long: `Read the configuration as the gateway will, with the target and policy files it names, and name file, line, column and
what was expected for everything that is wrong. Exit 0 if nothing is, 1 otherwise. What is most likely not meant is a warning: policies that can never
win, and roles and evidence that nothing names.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := configs.Load(file)
			if err == nil {
				err = grant.Check(config)
			}
			if err == nil {
				_, err = alert.Compile(config)
			}
			if problems, ok := errors.AsType[configs.Problems](err); ok {
				for _, p := range problems {
					fmt.Fprintln(command.OutOrStdout(), p)
				}
				return fmt.Errorf("%d of the configuration's lines need mending", len(problems))
			}
			if err != nil {
				return err
			}
			if _, err := witnessesOf(config); err != nil {
				return err
			}
			if len(config.Recording.Witnesses) == 0 {
				fmt.Fprintf(command.ErrOrStderr(), "warning: %s (docs/auditors.md)\n", noWitness)
			}
			for _, p := range config.LintMasking() {
				fmt.Fprintf(command.ErrOrStderr(), "warning: %s (docs/recordings.md)\n", p)
			}
			for _, p := range policy.Lint(config) {
				fmt.Fprintf(command.ErrOrStderr(), "warning: %s\n", p)
			}
			fmt.Fprintf(command.OutOrStdout(), "%s is good; targets: %d, policies: %d\n", config.File, len(config.Targets), len(config.Policies))
			return nil
		},
	}
	command.Flags().StringVarP(&file, "config", "c", "sallyport.yaml", "configuration `FILE`")
	return command
}
