//go:build unix

package demo

import (
	"context"
	"fmt"
	"io"
	"time"
)

// steps tells what is done, one line a step with its time.
type steps struct {
	out io.Writer
}

// do runs a step. Its error names the step.
func (s *steps) do(ctx context.Context, name string, step func(context.Context) error) error {
	began := time.Now()
	err := step(ctx)
	word := "ok"
	if err != nil {
		word = "FAIL"
	}
	fmt.Fprintf(s.out, "%-4s %7.2fs  %s\n", word, time.Since(began).Seconds(), name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
