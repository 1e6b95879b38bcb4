// Package sshtest is what the tests of the rooms of SSH share: values without their errors, waiting for a condition, and listeners that
// are gone when the test is.
package sshtest

import (
	"net"
	"testing"
	"time"
)

// Deadline is how long anything in a test may take that mostly takes no time at all.
const Deadline = 60 * time.Second

// Must is v, where there is no error.
func Must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Eventually polls a condition, and fails when it does not hold in time.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(Deadline); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// Listen serves each connection to a loopback address in a goroutine of its own, and closes it then. The address is free again when
// the test is over.
func Listen(t testing.TB, serve func(net.Conn)) (address string) {
	t.Helper()
	l := Must(net.Listen("tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { l.Close() })
	Accept(l, serve)
	return l.Addr().String()
}

// Accept is Listen at a listener that is there.
func Accept(l net.Listener, serve func(net.Conn)) {
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
}
