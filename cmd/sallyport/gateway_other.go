//go:build !unix

package main

import "github.com/spf13/cobra"

// gatewayCommands are none: a gateway runs on unix only.
func gatewayCommands() []*cobra.Command { return nil }
