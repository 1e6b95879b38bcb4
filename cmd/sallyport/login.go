package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/client"
)

func newLoginCommand() *cobra.Command {
	var o client.LoginOptions
	var noBrowser bool
	var formats []string
	command := &cobra.Command{
		Use:   "login",
		Short: "Sign in, once a day",
		Long: `Sign in with your company's identity, in the browser, or with --device on any other device. Then your keys are certified and
written with the files that psql and ssh read:

  psql service=TARGET      ssh TARGET

The keys are made here and never leave this machine. Unless SALLYPORT_HOME is set, a marked block in ~/.pg_service.conf and an
Include in ~/.ssh/config let the stock programs find them; "sallyport logout" takes them out again.`,
		Example: "  sallyport login --gateway https://gateway.example:8443 --ca gateway-ca.pem",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			home, err := client.DefaultHome()
			if err != nil {
				return err
			}
			o.Out = command.ErrOrStderr()
			if o.Formats, err = client.ParseFormats(formats); err != nil {
				return usage(command, "--format: %v", err)
			}
			if !command.Flags().Changed("keychain") { // what SALLYPORT_HOME names is kept apart from the user's own
				o.Keychain = home.Shared && client.KeychainLikely()
			}
			if !noBrowser && !o.Device {
				o.Open = client.OpenBrowser
			}
			who, err := client.Login(command.Context(), home, o)
			if err != nil {
				return err
			}
			if asJSON(command) {
				return printJSON(command.OutOrStdout(), who)
			}
			out := command.OutOrStdout()
			if who.Emergency {
				fmt.Fprintf(out, "Signed in with an enrolled key, for an emergency and nothing else:\n  sallyport request ACCOUNT@TARGET --break-glass --reason \"…\"\n")
			}
			fmt.Fprintf(out, "Signed in as %s until %s.\n  sallyport targets    shows what you may ask for\n", visible(who.Label()), local(who.Expires))
			if !home.Shared {
				fmt.Fprintf(out, "For psql and ssh, since SALLYPORT_HOME is set:\n  export PGSERVICEFILE=%s\n  ssh -F %s TARGET\n",
					quoted(home.Services()), quoted(home.SSHConfig()))
			}
			for _, f := range o.Formats {
				fmt.Fprintf(out, "For programs that take no PEM (%s): %s\n", f, strings.Join(home.FormatFiles(f), ", password in "))
			}
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.Gateway, "gateway", "", "the gateway's `ADDRESS`, https://HOST[:PORT]; needed the first time")
	flags.StringVar(&o.CA, "ca", "", "PEM `FILE` with the authority of the gateway's certificate, where machines don't trust it anyway")
	flags.BoolVar(&o.Device, "device", false, "sign in on another device, by a code")
	flags.BoolVar(&o.Keychain, "keychain", false, "keep the tokens in the system's keychain; default: where there is one")
	flags.BoolVar(&o.Agent, "agent", false, "give the SSH key to ssh-agent too, for as long as its certificate is good")
	flags.StringSliceVar(&formats, "format", nil, "also write the TLS key as pkcs8 or pkcs12, for GUI programs: `FORM`")
	flags.BoolVar(&noBrowser, "no-browser", false, "print the address and open nothing")
	return command
}

// quoted is a path as a shell takes it.
func quoted(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
