package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/authn"
	"sallyport/internal/refusal"
)

// maxAuthTries is how many keys a client may offer; agents hold many.
const maxAuthTries = 20

// address is what an SSH user name says: which account on which target. Without a target the connection is for
// jumping, or for asking what there is.
type address struct {
	account string
	target  string
}

// parseAddress reads ACCOUNT@TARGET, or ACCOUNT+TARGET. The last separator counts, so that accounts may be written
// like mail addresses.
func parseAddress(user string) address {
	for _, separator := range []string{"@", "+"} {
		if i := strings.LastIndex(user, separator); i >= 0 {
			return address{account: user[:i], target: user[i+1:]}
		}
	}
	return address{account: user}
}

func (a address) String() string { return a.account + "@" + a.target }

// proof is who is at the other end of one connection, once it is proven. It belongs to the goroutine that runs the
// handshake until that is over, and does not change afterwards.
type proof struct {
	handler *Handler
	ctx     context.Context
	conn    *watched
	banner  xssh.ServerPreAuthConn // says things before the client is let in

	identity    authn.Identity
	certificate []byte // as presented, for connections inside this one

	told               bool // one banner is enough
	sawPlainKey        bool
	refusedCertificate bool
	refusedSignIn      bool
}

var errNotAccepted = errors.New("not accepted")

// offered is asked which keys may be used at all. A client can offer keys that are not its own, so nothing is decided
// here but the kind.
func (p *proof) offered(meta xssh.ConnMetadata, key xssh.PublicKey) (*xssh.Permissions, error) {
	if certificate, ok := key.(*xssh.Certificate); ok && certificate.CertType == xssh.UserCert {
		return nil, nil
	}
	p.sawPlainKey = true
	if p.handler.promptAt(parseAddress(meta.User())) && authn.UsableKey(key) {
		return nil, nil
	}
	return nil, p.noPlainKeys()
}

// verified is told that the client holds the key.
func (p *proof) verified(meta xssh.ConnMetadata, key xssh.PublicKey, _ *xssh.Permissions, _ string) (*xssh.Permissions, error) {
	certificate, ok := key.(*xssh.Certificate)
	if !ok {
		return p.plain(meta, key)
	}
	identity, err := p.handler.Authn.UserCertificate(p.ctx, certificate)
	if err != nil {
		p.refusedCertificate = true
		return nil, p.refuse(err)
	}
	p.identity, p.certificate = identity, certificate.Marshal()
	p.conn.known.Store(true)
	// The library enforces source-address, where the certificate has one.
	return &xssh.Permissions{CriticalOptions: certificate.CriticalOptions}, nil
}

// refuse turns a refusal into a banner, the only text that a client shows before it is let in.
func (p *proof) refuse(err error) error {
	r := refusal.Of(err)
	if r == nil {
		p.handler.Log.Error("a certificate could not be checked", "error", err)
		r = refusal.New(refusal.NotAuthenticated, "the gateway could not check the certificate").WithHint("try again in a minute")
	}
	if p.told {
		return errNotAccepted
	}
	p.told = true
	return &xssh.BannerError{Err: errNotAccepted, Message: words(r, "\r\n")}
}

// outerConfig is for connections from outside: a user certificate, or where the target allows it a key whose person signs in.
func (h *Handler) outerConfig(p *proof) (*xssh.ServerConfig, error) {
	config := h.serverConfig()
	config.PublicKeyCallback, config.VerifiedPublicKeyCallback = p.offered, p.verified
	config.PreAuthConnCallback = func(banner xssh.ServerPreAuthConn) { p.banner = banner }
	host := h.Host
	if name, _, err := net.SplitHostPort(h.Host); err == nil {
		host = name
	}
	return config, h.addHostKeys(config, host)
}

// innerConfig is for a connection inside another whose identity is proven: it may go without a credential, or show the same
// certificate again, as some clients never try to go without.
func (h *Handler) innerConfig(outer *proof, name string) (*xssh.ServerConfig, error) {
	config := h.serverConfig()
	config.NoClientAuth = true
	config.NoClientAuthCallback = func(xssh.ConnMetadata) (*xssh.Permissions, error) { return nil, nil }
	config.PublicKeyCallback = func(_ xssh.ConnMetadata, key xssh.PublicKey) (*xssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), outer.certificate) {
			return nil, errNotAccepted
		}
		return nil, nil
	}
	return config, h.addHostKeys(config, name)
}

func (h *Handler) serverConfig() *xssh.ServerConfig {
	return &xssh.ServerConfig{
		Config:                  clientAlgorithms,
		PublicKeyAuthAlgorithms: clientKeyAlgorithms,
		MaxAuthTries:            maxAuthTries,
		ServerVersion:           "SSH-2.0-" + h.Version,
	}
}

// addHostKeys offers the plain host key and a certificate of the same key. It must be the same: a client that knows the
// key but not the authority goes back to the key inside the certificate.
func (h *Handler) addHostKeys(config *xssh.ServerConfig, name string) error {
	config.AddHostKey(h.Authn.HostKey())
	certified, err := h.Authn.HostCertificate(name)
	if err != nil {
		return fmt.Errorf("host certificate for %q: %w", name, err)
	}
	config.AddHostKey(certified)
	return nil
}
