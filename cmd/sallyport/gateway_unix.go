//go:build unix

package main

import "github.com/spf13/cobra"

// gatewayCommands are those of the gateway's machine; a gateway runs on unix only.
func gatewayCommands() []*cobra.Command {
	return []*cobra.Command{newServeCommand(), newCheckCommand(), newPolicyCommand(), newAlertsCommand(), newInitCommand(), newBackupCommand(), newRestoreCommand(), newDemoCommand(), newMakeKeysCommand()}
}
