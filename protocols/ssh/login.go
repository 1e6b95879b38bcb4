package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/authn"
	"sallyport/authn/secrets"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/protocols/ssh/intake"
	"sallyport/protocols/ssh/wire"
)

// certificateTime is how long the gateway's certificate on a target lasts; it is looked at once, when the gateway logs in.
const certificateTime = 2 * time.Minute

// loginNote is what goes into the certificate for the target's own log.
type loginNote struct {
	who     authn.Identity
	session string
	grant   string
	until   time.Time // of the grant; zero: no bound
	source  string    // the only address, or network, that it may be used from; empty: any
	// What the certificate permits, so that the target enforces it a second time.
	forwarding, agent, noTerminal bool
}

// sourceOf is where a certificate may be used from: the gateway's own end of the connection it is made for, unless the target's
// configuration says what stands for it where that is translated on the way.
func sourceOf(t configs.Target, conn net.Conn) string {
	switch t.CertificateSource {
	case "":
		local, err := netip.ParseAddrPort(conn.LocalAddr().String())
		if err != nil {
			return "" // no connection of the Internet's has none
		}
		return local.Addr().Unmap().WithZone("").String()
	case configs.AnySource:
		return ""
	}
	return t.CertificateSource
}

// keyID names who is behind the gateway's login. sshd writes it into its log, so nothing in it may end a field or a line.
func (n loginNote) keyID() string {
	label := n.who.Email
	if label == "" {
		label = n.who.Label()
	}
	label = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || strings.ContainsRune(`,"'\=`, r) {
			return '_'
		}
		return r
	}, label)
	if len(label) > 128 {
		label = label[:128]
	}
	return fmt.Sprintf("%s sess=%s grant=%s", label, n.session, n.grant)
}

// login is how the gateway logs in on one target, once.
type login struct {
	target  string
	account configs.Account
	version string
	proof   hostProof
	methods []xssh.AuthMethod
	with    string // for people: what it logs in with
	serial  uint64 // of the certificate; 0 where it logs in otherwise

	banner *strings.Builder // what the target shows at a login goes there; nil: nowhere
	flow   *intake.Flow     // of what the target sends; nil: none
}

// maxBanner is how much of a target's banner is kept, in bytes.
const maxBanner = 8 << 10

// loginFor prepares the gateway's login with what the account says: a key, a password, or else a fresh key with a
// certificate of minutes.
func (h *Handler) loginFor(ctx context.Context, t configs.Target, a configs.Account, note loginNote) (login, error) {
	l := login{target: t.Name, account: a, version: "SSH-2.0-" + h.Version}
	var err error
	if l.proof, err = proofOf(t); err != nil {
		return login{}, err
	}
	if a.Key != "" {
		signer, err := keyOf(ctx, a.Key)
		if err != nil {
			return login{}, noSecret(t, a, err)
		}
		l.methods, l.with = append(l.methods, xssh.PublicKeys(signer)), "its key"
	}
	if a.Password != "" {
		password, err := secrets.Resolve(ctx, a.Password)
		if err != nil {
			return login{}, noSecret(t, a, err)
		}
		l.methods, l.with = append(l.methods, xssh.Password(password), passwordPrompt(password)), "its password"
	}
	if len(l.methods) > 0 {
		return l, nil
	}
	expires := time.Now().Add(certificateTime)
	if !note.until.IsZero() && note.until.Before(expires) {
		expires = note.until
	}
	signer, serial, err := h.Authn.TargetCertificate(ctx, authn.TargetLogin{
		Principal: principal(a), KeyID: note.keyID(), Source: note.source, Expires: expires,
		PortForwarding: note.forwarding, AgentForwarding: note.agent, NoTerminal: note.noTerminal,
	})
	if err != nil {
		return login{}, fmt.Errorf("certificate for %s: %w", t.Name, err)
	}
	l.methods, l.serial = []xssh.AuthMethod{xssh.PublicKeys(signer)}, serial
	l.with = fmt.Sprintf("a certificate for the principal %s", principal(a))
	return l, nil
}

func keyOf(ctx context.Context, ref configs.SecretRef) (xssh.Signer, error) {
	secret, err := secrets.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	signer, err := xssh.ParsePrivateKey([]byte(secret + "\n"))
	if err != nil {
		return nil, errors.New("it is not an SSH private key without a passphrase") // the library's words could tell of the key
	}
	return signer, nil
}

func noSecret(t configs.Target, a configs.Account, err error) *refusal.Refusal {
	return refusal.New(refusal.TargetFailed, "the gateway has no credential for %s@%s", a.Name, t.Name).
		WithHint("an administrator can look with: sallyport targets check %s", t.Name).Because(err)
}

// passwordPrompt answers the one hidden question that servers ask instead of taking a password (RFC 4256).
func passwordPrompt(password string) xssh.AuthMethod {
	return xssh.KeyboardInteractive(func(_, _ string, questions []string, echos []bool) ([]string, error) {
		switch {
		case len(questions) == 0:
			return nil, nil
		case len(questions) == 1 && !echos[0]:
			return []string{password}, nil
		default:
			return nil, errors.New("the target asks for more than a password")
		}
	})
}

// handshake runs the key exchange, checks the target's proof and logs in.
func (l login) handshake(conn net.Conn) (xssh.Conn, <-chan xssh.NewChannel, <-chan *xssh.Request, error) {
	var proved error
	sawKey := false
	var came func(int)
	if l.flow != nil {
		came = l.flow.Came
	}
	c, channels, requests, err := xssh.NewClientConn(wire.New(conn, came).Promptly(conn), conn.RemoteAddr().String(), &xssh.ClientConfig{
		Config: targetAlgorithms, User: l.account.UserName(), Auth: l.methods, ClientVersion: l.version,
		HostKeyAlgorithms: l.proof.algorithms(),
		BannerCallback: func(message string) error {
			if l.banner != nil && l.banner.Len()+len(message) <= maxBanner {
				l.banner.WriteString(message)
			}
			return nil
		},
		HostKeyCallback: func(name string, remote net.Addr, key xssh.PublicKey) error {
			sawKey = true
			proved = l.proof.check(name, remote, key)
			return proved
		},
	})
	if err == nil {
		return c, channels, requests, nil
	}
	var negotiation *xssh.AlgorithmNegotiationError
	var timeout net.Error
	switch {
	case proved != nil:
		err = proved
	case errors.As(err, &negotiation):
		err = refusal.New(refusal.TargetFailed, "target %s and the gateway have no algorithm in common", l.target).
			WithDetail("%s; for the host key only the pinned types are asked for", shown(negotiation.Error())).
			WithHint("an administrator looks at its keys with: sallyport targets trust %s", l.target).Because(err)
	case errors.As(err, &timeout) || !sawKey:
		// As it is: the session says that the target did not answer, or how it broke off.
	default:
		err = refusal.New(refusal.TargetFailed, "target %s did not let the gateway in", l.target).
			WithDetail("it refused the login of %s with %s", l.account.UserName(), l.with).
			WithHint("what it needs to let the gateway in, shows: sallyport targets setup %s", l.target).Because(err)
	}
	return nil, nil, nil, err
}
