package tunnel

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Knows tells whether this system says whose program is at the other end of a connection.
const Knows = true

// maxTable bounds what is read of the system's table of connections.
const maxTable = 64 << 20

// sameUser refuses a connection that is not of a program of this user's.
func sameUser(local net.Conn) error {
	uid, err := peerUser(local)
	switch {
	case err != nil:
		return fmt.Errorf("a connection was refused, because it can't be known whose it is: %w", err)
	case uid != os.Getuid():
		return fmt.Errorf("a connection of user %d was refused; this port is for user %d alone", uid, os.Getuid())
	}
	return nil
}

func peerUser(local net.Conn) (int, error) {
	switch c := local.(type) {
	case *net.UnixConn:
		raw, err := c.SyscallConn()
		if err != nil {
			return 0, err
		}
		var peer *unix.Ucred
		var failed error
		if err := raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
			return 0, err
		}
		if failed != nil {
			return 0, failed
		}
		return int(peer.Uid), nil
	case *net.TCPConn:
		// The peer's own end of the connection is the one whose addresses are ours turned round.
		return tableUser(c.RemoteAddr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort())
	}
	return 0, fmt.Errorf("%T is no local connection", local)
}

// tableUser finds the user of the socket with these ends in /proc/net/tcp and tcp6 (proc(5)).
func tableUser(own, other netip.AddrPort) (int, error) {
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(name)
		if os.IsNotExist(err) { // without IPv6
			continue
		}
		if err != nil {
			return 0, err
		}
		uid, found, err := scanTable(io.LimitReader(f, maxTable), own, other)
		f.Close()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		if found {
			return uid, nil
		}
	}
	return 0, fmt.Errorf("the system lists no connection from %s", own)
}

// established is the state of an open connection in the table.
const established = "01"

func scanTable(r io.Reader, own, other netip.AddrPort) (uid int, found bool, err error) {
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 8 || fields[3] != established || fields[1] == "local_address" {
			continue
		}
		if a, ok := tableAddress(fields[1]); !ok || a != unmapped(own) {
			continue
		}
		if a, ok := tableAddress(fields[2]); !ok || a != unmapped(other) {
			continue
		}
		uid, err := strconv.Atoi(fields[7])
		return uid, err == nil, err
	}
	return 0, false, scanner.Err()
}

// tableAddress reads an address as the table has it: each four bytes as a number of this machine's order, in hexadecimal.
func tableAddress(text string) (netip.AddrPort, bool) {
	address, port, ok := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	raw, failed := hex.DecodeString(address)
	if !ok || err != nil || failed != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	if littleEndian {
		for i := 0; i < len(raw); i += 4 {
			raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
		}
	}
	a, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(number)), ok
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1
