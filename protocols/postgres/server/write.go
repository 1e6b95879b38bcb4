package server

import (
	"fmt"
	"net"

	"sallyport/session"
)

// This file holds every write to a target. PassOn is the only one that carries what a client said, and it takes the
// Pass that session.Admit gave for exactly these bytes. write carries what the gateway says for itself: the login
// inside session.Dial, and the acts inside session.Act and Manager.ActOn.

// PassOn writes a chunk that was admitted to the target, in one write.
func (b *Conn) PassOn(pass *session.Pass, chunk []byte) error {
	if err := pass.Use(); err != nil {
		return err
	}
	if err := b.ahead.WriteWhole(b.conn, chunk); err != nil {
		return fmt.Errorf("write to the target: %w", err)
	}
	return nil
}

// write writes a message of the gateway's own.
func write(conn net.Conn, message []byte) error {
	if _, err := conn.Write(message); err != nil {
		return fmt.Errorf("write to the target: %w", err)
	}
	return nil
}
