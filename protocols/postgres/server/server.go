// Package server is the gateway's side of a connection to a PostgreSQL server, from the request for TLS to where it is ready for what a
// client says, and for the gateway's own questions.
//
// It promises that the server has proven itself before anything secret is said (TLS that is verified and never falls back, SCRAM-SHA-256
// from both sides), that what it says is bounded before it is kept, and that everything that is written to a server stands in
// write.go. Whoever uses it brings the connection, with a deadline: session.Dial and session.Act do.
package server

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/jackc/pgproto3/v2"

	"sallyport/configs"
	"sallyport/protocols/postgres/wire"
)

// loginLimit bounds each message of a target during login, loginMessages how many there may be before it is ready.
const (
	loginLimit    = 64 << 10
	loginMessages = 1000
)

// Conn is a connection to a target that stands, logged in and ready. One goroutine reads at a time, and another may write.
type Conn struct {
	raw   net.Conn
	ahead *wire.Ahead // over raw
	conn  net.Conn    // ahead, or TLS over it

	Key     wire.Cancel       // the real one
	Greeted []byte            // the target's ParameterStatus and NoticeResponse frames, for the client
	Ready   []byte            // its first ReadyForQuery
	Params  map[string]string // the settings that it told of
}

// Error is an ErrorResponse of a target to the gateway itself, and its frame for the client.
type Error struct {
	Response pgproto3.ErrorResponse
	Frame    []byte
}

func (e *Error) Error() string {
	return fmt.Sprintf("the target says: %s (SQLSTATE %s)", e.Response.Message, e.Response.Code)
}

// SQLState is the server's code (PostgreSQL documentation, appendix A).
func (e *Error) SQLState() string { return e.Response.Code }

// Login makes a connection ready: TLS, start-up, authentication, and everything up to ReadyForQuery. The caller has set
// a deadline on raw.
func Login(raw net.Conn, c Credentials) (*Conn, error) {
	b, err := secure(raw, c.Target, c.Certificate)
	if err != nil {
		return nil, err
	}
	message, err := wire.AppendStartup(nil, append([]wire.Param{{Name: "user", Value: c.User}}, c.Params...))
	if err != nil {
		return nil, err
	}
	if err := write(b.conn, message); err != nil {
		return nil, err
	}
	if err := b.authenticate(c); err != nil {
		return nil, err
	}
	return b, b.greet()
}

