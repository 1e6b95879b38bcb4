//go:build !linux

package ssh

import "net"

func acknowledger(net.Conn) func() { return nil }
