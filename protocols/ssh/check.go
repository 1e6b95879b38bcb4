package ssh

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/session"
)

// CheckResult is what `targets check` found at a target with one of its accounts.
type CheckResult struct {
	Account string `json:"account"`
	User    string `json:"user"`    // as the target knows it
	Version string `json:"version"` // the server's, as it says
	Login   string `json:"login"`   // what the gateway logged in with
}

// Check connects to a target as a session would: it must prove itself and let the gateway in with the account. Nothing is
// run on it. who asked for it; the act is audited.
func (h *Handler) Check(ctx context.Context, who authn.Identity, target configs.Target, account configs.Account) (CheckResult, error) {
	result := CheckResult{Account: account.Name, User: account.UserName()}
	err := h.Sessions.ActOn(ctx, target, who, session.Act{Kind: session.ActCheck, Reason: "targets check", Do: func(ctx context.Context, conn net.Conn) (string, error) {
		login, err := h.loginFor(ctx, target, account, loginNote{who: who, session: "check", grant: "none", source: sourceOf(target, conn)})
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
		result.Version, result.Login = shown(string(c.ServerVersion())), login.with
		return result.Version + " let the gateway in as " + result.User + " with " + result.Login, nil
	}})
	return result, err
}

// HostKey is a key that a target shows.
type HostKey struct {
	Type        string `json:"type"`
	Fingerprint string `json:"fingerprint"` // SHA256:…, as ssh-keygen -l prints it
	Key         string `json:"key"`         // authorized_keys form, for the target's host_keys
	Pinned      bool   `json:"pinned"`
}

// hostKeyKinds are asked for one a connection, as a server shows one key at a time.
var hostKeyKinds = [][]string{
	{xssh.KeyAlgoED25519},
	{xssh.KeyAlgoECDSA256, xssh.KeyAlgoECDSA384, xssh.KeyAlgoECDSA521},
	{xssh.KeyAlgoRSASHA512, xssh.KeyAlgoRSASHA256},
}

// ScanHostKeys reads the keys that a target shows now, for a person to compare and pin; nothing is trusted by it, and no
// login is tried. who asked for it; each connection is audited.
func (h *Handler) ScanHostKeys(ctx context.Context, who authn.Identity, target configs.Target) ([]HostKey, error) {
	keys := []HostKey{}
	for _, algorithms := range hostKeyKinds {
		err := h.Sessions.ActOn(ctx, target, who, session.Act{Kind: session.ActTrust, Reason: "targets trust", Do: func(_ context.Context, conn net.Conn) (string, error) {
			key, err := h.scan(conn, algorithms)
			if key == nil {
				return "no such key", err
			}
			k := HostKey{Type: key.Type(), Fingerprint: xssh.FingerprintSHA256(key), Key: strings.TrimSpace(string(xssh.MarshalAuthorizedKey(key)))}
			k.Pinned = slices.ContainsFunc(target.HostKeys, func(line string) bool {
				pin, err := parseKey(line)
				return err == nil && equalKeys(pin, key)
			})
			keys = append(keys, k)
			return k.Type + " " + k.Fingerprint, nil
		}})
		if err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 {
		return nil, refusal.New(refusal.TargetFailed, "target %s shows no host key of a type that is good enough", target.Name).
			WithHint("make one on it with: ssh-keygen -A")
	}
	return keys, nil
}

var errScanned = errors.New("the key is read")

// scan reads a key of one of the algorithms; nil where the target has none.
func (h *Handler) scan(conn net.Conn, algorithms []string) (key xssh.PublicKey, err error) {
	_, _, _, err = xssh.NewClientConn(conn, conn.RemoteAddr().String(), &xssh.ClientConfig{
		Config: targetAlgorithms, User: "sallyport", ClientVersion: "SSH-2.0-" + h.Version, HostKeyAlgorithms: algorithms,
		HostKeyCallback: func(_ string, _ net.Addr, shown xssh.PublicKey) error {
			key = shown
			return errScanned // no login is tried
		},
	})
	var negotiation *xssh.AlgorithmNegotiationError
	if errors.Is(err, errScanned) || errors.As(err, &negotiation) && negotiation.What == "host key" {
		return key, nil
	}
	return nil, err
}
