package authn

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
)

func TestStrangersBecomeOneEvent(t *testing.T) {
	r := newRig(t)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			r.Unauthenticated("ssh: garbage", &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(i%5)), Port: i + 1})
			r.Unauthenticated("postgres: no TLS", nil)
		})
	}
	all.Wait()
	if err := r.flushCounts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.flushCounts(t.Context()); err != nil { // nothing to tell
		t.Fatal(err)
	}
	r.Unauthenticated("ssh: garbage", somewhere)
	if err := r.Close(t.Context()); err != nil { // writes the last
		t.Fatal(err)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := r.events("unauthenticated.refused")
	if len(e) != 2 || e[0].Fields["ssh: garbage"] != "50" || e[0].Fields["postgres: no TLS"] != "50" || e[0].Fields["sources"] != "5" || e[0].Client != "" {
		t.Fatalf("%+v", e)
	}
	if e[1].Fields["ssh: garbage"] != "1" || e[1].Client != "192.0.2.7" || e[1].Actor != "system" {
		t.Fatalf("%+v", e[1])
	}
}

func TestCountsAreBounded(t *testing.T) {
	r := newRig(t)
	for i := range 5000 {
		r.Unauthenticated(fmt.Sprint("kind ", i), &net.TCPAddr{IP: net.IPv4(10, 0, byte(i>>8), byte(i)), Port: 1})
	}
	if k, s := len(r.strange.kinds), len(r.strange.sources); k > maxKinds+1 || s > maxSources {
		t.Fatalf("%d kinds, %d sources", k, s)
	}
}

// Counts that can't be written are kept for the next time.
func TestCountsSurviveAFailedWrite(t *testing.T) {
	r := newRig(t)
	r.Unauthenticated("ssh: garbage", somewhere)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.flushCounts(over); err == nil {
		t.Fatal("written after the end")
	}
	r.Unauthenticated("ssh: garbage", somewhere)
	if err := r.flushCounts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := r.events("unauthenticated.refused"); len(e) != 1 || e[0].Fields["ssh: garbage"] != "2" {
		t.Fatalf("%+v", e)
	}
}
