package ssh

import (
	xssh "golang.org/x/crypto/ssh"

	"sallyport/session"
)

// This file has every write to a target's connection once it stands. What a client said goes through the first five, each
// of which spends a Pass of session.Admit: no pass, no write. The rest answers the target, or only takes away.

// openChannel asks the target for a channel.
func openChannel(pass *session.Pass, target xssh.Conn, kind string, extra []byte) (xssh.Channel, <-chan *xssh.Request, error) {
	if err := pass.Use(); err != nil {
		return nil, nil, err
	}
	return target.OpenChannel(kind, extra)
}

// sendRequest passes a client's request on and waits for the answer where one is wanted.
func sendRequest(pass *session.Pass, target xssh.Channel, r *xssh.Request) (done bool, err error) {
	if err := pass.Use(); err != nil {
		return false, err
	}
	return target.SendRequest(r.Type, r.WantReply, r.Payload)
}

// sendGlobal passes a client's request about the whole connection on and waits for the answer.
func sendGlobal(pass *session.Pass, target xssh.Conn, r *xssh.Request) (done bool, payload []byte, err error) {
	if err := pass.Use(); err != nil {
		return false, nil, err
	}
	return target.SendRequest(r.Type, true, r.Payload)
}

// sendData passes a client's data on.
func sendData(pass *session.Pass, target xssh.Channel, data []byte) error {
	if err := pass.Use(); err != nil {
		return err
	}
	_, err := target.Write(data)
	return err
}

// sendEOF tells the target that the client has no more data.
func sendEOF(pass *session.Pass, target xssh.Channel) error {
	if err := pass.Use(); err != nil {
		return err
	}
	return target.CloseWrite()
}

// signalTarget is the gateway's own word to what runs on a channel, when the session is over. It fails where there is
// nothing any more.
func signalTarget(target xssh.Channel, name string) {
	_, _ = target.SendRequest("signal", false, xssh.Marshal(struct{ Name string }{name}))
}

// closeChannel takes a channel away from the target. It fails where the target was first, which is as well.
func closeChannel(target xssh.Channel) { _ = target.Close() }

// answerTarget answers a target's request; a failed write shows in the connection's end.
func answerTarget(r *xssh.Request, done bool) { _ = r.Reply(done, nil) }

// acceptTarget accepts a channel that a target wants to open, after the client has accepted it.
func acceptTarget(c xssh.NewChannel) (xssh.Channel, <-chan *xssh.Request, error) { return c.Accept() }

// refuseTarget refuses a channel that a target wants to open towards the client.
func refuseTarget(c xssh.NewChannel, message string) { _ = c.Reject(xssh.Prohibited, message) }
