package tunnel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestLoopback(t *testing.T) {
	for in, want := range map[string]string{
		"5433": "127.0.0.1:5433", "0": "127.0.0.1:0", "127.0.0.1:5433": "127.0.0.1:5433", "127.9.9.9:1": "127.9.9.9:1", "[::1]:5433": "[::1]:5433", "localhost:1": "127.0.0.1:1",
		"": "", ":5433": "", "0.0.0.0:1": "", "[::]:1": "", "10.0.0.1:1": "", "example.com:1": "", "65536": "", "-1": "", "[::ffff:10.0.0.1]:1": "",
	} {
		if got, err := Loopback(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

// TestTable reads what proc(5) describes.
func TestTable(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("Linux's table")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	local, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	if err := sameUser(local); err != nil {
		t.Errorf("our own connection: %v", err)
	}
	const table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: 0100007F:1538 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 20 4 30 10 -1\n" +
		"   1: 0100007F:C351 0100007F:1538 06 00000000:00000000 00:00000000 00000000     0        0 1 1 0 20 4 30 10 -1\n" +
		"   2: 0000000000000000FFFF00000100007F:C352 0000000000000000FFFF00000100007F:1538 01 00000000:00000000 00:00000000 00000000  1001        0 1\n" +
		"   3: damaged\n"
	server := netip.MustParseAddrPort("127.0.0.1:5432")
	for port, want := range map[uint16]int{0xC350: -1, 0xC351: -1, 0xC352: 1001, 1: -1} {
		own := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
		uid, found, err := scanTable(strings.NewReader(table), own, server)
		if err != nil || found != (want >= 0) || found && uid != want {
			t.Errorf("from port %x: user %d, %v, %v; want %d", port, uid, found, err, want)
		}
	}
}

func message(parts ...string) []byte {
	packet := binary.BigEndian.AppendUint32(nil, 3<<16|2) // whatever the minor version
	for _, p := range parts {
		packet = append(append(packet, p...), 0)
	}
	return append(packet, 0)
}

func TestAsAccount(t *testing.T) {
	database := func(named string) string { return "<" + named + ">" }
	for name, test := range map[string]struct{ in, want []byte }{
		"user and database":    {message("user", "jane", "application_name", "x", "database", "shop"), message("application_name", "x", "user", "app", "database", "<shop>")},
		"no database":          {message("user", "jane"), message("user", "app", "database", "<>")},
		"libpq's own database": {message("user", "app", "database", "app"), message("user", "app", "database", "<>")},
		"user named twice":     {message("user", "jane", "user", "root"), message("user", "app", "database", "<>")},
		"nothing":              {message(), message("user", "app", "database", "<>")},
		"cut short":            {message("user", "jane")[:10], nil},
		"a name without value": {append(message()[:4], "user\x00"...), nil},
	} {
		got, err := asAccount(test.in, "app", database)
		if !bytes.Equal(got, test.want) || (err == nil) != (test.want != nil) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, test.want)
		}
	}
}

// TestStrangeClients: what is no PostgreSQL client gets an answer or nothing, and never a connection to the gateway.
func TestStrangeClients(t *testing.T) {
	ssl := []byte{0, 0, 0, 8, 4, 210, 22, 47}
	for name, sent := range map[string][]byte{
		"HTTP":                []byte("GET / HTTP/1.1\r\n\r\n"),
		"too long":            {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"too short":           {0, 0, 0, 4, 0, 0, 0, 0},
		"protocol 2":          {0, 0, 0, 9, 0, 2, 0, 0, 0},
		"encryption for ever": bytes.Repeat(ssl, 10),
		"nothing":             nil,
	} {
		far, near := net.Pipe()
		dialled := false
		carry := Postgres("app", func(s string) string { return s }, func(context.Context) (net.Conn, error) {
			dialled = true
			return nil, &Final{errors.New("must not be asked")}
		})
		ended := make(chan struct{})
		go func() { defer close(ended); carry(t.Context(), near) }()
		go func() {
			_, _ = far.Write(sent)
			if sent == nil {
				far.Close()
			}
		}()
		_ = far.SetReadDeadline(time.Now().Add(20 * time.Second))
		answer, _ := io.ReadAll(far)
		<-ended
		if dialled {
			t.Errorf("%s: the gateway was dialled", name)
		}
		if sent != nil && !bytes.Contains(answer, []byte("FATAL")) {
			t.Errorf("%s: answered with %q", name, answer)
		}
	}
}

// TestInsist: a gateway that is away is tried again, and one that says no is not.
func TestInsist(t *testing.T) {
	tries := 0
	got, err := insist(t.Context(), func(context.Context) (int, error) {
		if tries++; tries < 3 {
			return 0, os.ErrDeadlineExceeded
		}
		return 42, nil
	}, isFinal)
	if got != 42 || err != nil || tries != 3 {
		t.Errorf("%d after %d tries, %v", got, tries, err)
	}
	tries = 0
	no := errors.New("no")
	if _, err := insist(t.Context(), func(context.Context) (int, error) { tries++; return 0, &Final{no} }, isFinal); !errors.Is(err, no) || tries != 1 {
		t.Errorf("after %d tries: %v", tries, err)
	}
}
