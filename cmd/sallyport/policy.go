//go:build unix

package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/policy"
	"sallyport/web/api"
	"sallyport/web/said"
)

func newPolicyCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "policy",
		Short: "Ask the policies what they would say, and test them",
		Args:  noArguments,
		RunE:  func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(newPolicyExplainCommand(), newPolicyTestCommand(), newPolicyDiffCommand(), newPolicyHeldCommand(), newPolicyConfirmCommand(), newPolicyRejectCommand())
	return command
}

func newPolicyExplainCommand() *cobra.Command {
	var ask api.GrantRequest
	var file, kind, at, source string
	var groups []string
	command := &cobra.Command{
		Use:   "explain ACCOUNT@TARGET",
		Short: "Say what the policies would answer to a request, and why",
		Long: `Say what the policies would answer to a request, and why: which of them speak of it, what is missing under each, what
forbids it. Nothing is asked for by this.

Without --as-groups the gateway answers, for you as you are signed in. With it, the answer comes from the configuration
files, for somebody in those groups, and no gateway is needed.`,
		Example: `  sallyport policy explain app@orders --duration 2h --reason "INC-42: slow checkout"
  sallyport policy explain app@orders -c sallyport.yaml --as-groups engineers,oncall --at 2026-12-24T10:00`,
		Args: exactly("ACCOUNT@TARGET"),
		RunE: func(command *cobra.Command, args []string) error {
			var found bool
			if ask.Account, ask.Target, found = cutAccount(args[0]); !found {
				return usage(command, "%q is not ACCOUNT@TARGET", args[0])
			}
			var e api.Explanation
			if command.Flags().Changed("as-groups") {
				config, policies, err := readPolicies(file)
				if err != nil {
					return err
				}
				who := authn.Identity{Kind: authn.Kind(kind), Groups: groups}
				if e, err = explainOffline(command, config, policies, ask, who, at, source); err != nil {
					return err
				}
			} else {
				for _, name := range []string{"config", "kind", "at", "source"} {
					if command.Flags().Changed(name) {
						return usage(command, "--%s goes with --as-groups", name)
					}
				}
				c, err := open()
				if err != nil {
					return err
				}
				if err := c.Do(command.Context(), http.MethodPost, "/v1/policy/explain", ask, &e); err != nil {
					return err
				}
			}
			return showExplanation(command, args[0], ask, e)
		},
	}
	flags := command.Flags()
	flags.StringVar(&ask.Duration, "duration", "", "for how `LONG`; default: the policy's")
	flags.StringVar(&ask.Reason, "reason", "", "`WHY`")
	flags.StringVar(&ask.Ticket, "ticket", "", "the `TICKET` that it is for")
	flags.StringSliceVar(&groups, "as-groups", nil, "answer for somebody in these `GROUPS`, from the configuration files")
	flags.StringVar(&kind, "kind", string(authn.Human), "human or workload (with --as-groups)")
	flags.StringVar(&at, "at", "", "at this `TIME`, like 2026-12-24T10:00; default: now (with --as-groups)")
	flags.StringVar(&source, "source", "", "from this `ADDRESS` (with --as-groups)")
	flags.StringVarP(&file, "config", "c", "sallyport.yaml", "configuration `FILE` (with --as-groups)")
	return command
}

// readPolicies reads a configuration and its policies.
func readPolicies(file string) (*configs.Config, []*policy.Policy, error) {
	config, err := configs.Load(file)
	if err != nil {
		return nil, nil, err
	}
	policies, err := policy.Compile(config)
	return config, policies, err
}

// explainOffline answers from a configuration.
func explainOffline(command *cobra.Command, config *configs.Config, policies []*policy.Policy, in api.GrantRequest, who authn.Identity, at, source string) (api.Explanation, error) {
	ask := policy.Ask{Identity: who, Reason: in.Reason, Ticket: in.Ticket, Time: time.Now()}
	var err error
	if ask.Target, ask.Account, err = policy.Find(config, in.Account+"@"+in.Target); err != nil {
		return api.Explanation{}, err
	}
	if in.Duration != "" {
		d, err := configs.ParseDuration(in.Duration)
		if err != nil {
			return api.Explanation{}, usage(command, "%v", err)
		}
		ask.Duration = d.D()
	}
	if at != "" {
		var ok bool
		if ask.Time, ok = pointInTime(at, time.Local); !ok {
			return api.Explanation{}, usage(command, "--at %q is no time; write it like 2026-12-24T10:00, which is in your zone, or with another: 2026-12-24T10:00:00+01:00", at)
		}
	}
	if source != "" {
		if ask.Source, err = netip.ParseAddr(source); err != nil {
			return api.Explanation{}, usage(command, "--source %s is no address", source)
		}
	}
	ask.Identity.SignedIn = ask.Time
	return said.Explanation(policy.Explain(policies, ask)), nil
}

