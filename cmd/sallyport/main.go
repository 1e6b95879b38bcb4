// Sallyport stands between people or pipelines and production: `sallyport serve` is the gateway, everything else its
// clients. This package only wires the rooms; each subcommand is a file of its name.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// run is main with an exit code.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	return report(root.ErrOrStderr(), err)
}

// newRootCommand is the whole command line.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "Access to production, granted for a time and recorded",
		Long: `Sallyport is a gateway to PostgreSQL and SSH hosts: people sign in with the company's identity, are granted an account for a
time and use stock psql and ssh; everything is recorded before it reaches the target.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 not signed in.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE:          func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	root.PersistentFlags().Bool("json", false, "print results as JSON, for programs")
	root.SetFlagErrorFunc(func(command *cobra.Command, err error) error { return usage(command, "%v", err) })
	root.AddGroup(
		&cobra.Group{ID: groupAccess, Title: "Your access:"},
		&cobra.Group{ID: groupDecide, Title: "Deciding:"},
		&cobra.Group{ID: groupRecord, Title: "Sessions and recordings:"},
		&cobra.Group{ID: groupGateway, Title: "The gateway:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupAccess, newLoginCommand(), newLogoutCommand(), newRenewCommand(), newWhoamiCommand(), newTargetsCommand(), newRequestCommand(), newReleaseCommand(), newExtendCommand(), newCredentialsCommand(), newKeysCommand(), newRunCommand(), newTunnelCommand())
	add(groupDecide, newRequestsCommand(), newApproveCommand(), newDenyCommand(), newGrantsCommand(), newRevokeCommand(), newReviewCommand(), newNotificationsCommand())
	add(groupRecord, newSessionsCommand(), newKillCommand(), newWatchCommand(), newReplayCommand(), newSearchCommand(), newExportCommand(), newEvidenceCommand(), newReportCommand(), newAuditCommand(), newVerifyCommand(), newHoldCommand(), newShredCommand(), newIndexCommand(), newArchiveCommand(), newStatusCommand())
	add(groupGateway, gatewayCommands()...)
	add(groupGateway, newWitnessCommand(), newAuthoritiesCommand())
	root.AddCommand(newVersionCommand())
	root.InitDefaultCompletionCmd()
	addCompletions(root)
	return root
}

// The groups of the help page.
const (
	groupAccess  = "access"
	groupDecide  = "decide"
	groupRecord  = "record"
	groupGateway = "gateway"
)
