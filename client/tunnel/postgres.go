package tunnel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// The codes of a start-up packet (PostgreSQL's documentation, "Message Formats": SSLRequest, GSSENCRequest, CancelRequest,
// StartupMessage).
const (
	codeSSL     = 80877103
	codeGSS     = 80877104
	codeCancel  = 80877102
	majorThree  = 3
	maxStartup  = 10_000 // PostgreSQL's own bound
	maxRequests = 4      // of SSLRequest and GSSENCRequest before the start-up message
)

// Postgres carries connections to a PostgreSQL target: whatever user the program names, it is the account that the port is
// for, and database says what the gateway calls the database that the program names. dial gives an authenticated TLS
// connection to the gateway, past SSLRequest.
func Postgres(account string, database func(named string) string, dial func(context.Context) (net.Conn, error)) Carry {
	return func(ctx context.Context, local net.Conn) {
		defer local.Close()
		if err := carryPostgres(ctx, local, account, database, dial); err != nil && !errors.Is(err, io.EOF) {
			tellPostgres(local, err)
		}
	}
}

func carryPostgres(ctx context.Context, local net.Conn, account string, database func(string) string, dial func(context.Context) (net.Conn, error)) error {
	if err := local.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return err
	}
	packet, err := startup(local)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint32(packet) != codeCancel {
		if packet, err = asAccount(packet, account, database); err != nil {
			return err
		}
	}
	far, err := insist(ctx, dial, isFinal)
	if err != nil {
		return err
	}
	defer far.Close()
	defer context.AfterFunc(ctx, func() { far.Close() })()
	if err := errors.Join(local.SetDeadline(time.Time{}), far.SetDeadline(time.Time{})); err != nil {
		return err
	}
	whole := binary.BigEndian.AppendUint32(nil, uint32(len(packet)+4))
	if _, err := far.Write(append(whole, packet...)); err != nil {
		return fmt.Errorf("write to the gateway: %w", err)
	}
	splice(local, far)
	return nil
}

// startup reads the packet with which the program says what it wants, without its length. Encryption is declined: the port
// is on this machine.
func startup(local net.Conn) ([]byte, error) {
	for range maxRequests {
		var head [4]byte
		if _, err := io.ReadFull(local, head[:]); err != nil {
			return nil, io.EOF // somebody only looked whether the port is open
		}
		length := binary.BigEndian.Uint32(head[:])
		if length < 8 || length > maxStartup {
			return nil, errors.New("this port takes PostgreSQL clients only")
		}
		packet := make([]byte, length-4)
		if _, err := io.ReadFull(local, packet); err != nil {
			return nil, io.EOF
		}
		switch code := binary.BigEndian.Uint32(packet); {
		case code == codeSSL || code == codeGSS:
			if _, err := local.Write([]byte{'N'}); err != nil {
				return nil, io.EOF
			}
		case code == codeCancel, code>>16 == majorThree:
			return packet, nil
		default:
			return nil, errors.New("this port takes PostgreSQL clients of protocol 3 only")
		}
	}
	return nil, errors.New("the client asks for encryption again and again")
}

// asAccount is a start-up message with the user and the database that the gateway is to see; all other parameters stay.
func asAccount(packet []byte, account string, database func(string) string) ([]byte, error) {
	out := append([]byte(nil), packet[:4]...)
	rest, user, named := packet[4:], "", ""
	next := func() (string, bool) {
		text, after, found := bytes.Cut(rest, []byte{0})
		rest = after
		return string(text), found
	}
	for {
		name, found := next()
		if !found {
			return nil, errors.New("the client's start-up message is damaged")
		}
		if name == "" {
			break
		}
		value, found := next()
		switch {
		case !found:
			return nil, errors.New("the client's start-up message is damaged")
		case name == "user":
			user = value
		case name == "database":
			named = value
		default:
			out = append(append(append(append(out, name...), 0), value...), 0)
		}
	}
	if named == user && user == account { // what libpq sends for somebody who named no database
		named = ""
	}
	for _, pair := range [][2]string{{"user", account}, {"database", database(named)}} {
		out = append(append(append(append(out, pair[0]...), 0), pair[1]...), 0)
	}
	return append(out, 0), nil
}

// tellPostgres says why a connection goes no further, as a server does.
func tellPostgres(local net.Conn, why error) {
	fields := "SFATAL\x00VFATAL\x00C08006\x00M" + string(bytes.ReplaceAll([]byte("sallyport tunnel: "+why.Error()), []byte{0}, nil)) + "\x00\x00"
	message := binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(fields)+4))
	_ = local.SetDeadline(time.Now().Add(time.Second)) // it may be gone
	_, _ = local.Write(append(message, fields...))
}

// splice passes bytes both ways until both have ended, or one has failed.
func splice(a, b net.Conn) {
	ended := make(chan struct{}, 2)
	pass := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); err == nil && ok {
			_ = half.CloseWrite() // the other way goes on
		} else {
			to.Close()
			from.Close()
		}
		ended <- struct{}{}
	}
	go pass(a, b)
	go pass(b, a)
	<-ended
	<-ended
}
