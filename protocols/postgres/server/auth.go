package server

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgproto3/v2"
	"github.com/xdg-go/scram"

	"sallyport/protocols/postgres/wire"
)

// What an Authentication message asks for (its first four bytes).
const (
	authOK           = 0
	authCleartext    = 3
	authMD5          = 5
	authSASL         = 10
	authSASLContinue = 11
	authSASLFinal    = 12
)

// A target chooses the number of iterations of a hash that the gateway must run: too few make the proof cheap to guess
// from, too many keep the gateway busy (CVE-2026-6669 was that).
const (
	leastIterations = 4096
	mostIterations  = 600_000
)

const (
	scramPlain = "SCRAM-SHA-256"
	scramPlus  = "SCRAM-SHA-256-PLUS"
)

// authenticate answers what the target asks: SCRAM-SHA-256 where a password is configured, and nothing at all where none
// is. MD5 and clear text are refused whatever the target says, as it may not be the target that says it.
func (b *Conn) authenticate(c Credentials) error {
	for range 4 { // notices may come first
		t, frame, err := b.read()
		if err != nil {
			return err
		}
		body := frame[wire.HeaderSize:]
		switch t {
		case 'N':
			b.Greeted = append(b.Greeted, frame...)
			continue
		case 'E':
			return refused(frame)
		case 'R':
		default:
			return fmt.Errorf("the target sent a message of type %q instead of asking for authentication", t)
		}
		if len(body) < 4 {
			return wire.ErrMessage
		}
		switch kind := binary.BigEndian.Uint32(body); kind {
		case authOK:
			if c.Password != "" {
				return errors.New("it let the gateway in without asking for the password that is configured, so it has not proven that it knows the account")
			}
			return nil
		case authSASL:
			if c.Password == "" {
				return errors.New("it asks for a password, and the account has none configured")
			}
			return b.scram(c, body[4:])
		case authMD5:
			return errors.New("it asks for an MD5 password, which can be cracked; give the role a SCRAM one (password_encryption = 'scram-sha-256') and use scram-sha-256 in pg_hba.conf")
		case authCleartext:
			return errors.New("it asks for the password in clear text; use scram-sha-256 in pg_hba.conf")
		default:
			return fmt.Errorf("it asks for authentication of kind %d, which the gateway does not speak", kind)
		}
	}
	return errors.New("it sends notices instead of asking for authentication")
}

// scram is RFC 5802 and 7677 from the client's side, bound to the TLS connection where the target can
// (tls-server-end-point, RFC 5929).
func (b *Conn) scram(c Credentials, list []byte) error {
	var offered []string
	for len(list) > 0 && list[0] != 0 {
		name, rest, ok := wire.String(list)
		if !ok {
			return wire.ErrMessage
		}
		offered, list = append(offered, string(name)), rest
	}
	if len(list) != 1 {
		return wire.ErrMessage
	}
	// PostgreSQL takes the password as it is where SASLprep can't prepare it.
	peer, err := scram.SHA256.NewClient("", c.Password, "")
	if err != nil {
		peer, err = scram.SHA256.NewClientUnprepped("", c.Password, "")
	}
	if err != nil {
		return fmt.Errorf("prepare the password: %w", err)
	}
	peer = peer.WithMinIterations(leastIterations)
	mechanism, conversation := scramPlain, peer.NewConversation()
	if secured, ok := b.conn.(*tls.Conn); ok && slices.Contains(offered, scramPlus) {
		state := secured.ConnectionState()
		binding, err := scram.NewTLSServerEndpointBinding(&state)
		if err != nil {
			return fmt.Errorf("bind the password to the TLS connection: %w", err)
		}
		mechanism, conversation = scramPlus, peer.NewConversationWithChannelBinding(binding)
	} else if !slices.Contains(offered, scramPlain) {
		return fmt.Errorf("it offers none but %s, and the gateway speaks %s", strings.Join(offered, ", "), scramPlain)
	}
	first, err := conversation.Step("")
	if err != nil {
		return err
	}
	if err := b.say(&pgproto3.SASLInitialResponse{AuthMechanism: mechanism, Data: []byte(first)}); err != nil {
		return err
	}
	challenge, err := b.saslData(authSASLContinue)
	if err != nil {
		return err
	}
	if err := checkIterations(challenge); err != nil {
		return err
	}
	final, err := conversation.Step(challenge)
	if err != nil {
		return fmt.Errorf("SCRAM: %w", err)
	}
	if err := b.say(&pgproto3.SASLResponse{Data: []byte(final)}); err != nil {
		return err
	}
	verifier, err := b.saslData(authSASLFinal)
	if err != nil {
		return err
	}
	if _, err := conversation.Step(verifier); err != nil || !conversation.Valid() {
		return errors.New("it did not prove that it knows the password: somebody else may be answering in its place")
	}
	_, err = b.saslData(authOK)
	return err
}

func (b *Conn) say(m pgproto3.FrontendMessage) error {
	frame, err := m.Encode(nil)
	if err != nil {
		return err
	}
	return write(b.conn, frame)
}

// saslData reads the next Authentication message, which must be of that kind.
func (b *Conn) saslData(kind uint32) (string, error) {
	t, frame, err := b.read()
	if err != nil {
		return "", err
	}
	if t == 'E' {
		return "", refused(frame)
	}
	body := frame[wire.HeaderSize:]
	if t != 'R' || len(body) < 4 || binary.BigEndian.Uint32(body) != kind {
		return "", errors.New("it broke the authentication off")
	}
	return string(body[4:]), nil
}

// checkIterations bounds the count in a server-first-message before it is worked through.
func checkIterations(challenge string) error {
	for field := range strings.SplitSeq(challenge, ",") {
		if digits, ok := strings.CutPrefix(field, "i="); ok {
			n, err := strconv.Atoi(digits)
			if err != nil || n < leastIterations || n > mostIterations {
				return fmt.Errorf("it asks for %q iterations of SCRAM; the gateway does %d to %d", digits, leastIterations, mostIterations)
			}
			return nil
		}
	}
	return errors.New("its SCRAM challenge names no number of iterations")
}
