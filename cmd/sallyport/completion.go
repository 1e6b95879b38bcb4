package main

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/configs"
	"sallyport/recorder"
	"sallyport/web/api"
)

// completionTime bounds what a completion asks the gateway: a person waits with a finger on the key.
const completionTime = 3 * time.Second

// suggestions are what a shell offers, each with a word about it behind a tab.
type suggestions = []cobra.Completion

// completions are how the arguments of commands are completed, by the command's path without the program.
var completions = map[string]cobra.CompletionFunc{
	"request": first(completeAccounts), "credentials": first(completeAccounts), "policy explain": first(completeAccounts),
	"run": beforeDash(completeAccounts), "tunnel": completeAccounts,
	"targets setup": first(completeTargets), "targets check": first(completeTargets), "targets trust": first(completeTargets),
	"approve": first(completeRequests), "deny": first(completeRequests), "requests show": first(completeRequests),
	"release": first(completeGrants), "extend": first(completeGrants), "revoke": first(completeGrants),
	"kill": first(completeSessions("")), "watch": first(completeSessions("")),
	"replay": first(completeSessions("?all=true")), "export": first(completeSessions("?all=true")),
	"shred": first(completeSessions("?all=true")),
}

// flagWords are what flags take that take one of a few words, by the command's path and the flag's name.
var flagWords = map[string]map[string][]cobra.Completion{
	"export":   {"format": recorder.Formats},
	"report":   {"format": {"markdown", "csv", "json"}},
	"login":    {"format": {string(client.PKCS8), string(client.PKCS12)}},
	"search":   {"protocol": {configs.KindPostgres, configs.KindSSH}},
	"sessions": {"protocol": {configs.KindPostgres, configs.KindSSH}},
}

// addCompletions gives commands the completions of their arguments, and cobra's own command for that errors like all others'.
func addCompletions(root *cobra.Command) {
	for _, command := range root.Commands() {
		addCompletions(command)
		path := strings.TrimPrefix(command.CommandPath(), command.Root().Name()+" ")
		if path == "completion" || strings.HasPrefix(path, "completion ") {
			command.Args = noArguments
			if command.RunE == nil {
				command.RunE = func(command *cobra.Command, _ []string) error { return command.Help() }
			}
		}
		for name, words := range flagWords[path] {
			if err := command.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
				panic(err) // the command has no such flag
			}
		}
		if complete := completions[path]; complete != nil && command.ValidArgsFunction == nil {
			command.ValidArgsFunction = complete
		}
	}
}

// first completes the first argument only.
func first(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(command *cobra.Command, args []string, text string) (suggestions, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(command, args, text)
	}
}

// beforeDash leaves what stands behind -- to the shell: it is a command.
func beforeDash(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(command *cobra.Command, args []string, text string) (suggestions, cobra.ShellCompDirective) {
		if command.ArgsLenAtDash() >= 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return complete(command, args, text)
	}
}

// ask reads a list of the API's for a completion; what fails is no completion.
func ask[T any](command *cobra.Command, path string) (list []T) {
	c, err := open()
	if err != nil {
		return nil
	}
	ctx := command.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	if c.Do(ctx, http.MethodGet, path, nil, &list) != nil {
		return nil
	}
	return list
}

func completeAccounts(command *cobra.Command, args []string, _ string) (all suggestions, _ cobra.ShellCompDirective) {
	for _, o := range ask[api.Offer](command, "/v1/targets") {
		if name := o.Account + "@" + o.Target; !slices.Contains(args, name) {
			all = append(all, cobra.CompletionWithDesc(visible(name), o.Kind+", at most "+span(o.MaxDuration)))
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

func completeTargets(command *cobra.Command, _ []string, _ string) (all suggestions, _ cobra.ShellCompDirective) {
	for _, o := range ask[api.Offer](command, "/v1/targets") {
		all = append(all, cobra.CompletionWithDesc(visible(o.Target), o.Kind))
	}
	slices.Sort(all)
	return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
}

func completeRequests(command *cobra.Command, _ []string, _ string) (suggestions, cobra.ShellCompDirective) {
	return grantSuggestions(ask[api.Grant](command, "/v1/requests")), cobra.ShellCompDirectiveNoFileComp
}

func completeGrants(command *cobra.Command, _ []string, _ string) (suggestions, cobra.ShellCompDirective) {
	return grantSuggestions(ask[api.Grant](command, "/v1/grants")), cobra.ShellCompDirectiveNoFileComp
}

func grantSuggestions(grants []api.Grant) (all suggestions) {
	for _, g := range grants {
		all = append(all, cobra.CompletionWithDesc(g.ID, visible(g.Account+"@"+g.Target+", "+g.State+": "+g.Reason)))
	}
	return all
}

func completeSessions(query string) cobra.CompletionFunc {
	return func(command *cobra.Command, _ []string, _ string) (all suggestions, _ cobra.ShellCompDirective) {
		for _, s := range ask[api.Session](command, "/v1/sessions"+query) {
			all = append(all, cobra.CompletionWithDesc(s.ID, visible(s.Account+"@"+s.Target+" of "+s.Identity.Label()+" at "+local(s.Started))))
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}
