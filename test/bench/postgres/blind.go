package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// blind is a Go proxy that ends TLS and copies bytes, and nothing else: what the gateway would cost if it did not look,
// record or decide. Arguments: address to listen on, of the server, of the fake server (for who logs in as fake),
// certificate, key.
func blind(arguments []string) error {
	if len(arguments) != 5 {
		return errors.New("want LISTEN SERVER FAKE CERTIFICATE KEY")
	}
	certificate, err := tls.LoadX509KeyPair(arguments[3], arguments[4])
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}
	listener, err := net.Listen("tcp", arguments[0])
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go pass(conn, config, arguments[1], arguments[2])
	}
}

// startupMost is how long a StartupMessage may be.
const startupMost = 10_000

func pass(raw net.Conn, config *tls.Config, server, fake string) {
	defer raw.Close()
	var request [8]byte
	if _, err := io.ReadFull(raw, request[:]); err != nil {
		return
	}
	if _, err := raw.Write([]byte{'S'}); err != nil {
		return
	}
	client := tls.Server(raw, config)
	var head [4]byte
	if _, err := io.ReadFull(client, head[:]); err != nil {
		return
	}
	length := binary.BigEndian.Uint32(head[:])
	if length < 8 || length > startupMost {
		return
	}
	startup := make([]byte, length)
	copy(startup, head[:])
	if _, err := io.ReadFull(client, startup[4:]); err != nil {
		return
	}
	address := server
	if bytes.Contains(startup, []byte("user\x00fake\x00")) {
		address = fake
	}
	target, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer target.Close()
	if _, err := target.Write(startup); err != nil {
		return
	}
	over := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(target, client); over <- struct{}{} }() // however it ends, it is over
	go func() { _, _ = io.Copy(client, target); over <- struct{}{} }()
	<-over
}
