package postgres

import (
	"context"
	"encoding/binary"
	"io"
	"strings"

	"github.com/jackc/pgproto3/v2"

	"sallyport/authn"
	"sallyport/internal/refusal"
	"sallyport/protocols/postgres/wire"
)

// passwordMark stands between account and id in the user's name where a password of the gateway's is used: app+k7f3m2q9xa.
// No account's name has it.
const passwordMark = "+"

// saslLimit bounds what a client may send while it is being authenticated. Honest messages have some 250 bytes.
const saslLimit = 4 << 10

// passwordUser splits the user's name of a start-up packet; found says that it asks for a password.
func passwordUser(packet wire.Packet) (account, id string, found bool) {
	params, err := packet.Params()
	if err != nil {
		return "", "", false // readStartup says so
	}
	var user string
	for _, p := range params {
		if p.Name == "user" {
			user = p.Value
		}
	}
	i := strings.LastIndex(user, passwordMark)
	if i < 0 {
		return "", "", false
	}
	return user[:i], user[i+1:], true
}

// asAccount is the start-up with the account in the place of ACCOUNT+ID. libpq sends the user's name as the database's
// where none was given.
func (s startup) asAccount(account string) startup {
	if s.database == s.user {
		s.database = account
	}
	s.user = account
	return s
}

// identifyByPassword is who it is by a password of the gateway's, and what that is for: SCRAM-SHA-256 (RFC 7677) from the
// server's side, bound to the TLS connection where the client can. TLS is up already, as for every start-up packet.
func (h *Handler) identifyByPassword(ctx context.Context, c *client, id string) (authn.Identity, authn.Password, error) {
	proof, err := h.authn.BeginPassword(ctx, id, c.raw.RemoteAddr(), c.endpoint())
	if err != nil {
		return authn.Identity{}, authn.Password{}, asStranger(err)
	}
	if err := c.prove(proof); err != nil {
		return authn.Identity{}, authn.Password{}, asStranger(err)
	}
	who, what, err := proof.Identity(ctx)
	return who, what, asStranger(err)
}

// asStranger counts a refusal as a stranger's.
func asStranger(err error) error {
	if r := refusal.Of(err); r != nil {
		return strange(strangerPassword, r)
	}
	return err
}

// prove leads the SASL exchange (PostgreSQL documentation, section 54.3). AuthenticationOk comes with the session's greeting.
func (c *client) prove(proof *authn.PasswordProof) error {
	mechanism, first, err := c.choose(proof.Mechanisms())
	if err != nil {
		return err
	}
	return c.converse(proof, mechanism, first)
}

// choose offers mechanisms and returns the client's choice with its first message.
func (c *client) choose(mechanisms []string) (mechanism, first string, err error) {
	if err := c.ask(&pgproto3.AuthenticationSASL{AuthMechanisms: mechanisms}); err != nil {
		return "", "", err
	}
	body, err := c.saslMessage()
	if err != nil {
		return "", "", err
	}
	return initialResponse(body)
}

// converse leads an exchange of SCRAM to its end.
func (c *client) converse(proof *authn.PasswordProof, mechanism, first string) error {
	challenge, err := proof.First(mechanism, first)
	if err != nil {
		return err
	}
	if err := c.ask(&pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)}); err != nil {
		return err
	}
	body, err := c.saslMessage()
	if err != nil {
		return err
	}
	verifier, err := proof.Final(string(body))
	if err != nil {
		return err
	}
	return c.ask(&pgproto3.AuthenticationSASLFinal{Data: []byte(verifier)})
}

func (c *client) ask(m pgproto3.BackendMessage) error {
	frame, err := m.Encode(nil)
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(frame); err != nil {
		return clientGone(err)
	}
	return nil
}

// saslMessage reads one message of type 'p', of a bounded length.
func (c *client) saslMessage() ([]byte, error) {
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return nil, clientGone(err) // psql hangs up to ask its user for the password
	}
	length := binary.BigEndian.Uint32(head[1:])
	if head[0] != 'p' || length < 4 || length > saslLimit {
		return nil, strange(strangerPassword, refusal.New(refusal.ProtocolViolation, "expected SASL response, got message type %d", head[0]))
	}
	body := make([]byte, length-4)
	if _, err := io.ReadFull(c.conn, body); err != nil {
		return nil, clientGone(err)
	}
	return body, nil
}

func clientGone(err error) error {
	return strange(strangerPassword, refusal.New(refusal.NotAuthenticated, "the client went away").Because(err))
}

var errInitialResponse = refusal.New(refusal.ProtocolViolation, "invalid SASL initial response")

// initialResponse splits a SASLInitialResponse's body: a mechanism's name, a length, that many bytes.
func initialResponse(body []byte) (mechanism, first string, err error) {
	name, rest, ok := wire.String(body)
	if !ok || len(rest) < 4 || binary.BigEndian.Uint32(rest) != uint32(len(rest)-4) {
		return "", "", strange(strangerPassword, errInitialResponse)
	}
	return string(name), string(rest[4:]), nil
}

// otherAccount refuses a password that was made for something else.
func otherAccount(what authn.Password) error {
	return refusal.New(refusal.NotPermitted, "this password is for %s@%s only", what.Account, what.Target).
		WithHint("make one for what you need: sallyport credentials ACCOUNT@TARGET")
}
