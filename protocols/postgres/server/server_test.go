package server

import (
	"net"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
)

func dialTest(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// script is a server that says fixed bytes; it shows what the gateway makes of a target that lies.
func script(t *testing.T, say func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buf := make([]byte, 4096)
		if _, err := conn.Read(buf); err != nil {
			return
		}
		say(conn)
		for { // until the other side has had enough
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	return l.Addr().String()
}

func TestTargetThatLies(t *testing.T) {
	auth := func(kind byte, data string) string {
		return "R\x00\x00\x00" + string(rune(8+len(data))) + "\x00\x00\x00" + string(rune(kind)) + data
	}
	tests := []struct {
		name string
		tls  string
		says string
		want string
	}{
		{"no TLS", "", "N", "does not offer TLS"},
		{"an error instead of TLS", "", "E\x00\x00\x00\x05\x00", "does not offer TLS"},
		{"clear text glued to its yes", "", "SR\x00\x00\x00\x08\x00\x00\x00\x00", "TLS"},
		{"let in without a proof", "off", auth(0, ""), "without asking"},
		{"a list of mechanisms without an end", "off", auth(10, "SCRAM-SHA-256\x00"), "malformed"},
		{"an empty list", "off", auth(10, "\x00"), "offers none"},
		{"only what we do not speak", "off", auth(10, "SCRAM-SHA-1\x00\x00"), "offers none but SCRAM-SHA-1"},
		{"endless iterations", "off", auth(10, "SCRAM-SHA-256\x00\x00") + auth(11, "r=x,s=AAAA,i=2000000000"), "iterations"},
		{"one iteration", "off", auth(10, "SCRAM-SHA-256\x00\x00") + auth(11, "r=x,s=AAAA,i=1"), "iterations"},
		{"another's nonce", "off", auth(10, "SCRAM-SHA-256\x00\x00") + auth(11, "r=x,s=AAAA,i=4096"), "nonce"},
		{"a message of 2 GiB", "off", "R\x7f\xff\xff\xff", "2147483647 bytes"},
		{"a length of 0", "off", "R\x00\x00\x00\x00", "0 bytes"},
		{"GSS", "off", auth(7, ""), "kind 7"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			address := script(t, func(conn net.Conn) { conn.Write([]byte(test.says)) })
			target := configs.Target{Name: "liar", Address: address, TLS: configs.TargetTLS{Mode: test.tls}}
			_, err := Login(dialTest(t, address), Credentials{Target: target, User: "app", Password: "x"})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got error %v, want one with %q", err, test.want)
			}
		})
	}
}

// TestLoginSplitAtEveryByte feeds a recorded login one byte at a time (a known mistake of others).
func TestLoginSplitAtEveryByte(t *testing.T) {
	says := "R\x00\x00\x00\x08\x00\x00\x00\x00S\x00\x00\x00\x18server_version\x0015.1\x00K\x00\x00\x00\x0c\x00\x00\x00\x07abcdZ\x00\x00\x00\x05I"
	address := script(t, func(conn net.Conn) {
		for i := range says {
			conn.Write([]byte{says[i]})
		}
	})
	target := configs.Target{Name: "slow", Address: address, TLS: configs.TargetTLS{Mode: "off"}}
	b, err := Login(dialTest(t, address), Credentials{Target: target, User: "open"})
	if err != nil {
		t.Fatal(err)
	}
	if b.Version() != 15 || b.Key.PID != 7 || string(b.Key.Key) != "abcd" || string(b.Ready) != "Z\x00\x00\x00\x05I" {
		t.Fatalf("got %+v", b)
	}
}
