package main

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/web/api"
)

// liveTime is how long it takes the gateway to read again what live sessions did so far, as a rule.
const liveTime = 2 * time.Second

func newSessionsCommand() *cobra.Command {
	var all, live bool
	var person, target, account, protocol, grant, since, until string
	command := &cobra.Command{
		Use:   "sessions",
		Short: "Sessions: yours, and with the permission everybody's",
		Long: `List sessions that are open: yours, and with the permission sessions.list everybody's; --all has those that have ended too.

--live says what is done in them: the last command, how many there were, and the bytes of what was said and shown, of sessions that you
may watch (permission sessions.watch; that you looked is in the audit log). "watch ID" follows one of them, "kill ID" ends it.`,
		Example: "  sallyport sessions --live\n  sallyport sessions --all --since 7d --target orders\n  sallyport sessions --all --json",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			if all && live {
				return usage(command, "--all lists sessions that are over, of which --live has nothing to say")
			}
			q := url.Values{}
			if all {
				q.Set("all", "true")
			}
			setGiven(q, map[string]string{"person": person, "target": target, "account": account, "protocol": protocol, "grant": grant})
			if err := addTimes(command, q, since, until); err != nil {
				return err
			}
			c, err := open()
			if err != nil {
				return err
			}
			sessions, err := client.List[api.Session](command.Context(), c, "/v1/sessions?"+q.Encode())
			if err != nil {
				return err
			}
			if live {
				return showLive(command, c, sessions)
			}
			return show(command, sessions, func(t *table) {
				t.row("ID", "WHO", "ACCOUNT@TARGET", "GRANT", "STARTED", "ENDED", "WHY", "REASON")
				for _, s := range sessions {
					ended := ""
					if s.Ended != nil {
						ended = local(*s.Ended)
					}
					t.row(s.ID, s.Identity.Label(), s.Account+"@"+s.Target, s.Grant, local(s.Started), ended, s.EndReason, s.Reason)
				}
			})
		},
	}
	flags := command.Flags()
	flags.BoolVar(&all, "all", false, "those that have ended too")
	flags.BoolVar(&live, "live", false, "what is done in them: the last command, and how much")
	flags.StringVar(&person, "person", "", "only those of this `PERSON`: part of a name, an e-mail address or a subject")
	flags.StringVar(&target, "target", "", "only those on this `TARGET`")
	flags.StringVar(&account, "account", "", "only those as this `ACCOUNT`")
	flags.StringVar(&protocol, "protocol", "", "only those of this `PROTOCOL`: postgres or ssh")
	flags.StringVar(&grant, "grant", "", "only those under this grant (`ID`)")
	flags.StringVar(&since, "since", "", "only those that began after this `TIME`: a date, a time, or how long ago")
	flags.StringVar(&until, "until", "", "only those that began before this `TIME`")
	return command
}

// liveSession is a session and how it goes.
type liveSession struct {
	api.Session
	Live *api.Pulse `json:"live,omitempty"`
}

func showLive(command *cobra.Command, c *client.Client, sessions []api.Session) error {
	pulses := map[string]api.Pulse{}
	ctx, cancel := context.WithTimeout(command.Context(), liveTime)
	defer cancel()
	// The first list comes at once, and another when there is more to say.
	for list, err := range client.Events[[]api.Pulse](ctx, c, "/v1/sessions/live") {
		if err != nil && ctx.Err() == nil {
			return err
		}
		for _, p := range list {
			pulses[p.Session] = p
		}
	}
	if err := command.Context().Err(); err != nil {
		return err
	}
	out := make([]liveSession, 0, len(sessions))
	for _, s := range sessions {
		one := liveSession{Session: s}
		if p, ok := pulses[s.ID]; ok {
			one.Live = &p
		}
		out = append(out, one)
	}
	return show(command, out, func(t *table) {
		t.row("ID", "WHO", "ACCOUNT@TARGET", "GRANT", "STARTED", "UNTIL", "COMMANDS", "BYTES", "LAST")
		for _, s := range out {
			row := []string{s.ID, s.Identity.Label(), s.Account + "@" + s.Target, s.Grant, local(s.Started), "", "", "", ""}
			if p := s.Live; p != nil {
				row[5] = local(p.Until)
				if p.Seen {
					row[6], row[7], row[8] = strconv.Itoa(p.Commands), strconv.FormatInt(p.Bytes, 10), p.Last
				}
			}
			t.row(row...)
		}
	})
}
