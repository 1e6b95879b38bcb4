package main

import "github.com/spf13/cobra"

func newGrantsCommand() *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use:     "grants",
		Short:   "Grants you may see: yours, those you decide on, all with the permission",
		Example: "  sallyport grants\n  sallyport grants --all --json",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			return listGrants(command, "/v1/grants", all)
		},
	}
	command.Flags().BoolVar(&all, "all", false, "those that are over too")
	return command
}
