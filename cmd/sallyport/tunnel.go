package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/configs"
)

func newTunnelCommand() *cobra.Command {
	o := client.TunnelOptions{}
	wait := "10m"
	command := &cobra.Command{
		Use:   "tunnel ACCOUNT@TARGET…",
		Short: "Local ports for programs that speak neither certificates nor SCRAM",
		Long: `Open a port on this machine's loopback for each account, and carry what comes there to the gateway as you. The program at the
port needs no certificate, password or TLS. It may name any user; the account is the port's.

On Linux nobody but you gets through a port, not even root; elsewhere every program of this machine does while it is open. --listen
also takes the path of a socket, which is yours alone: for psql /run/user/1000/.s.PGSQL.5432.

With --reason a grant is asked for first, and given back at the end. The tunnel stays until Ctrl-C or the end of your sign-in, tells
how much time is left, and reaches the gateway anew after that has been away.`,
		Example: `  sallyport tunnel app@orders --listen 5433
  sallyport tunnel app@orders deploy@web-1 --listen 5433 --listen 2222 --reason "INC-42: slow checkout"`,
		Args: func(command *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(command, "ACCOUNT@TARGET is missing")
			}
			return nil
		},
		RunE: func(command *cobra.Command, args []string) error {
			for _, text := range args {
				account, target, found := cutAccount(text)
				if !found {
					return usage(command, "%q is not ACCOUNT@TARGET", text)
				}
				o.Accounts = append(o.Accounts, client.Account{Name: account, Target: target})
			}
			if len(o.Listen) > len(args) {
				return usage(command, "--listen is given %d times for %d accounts", len(o.Listen), len(args))
			}
			parsed, err := configs.ParseDuration(wait)
			if err != nil {
				return usage(command, "--wait: %v", err)
			}
			o.Wait, o.Progress = parsed.D(), command.ErrOrStderr()
			home, err := client.DefaultHome()
			if err != nil {
				return err
			}
			o.Ready = func(ports []client.LocalPort) error {
				return show(command, ports, func(t *table) {
					t.row("ACCOUNT", "HOST", "PORT", "UNTIL", "CONNECT WITH")
					for _, p := range ports {
						number := ""
						if p.Port != 0 {
							number = strconv.Itoa(p.Port)
						}
						t.row(p.Account+"@"+p.Target, p.Host, number, local(p.Until), p.Connect)
					}
				})
			}
			if err := client.Tunnel(command.Context(), home, o); !errors.Is(err, context.Canceled) { // which is Ctrl-C
				return err
			}
			_, err = fmt.Fprintln(command.ErrOrStderr(), "sallyport: the tunnel is closed")
			return err
		},
	}
	flags := command.Flags()
	flags.StringArrayVar(&o.Listen, "listen", nil, "`PORT`, HOST:PORT on loopback, or a socket's path; once for each account, default: any port that is free")
	flags.StringVar(&o.Reason, "reason", "", "ask for grants, and `WHY`")
	flags.StringVar(&o.Ticket, "ticket", "", "the `TICKET` that it is for, where the policy asks for one: OPS-42")
	flags.StringVar(&o.Duration, "duration", "", "for how `LONG`: 15m, 1h; default: the policy's")
	flags.StringVar(&wait, "wait", wait, "wait for approval this `LONG`")
	return command
}
