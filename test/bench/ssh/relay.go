package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/crypto/ssh"
)

// relay is the price of Go without the price of the product: it lets everybody in, passes channels and requests on, and looks
// at nothing. Arguments: LISTEN TARGET USER KEYFILE.
func relay(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("expected LISTEN TARGET USER KEYFILE")
	}
	text, err := os.ReadFile(args[3])
	if err != nil {
		return err
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	hostKey, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return err
	}
	config := &ssh.ServerConfig{NoClientAuth: true, ServerVersion: "SSH-2.0-OpenSSH_9.9 relay"}
	config.AddHostKey(hostKey)
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	client := &ssh.ClientConfig{
		User: args[2], Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // loopback, for measuring
		Config: ssh.Config{Ciphers: []string{ssh.CipherAES128GCM}, KeyExchanges: []string{ssh.KeyExchangeCurve25519}},
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			c, channels, requests, err := ssh.NewServerConn(conn, config)
			if err != nil {
				return
			}
			go ssh.DiscardRequests(requests)
			target, err := ssh.Dial("tcp", args[1], client)
			if err != nil {
				return
			}
			defer target.Close()
			for n := range channels {
				go pass(n, target)
			}
			_ = c.Wait()
		}()
	}
}

func pass(n ssh.NewChannel, to ssh.Conn) {
	target, targetRequests, err := to.OpenChannel(n.ChannelType(), n.ExtraData())
	if err != nil {
		_ = n.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	client, clientRequests, err := n.Accept()
	if err != nil {
		return
	}
	requests := func(from <-chan *ssh.Request, to ssh.Channel) {
		for r := range from {
			ok, _ := to.SendRequest(r.Type, r.WantReply, r.Payload)
			_ = r.Reply(ok, nil)
		}
	}
	go func() {
		requests(clientRequests, target)
		target.Close()
	}()
	go func() {
		_, _ = io.CopyBuffer(target, client, make([]byte, 32<<10))
		_ = target.CloseWrite()
	}()
	var out sync.WaitGroup
	out.Go(func() { _, _ = io.CopyBuffer(client, target, make([]byte, 32<<10)) })
	out.Go(func() { _, _ = io.CopyBuffer(client.Stderr(), target.Stderr(), make([]byte, 4<<10)) })
	out.Go(func() { requests(targetRequests, client) })
	out.Wait()
	client.Close()
}
