package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/authn"
	"sallyport/configs"
)

// Check is what `sallyport targets check` does on a fresh connection to a target: does it prove itself, and does it let the
// gateway in as the account. It is an Act's Do (session.ActCheck). It runs nothing on the target.
func (h *Handler) Check(target configs.Target, account configs.Account, who authn.Identity) func(context.Context, net.Conn) (string, error) {
	return func(ctx context.Context, conn net.Conn) (string, error) {
		login, err := h.loginFor(ctx, target, account, loginNote{who: who, session: "check", grant: "none"})
		if err != nil {
			return "", err
		}
		c, channels, requests, err := login.handshake(conn)
		if err != nil {
			return "", err
		}
		defer c.Close()
		go refuseChannels(channels)
		go answerGlobals(requests)
		return fmt.Sprintf("%s proved itself and let the gateway in as %s with %s", shown(string(c.ServerVersion())), account.UserName(), login.with), nil
	}
}

// HostKey is a key that a target showed.
type HostKey struct {
	Line        string // authorized_keys form, for configs.Target.HostKeys
	Type        string
	Fingerprint string // SHA256:…, as ssh-keygen -l prints it
}

// HostKeyKinds are the kinds of key that ScanHostKeys can ask for, one a connection, best first.
func HostKeyKinds() []string { return []string{"ed25519", "ecdsa", "rsa"} }

var hostKeyAlgorithms = map[string][]string{
	"ed25519": {xssh.KeyAlgoED25519},
	"ecdsa":   {xssh.KeyAlgoECDSA256, xssh.KeyAlgoECDSA384, xssh.KeyAlgoECDSA521},
	"rsa":     {xssh.KeyAlgoRSASHA512, xssh.KeyAlgoRSASHA256},
}

var errScanned = errors.New("the key is read")

// ScanHostKeys is what `sallyport targets trust` does on a fresh connection to a target: it reads the host key of one of
// HostKeyKinds and hands it to found, for a person to compare and pin; a target that has none of the kind is no error. It
// is an Act's Do (session.ActTrust). Nothing is trusted by it.
func (h *Handler) ScanHostKeys(kind string, found func(HostKey)) func(context.Context, net.Conn) (string, error) {
	return func(_ context.Context, conn net.Conn) (string, error) {
		var outcome string
		_, _, _, err := xssh.NewClientConn(conn, conn.RemoteAddr().String(), &xssh.ClientConfig{
			Config: targetAlgorithms, User: "sallyport", ClientVersion: "SSH-2.0-" + h.Version,
			HostKeyAlgorithms: hostKeyAlgorithms[kind],
			HostKeyCallback: func(_ string, _ net.Addr, key xssh.PublicKey) error {
				k := HostKey{
					Line: strings.TrimSpace(string(xssh.MarshalAuthorizedKey(key))), Type: key.Type(), Fingerprint: xssh.FingerprintSHA256(key),
				}
				outcome = k.Type + " " + k.Fingerprint
				found(k)
				return errScanned // no login is tried
			},
		})
		var negotiation *xssh.AlgorithmNegotiationError
		switch {
		case errors.Is(err, errScanned):
			return outcome, nil
		case errors.As(err, &negotiation) && strings.Contains(negotiation.What, "host key"):
			return "no " + kind + " key", nil
		default:
			return "", err
		}
	}
}
