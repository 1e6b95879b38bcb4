//go:build !unix

package tunnel

import (
	"context"
	"errors"
	"net"
)

func listenSocket(context.Context, string) (net.Listener, error) {
	return nil, errors.New("this system has no sockets that are one user's alone; listen on a port")
}
