//go:build unix

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sallyport/authn"
	"sallyport/authn/secrets"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/alert"
	"sallyport/grant/policy"
	"sallyport/internal/store"
)

// checked is what was found of a configuration.
type checked struct {
	File     string            `json:"file,omitempty"` // of one that is good
	Good     bool              `json:"good"`
	Targets  int               `json:"targets"`
	Policies int               `json:"policies"`
	Problems []configs.Problem `json:"problems"`
	Warnings []string          `json:"warnings"`
}

func (c *checked) warn(what string) { c.Warnings = append(c.Warnings, what) }

// tell says what was found, and is an error where something has to be mended.
func (c *checked) tell(command *cobra.Command) error {
	c.Good = len(c.Problems) == 0
	out := command.OutOrStdout()
	switch {
	case asJSON(command):
		if err := printJSON(out, c); err != nil {
			return err
		}
	case c.Good:
		for _, w := range c.Warnings {
			fmt.Fprintf(command.ErrOrStderr(), "warning: %s\n", w)
		}
		fmt.Fprintf(out, "%s is good; targets: %d, policies: %d\n", c.File, c.Targets, c.Policies)
	default:
		for _, p := range c.Problems {
			fmt.Fprintln(out, p)
		}
	}
	switch n := len(c.Problems); {
	case n == 0:
		return nil
	case n == 1 && c.Problems[0].Line == 0:
		return errors.New("the configuration can't be used")
	case n == 1:
		return errors.New("one of the configuration's lines needs mending")
	}
	return fmt.Errorf("%d of the configuration's lines need mending", len(c.Problems))
}

func newCheckCommand() *cobra.Command {
	var file string
	var used bool
	command := &cobra.Command{
		Use:   "check",
		Short: "Validate configuration and policies",
		Long: `Read the configuration as the gateway will, with the target and policy files it names, and name file, line, column and
what was expected for everything that is wrong. Exit 0 if nothing is, 1 otherwise. What is most likely not meant is a warning: policies that can never
win, roles and evidence that nothing names, patterns that match anywhere in a text.

--used also looks into the gateway's database, on its machine and as its user, whether it runs or not: what policies give that nobody has
used in the last 90 days (longer than anybody needed, accounts, groups, all of it), and groups in which too few people are known.`,
		Example: "  sallyport check -c /etc/sallyport/sallyport.yaml\n  sallyport check -c /etc/sallyport/sallyport.yaml --used",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := configs.Load(file)
			if err == nil {
				err = grant.Check(config)
			}
			if err == nil {
				_, err = alert.Compile(config)
			}
			found := checked{Problems: []configs.Problem{}, Warnings: []string{}}
			if problems, ok := errors.AsType[configs.Problems](err); ok {
				found.Problems = problems
				return found.tell(command)
			}
			if err != nil {
				return err
			}
			if _, err := witnessesOf(config); err != nil {
				return err
			}
			found.File, found.Targets, found.Policies = config.File, len(config.Targets), len(config.Policies)
			if len(config.Recording.Witnesses) == 0 {
				found.warn(noWitness + " (docs/auditors.md)")
			}
			for _, p := range config.LintSecrets() {
				found.warn(p)
			}
			for _, p := range config.LintMasking() {
				found.warn(p + " (docs/recordings.md)")
			}
			for _, p := range policy.Lint(config) {
				found.warn(fmt.Sprint(p))
			}
			if used {
				unused, err := lintUsed(command.Context(), config)
				if err != nil {
					return err
				}
				for _, p := range unused {
					found.warn(fmt.Sprint(p))
				}
			}
			return found.tell(command)
		},
	}
	command.Flags().StringVarP(&file, "config", "c", "sallyport.yaml", "configuration `FILE`")
	command.Flags().BoolVar(&used, "used", false, "what nobody has used in the last 90 days, and groups that lack people, too")
	return command
}

// usedFor is how far back use is looked for.
const usedFor = 90 * 24 * time.Hour

// lintUsed looks into the gateway's database.
func lintUsed(ctx context.Context, config *configs.Config) (configs.Problems, error) {
	db, err := lookIntoStore(ctx, config)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	people, err := authn.KnownPeople(ctx, config, db)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return grant.LintUsed(ctx, config, db, people, now.Add(-usedFor), now)
}

// lookIntoStore opens the gateway's database for reading, whether it runs or not.
func lookIntoStore(ctx context.Context, config *configs.Config) (*sql.DB, error) {
	if config.Store == "" {
		return store.LookSQLite(ctx, config.State)
	}
	connection, err := secrets.Resolve(ctx, config.Store)
	if err != nil {
		return nil, fmt.Errorf("the store's connection string: %w", err)
	}
	return store.LookPostgres(ctx, connection)
}
