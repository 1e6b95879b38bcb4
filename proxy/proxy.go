// Package proxy is the front door: it listens, bounds what strangers can cost, and hands each connection to its protocol.
//
// It knows nothing of identities, grants or recordings. A connection counts as a stranger's until its protocol calls
// Proven on it (through authn.Proven); strangers are few at a time, in all and from one address, so that nobody who
// proves nothing can keep out those who do.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"sallyport/configs"
)

// Handler serves one connection of one protocol and returns when it is over; it ends soon after ctx does. It closes conn.
type Handler interface {
	Serve(ctx context.Context, conn net.Conn)
}

// Proxy is the set of listeners. Its methods are safe for concurrent use.
type Proxy struct {
	limit *limiter
	log   *slog.Logger

	mu        sync.Mutex
	listeners []net.Listener
	closed    bool
	serving   sync.WaitGroup // accept loops and connections
}

// New makes a proxy without listeners. refused is called for each connection that a limit turned away.
func New(limits configs.Limits, refused func(kind string, from net.Addr), log *slog.Logger) *Proxy {
	return &Proxy{limit: newLimiter(limits.Connections, limits.Unauthenticated, refused), log: log}
}

// Listen begins to listen on address (host:port; port 0 takes a free one) and to hand connections to handler, until
// Close. Connections' contexts end with ctx.
func (p *Proxy) Listen(ctx context.Context, name, address string, handler Handler) (net.Addr, error) {
	l, err := p.Listener(name, address)
	if err != nil {
		return nil, err
	}
	p.serving.Go(func() { p.accept(ctx, name, l, handler) })
	return l.Addr(), nil
}

// Listener is a limited listener for a server that accepts by itself, such as an http.Server. It ends with Close.
func (p *Proxy) Listener(name, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s: %w; is another program using the port, or is the address not this machine's?", name, address, err)
	}
	limited := &limitedListener{Listener: l, limit: p.limit, log: p.log}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		l.Close()
		return nil, net.ErrClosed
	}
	p.listeners = append(p.listeners, limited)
	return limited, nil
}

func (p *Proxy) accept(ctx context.Context, name string, l net.Listener, handler Handler) {
	for {
		conn, err := l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				p.log.Error("a listener ended", "listener", name, "error", err)
			}
			return
		}
		p.serving.Go(func() {
			defer conn.Close()
			defer func() {
				if caught := recover(); caught != nil { // one bad connection must never take the gateway down
					p.log.Error("panic in a connection", "listener", name, "panic", caught)
				}
			}()
			handler.Serve(ctx, conn)
		})
	}
}

// Close stops listening. Connections go on.
func (p *Proxy) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, l := range p.listeners {
		l.Close()
	}
	p.listeners = nil
}

// Wait returns when every connection that Listen handed out is over, or ctx ends.
func (p *Proxy) Wait(ctx context.Context) error {
	over := make(chan struct{})
	go func() {
		p.serving.Wait()
		close(over)
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// limitedListener turns away what is over the limits and survives passing errors (too many open files) by waiting.
type limitedListener struct {
	net.Listener
	limit *limiter
	log   *slog.Logger
}

func (l *limitedListener) Accept() (net.Conn, error) {
	wait := 5 * time.Millisecond
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil, err
			}
			l.log.Warn("accept failed, trying again", "address", l.Addr(), "error", err)
			time.Sleep(wait)
			wait = min(2*wait, time.Second)
			continue
		}
		wait = 5 * time.Millisecond
		if tcp, ok := conn.(*net.TCPConn); ok {
			// A client that vanished without a word must not hold its session open for hours.
			_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 4})
		}
		if limited := l.limit.take(conn); limited != nil {
			return limited, nil
		}
		conn.Close()
	}
}
