package postgres

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

// credentials are what the gateway logs in to a target with.
type credentials struct {
	target   configs.Target
	user     string
	password string       // empty: none is configured, and the target must let the account in without
	params   []wire.Param // beside user
	// certificate is shown to a target that asks for one; nil: none.
	certificate *tls.Certificate
}

// backend is a connection to a target that stands, logged in and ready.
type backend struct {
	raw     net.Conn
	ahead   *wire.Ahead // over raw
	conn    net.Conn    // ahead, or TLS over it
	key     wire.Cancel // the real one
	greeted []byte      // the target's ParameterStatus and NoticeResponse frames, for the client
	ready   []byte      // its first ReadyForQuery
	params  map[string]string
}

// targetError is an ErrorResponse of a target to the gateway itself, and its frame for the client.
type targetError struct {
	response pgproto3.ErrorResponse
	frame    []byte
}

func (e *targetError) Error() string {
	return fmt.Sprintf("the target says: %s (SQLSTATE %s)", e.response.Message, e.response.Code)
}

// login makes a connection ready: TLS, start-up, authentication, and everything up to ReadyForQuery. The caller has set
// a deadline on raw.
func login(raw net.Conn, c credentials) (*backend, error) {
	b, err := secure(raw, c.target, c.certificate)
	if err != nil {
		return nil, err
	}
	message, err := wire.AppendStartup(nil, append([]wire.Param{{Name: "user", Value: c.user}}, c.params...))
	if err != nil {
		return nil, err
	}
	if err := sayTarget(b.conn, message); err != nil {
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
func secure(raw net.Conn, t configs.Target, certificate *tls.Certificate) (*backend, error) {
	if t.TLS.Mode == "off" {
		ahead := wire.NewAhead(raw)
		return &backend{raw: raw, ahead: ahead, conn: ahead}, nil
	}
	config, err := targetTLS(t)
	if err != nil {
		return nil, err
	}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	if err := sayTarget(raw, wire.AppendRequest(nil, wire.SSLCode)); err != nil {
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
	return &backend{raw: raw, ahead: ahead, conn: conn}, nil
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
		ServerName: name, MinVersion: tls.VersionTLS12, NextProtos: []string{alpn},
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
func (b *backend) read() (t byte, frame []byte, err error) {
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
	return &targetError{response: response, frame: frame}
}

// greet reads what comes between authentication and the first ReadyForQuery.
func (b *backend) greet() error {
	b.params = map[string]string{}
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
			b.params[name] = value
			b.greeted = append(b.greeted, frame...)
		case 'N':
			b.greeted = append(b.greeted, frame...)
		case 'K':
			if b.key, err = wire.KeyData(body); err != nil {
				return err
			}
		case 'E':
			return refused(frame)
		case 'Z':
			b.ready = frame
			return nil
		default:
			return fmt.Errorf("the target sent a message of type %q before it was ready", t)
		}
	}
	return fmt.Errorf("the target sent %d messages and was still not ready", loginMessages)
}

// version is the target's major version, 0 if it did not say.
func (b *backend) version() int {
	return majorVersion(b.params["server_version"])
}

// majorVersion reads a server_version such as "15.18 (Debian …)", "19rc1" or "9.6.24"; 0 if it is none.
func majorVersion(said string) int {
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

// query runs one of the gateway's own statements, on a connection of the gateway's own, and returns its rows as text.
func (b *backend) query(sql string) ([][]string, error) {
	message := append([]byte{'Q'}, 0, 0, 0, 0)
	message = append(append(message, sql...), 0)
	binary.BigEndian.PutUint32(message[1:], uint32(len(message)-1))
	if err := sayTarget(b.conn, message); err != nil {
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

// bye ends a connection of the gateway's own in the way the target expects.
func (b *backend) bye() { _ = sayTarget(b.conn, []byte{'X', 0, 0, 0, 4}) }

// dialled is what session.Dial runs on a new connection: the login.
func (r *relay) dialled(c credentials) func(net.Conn) error {
	return func(conn net.Conn) error {
		b, err := login(conn, c)
		if err != nil {
			return err
		}
		r.handler.versions.Store(c.target.Address, b.version())
		r.target.Store(b)
		return nil
	}
}
