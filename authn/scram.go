package authn

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/xdg-go/scram"

	"sallyport/authn/throttle"
	"sallyport/internal/refusal"
)

// The SASL mechanisms of PasswordProof (RFC 5802, RFC 7677).
const (
	ScramPlain = "SCRAM-SHA-256"
	ScramPlus  = "SCRAM-SHA-256-PLUS" // bound to the TLS connection
)

// maxScram bounds a message of SCRAM; honest ones have some 200 bytes.
const maxScram = 2048

// PasswordProof is one attempt to prove that somebody knows a password that IssuePassword made, by SCRAM: the secret
// itself never comes. For an id that there is none of it runs to its end like any other and then fails, so that nobody
// can find out which there are. Use it once, from one goroutine.
type PasswordProof struct {
	service      *Service
	id, source   string
	user         string // as failures are counted: the id, or "" for one that no password has
	known        bool
	conversation *scram.ServerConversation
	endpoint     bool // channel binding is offered
}

// BeginPassword begins an attempt. from is where it comes from: a source that has failed often must wait, and so must all who
// never proved this password while many fail at it, which is a refusal (TooMany). endpoint is the TLS connection's channel binding of type tls-server-end-point (RFC 5929), nil for none.
func (s *Service) BeginPassword(ctx context.Context, id string, from net.Addr, endpoint []byte) (*PasswordProof, error) {
	p := &PasswordProof{service: s, id: id, source: sourceOf(from), endpoint: len(endpoint) > 0}
	if len(id) == passwordIDLength {
		p.user = id
	}
	switch s.failures.Blocked(p.source, p.user, s.now()) {
	case throttle.Source:
		return nil, refusal.New(refusal.TooMany, "too many wrong passwords from your address").WithHint("wait a minute, then try again")
	case throttle.User:
		return nil, refusal.New(refusal.TooMany, "too many wrong passwords for this user").
			WithHint("wait a minute, or use another: sallyport credentials ACCOUNT@TARGET")
	}
	keys, err := s.mockKeys(id)
	if err != nil {
		return nil, err
	}
	if p.user != "" {
		found, err := s.findPassword(ctx, id)
		if err != nil {
			return nil, err
		}
		if p.known = found != nil; p.known {
			keys = found.keys
		}
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return keys, nil })
	if err != nil {
		return nil, fmt.Errorf("begin SCRAM: %w", err)
	}
	p.conversation = server.NewConversation()
	if p.endpoint {
		p.conversation = server.NewConversationWithChannelBinding(scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: endpoint})
	}
	return p, nil
}

// mockKeys are what an id that there is none of is answered with: always the same salt, and keys that nobody has.
func (s *Service) mockKeys(id string) (scram.StoredCredentials, error) {
	token := s.authorities.Load().Token
	salt := hmac.New(sha256.New, token[:])
	salt.Write([]byte("salt of an unknown password\x00" + id))
	keys := scram.StoredCredentials{StoredKey: make([]byte, sha256.Size), ServerKey: make([]byte, sha256.Size)}
	// In the alphabet and length of a real one.
	keys.KeyFactors = scram.KeyFactors{Salt: strings.ToUpper(idAlphabet.EncodeToString(salt.Sum(nil)))[:16], Iters: passwordIterations}
	if _, err := rand.Read(keys.StoredKey); err != nil {
		return keys, err
	}
	return keys, nil
}

// Mechanisms are those to offer, best first.
func (p *PasswordProof) Mechanisms() []string {
	if p.endpoint {
		return []string{ScramPlus, ScramPlain}
	}
	return []string{ScramPlain}
}

// First answers the client-first-message that came with a mechanism.
func (p *PasswordProof) First(mechanism, message string) (string, error) {
	// The mechanism's name is protected by nothing, the message's flag by the proof: they must say the same.
	bound := strings.HasPrefix(message, "p=")
	if len(message) > maxScram || mechanism != ScramPlain && (mechanism != ScramPlus || !p.endpoint) || bound != (mechanism == ScramPlus) {
		return "", p.fail(fmt.Errorf("the client chose a mechanism that was not offered, or begins another"))
	}
	answer, err := p.conversation.Step(message)
	if err != nil {
		return "", p.fail(err)
	}
	if p.conversation.AuthzID() != "" {
		return "", p.fail(errors.New("the client wants to be somebody else (authzid)"))
	}
	return answer, nil
}

// Final checks the client-final-message, and returns what proves to the client that the gateway knows the password.
func (p *PasswordProof) Final(message string) (string, error) {
	if len(message) > maxScram {
		return "", p.fail(errors.New("the client's last message is too long"))
	}
	answer, err := p.conversation.Step(message)
	if err == nil && !(p.known && p.conversation.Valid()) {
		err = errors.New("no such password")
	}
	if err != nil {
		return "", p.fail(err)
	}
	p.service.failures.Succeeded(p.source, p.user, p.service.now())
	return answer, nil
}

// fail counts a failure and says no more than that to whoever tried.
func (p *PasswordProof) fail(cause error) error {
	p.service.failures.Add(p.source, p.user, p.service.now())
	return refusal.New(refusal.NotAuthenticated, "password authentication failed").
		WithDetail("The user is ACCOUNT+ID, as sallyport credentials printed it, with the password beside it.").
		WithHint("passwords end with the sign-in that made them; make another: sallyport credentials ACCOUNT@TARGET").Because(cause)
}

// Identity is who proved it, and what for, after Final has succeeded. Only now is said whether the password is still good.
func (p *PasswordProof) Identity(ctx context.Context) (Identity, Password, error) {
	if !p.known || !p.conversation.Valid() {
		return Identity{}, Password{}, refuseNot(password, errors.New("it was not proven"))
	}
	s := p.service
	found, err := s.findPassword(ctx, p.id)
	if err != nil {
		return Identity{}, Password{}, err
	}
	if found == nil {
		return Identity{}, Password{}, refuseNot(password, errors.New("it is gone"))
	}
	who := found.Identity
	if found.closed {
		return who, found.Password, refuseDisabled(who)
	}
	if found.revoked {
		return who, found.Password, refuseNot(password, fmt.Errorf("password %s is revoked", p.id)).WithDetail("it was revoked")
	}
	if err := found.good(s.now()); err != nil {
		return who, found.Password, err
	}
	if end := found.Password.Expires; !s.now().Before(end) {
		return who, found.Password, refusal.New(refusal.CredentialExpired, "the password ran out at %s", end.Format(time.RFC3339)).
			WithHint("make another: sallyport credentials %s@%s", found.Account, found.Target)
	} else if end.Before(who.Expires) {
		who.Expires = end
	}
	who.Method, who.Credential = password, p.id
	return who, found.Password, nil
}

// sourceOf is what one stranger can be told apart by: an IPv4 address, or an IPv6 /64.
func sourceOf(from net.Addr) string {
	if from == nil {
		return ""
	}
	at, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return ""
	}
	a := at.Addr().Unmap().WithZone("")
	if network, err := a.Prefix(64); err == nil && a.Is6() {
		return network.String()
	}
	return a.String()
}
