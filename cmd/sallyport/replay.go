package main

import (
	"context"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/recorder/replay"
	"sallyport/web/api"
)

func newReplayCommand() *cobra.Command {
	o := replay.Options{Zone: time.Local}
	var from, to, identity string
	var markers bool
	var u unmasking
	command := &cobra.Command{
		Use:   "replay ID|FILE.srec",
		Short: "Play a terminal with its timing; print a database session as a timeline",
		Long: `Show what happened in a session. A terminal plays with its timing; Ctrl-C ends it. A database session is printed at once:
each statement with its parameters, rows, error and duration. What was recorded can do nothing to your terminal, unless
--raw passes it on as it was.

--from and --to take a time since the beginning (90s, 1h2m), a time of day (14:05:30) or a date and time (2026-01-31T14:05). Of
a terminal, what came before is painted at once. --markers lists the commands and statements and where they are.

What masking hides (docs/recordings.md) is hidden here too, unless --unmasked asks for it.

A locked recording is fetched as it is stored (permission recordings.export) and opened here, with --identity: a file of age
identities, as age-keygen writes it, which may be locked with a passphrase. A file that ends in .srec is read without a gateway.`,
		Example: `  sallyport replay s-0abc --markers
  sallyport replay s-0abc --from 12m30s --idle-limit 2s
  sallyport replay s-0abc --identity ~/audit-key.txt`,
		Args: exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			if o.Speed <= 0 {
				return usage(command, "--speed is more than 0")
			}
			for _, p := range []struct {
				flag, text string
				point      *replay.Point
			}{{"from", from, &o.From}, {"to", to, &o.To}} {
				if p.text == "" {
					continue
				}
				var err error
				if *p.point, err = replay.ParsePoint(p.text, time.Local); err != nil {
					return usage(command, "--%s: %v", p.flag, err)
				}
			}
			items, done, err := itemsToReplay(command, args[0], identity, u, o)
			if err != nil {
				return err
			}
			defer done()
			out := command.OutOrStdout()
			switch {
			case markers:
				return showMarkers(command, replay.Markers(items, o))
			case asJSON(command):
				return printLines(out, replay.Within(items, o))
			}
			return replay.Play(command.Context(), items, out, o)
		},
	}
	flags := command.Flags()
	flags.Float64Var(&o.Speed, "speed", 1, "play so many `TIMES` faster")
	flags.DurationVar(&o.IdleLimit, "idle-limit", 0, "longest pause, as shown: a `TIME` such as 2s; 0: as it was")
	flags.StringVar(&from, "from", "", "begin at this `TIME`")
	identityFlag(flags, &identity)
	flags.StringVar(&to, "to", "", "end at this `TIME`")
	flags.BoolVar(&markers, "markers", false, "list the commands and statements, to seek to")
	flags.BoolVar(&o.Raw, "raw", false, "pass terminal output on as it was, with all that it may do to your terminal")
	u.flags(flags)
	return command
}

// beforehand is how much earlier than asked a recording is read: the session's own beginning, from which times of day count
// here, is not exactly its recording's.
const beforehand = 10 * time.Second

// itemsFrom asks for a recording, without most of what came before what is to be shown.
func itemsFrom(ctx context.Context, c *client.Client, id string, u unmasking, o replay.Options) (iter.Seq2[api.Item, error], error) {
	path := "/v1/sessions/" + url.PathEscape(id)
	var began time.Time
	if o.From.NeedsBeginning() {
		var s api.Session
		if err := c.Do(ctx, http.MethodGet, path, nil, &s); err != nil {
			return nil, err
		}
		began = s.Started
	}
	path += "/items"
	q := url.Values{}
	u.add(q)
	if from := o.From.Since(began, o.Zone) - beforehand; from > 0 {
		q.Set("from_ns", strconv.FormatInt(int64(from), 10))
	}
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return client.Lines[api.Item](ctx, c, path), nil
}

// showMarkers prints places to seek to.
func showMarkers(command *cobra.Command, all iter.Seq2[replay.Marker, error]) error {
	if asJSON(command) {
		return printLines(command.OutOrStdout(), all)
	}
	t := newTable(command.OutOrStdout())
	t.row("FROM", "TIME", "WHAT")
	for m, err := range all {
		if err != nil {
			return err
		}
		t.row(m.Offset(), local(m.Time), m.Label)
	}
	return t.flush()
}

// printLines prints JSON Lines as they come.
func printLines[T any](w io.Writer, all iter.Seq2[T, error]) error {
	encoder := newJSON(w)
	for v, err := range all {
		if err != nil {
			return err
		}
		if err := encoder.Encode(v); err != nil {
			return err
		}
	}
	return nil
}
