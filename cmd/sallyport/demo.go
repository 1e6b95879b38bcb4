//go:build unix

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sallyport/configs"
	"sallyport/internal/demo"
)

func newDemoCommand() *cobra.Command {
	var o demo.Options
	var check bool
	var file, durability string
	command := &cobra.Command{
		Use:     "demo",
		Short:   "All of it on this machine: provider, gateway, a throw-away PostgreSQL and sshd",
		Example: "  sallyport demo\n  sallyport demo --check",
		Long: `Start an OpenID provider with three people, the gateway, a throw-away PostgreSQL and a private sshd, all on loopback and in one
directory; print lines to paste, and stay up until Ctrl-C, which removes everything again.

With --check the whole story is told without a person: exit 0, or 1 naming the step that failed. With --env FILE the demo is
a rig for other programs: FILE gets shell exports once everything is ready (docs/rig.md).`,
		Args: noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			var err error
			if o.Binary, err = os.Executable(); err == nil {
				o.Binary, err = filepath.EvalSymlinks(o.Binary)
			}
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			switch o.Durability = configs.Durability(durability); {
			case o.Durability != configs.Written && o.Durability != configs.Synced:
				return usage(command, "--durability is %q; it is written or synced", durability)
			case check && file != "":
				return usage(command, "--check and --env exclude each other")
			}
			o.Out = command.OutOrStdout()
			// The provider's library logs to the default logger what is of no use to the person in front of the demo.
			slog.SetDefault(slog.New(slog.DiscardHandler))
			return runDemo(command.Context(), o, check, file)
		},
	}
	flags := command.Flags()
	flags.BoolVar(&check, "check", false, "tell the whole story without a person and end")
	flags.StringVar(&file, "env", "", "stay up as a rig and write shell exports to `FILE`")
	flags.StringVar(&o.Dir, "state", "", "`DIRECTORY` for everything; it is kept")
	flags.StringVar(&durability, "durability", string(configs.Synced), "when a record counts as safe: `written|synced`")
	flags.BoolVar(&o.NoTargetLog, "no-target-log", false, "leave the target's statement log off")
	return command
}

func runDemo(ctx context.Context, o demo.Options, check bool, file string) error {
	switch {
	case check:
		return demo.Check(ctx, o)
	case file != "":
		return demo.Rig(ctx, o, file)
	default:
		return demo.Run(ctx, o)
	}
}
