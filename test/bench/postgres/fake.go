package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
)

// fake is a server that lets everybody in and answers every query with nothing, so that a thousand idle connections need no
// thousand backends.
func fake(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // it was closed
		}
		go fakeSession(conn)
	}
}

func fakeSession(c net.Conn) {
	defer c.Close()
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return
	}
	length := binary.BigEndian.Uint32(head[:])
	if length < 8 || length > startupMost {
		return
	}
	if _, err := io.CopyN(io.Discard, c, int64(length)-4); err != nil {
		return
	}
	var out bytes.Buffer
	out.Write(message('R', make([]byte, 4)))
	for _, setting := range [][2]string{
		{"server_version", "15.0"}, {"server_encoding", "UTF8"}, {"client_encoding", "UTF8"}, {"DateStyle", "ISO, MDY"},
		{"TimeZone", "UTC"}, {"standard_conforming_strings", "on"}, {"integer_datetimes", "on"}, {"IntervalStyle", "postgres"},
	} {
		out.Write(message('S', []byte(setting[0]+"\x00"+setting[1]+"\x00")))
	}
	out.Write(message('K', []byte{0, 0, 0, 1, 0, 0, 0, 2}))
	out.Write(message('Z', []byte{'I'}))
	if _, err := c.Write(out.Bytes()); err != nil {
		return
	}
	answer := append(message('C', []byte("SELECT 0\x00")), message('Z', []byte{'I'})...)
	var header [5]byte
	for {
		if _, err := io.ReadFull(c, header[:]); err != nil || header[0] == 'X' {
			return
		}
		if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(header[1:]))-4); err != nil {
			return
		}
		if header[0] == 'Q' {
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}
}

func message(t byte, body []byte) []byte {
	m := append([]byte{t, 0, 0, 0, 0}, body...)
	binary.BigEndian.PutUint32(m[1:], uint32(len(m)-1))
	return m
}