func showExplanation(command *cobra.Command, what string, ask api.GrantRequest, e api.Explanation) error {
	if asJSON(command) {
		return printJSON(command.OutOrStdout(), e)
	}
	out := command.OutOrStdout()
	unsaid := false // that a reason is what is missing somewhere
	switch e.Outcome {
	case "permit":
		who := "at once"
		if e.Needed > 0 {
			var stages []string
			for _, s := range e.Stages {
				stages = append(stages, fmt.Sprintf("by %d of %s", s.Needed, visible(strings.Join(s.Groups, ", "))))
			}
			who = "after approval " + strings.Join(stages, ", then ")
			if len(stages) > 1 {
				who += ", each another person"
			}
		}
		fmt.Fprintf(out, "permit: policy %s gives %s for %s, %s.\n", visible(e.Policy), visible(what), span(e.Duration), who)
		if e.Role != "" {
			limits := "without limits of its own"
			if len(e.Limits) > 0 {
				limits = strings.Join(e.Limits, "; ")
			}
			fmt.Fprintf(out, "  by role %s: %s\n", visible(e.Role), visible(limits))
		}
		for _, end := range e.Ends {
			fmt.Fprintf(out, "  %s\n", visible(end))
		}
	case "forbid":
		fmt.Fprintf(out, "forbid: %s may not be had, whatever else permits it.\n", visible(what))
	default:
		fmt.Fprintf(out, "none: no policy gives %s as asked.\n", visible(what))
	}
	for _, f := range e.Forbidden {
		fmt.Fprintf(out, "  policy %s forbids it: %s\n", visible(f.Policy), visible(f.Text))
	}
	for _, c := range e.Candidates {
		if len(c.Misses) == 0 {
			fmt.Fprintf(out, "  policy %s admits it\n", visible(c.Policy))
		}
		for _, m := range c.Misses {
			fmt.Fprintf(out, "  policy %s: %s\n", visible(c.Policy), visible(m.Text))
			unsaid = unsaid || m.Clause == string(policy.Reason)
		}
	}
	if unsaid && ask.Reason == "" {
		fmt.Fprintf(out, "Next: say a reason as the request would: sallyport policy explain %s --reason \"…\"\n", visible(what))
	}
	return nil
}

func newPolicyTestCommand() *cobra.Command {
	var file string
	command := &cobra.Command{
		Use:     "test FILE",
		Short:   "Check that the policies answer as a file of tests expects",
		Example: "  sallyport policy test policies_test.yaml -c /etc/sallyport/sallyport.yaml",
		Long: `Check that the policies of the configuration files answer as a file of tests expects. No gateway is needed. Exit 0 if all do,
1 otherwise. docs/policies.md describes the tests.`,
		Args: exactly("FILE"),
		RunE: func(command *cobra.Command, args []string) error {
			config, policies, err := readPolicies(file)
			if err != nil {
				return err
			}
			tests, err := policy.ReadTests(args[0])
			if err != nil {
				return err
			}
			type outcome struct {
				Test   string `json:"test"`
				Line   int    `json:"line"`
				Expect string `json:"expect"`
				Got    string `json:"got"`
				Passed bool   `json:"passed"`
				Detail string `json:"detail,omitempty"`
			}
			outcomes := []outcome{}
			var failed int
			for _, t := range tests {
				r, err := t.Run(config, policies)
				if err != nil {
					return err
				}
				o := outcome{Test: t.Name, Line: t.Line, Expect: r.Wanted(), Got: r.Got, Passed: r.Passed()}
				if !o.Passed {
					failed++
					if r.Explanation.Winner == nil {
						o.Detail = r.Explanation.Detail()
					}
				}
				outcomes = append(outcomes, o)
			}
			out := command.OutOrStdout()
			if asJSON(command) {
				if err := printJSON(out, outcomes); err != nil {
					return err
				}
			} else {
				for _, o := range outcomes {
					if o.Passed {
						continue
					}
					fmt.Fprintf(out, "%s:%d: %s: expected %s, got %s\n", args[0], o.Line, visible(o.Test), visible(o.Expect), visible(o.Got))
					if o.Detail != "" {
						fmt.Fprintf(out, "  %s\n", visible(o.Detail))
					}
				}
				fmt.Fprintf(out, "%d of %d tests passed\n", len(tests)-failed, len(tests))
			}
			if failed > 0 {
				return quiet{errors.New("tests failed")}
			}
			return nil
		},
	}
	command.Flags().StringVarP(&file, "config", "c", "sallyport.yaml", "configuration `FILE`")
	return command
}
