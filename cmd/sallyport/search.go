package main

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/configs"
	"sallyport/recorder"
	"sallyport/web/api"
)

func newSearchCommand() *cobra.Command {
	var target, account, person, grant, protocol, since, until, index string
	var failed bool
	var limit int
	command := &cobra.Command{
		Use:   "search TEXT",
		Short: "Find statements, commands and terminal lines",
		Long: `Find TEXT in the statements, commands, file names and terminal lines of the recordings you may read; upper and lower case are
the same. --errors leaves only what failed: statements that ended in an error, commands with another exit status than 0 or
ended by a signal, file operations that were refused. --since and --until take a date (2026-01-31), a time (2026-01-31T15:04) or how long ago (90m, 7d). --index searches an index that sallyport index made, without a gateway: that
is how locked recordings are searched.`,
		Example: `  sallyport search "drop table" --target orders --since 7d
  sallyport search "drop table" --index audit.db`,
		Args: exactly("TEXT"),
		RunE: func(command *cobra.Command, args []string) error {
			q := url.Values{"text": {args[0]}, "limit": {strconv.Itoa(limit)}}
			setGiven(q, map[string]string{"target": target, "account": account, "person": person, "grant": grant, "protocol": protocol})
			if failed {
				q.Set("errors", "true")
			}
			if err := addTimes(command, q, since, until); err != nil {
				return err
			}
			if index != "" {
				return searchHere(command, index, q, limit)
			}
			c, err := open()
			if err != nil {
				return err
			}
			return printMatches(command, client.Lines[api.Match](command.Context(), c, "/v1/search?"+q.Encode()), limit)
		},
	}
	flags := command.Flags()
	flags.StringVar(&target, "target", "", "only this `TARGET`")
	flags.StringVar(&account, "account", "", "only sessions as this `ACCOUNT`")
	flags.StringVar(&protocol, "protocol", "", "only sessions of this `PROTOCOL`: postgres or ssh")
	flags.BoolVar(&failed, "errors", false, "only what failed")
	flags.StringVar(&person, "person", "", "only sessions of this `PERSON`: part of a name, an e-mail address or a subject")
	flags.StringVar(&grant, "grant", "", "only sessions under this grant (`ID`)")
	flags.StringVar(&since, "since", "", "only after this `TIME`")
	flags.StringVar(&until, "until", "", "only before this `TIME`")
	flags.StringVar(&index, "index", "", "search this index (`FILE`), which sallyport index made, and not the gateway's")
	flags.IntVar(&limit, "limit", 1000, "at most this `NUMBER` of places")
	return command
}

// searchHere searches an index that is on this machine.
func searchHere(command *cobra.Command, index string, q url.Values, limit int) error {
	query := recorder.Query{
		Text: q.Get("text"), Person: q.Get("person"), Target: q.Get("target"), Account: q.Get("account"), Protocol: q.Get("protocol"),
		Grant: q.Get("grant"), Errors: q.Has("errors"), Limit: limit,
	}
	for name, to := range map[string]*time.Time{"since": &query.Since, "until": &query.Until} {
		if text := q.Get(name); text != "" {
			var err error
			if *to, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return err
			}
		}
	}
	if _, err := os.Stat(index); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no index %s; make it with: sallyport index DIR --output %[1]s", index)
	}
	found := recorder.SearchFiles(command.Context(), index, query)
	return printMatches(command, func(yield func(api.Match, error) bool) {
		for m, err := range found {
			if !yield(api.Match(m), err) {
				return
			}
		}
	}, limit)
}

// printMatches prints matches as they come: JSON Lines with --json, else one line each.
func printMatches(command *cobra.Command, matches iter.Seq2[api.Match, error], limit int) error {
	out := command.OutOrStdout()
	encoder := newJSON(out)
	found := 0
	for m, err := range matches {
		if err != nil {
			return err
		}
		found++
		if asJSON(command) {
			err = encoder.Encode(m)
		} else {
			line := visible(m.Line)
			if m.Item.Guess() {
				line += "  " + recorder.Guessed
			}
			_, err = fmt.Fprintf(out, "%s  %s  %s@%s  %s  %s\n", m.Session, local(m.Item.Time), m.Header.Account, m.Header.Target,
				visible(partyName(m.Header.Identity.Name, m.Header.Identity.Email, m.Header.Identity.Subject)), line)
		}
		if err != nil {
			return err
		}
	}
	if found == 0 && !asJSON(command) {
		fmt.Fprintln(command.ErrOrStderr(), "Nothing was found.")
	}
	if found == limit && !asJSON(command) {
		fmt.Fprintf(command.ErrOrStderr(), "There may be more: --limit was reached.\n")
	}
	return nil
}

func partyName(names ...string) string {
	for _, n := range names {
		if n != "" {
			return n
		}
	}
	return ""
}

// pointInTime reads a date or a time, in the zone where it does not say its own.
func pointInTime(text string, zone *time.Location) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// moment reads a date, a time in the user's zone, or how long before now.
func moment(text string, now time.Time) (time.Time, error) {
	if t, ok := pointInTime(text, now.Location()); ok {
		return t, nil
	}
	ago, err := configs.ParseDuration(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no date, time or duration", text)
	}
	return now.Add(-ago.D()), nil
}
