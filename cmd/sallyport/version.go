package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// version is set when a release is built, with -ldflags "-X main.version=…".
var version = "dev"

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Say which version this is",
		Example: "  sallyport version --json",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				System  string `json:"system"`
			}{version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			if asJSON(command) {
				return printJSON(command.OutOrStdout(), v)
			}
			_, err := fmt.Fprintf(command.OutOrStdout(), "sallyport %s (%s, %s)\n", v.Version, v.Go, v.System)
			return err
		},
	}
}
