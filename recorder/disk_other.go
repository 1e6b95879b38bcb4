//go:build !linux && !darwin

package recorder

import "errors"

var errSystem = errors.New("a gateway records on Linux and macOS only")

func freeSpace(string) (int64, error) { return 0, errSystem }
func isVolatile(string) (bool, error) { return false, errSystem }
