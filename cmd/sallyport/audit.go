package main

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/web/api"
)

func newAuditCommand() *cobra.Command {
	var since, until string
	command := &cobra.Command{
		Use:   "audit",
		Short: "The control plane's own log: who did what, and what was refused",
		Long: `Print the audit log, oldest first: sign-ins, requests, decisions, sessions, refusals, and every reading of recordings, this
one included. --since and --until take a date (2026-01-31), a time (2026-01-31T15:04) or how long ago (90m, 7d).`,
		Args: noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			q := url.Values{}
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
	command.Flags().StringVar(&since, "since", "", "only after this `TIME`")
	command.Flags().StringVar(&until, "until", "", "only before this `TIME`")
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
