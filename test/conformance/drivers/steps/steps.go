// Package steps runs the steps of a Go driver's scenario and prints what became of each, a line a step.
package steps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"
)

// Step is one named part of a scenario.
type Step struct {
	Name string
	Do   func(context.Context) error
}

// Run runs each step with a minute to do it in. A step that panics has failed and does not take the others with it.
func Run(all []Step) {
	for _, step := range all {
		if err := do(step); err != nil {
			fmt.Printf("not ok %s: %s\n", step.Name, strings.Join(strings.Fields(err.Error()), " "))
			continue
		}
		fmt.Printf("ok %s\n", step.Name)
	}
}

func do(step Step) (err error) {
	defer func() {
		if recovered := recover(); recovered != nil {
			err = fmt.Errorf("panic: %v", recovered)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return step.Do(ctx)
}

// Access has the account's access ended ("end") or given back ("renew").
func Access(ctx context.Context, what string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, Env("CONFORMANCE_ACCESS")+"/"+what, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		why, err := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return errors.Join(fmt.Errorf("%s: %s: %s", what, answer.Status, why), err)
	}
	return nil
}

// Same is nil when got is want.
func Same(got, want any) error {
	if reflect.DeepEqual(got, want) {
		return nil
	}
	return fmt.Errorf("got %.300v, want %.300v", got, want)
}

// Env is a variable of libpq's that the harness sets.
func Env(name string) string { return os.Getenv(name) }
