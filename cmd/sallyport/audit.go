package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/web/api"
)

func newAuditCommand() *cobra.Command {
	var since, until, kind, actor, target, grant, session string
	var last int
	command := &cobra.Command{
		Use:   "audit",
		Short: "The control plane's own log: who did what, and what was refused",
		Long: `Print the audit log, oldest first: sign-ins, requests, decisions, sessions, refusals, and every reading of recordings, this
one included. --since and --until take a date (2026-01-31), a time (2026-01-31T15:04) or how long ago (90m, 7d).`,
		Example: "  sallyport audit --last 20\n  sallyport audit --since 7d --kind grant --person alice\n  sallyport audit --session s-0abc --json",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			if last < 0 {
				return usage(command, "--last is more than 0")
			}
			q := url.Values{}
			setGiven(q, map[string]string{"kind": kind, "actor": actor, "target": target, "grant": grant, "session": session})
			if last > 0 {
				q.Set("last", strconv.Itoa(last))
			}
			if err := addTimes(command, q, since, until); err != nil {
				return err
			}
			c, err := open()
			if err != nil {
				return err
			}
			out := command.OutOrStdout()
			encoder := newJSON(out)
			for e, err := range client.Lines[api.AuditEvent](command.Context(), c, "/v1/audit?"+q.Encode()) {
				if err != nil {
					return err
				}
				if asJSON(command) {
					err = encoder.Encode(e)
				} else {
					_, err = fmt.Fprintln(out, auditLine(e))
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVar(&since, "since", "", "only after this `TIME`")
	flags.StringVar(&until, "until", "", "only before this `TIME`")
	flags.StringVar(&kind, "kind", "", "only this `KIND` of event, or what begins with it up to a dot: grant, recording.replayed")
	flags.StringVar(&actor, "person", "", "only what this `PERSON` did: part of a name, an issuer or a subject")
	flags.StringVar(&target, "target", "", "only about this `TARGET`")
	flags.StringVar(&grant, "grant", "", "only about this grant (`ID`)")
	flags.StringVar(&session, "session", "", "only about this session (`ID`)")
	flags.IntVar(&last, "last", 0, "only the newest, this `NUMBER` of them; 0: all")
	return command
}

// auditLine is an event for people.
func auditLine(e api.AuditEvent) string {
	who := e.ActorName
	if who == "" {
		who = e.Actor
	}
	words := []string{local(e.Time), visible(e.Kind), e.Outcome, visible(who)}
	if e.Target != "" {
		target := e.Target
		if e.Account != "" {
			target = e.Account + "@" + target
		}
		words = append(words, visible(target))
	}
	for _, word := range []string{e.Grant, e.Session} {
		if word != "" {
			words = append(words, visible(word))
		}
	}
	if e.Reason != "" {
		words = append(words, fmt.Sprintf("%q", e.Reason))
	}
	return strings.Join(words, "  ")
}

// setGiven puts what was given into a query.
func setGiven(q url.Values, given map[string]string) {
	for name, value := range given {
		if value != "" {
			q.Set(name, value)
		}
	}
}

// addTimes puts --since and --until into a query.
func addTimes(command *cobra.Command, q url.Values, since, until string) error {
	for name, value := range map[string]string{"since": since, "until": until} {
		if value == "" {
			continue
		}
		t, err := moment(value, time.Now())
		if err != nil {
			return usage(command, "--%s: %v", name, err)
		}
		q.Set(name, t.UTC().Format(time.RFC3339))
	}
	return nil
}
