package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/recorder/transparency"
	"sallyport/recorder/transparency/witness"
)

func newWitnessCommand() *cobra.Command {
	var dir, listen, name, certificate, key string
	var logs []string
	command := &cobra.Command{
		Use:   "witness --dir DIR --log KEY...",
		Short: "Cosign the logs of gateways, so that nobody can change them unnoticed",
		Long: `Run a witness (c2sp.org/tlog-witness): it keeps the last size and root of each log it is told of, demands a proof that the
next begins with the last, and cosigns with the time. Run it where those who run the gateway can't reach: that is all its
worth. It needs 20 MB of memory and a few hundred bytes of disk for each log, which must not be set back to an older state.

The gateway's public log key is in its state directory, keys/log.pub. The witness's own is made at the first start and
printed; the gateway's configuration names it under recording.witnesses, and auditors give it to sallyport-verify.`,
		Example: `  sallyport witness --dir /var/lib/sallyport-witness --name witness.example --log gateway-log.pub --listen 0.0.0.0:8444 \
    --certificate witness.pem --key witness.key`,
		Args: noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			if dir == "" || len(logs) == 0 {
				return usage(command, "say where the witness's state is (--dir) and which logs it cosigns (--log)")
			}
			if (certificate == "") != (key == "") {
				return usage(command, "--certificate and --key belong together")
			}
			var keys []transparency.LogKey
			for _, text := range logs {
				k, err := transparency.ParseLogKey(fileOrText(text))
				if err != nil {
					return usage(command, "--log: %v", err)
				}
				keys = append(keys, k)
			}
			log := slog.New(slog.NewTextHandler(command.ErrOrStderr(), nil))
			w, err := witness.New(witness.Options{Dir: dir, Name: name, Logs: keys, Log: log})
			if err != nil {
				return err
			}
			fmt.Fprintln(command.OutOrStdout(), w.PublicKey())
			return serveWitness(command.Context(), w, listen, certificate, key, log)
		},
	}
	flags := command.Flags()
	flags.StringVar(&dir, "dir", "", "`DIRECTORY` of its key and the last checkpoints")
	flags.StringArrayVar(&logs, "log", nil, "a log's public `KEY`, or a file with it; may be given more than once")
	flags.StringVar(&name, "name", "witness", "`NAME` of the witness, when its key is made; best a host's name")
	flags.StringVar(&listen, "listen", "127.0.0.1:8444", "`ADDRESS` to answer on")
	flags.StringVar(&certificate, "certificate", "", "`FILE` of the TLS certificate; without one it talks plain HTTP, which what it says does not need to be kept from anybody")
	flags.StringVar(&key, "key", "", "`FILE` of the certificate's key")
	return command
}

// fileOrText is the content of the file of that name, or the text itself where there is none.
func fileOrText(text string) string {
	if content, err := os.ReadFile(text); err == nil && len(content) < 64<<10 {
		return strings.TrimSpace(string(content))
	}
	return text
}

func serveWitness(ctx context.Context, w *witness.Witness, listen, certificate, key string, log *slog.Logger) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	log.Info("the witness is ready", "address", listener.Addr().String())
	server := &http.Server{
		Handler: w, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(last) // what is still open then is cut
	}()
	if certificate != "" {
		err = server.ServeTLS(listener, certificate, key)
	} else {
		err = server.Serve(listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
