package postgres

import (
	"fmt"
	"net"

	"sallyport/session"
)

// This file holds every write to a target. passOn is the only one that carries what a client said, and it takes the
// Pass that session.Admit gave for exactly these bytes. sayTarget carries what the gateway says for itself: the login
// inside session.Dial, and the acts inside session.Act and Manager.ActOn.

// passOn writes a chunk that was admitted to the target, in one write.
func passOn(pass *session.Pass, b *backend, chunk []byte) error {
	if err := pass.Use(); err != nil {
		return err
	}
	if err := b.ahead.WriteWhole(b.conn, chunk); err != nil {
		return fmt.Errorf("write to the target: %w", err)
	}
	return nil
}

// sayTarget writes a message of the gateway's own.
func sayTarget(conn net.Conn, message []byte) error {
	if _, err := conn.Write(message); err != nil {
		return fmt.Errorf("write to the target: %w", err)
	}
	return nil
}
