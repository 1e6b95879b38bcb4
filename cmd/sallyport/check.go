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
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/alert"
	"sallyport/grant/policy"
	"sallyport/internal/store"
)

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
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := configs.Load(file)
			if err == nil {
				err = grant.Check(config)
			}
			if err == nil {
				_, err = alert.Compile(config)
			}
			if problems, ok := errors.AsType[configs.Problems](err); ok {
				for _, p := range problems {
					fmt.Fprintln(command.OutOrStdout(), p)
				}
				if len(problems) == 1 {
					return errors.New("one of the configuration's lines needs mending")
				}
				return fmt.Errorf("%d of the configuration's lines need mending", len(problems))
			}
			if err != nil {
				return err
			}
			if _, err := witnessesOf(config); err != nil {
				return err
			}
			if len(config.Recording.Witnesses) == 0 {
				fmt.Fprintf(command.ErrOrStderr(), "warning: %s (docs/auditors.md)\n", noWitness)
			}
			for _, p := range config.LintSecrets() {
				fmt.Fprintf(command.ErrOrStderr(), "warning: %s\n", p)
			}
			for _, p := range config.LintMasking() {
				fmt.Fprintf(command.ErrOrStderr(), "warning: %s (docs/recordings.md)\n", p)
			}
			for _, p := range policy.Lint(config) {
				fmt.Fprintf(command.ErrOrStderr(), "warning: %s\n", p)
			}
			if used {
				found, err := lintUsed(command.Context(), config)
				if err != nil {
					return err
				}
				for _, p := range found {
					fmt.Fprintf(command.ErrOrStderr(), "warning: %s\n", p)
				}
			}
			fmt.Fprintf(command.OutOrStdout(), "%s is good; targets: %d, policies: %d\n", config.File, len(config.Targets), len(config.Policies))
			return nil
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
	connection, err := authn.Secret(ctx, config.Store)
	if err != nil {
		return nil, fmt.Errorf("the store's connection string: %w", err)
	}
	return store.LookPostgres(ctx, connection)
}
