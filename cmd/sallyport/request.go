package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sallyport/client"
	"sallyport/internal/refusal"
	"sallyport/web/api"
)

func newRequestCommand() *cobra.Command {
	var ask api.GrantRequest
	var wait bool
	var start string
	command := &cobra.Command{
		Use:   "request ACCOUNT@TARGET",
		Short: "Ask for an account on a target, for a time",
		Example: `  sallyport request app@orders --duration 30m --reason "INC-42: slow checkout"
  sallyport request owner@orders --start 2026-12-24T22:00 --reason "the migration of OPS-7" --ticket OPS-7
  sallyport request owner@orders --break-glass --reason "INC-43: orders is down, nobody answers"`,
		Args: exactly("ACCOUNT@TARGET"),
		RunE: func(command *cobra.Command, args []string) error {
			var found bool
			if ask.Account, ask.Target, found = cutAccount(args[0]); !found {
				return usage(command, "%q is not ACCOUNT@TARGET", args[0])
			}
			if start != "" {
				at, ok := pointInTime(start, time.Local)
				if !ok {
					return usage(command, "--start %q is no time; write it like 2026-12-24T22:00, which is in your zone, or with another: 2026-12-24T22:00:00+01:00", start)
				}
				ask.Start = &at
			}
			var g api.Grant
			c, err := open()
			if err == nil {
				err = c.Do(command.Context(), http.MethodPost, "/v1/requests", ask, &g)
			}
			if ask.BreakGlass && signedOut(err) && term.IsTerminal(int(os.Stdin.Fd())) {
				if c, err = signInFirst(command); err == nil {
					err = c.Do(command.Context(), http.MethodPost, "/v1/requests", ask, &g)
				}
			}
			if err != nil {
				return err
			}
			if wait && g.State == "pending" {
				fmt.Fprintf(command.ErrOrStderr(), "Request %s waits for %s.\n", g.ID, visible(g.WaitsFor()))
				id := g.ID
				if g, err = waitForDecision(command.Context(), c, id); err != nil {
					fmt.Fprintf(command.ErrOrStderr(), "The request goes on waiting: sallyport requests show %s; sallyport release %[1]s withdraws it.\n", id)
					return err
				}
			}
			return showRequested(command, g)
		},
	}
	flags := command.Flags()
	flags.StringVar(&ask.Duration, "duration", "", "for how `LONG`: 30m, 8h, 1d; default: the policy's")
	flags.StringVar(&ask.Reason, "reason", "", "`WHY`, for those who approve and for the record")
	flags.StringVar(&ask.Ticket, "ticket", "", "the `TICKET` that it is for, where the policy asks for one: OPS-42")
	flags.StringVar(&start, "start", "", "to begin at this `TIME`, like 2026-12-24T22:00; default: when you first connect")
	flags.BoolVar(&ask.BreakGlass, "break-glass", false, "an emergency: waits for nobody, everybody is told, and it is reviewed")
	flags.BoolVar(&wait, "wait", false, "wait until it is decided")
	return command
}

// signedOut reports whether all that is missing is a sign-in.
func signedOut(err error) bool {
	return refusal.Is(err, refusal.NotAuthenticated) || refusal.Is(err, refusal.CredentialExpired)
}

// signInFirst signs somebody in who is about to break the glass: in the browser, where an enrolled key will do while the company's
// provider does not answer.
func signInFirst(command *cobra.Command) (*client.Client, error) {
	home, err := client.DefaultHome()
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(command.ErrOrStderr(), "You are signed out, so this comes first.")
	o := client.LoginOptions{Out: command.ErrOrStderr(), Open: client.OpenBrowser, Keychain: home.Shared && client.KeychainLikely()}
	if _, err := client.Login(command.Context(), home, o); err != nil {
		return nil, err
	}
	return open()
}

// cutAccount splits ACCOUNT@TARGET at the last @.
func cutAccount(text string) (account, target string, found bool) {
	i := strings.LastIndexByte(text, '@')
	if i <= 0 || i == len(text)-1 {
		return "", "", false
	}
	return text[:i], text[i+1:], true
}

// waitForDecision asks until somebody has decided. A gateway that can't be reached for a while is waited for too.
func waitForDecision(ctx context.Context, c *client.Client, id string) (api.Grant, error) {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	var g api.Grant
	var failing time.Time
	for {
		select {
		case <-ctx.Done():
			return g, ctx.Err()
		case <-every.C:
		}
		err := c.Do(ctx, http.MethodGet, "/v1/grants/"+url.PathEscape(id), nil, &g)
		switch {
		case err == nil && g.State != "pending":
			return g, nil
		case err == nil:
			failing = time.Time{}
		case refusal.Of(err) != nil || ctx.Err() != nil:
			return g, err
		case failing.IsZero():
			failing = time.Now()
		case time.Since(failing) > time.Minute:
			return g, err
		}
	}
}

// showRequested tells what became of a request and what to do next; one that was turned down is a refusal.
func showRequested(command *cobra.Command, g api.Grant) error {
	if asJSON(command) {
		if err := printJSON(command.OutOrStdout(), g); err != nil {
			return err
		}
	}
	var no *refusal.Refusal
	switch g.State {
	case "denied", "withdrawn", "lapsed", "ended":
		no = refusal.New(refusal.NotPermitted, "request %s was not granted: it is %s", g.ID, g.State)
		for _, v := range g.Votes {
			if !v.Approve {
				no = no.WithDetail("%s said no: %s", v.Name, v.Comment)
			}
		}
		return no
	}
	if asJSON(command) {
		return nil
	}
	out := command.OutOrStdout()
	if g.State == "pending" {
		_, err := fmt.Fprintf(out, "Request %s for %s@%s waits for approval by %s.\n  One of them runs: sallyport approve %[1]s\n",
			g.ID, g.Account, g.Target, visible(g.WaitsFor()))
		return err
	}
	_, err := fmt.Fprintf(out, "Grant %s: %s@%s for %s, approved by %s. The time starts when you first connect.\n  psql service=%[3]s   or   ssh %[3]s\n",
		g.ID, g.Account, g.Target, span(g.Duration), visible(strings.Join(g.Approvers, ", ")))
	return err
}
