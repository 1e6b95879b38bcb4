//go:build !linux && !darwin

package recorder

import (
	"errors"
	"os"
)

var errSystem = errors.New("a gateway records on Linux and macOS only")

func syncData(*os.File) error         { return errSystem }
func syncDirectory(string) error      { return errSystem }
func freeSpace(string) (int64, error) { return 0, errSystem }
func isVolatile(string) (bool, error) { return false, errSystem }
