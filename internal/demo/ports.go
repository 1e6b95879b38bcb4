//go:build unix

package demo

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are chosen below the range from which systems take those of outgoing connections, so that a process which is
// being restarted finds its port free.
const (
	lowestPort  = 20_000
	highestPort = 32_000
)

// freePorts finds so many ports of loopback that nobody listens on and no other demo has taken or claims. The claims hold until they
// are closed or this process ends.
func freePorts(count int, taken map[int]bool) (free []int, claims []io.Closer, err error) {
	for range 10_000 {
		if len(free) == count {
			return free, claims, nil
		}
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		if taken[port] {
			continue
		}
		taken[port] = true
		claim, err := claimPort(port)
		if err != nil {
			continue
		}
		listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			claim.Close()
			continue
		}
		listener.Close()
		free, claims = append(free, port), append(claims, claim)
	}
	for _, claim := range claims {
		claim.Close()
	}
	return nil, nil, fmt.Errorf("no %d free ports on 127.0.0.1 between %d and %d", count, lowestPort, highestPort)
}
