//go:build linux

package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/rogpeppe/go-internal/testscript"
)

// expression is how a GitHub action names an input.
var expression = regexp.MustCompile(`\$\{\{ *inputs\.([a-z0-9]+) *\}\}`)

// template runs a template of docs/pipelines as its CI system does: template FILE NAME=VALUE…, where the names are the inputs
// of an action or the variables of a job.
func template(ts *testscript.TestScript, neg bool, args []string) {
	text, err := os.ReadFile(args[0])
	ts.Check(err)
	given := map[string]string{}
	for _, pair := range args[1:] {
		name, value, _ := strings.Cut(pair, "=")
		given[name] = value
	}
	run := runAction
	if strings.HasSuffix(args[0], "gitlab.yml") {
		run = runJob
	}
	switch err := run(ts, text, given); {
	case err == nil && neg:
		ts.Fatalf("%s succeeded", args[0])
	case err != nil && !neg:
		ts.Fatalf("%s: %v", args[0], err)
	}
}

func runAction(ts *testscript.TestScript, text []byte, given map[string]string) error {
	var action struct {
		Inputs map[string]struct{ Default string }
		Runs   struct {
			Steps []struct {
				Name, Run string
				Env       map[string]string
			}
		}
	}
	ts.Check(yaml.Unmarshal(text, &action))
	for name := range given {
		if _, known := action.Inputs[name]; !known {
			ts.Fatalf("the action has no input %s", name)
		}
	}
	for _, step := range action.Runs.Steps {
		if expression.MatchString(step.Run) {
			ts.Fatalf("step %q has an input in its script, where what stands in it is a command", step.Name)
		}
		var env []string
		for name, value := range step.Env {
			env = append(env, name+"="+expression.ReplaceAllStringFunc(value, func(e string) string {
				input := expression.FindStringSubmatch(e)[1]
				if value, ok := given[input]; ok {
					return value
				}
				return action.Inputs[input].Default
			}))
		}
		if err := ts.Exec("env", append(env, "bash", "-c", step.Run)...); err != nil {
			return fmt.Errorf("step %q: %w", step.Name, err)
		}
	}
	return nil
}

func runJob(ts *testscript.TestScript, text []byte, given map[string]string) error {
	var file map[string]struct {
		Variables map[string]string
		Script    []string
	}
	ts.Check(yaml.Unmarshal(text, &file))
	job := file[".sallyport"]
	var env []string
	for name, value := range job.Variables {
		if changed, ok := given[name]; ok {
			value = changed
		}
		env = append(env, name+"="+value)
	}
	return ts.Exec("env", append(env, "sh", "-e", "-c", strings.Join(job.Script, "\n"))...)
}
