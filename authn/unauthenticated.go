package authn

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"sync"

	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// What a minute's counts may hold; beyond that they go on without telling kinds and sources apart.
const (
	maxKinds   = 64
	maxSources = 1024
)

// counts is what strangers did wrong since the last audit event.
type counts struct {
	mu      sync.Mutex
	kinds   map[string]int
	sources map[netip.Addr]struct{}
}

// Unauthenticated counts something that a stranger did wrong ("postgres: no TLS", "ssh: garbage"); the counts become one
// audit event "unauthenticated.refused" a minute, and at Close. kind must come from a fixed list in the caller.
func (s *Service) Unauthenticated(kind string, from net.Addr) {
	s.strange.mu.Lock()
	defer s.strange.mu.Unlock()
	if s.strange.kinds == nil {
		s.strange.kinds, s.strange.sources = map[string]int{}, map[netip.Addr]struct{}{}
	}
	if _, known := s.strange.kinds[kind]; !known && len(s.strange.kinds) >= maxKinds {
		kind = "other"
	}
	s.strange.kinds[kind]++
	if from == nil || len(s.strange.sources) >= maxSources {
		return
	}
	if a, err := netip.ParseAddrPort(from.String()); err == nil {
		s.strange.sources[a.Addr().Unmap().WithZone("")] = struct{}{}
	}
}

// flushCounts writes the counts, if there are any, and begins anew; where it fails it keeps them for the next time.
func (s *Service) flushCounts(ctx context.Context) error {
	s.strange.mu.Lock()
	kinds, sources := s.strange.kinds, s.strange.sources
	s.strange.kinds, s.strange.sources = nil, nil
	s.strange.mu.Unlock()
	if len(kinds) == 0 {
		return nil
	}
	e := store.AuditEvent{Kind: "unauthenticated.refused", Actor: system.Actor, Outcome: string(refusal.NotAuthenticated), Fields: map[string]string{}}
	for kind, n := range kinds {
		e.Fields[kind] = strconv.Itoa(n)
	}
	e.Fields["sources"] = strconv.Itoa(len(sources))
	if len(sources) >= maxSources {
		e.Fields["sources"] += " or more"
	}
	if len(sources) == 1 {
		for a := range sources {
			e.Client = a.String()
		}
	}
	err := s.store.Audit(ctx, e)
	if err == nil {
		return nil
	}
	s.strange.mu.Lock()
	defer s.strange.mu.Unlock()
	if s.strange.kinds == nil {
		s.strange.kinds, s.strange.sources = map[string]int{}, map[netip.Addr]struct{}{}
	}
	for kind, n := range kinds {
		s.strange.kinds[kind] += n
	}
	maps.Copy(s.strange.sources, sources)
	return fmt.Errorf("write down what strangers did: %w", err)
}

// Proven tells the front door that the other end of the connection has proven an identity, so that the connection no
// longer counts as a stranger's. On a connection that the front door does not count it does nothing.
func Proven(conn net.Conn) {
	for {
		switch c := conn.(type) {
		case interface{ Proven() }:
			c.Proven()
			return
		case *tls.Conn:
			conn = c.NetConn()
		default:
			return
		}
	}
}
