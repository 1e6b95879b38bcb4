//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/alert"
	"sallyport/internal/store"
)

func newAlertsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "alerts",
		Short: "What people are told when it happens: try the configuration's alerts",
		Args:  noArguments,
		RunE:  func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(newAlertsTestCommand())
	return command
}

func newAlertsTestCommand() *cobra.Command {
	var file string
	var expect map[string]int
	command := &cobra.Command{
		Use:   "test FILE",
		Short: "Say which alerts events would have raised",
		Long: `Read events, one JSON object a line as "sallyport audit --json" prints them ("-": from standard input), and say which of the
configuration's alerts they raise. Nothing is told to anybody, and no gateway is needed. With --expect the exit code is 1 where an alert
is not raised as often as that; alerts that are not named may not be raised at all.`,
		Example: `  sallyport audit --since 7d --json | sallyport alerts test -c /etc/sallyport/sallyport.yaml -
  sallyport alerts test --expect burst=1 --expect night=0 events.jsonl`,
		Args: exactly("FILE"),
		RunE: func(command *cobra.Command, args []string) error {
			config, err := configs.Load(file)
			if err != nil {
				return err
			}
			rules, err := alert.Compile(config)
			if err != nil {
				return err
			}
			in := command.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("read the events: %w", err)
				}
				defer f.Close()
				in = f
			}
			raised, err := lookAt(rules, in)
			if err != nil {
				return err
			}
			if err := show(command, raised, func(t *table) {
				t.row("ALERT", "TIME", "EVENTS", "WHAT")
				for _, a := range raised {
					t.row(a.Name, local(a.Event.Time), strconv.Itoa(a.Count), a.Text())
				}
			}); err != nil || !command.Flags().Changed("expect") {
				return err
			}
			return asExpected(command, config, raised, expect)
		},
	}
	command.Flags().StringVarP(&file, "config", "c", "sallyport.yaml", "configuration `FILE`")
	command.Flags().StringToIntVar(&expect, "expect", nil, "how often an alert is to be raised, as `NAME=NUMBER`; may be repeated")
	return command
}

// lookAt has the rules look at a stream of events.
func lookAt(rules *alert.Rules, in io.Reader) ([]grant.Alert, error) {
	raised := []grant.Alert{}
	for decoder, n := json.NewDecoder(in), 1; ; n++ {
		var e store.AuditEvent
		err := decoder.Decode(&e)
		if errors.Is(err, io.EOF) {
			return raised, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read event %d: %w", n, err)
		}
		raised = append(raised, rules.Look(e)...)
	}
}

// asExpected compares how often alerts were raised.
func asExpected(command *cobra.Command, config *configs.Config, raised []grant.Alert, expect map[string]int) error {
	got, known := map[string]int{}, map[string]bool{}
	for _, a := range raised {
		got[a.Name]++
	}
	wrong := 0
	for _, a := range config.Alerts {
		known[a.Name] = true
		if got[a.Name] != expect[a.Name] {
			wrong++
			fmt.Fprintf(command.ErrOrStderr(), "%s: raised %d times, expected %d\n", a.Name, got[a.Name], expect[a.Name])
		}
	}
	for name := range expect {
		if !known[name] {
			return usage(command, "there is no alert %q", name)
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d alerts are not as expected", wrong)
	}
	return nil
}
