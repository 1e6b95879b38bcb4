//go:build unix

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sallyport/configs/example"
	"sallyport/proxy"
)

func newInitCommand() *cobra.Command {
	in := example.Installation{Certificate: "tls.crt", Key: "tls.key"}
	selfSigned := false
	command := &cobra.Command{
		Use:   "init DIRECTORY",
		Short: "Write a commented configuration for a real installation",
		Long: `Write sallyport.yaml, targets.yaml and policies.yaml, commented, into DIRECTORY. Nothing is overwritten. docs/install.md goes
on from there to the first recorded session.`,
		Example: "  sallyport init /etc/sallyport --host gateway.example --issuer https://login.example",
		Args:    exactly("DIRECTORY"),
		RunE: func(command *cobra.Command, args []string) error {
			for _, given := range []struct{ flag, value, like string }{{"host", in.Host, "gateway.example"}, {"issuer", in.Issuer, "https://login.example"}} {
				if given.value == "" {
					return usage(command, "--%s is missing: like %s", given.flag, given.like)
				}
			}
			directory := args[0]
			certificate, key := filepath.Join(directory, in.Certificate), filepath.Join(directory, in.Key)
			if selfSigned {
				for _, path := range []string{certificate, key} {
					if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
						return fmt.Errorf("%s is there already; nothing was written", path)
					}
				}
				in.CA = in.Certificate
			}
			paths, err := example.Write(directory, in)
			if err != nil {
				return err
			}
			if selfSigned {
				if err := proxy.SelfSigned(in.Host, certificate, key); err != nil {
					return err
				}
				paths = append(paths, certificate, key)
			}
			out := command.OutOrStdout()
			if asJSON(command) {
				return printJSON(out, map[string]any{"wrote": paths})
			}
			for _, path := range paths {
				fmt.Fprintln(out, "wrote", path)
			}
			proof, trust := fmt.Sprintf("Put the certificate for %s and its key into %s and %s.", in.Host, certificate, key), ""
			if selfSigned {
				proof, trust = "Replace the self-signed certificate before anybody but you signs in.", " --ca "+certificate
			}
			fmt.Fprintf(out, `
Next:
  1. Register the gateway at %s with the redirect address https://%s:8443/oauth/callback
     and put the client's secret into %s (mode 0600).
  2. %s
  3. Write your targets and policies into the two files beside sallyport.yaml.
  4. sallyport check -c %s
  5. sallyport serve -c %[5]s
  6. sallyport login --gateway https://%[2]s:8443%s
`, in.Issuer, in.Host, filepath.Join(directory, "provider-secret"), proof, filepath.Join(directory, "sallyport.yaml"), trust)
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVar(&in.Host, "host", "", "`NAME` under which clients reach the gateway (required)")
	flags.StringVar(&in.Issuer, "issuer", "", "your OpenID provider's `ADDRESS` (required)")
	flags.StringVar(&in.State, "state", "/var/lib/sallyport", "state `DIRECTORY`")
	flags.BoolVar(&selfSigned, "self-signed", false, "also make a self-signed server certificate, for trying it out")
	return command
}
