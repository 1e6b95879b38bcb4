package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The codes in the place of a version at the start of a connection.
const (
	Version30     = 3 << 16
	Version32     = 3<<16 | 2
	CancelCode    = 1234<<16 | 5678
	SSLCode       = 1234<<16 | 5679
	GSSENCCode    = 1234<<16 | 5680
	StartupLimit  = 10_000 // MAX_STARTUP_PACKET_LENGTH
	MaxKey        = 256    // bytes of a cancel key under 3.2
	startupHeader = 8
)

// ALPN is the protocol's name in TLS (PostgreSQL documentation, "SSL Session Encryption").
const ALPN = "postgresql"

// ErrStartupLayout is a start-up packet that is not laid out as one.
var ErrStartupLayout = errors.New("invalid startup packet layout")

// Packet is what opens a connection: a code (version or request) and what follows it.
type Packet struct {
	Code uint32
	Body []byte
}

// ReadPacket reads one start-up packet. It allocates only after the length was found to be between 8 and StartupLimit.
func ReadPacket(r io.Reader) (Packet, error) {
	var head [startupHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Packet{}, err
	}
	length := binary.BigEndian.Uint32(head[:])
	if length < startupHeader || length > StartupLimit {
		return Packet{}, fmt.Errorf("invalid length of startup packet: %d", int32(length))
	}
	body := make([]byte, length-startupHeader)
	if _, err := io.ReadFull(r, body); err != nil {
		return Packet{}, err
	}
	return Packet{Code: binary.BigEndian.Uint32(head[4:]), Body: body}, nil
}

// Param is one start-up parameter, in the client's order.
type Param struct{ Name, Value string }

// Params reads a StartupMessage's parameters: pairs of strings that end in NUL, and one NUL at the very end. The order is
// kept and duplicates too; the server takes the last one.
func (p Packet) Params() ([]Param, error) {
	b := p.Body
	var params []Param
	for {
		name, rest, ok := bytes.Cut(b, []byte{0})
		if !ok {
			return nil, ErrStartupLayout
		}
		if len(name) == 0 {
			if len(rest) != 0 {
				return nil, ErrStartupLayout
			}
			return params, nil
		}
		value, rest, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			return nil, ErrStartupLayout
		}
		params = append(params, Param{string(name), string(value)})
		b = rest
	}
}

// AppendStartup appends a StartupMessage of version 3.0. It refuses a NUL in a name or value, which would smuggle in
// another parameter, an empty name, which would end them, and what is over the server's limit.
func AppendStartup(b []byte, params []Param) ([]byte, error) {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, Version30)
	for _, p := range params {
		if p.Name == "" || strings.ContainsRune(p.Name, 0) || strings.ContainsRune(p.Value, 0) {
			return nil, fmt.Errorf("startup parameter %q can't be sent", p.Name)
		}
		b = append(b, p.Name...)
		b = append(b, 0)
		b = append(b, p.Value...)
		b = append(b, 0)
	}
	b = append(b, 0)
	if len(b)-start > StartupLimit {
		return nil, fmt.Errorf("the startup parameters take %d bytes, over the limit of %d", len(b)-start, StartupLimit)
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b, nil
}

// AppendRequest appends an SSLRequest or another request that is only a code.
func AppendRequest(b []byte, code uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, startupHeader)
	return binary.BigEndian.AppendUint32(b, code)
}

// Cancel is what a CancelRequest asks for.
type Cancel struct {
	PID uint32
	Key []byte
}

// Cancel reads a CancelRequest: a process id and a key of 4 to 256 bytes.
func (p Packet) Cancel() (Cancel, error) {
	if n := len(p.Body) - 4; n < 4 || n > MaxKey {
		return Cancel{}, fmt.Errorf("invalid length of cancel key: %d", n)
	}
	return Cancel{PID: binary.BigEndian.Uint32(p.Body), Key: p.Body[4:]}, nil
}

// AppendCancel appends a CancelRequest.
func AppendCancel(b []byte, c Cancel) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(startupHeader+4+len(c.Key)))
	b = binary.BigEndian.AppendUint32(b, CancelCode)
	b = binary.BigEndian.AppendUint32(b, c.PID)
	return append(b, c.Key...)
}

// KeyData reads the body of a BackendKeyData.
func KeyData(body []byte) (Cancel, error) {
	c, err := Packet{Body: body}.Cancel()
	if err != nil {
		return Cancel{}, fmt.Errorf("BackendKeyData: %w", err)
	}
	c.Key = bytes.Clone(c.Key)
	return c, nil
}

// AppendKeyData appends a BackendKeyData.
func AppendKeyData(b []byte, c Cancel) []byte {
	b = append(b, 'K')
	b = binary.BigEndian.AppendUint32(b, uint32(8+len(c.Key)))
	b = binary.BigEndian.AppendUint32(b, c.PID)
	return append(b, c.Key...)
}

// AppendNegotiate appends a NegotiateProtocolVersion: the version that will be spoken, and the protocol options (names
// that begin with _pq_.) that were not understood.
func AppendNegotiate(b []byte, version uint32, unknown []string) []byte {
	b = append(b, 'v')
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint32(b, uint32(len(unknown)))
	for _, name := range unknown {
		b = append(b, name...)
		b = append(b, 0)
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

// Negotiate decides what version to speak with a client that asked for one, and whether it must be told. Versions other
// than 3.x are not spoken.
func Negotiate(asked uint32, params []Param) (version uint32, unknown []string, tell, ok bool) {
	if asked>>16 != 3 {
		return 0, nil, false, false
	}
	version = min(asked, Version32)
	for _, p := range params {
		if strings.HasPrefix(p.Name, "_pq_.") {
			unknown = append(unknown, p.Name)
		}
	}
	return version, unknown, version != asked || len(unknown) > 0, true
}
