package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Far is an SSH connection to the gateway, as ssh.NewClientConn makes it.
type Far struct {
	ssh.Conn
	Channels <-chan ssh.NewChannel
	Requests <-chan *ssh.Request
}

// SSH carries connections to an SSH target. The program at the port is asked for nothing, whatever user it names: that it
// is the same user's was seen. hostKey is what the port proves itself with.
func SSH(hostKey ssh.Signer, dial func(context.Context) (*Far, error)) Carry {
	return func(ctx context.Context, local net.Conn) {
		defer local.Close()
		if local.SetDeadline(time.Now().Add(handshakeTime)) != nil {
			return
		}
		far, err := insist(ctx, dial, isFinal)
		config := &ssh.ServerConfig{NoClientAuth: true}
		if err != nil {
			why := "sallyport tunnel: " + strings.ReplaceAll(err.Error(), "\n", "\r\n") + "\r\n"
			config = &ssh.ServerConfig{
				BannerCallback: func(ssh.ConnMetadata) string { return why },
				PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
					return nil, errors.New("the gateway can't be reached")
				},
			}
		} else {
			defer far.Close()
			defer context.AfterFunc(ctx, func() { far.Close() })()
		}
		config.AddHostKey(hostKey)
		near, channels, requests, err := ssh.NewServerConn(local, config)
		if err != nil || far == nil {
			return
		}
		defer near.Close()
		if local.SetDeadline(time.Time{}) != nil {
			return
		}
		carrySSH(near, channels, requests, far)
	}
}

// carrySSH passes everything on, both ways: channels, requests and data.
func carrySSH(near ssh.Conn, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request, far *Far) {
	var all sync.WaitGroup
	all.Go(func() { passGlobals(requests, far) })
	all.Go(func() { passGlobals(far.Requests, near) })
	all.Go(func() { passChannels(channels, far); far.Close() })
	all.Go(func() { passChannels(far.Channels, near); near.Close() })
	all.Wait()
}

func passGlobals(requests <-chan *ssh.Request, to ssh.Conn) {
	for r := range requests {
		if strings.HasPrefix(r.Type, "hostkeys-") { // the gateway's, which are not those of the port
			r.Reply(false, nil)
			continue
		}
		ok, payload, err := to.SendRequest(r.Type, r.WantReply, r.Payload)
		r.Reply(ok && err == nil, payload)
	}
}

func passChannels(channels <-chan ssh.NewChannel, to ssh.Conn) {
	var all sync.WaitGroup
	for wanted := range channels {
		all.Go(func() { passChannel(wanted, to) })
	}
	all.Wait()
}

func passChannel(wanted ssh.NewChannel, to ssh.Conn) {
	far, farRequests, err := to.OpenChannel(wanted.ChannelType(), wanted.ExtraData())
	if err != nil {
		reason, message := ssh.ConnectionFailed, "the gateway is gone"
		var no *ssh.OpenChannelError
		if errors.As(err, &no) {
			reason, message = no.Reason, no.Message
		}
		_ = wanted.Reject(reason, message) // it may be gone
		return
	}
	defer far.Close()
	near, nearRequests, err := wanted.Accept()
	if err != nil {
		go ssh.DiscardRequests(farRequests)
		return
	}
	defer near.Close()
	var output sync.WaitGroup
	output.Go(func() { _, _ = io.Copy(near, far); _ = near.CloseWrite() })
	output.Go(func() { _, _ = io.Copy(near.Stderr(), far.Stderr()) })
	go func() { _, _ = io.Copy(far, near); _ = far.CloseWrite() }()
	nearEnded := make(chan struct{})
	go func() {
		defer close(nearEnded)
		passRequests(nearRequests, far)
		far.Close() // the program is gone
	}()
	passRequests(farRequests, near) // an exit status comes before the end
	output.Wait()
	near.Close()
	<-nearEnded
}

func passRequests(requests <-chan *ssh.Request, to ssh.Channel) {
	for r := range requests {
		ok, err := to.SendRequest(r.Type, r.WantReply, r.Payload)
		r.Reply(ok && err == nil, nil)
	}
}
