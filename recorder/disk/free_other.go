//go:build !linux && !darwin

package disk

import (
	"errors"
	"os"
)

var errSystem = errors.New("a gateway records on Linux and macOS only")

// Free is not known here.
func Free(string) (int64, error) { return 0, errSystem }

// IsVolatile is not known here.
func IsVolatile(string) (bool, error) { return false, errSystem }

// SyncData waits until the file is on stable storage.
func SyncData(f *os.File) error { return f.Sync() }
