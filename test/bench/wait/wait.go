// Package wait has the benches wait for what they have begun.
package wait

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// final is an error after which there is no use in trying again.
type final struct{ error }

// Final makes an error one after which Until does not try again.
func Final(err error) error { return final{err} }

// Until tries until it works, it can't work any more, or patience or ctx is over. what says what is waited for.
func Until(ctx context.Context, patience time.Duration, what string, try func() error) error {
	for deadline := time.Now().Add(patience); ; {
		err := try()
		if err == nil {
			return nil
		}
		if f, ok := errors.AsType[final](err); ok {
			return f.error
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s still not: %s: %w", patience, what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not in time: %s: %w", what, errors.Join(err, ctx.Err()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
