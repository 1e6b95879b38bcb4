// Package tunnel opens local ports for programs that speak neither certificates nor SCRAM, and carries what comes in there
// to the gateway, with the certificate of the person whose ports they are.
//
// It promises that a port is on loopback or a socket in the file system and nowhere else, and that where the system tells
// who is at the other end (Linux), nobody but the same user gets through: not another user of the machine, and not root.
// The gateway still decides everything else, connection by connection, and its refusals reach the program in the
// program's own protocol. A port outlives what is behind it: a gateway that is away for a moment is tried again.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// handshakeTime bounds what a local program may take to say what it wants.
	handshakeTime = 30 * time.Second
	// maxConnections bounds those of one port.
	maxConnections = 512
)

// Carry takes one local connection to the gateway and returns when it is over. It closes it.
type Carry func(ctx context.Context, local net.Conn)

// Port is a local one.
type Port struct {
	listener net.Listener
	path     string // of a socket
	carry    Carry
	refused  func(why error)
}

// Listen opens a port: PORT or HOST:PORT on loopback (0: any that is free), or the path of a socket, which nobody else may
// open. refused is told of connections that were not let through.
func Listen(ctx context.Context, address string, carry Carry, refused func(error)) (*Port, error) {
	p := &Port{carry: carry, refused: refused}
	var err error
	if strings.ContainsRune(address, os.PathSeparator) || strings.Contains(address, "/") {
		p.path = address
		p.listener, err = listenSocket(ctx, address)
	} else {
		if address, err = Loopback(address); err != nil {
			return nil, err
		}
		p.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", address)
	}
	if err != nil {
		return nil, fmt.Errorf("open a local port: %w", err)
	}
	return p, nil
}

// Loopback is an address for Listen in full, if it is on loopback.
func Loopback(address string) (string, error) {
	if _, err := strconv.ParseUint(address, 10, 16); err == nil {
		return net.JoinHostPort("127.0.0.1", address), nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("%q is neither PORT, HOST:PORT nor the path of a socket", address)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", fmt.Errorf("%s is not on this machine's loopback; a port that others can reach would let them in as you", address)
	}
	return net.JoinHostPort(host, port), nil
}

// Host and Number are where the port is, for the program that is to use it; Number is 0 for a socket, whose path Host is.
func (p *Port) Host() string {
	if p.path != "" {
		return p.path
	}
	return p.listener.Addr().(*net.TCPAddr).IP.String()
}

// Number is the port's; 0 for a socket.
func (p *Port) Number() int {
	if p.path != "" {
		return 0
	}
	return p.listener.Addr().(*net.TCPAddr).Port
}

// Serve carries connections until the context ends or Close; then it ends those that are open and waits for them.
func (p *Port) Serve(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { p.listener.Close() })()
	var open sync.WaitGroup
	defer open.Wait()
	defer stop()
	room := make(chan struct{}, maxConnections)
	for {
		local, err := p.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil:
			if err == nil {
				local.Close()
			}
			return nil
		case err != nil: // out of file descriptors, mostly
			p.refused(fmt.Errorf("accept a connection: %w", err))
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if err := sameUser(local); err != nil {
			p.refused(err)
			local.Close()
			continue
		}
		select {
		case room <- struct{}{}:
		default:
			p.refused(fmt.Errorf("there are %d connections already", maxConnections))
			local.Close()
			continue
		}
		open.Go(func() {
			defer func() { <-room }()
			defer context.AfterFunc(ctx, func() { local.Close() })()
			p.carry(ctx, local)
		})
	}
}

// Close ends the port; a socket's path goes with it.
func (p *Port) Close() error { return p.listener.Close() }

// patience is how long a gateway that can't be reached is tried again for one connection.
const patience = 15 * time.Second

// insist tries to reach the gateway again while it is away: it may be restarting.
func insist[T any](ctx context.Context, dial func(context.Context) (T, error), final func(error) bool) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pause := 100 * time.Millisecond
	for {
		far, err := dial(ctx)
		if err == nil || final(err) || ctx.Err() != nil {
			return far, err
		}
		select {
		case <-ctx.Done():
			return far, err
		case <-time.After(pause):
			pause = min(2*pause, 2*time.Second)
		}
	}
}

// Final tells errors after which trying again is no use.
type Final struct{ Err error }

func (f *Final) Error() string { return f.Err.Error() }

// Unwrap gives errors.Is the cause.
func (f *Final) Unwrap() error { return f.Err }

func isFinal(err error) bool {
	var final *Final
	return errors.As(err, &final)
}
