// Package keyagent gives the user's ssh-agent the SSH key of a sign-in, for no longer than its certificate is good, and takes it out again. Of
// what else the agent holds nothing is touched.
package keyagent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// agentComment is how the key goes by in ssh-add -l.
const agentComment = "sallyport"

// withAgent calls f with the user's ssh-agent.
func withAgent(f func(agent.ExtendedAgent) error) error {
	path := os.Getenv("SSH_AUTH_SOCK")
	if path == "" {
		return errors.New("no ssh-agent runs: SSH_AUTH_SOCK is not set")
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.Dial("unix", path)
	if err != nil {
		return fmt.Errorf("reach ssh-agent: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	return f(agent.NewClient(conn))
}

// Add gives the agent the SSH key and its certificate, for no longer than that is good, in the place of an earlier
// one of ours.
func Add(keyPEM []byte, certificate string) error {
	private, err := ssh.ParseRawPrivateKey(keyPEM)
	if err != nil {
		return err
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(certificate))
	if err != nil {
		return fmt.Errorf("the gateway's user certificate: %w", err)
	}
	c, ok := public.(*ssh.Certificate)
	if !ok {
		return errors.New("the gateway's user certificate is none")
	}
	left := time.Until(time.Unix(int64(c.ValidBefore), 0))
	if left < time.Second {
		return nil
	}
	return withAgent(func(a agent.ExtendedAgent) error {
		if err := removeOurs(a); err != nil {
			return err
		}
		if err := a.Add(agent.AddedKey{PrivateKey: private, Certificate: c, Comment: agentComment, LifetimeSecs: uint32(left / time.Second)}); err != nil {
			return fmt.Errorf("give the key to ssh-agent: %w", err)
		}
		return nil
	})
}

// Remove takes our keys out of the agent.
func Remove() error { return withAgent(removeOurs) }

func removeOurs(a agent.ExtendedAgent) error {
	keys, err := a.List()
	if err != nil {
		return fmt.Errorf("ask ssh-agent: %w", err)
	}
	for _, k := range keys {
		if k.Comment == agentComment && k.Format == ssh.CertAlgoED25519v01 {
			if err := a.Remove(k); err != nil {
				return fmt.Errorf("take the old key out of ssh-agent: %w", err)
			}
		}
	}
	return nil
}