// secure brings TLS up on a connection to a target, unless the target is configured without. It reads exactly the one
// byte of the answer, so that nothing that came with it in clear text is taken for more (CVE-2021-23222), and never
// falls back.
func secure(raw net.Conn, t configs.Target, certificate *tls.Certificate) (*Conn, error) {
	if t.TLS.Mode == "off" {
		ahead := wire.NewAhead(raw)
		return &Conn{raw: raw, ahead: ahead, conn: ahead}, nil
	}
	config, err := targetTLS(t)
	if err != nil {
		return nil, err
	}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	if err := write(raw, wire.AppendRequest(nil, wire.SSLCode)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(raw, answer[:]); err != nil {
		return nil, fmt.Errorf("read the answer to the request for TLS: %w", err)
	}
	if answer[0] != 'S' {
		return nil, errors.New("it does not offer TLS, which its configuration here asks for (tls.mode: verify-full)")
	}
	ahead := wire.NewAhead(raw)
	conn := tls.Client(ahead, config)
	if err := conn.Handshake(); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return &Conn{raw: raw, ahead: ahead, conn: conn}, nil
}

// targetTLS is the verified TLS towards a target. The authorities' file is read each time, so that a new one counts at
// once.
func targetTLS(t configs.Target) (*tls.Config, error) {
	name := t.TLS.ServerName
	if name == "" {
		host, _, err := net.SplitHostPort(t.Address)
		if err != nil {
			return nil, fmt.Errorf("address of target %s: %w", t.Name, err)
		}
		name = host
	}
	config := &tls.Config{
		ServerName: name, MinVersion: tls.VersionTLS12, NextProtos: []string{wire.ALPN},
		DynamicRecordSizingDisabled: true,
	}
	if t.TLS.CA != "" {
		pem, err := os.ReadFile(t.TLS.CA)
		if err != nil {
			return nil, fmt.Errorf("read the authorities of target %s: %w", t.Name, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", t.TLS.CA)
		}
	}
	return config, nil
}

// read reads one frame of the login. Its body is its own copy.
func (b *Conn) read() (t byte, frame []byte, err error) {
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(b.conn, head[:]); err != nil {
		return 0, nil, fmt.Errorf("read from the target: %w", err)
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length < 4 || length > loginLimit {
		return 0, nil, fmt.Errorf("the target sent a message of type %q and %d bytes during login", head[0], int32(length))
	}
	frame = make([]byte, int(length)+1)
	copy(frame, head[:])
	if _, err := io.ReadFull(b.conn, frame[wire.HeaderSize:]); err != nil {
		return 0, nil, fmt.Errorf("read from the target: %w", err)
	}
	return head[0], frame, nil
}

// refused makes an error of an ErrorResponse.
func refused(frame []byte) error {
	response, err := wire.DecodeError(frame[wire.HeaderSize:])
	if err != nil {
		return fmt.Errorf("the target's error: %w", err)
	}
	return &Error{Response: response, Frame: frame}
}

// greet reads what comes between authentication and the first ReadyForQuery.
func (b *Conn) greet() error {
	b.Params = map[string]string{}
	for range loginMessages {
		t, frame, err := b.read()
		if err != nil {
			return err
		}
		switch body := frame[wire.HeaderSize:]; t {
		case 'S':
			name, value, err := wire.DecodeParameterStatus(body)
			if err != nil {
				return fmt.Errorf("ParameterStatus: %w", err)
			}
			b.Params[name] = value
			b.Greeted = append(b.Greeted, frame...)
		case 'N':
			b.Greeted = append(b.Greeted, frame...)
		case 'K':
			if b.Key, err = wire.KeyData(body); err != nil {
				return err
			}
		case 'E':
			return refused(frame)
		case 'Z':
			b.Ready = frame
			return nil
		default:
			return fmt.Errorf("the target sent a message of type %q before it was ready", t)
		}
	}
	return fmt.Errorf("the target sent %d messages and was still not ready", loginMessages)
}

// Version is the target's major version, 0 if it did not say.
func (b *Conn) Version() int {
	return MajorVersion(b.Params["server_version"])
}

// MajorVersion reads a server_version such as "15.18 (Debian …)", "19rc1" or "9.6.24"; 0 if it is none.
func MajorVersion(said string) int {
	end := strings.IndexFunc(said, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(said)
	}
	n, err := strconv.Atoi(said[:end])
	if err != nil {
		return 0
	}
	return n
}

// Query runs one of the gateway's own statements, on a connection of the gateway's own, and returns its rows as text.
func (b *Conn) Query(sql string) ([][]string, error) {
	message := append([]byte{'Q'}, 0, 0, 0, 0)
	message = append(append(message, sql...), 0)
	binary.BigEndian.PutUint32(message[1:], uint32(len(message)-1))
	if err := write(b.conn, message); err != nil {
		return nil, err
	}
	var rows [][]string
	var failed error
	for range loginMessages {
		t, frame, err := b.read()
		if err != nil {
			return nil, err
		}
		switch t {
		case 'D':
			cells, err := wire.DecodeRow(frame[wire.HeaderSize:])
			if err != nil {
				return nil, err
			}
			row := make([]string, len(cells))
			for i, cell := range cells {
				row[i] = string(cell)
			}
			rows = append(rows, row)
		case 'E':
			failed = refused(frame)
		case 'Z':
			return rows, failed
		}
	}
	return nil, errors.New("the target's answer has no end")
}

// Bye ends a connection of the gateway's own in the way the target expects.
func (b *Conn) Bye() { _ = write(b.conn, []byte{'X', 0, 0, 0, 4}) }

// LocalAddr and RemoteAddr are the ends of the connection.
func (b *Conn) LocalAddr() net.Addr  { return b.raw.LocalAddr() }
func (b *Conn) RemoteAddr() net.Addr { return b.raw.RemoteAddr() }

// TLS is the version of it that is spoken, such as "TLS 1.3", or "off".
func (b *Conn) TLS() string {
	if secured, ok := b.conn.(*tls.Conn); ok {
		return tls.VersionName(secured.ConnectionState().Version)
	}
	return "off"
}

// Arrivals and ReadArrived are those of wire.Ahead.
func (b *Conn) Arrivals(holding bool, arrived func() (more bool, err error)) error {
	return b.ahead.Arrivals(holding, arrived)
}

func (b *Conn) ReadArrived(p []byte) (int, error) { return b.ahead.ReadArrived(b.conn, p) }

// SendCancel sends a CancelRequest with the same TLS as a session has, and waits until the target has closed, which it does
// after having acted.
func SendCancel(raw net.Conn, t configs.Target, key wire.Cancel) error {
	b, err := secure(raw, t, nil) // no login, so nobody to prove
	if err != nil {
		return err
	}
	if err := write(b.conn, wire.AppendCancel(nil, key)); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, b.conn, 1); err == nil {
		return errors.New("the target answered a cancel request, which has no answer")
	} else if nerr, ok := errors.AsType[net.Error](err); ok && nerr.Timeout() {
		return err
	}
	return nil
}
