package store

import (
	"errors"
	"os"
)

// lockDirectory refuses: a gateway runs on Unix systems; Windows has the client commands only.
func lockDirectory(string) (*os.File, error) {
	return nil, errors.New("the gateway does not run on Windows")
}
