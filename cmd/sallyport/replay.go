package main

import (
	"encoding/json"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/recorder/replay"
	"sallyport/web/api"
)

func newReplayCommand() *cobra.Command {
	o := replay.Options{Zone: time.Local}
	command := &cobra.Command{
		Use:   "replay ID",
		Short: "Play a terminal with its timing; print a database session as a timeline",
		Long: `Show what happened in a session. A terminal plays with its timing; Ctrl-C ends it. A database session is printed at once:
each statement with its parameters, rows, error and duration. What was recorded can do nothing to your terminal, unless
--raw passes it on as it was.`,
		Args: exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			if o.Speed <= 0 {
				return usage(command, "--speed is more than 0")
			}
			c, err := open()
			if err != nil {
				return err
			}
			items := client.Lines[api.Item](command.Context(), c, "/v1/sessions/"+url.PathEscape(args[0])+"/items")
			out := command.OutOrStdout()
			if !asJSON(command) {
				return replay.Play(command.Context(), items, out, o)
			}
			encoder := json.NewEncoder(out)
			encoder.SetEscapeHTML(false)
			for item, err := range items {
				if err != nil {
					return err
				}
				if err := encoder.Encode(item); err != nil {
					return err
				}
			}
			return nil
		},
	}
	flags := command.Flags()
	flags.Float64Var(&o.Speed, "speed", 1, "play so many `TIMES` faster")
	flags.DurationVar(&o.IdleLimit, "idle-limit", 0, "longest pause, as shown: a `TIME` such as 2s; 0: as it was")
	flags.BoolVar(&o.Raw, "raw", false, "pass terminal output on as it was, with all that it may do to your terminal")
	return command
}
