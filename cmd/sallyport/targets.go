package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newTargetsCommand() *cobra.Command {
	list := func(command *cobra.Command, _ []string) error { return listTargets(command) }
	command := &cobra.Command{
		Use:     "targets",
		Short:   "What you may ask for, and what targets need",
		Example: "  sallyport targets\n  sallyport targets check orders",
		Args:    noArguments,
		RunE:    list,
	}
	command.AddCommand(
		&cobra.Command{Use: "list", Short: "What you may ask for", Example: "  sallyport targets list", Args: noArguments, RunE: list},
		&cobra.Command{
			Use: "setup NAME", Short: "Print what a target needs: SQL, files, the same for Ansible", Example: "  sallyport targets setup orders", Args: exactly("NAME"),
			RunE: func(command *cobra.Command, args []string) error { return setUpTarget(command, args[0]) },
		},
		&cobra.Command{
			Use: "check NAME", Short: "Log in to a target with every account and look whether it has what it needs", Example: "  sallyport targets check orders", Args: exactly("NAME"),
			RunE: func(command *cobra.Command, args []string) error { return checkTarget(command, args[0]) },
		},
		&cobra.Command{
			Use: "trust NAME", Short: "Show the keys a target proves itself with now, to be compared and pinned", Example: "  sallyport targets trust web-1", Args: exactly("NAME"),
			RunE: func(command *cobra.Command, args []string) error { return trustTarget(command, args[0]) },
		},
	)
	return command
}

func listTargets(command *cobra.Command) error {
	offers, err := get[[]api.Offer](command, "/v1/targets")
	if err != nil {
		return err
	}
	return show(command, offers, func(t *table) {
		t.row("ACCOUNT@TARGET", "KIND", "AT MOST", "APPROVED BY", "LIMITS", "LIVE GRANT")
		for _, o := range offers {
			by := "policy " + o.Policy
			if !o.Auto {
				by = o.ApprovedBy()
			}
			if o.BreakGlass {
				by = "nobody; request --break-glass"
			}
			t.row(o.Account+"@"+o.Target, o.Kind, span(o.MaxDuration), by, strings.Join(o.Limits, "; "), o.Live)
		}
	})
}

func targetPath(name, what string) string { return "/v1/targets/" + url.PathEscape(name) + "/" + what }

func setUpTarget(command *cobra.Command, name string) error {
	setup, err := get[api.Setup](command, targetPath(name, "setup"))
	if err != nil {
		return err
	}
	out := command.OutOrStdout()
	if asJSON(command) {
		return printJSON(out, setup)
	}
	for i, part := range setup.Parts {
		if i > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "# %s\n%s\n", visible(part.Title), strings.TrimRight(part.Text, "\n"))
	}
	return nil
}

// furtherHint is what is left of a hint when this very check is what it leads to.
func furtherHint(hint, target string) string {
	var rest []string
	for part := range strings.SplitSeq(hint, "; ") {
		if !strings.HasSuffix(part, "sallyport targets check "+target) {
			rest = append(rest, part)
		}
	}
	if hint != "" && len(rest) == 0 {
		return "the gateway's log says more"
	}
	return strings.Join(rest, "; ")
}

func checkTarget(command *cobra.Command, name string) error {
	check, err := post[api.Check](command, targetPath(name, "check"), nil)
	if err != nil {
		return err
	}
	err = show(command, check, func(t *table) {
		for _, s := range check.Steps {
			word := "ok"
			if !s.OK {
				word = "FAILED"
			}
			t.row(word, s.Name, s.Detail)
			if hint := furtherHint(s.Hint, name); hint != "" {
				t.row("", "", "next: "+hint)
			}
		}
	})
	if err == nil && !check.OK {
		err = quiet{errors.New("the target lacks something")}
	}
	return err
}

func trustTarget(command *cobra.Command, name string) error {
	trust, err := get[api.Trust](command, targetPath(name, "trust"))
	if err != nil {
		return err
	}
	out := command.OutOrStdout()
	if asJSON(command) {
		return printJSON(out, trust)
	}
	t := newTable(out)
	t.row("TYPE", "FINGERPRINT", "PINNED", "WHERE IT COMES FROM")
	pinned := len(trust.Keys) > 0
	for _, k := range trust.Keys {
		kind, word := k.Type, "yes"
		if k.Authority {
			kind += " (authority)"
		}
		if !k.Pinned {
			word = "no"
			pinned = pinned && k.Authority
		}
		t.row(kind, k.Fingerprint, word, k.From)
	}
	if err := t.flush(); err != nil || pinned {
		return err
	}
	fmt.Fprintf(out, "\nThe connection that showed them proves nothing. Compare the fingerprints with what the target itself shows (ssh-keygen -lf, on its\nconsole); then pin what is right in the configuration of target %s, as host_keys:\n", visible(trust.Target))
	for _, k := range trust.Keys {
		if !k.Pinned && !k.Authority {
			fmt.Fprintf(out, "  - %s\n", strings.ReplaceAll(strings.TrimSpace(k.Key), "\n", "\n    "))
		}
	}
	return nil
}
