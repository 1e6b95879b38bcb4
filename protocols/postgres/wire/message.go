package wire

import (
	"encoding/binary"
	"errors"

	"github.com/jackc/pgproto3/v2"
)

// ErrMessage is a message whose body is not what its type says.
var ErrMessage = errors.New("malformed message")

// DecodeError decodes the body of an ErrorResponse or NoticeResponse after having checked its structure: pairs of a
// field's letter and a string, and one NUL at the end.
func DecodeError(body []byte) (pgproto3.ErrorResponse, error) {
	var e pgproto3.ErrorResponse
	for b := body; ; {
		if len(b) == 0 {
			return e, ErrMessage
		}
		if b[0] == 0 {
			if len(b) != 1 {
				return e, ErrMessage
			}
			break
		}
		_, rest, ok := String(b[1:])
		if !ok {
			return e, ErrMessage
		}
		b = rest
	}
	if err := e.Decode(body); err != nil {
		return e, ErrMessage
	}
	return e, nil
}

// DecodeParameterStatus reads a ParameterStatus's body.
func DecodeParameterStatus(body []byte) (name, value string, err error) {
	n, rest, ok := String(body)
	if !ok {
		return "", "", ErrMessage
	}
	v, rest, ok := String(rest)
	if !ok || len(rest) != 0 {
		return "", "", ErrMessage
	}
	return string(n), string(v), nil
}

// DecodeRow reads a DataRow's body; a NULL is nil. It is for the few rows that the gateway itself asks for.
func DecodeRow(body []byte) ([][]byte, error) {
	if len(body) < 2 {
		return nil, ErrMessage
	}
	count, b := int(binary.BigEndian.Uint16(body)), body[2:]
	if count*4 > len(b) {
		return nil, ErrMessage
	}
	row := make([][]byte, 0, count)
	for range count {
		if len(b) < 4 {
			return nil, ErrMessage
		}
		n := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		if n == -1 {
			row = append(row, nil)
			continue
		}
		if n < 0 || int(n) > len(b) {
			return nil, ErrMessage
		}
		row, b = append(row, b[:n]), b[n:]
	}
	if len(b) != 0 {
		return nil, ErrMessage
	}
	return row, nil
}

// String cuts a string that ends in NUL from the front of b.
func String(b []byte) (s, rest []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return b[:i], b[i+1:], true
		}
	}
	return nil, nil, false
}
