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
	if _, err := proofOf(target); err != nil {
		return result, err
	}
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

// HostKey is a key that a target shows, or that is pinned for it, and where it comes from.
type HostKey struct {
	Type        string `json:"type"`
	Fingerprint string `json:"fingerprint"` // SHA256:…, as ssh-keygen -l prints it
	Key         string `json:"key"`         // authorized_keys form, for the target's host_keys, or host_ca where it is an authority's
	Authority   bool   `json:"authority"`   // it is one that vouches for the target's key
	Shown       bool   `json:"shown"`       // the target shows it, or a certificate of it
	Pinned      bool   `json:"pinned"`
	From        string `json:"from"` // in words
}

// hostKeyKinds are asked for one a connection, as a server shows one key at a time.
var hostKeyKinds = [][]string{
	{xssh.KeyAlgoED25519},
	{xssh.KeyAlgoECDSA256, xssh.KeyAlgoECDSA384, xssh.KeyAlgoECDSA521},
	{xssh.KeyAlgoRSASHA512, xssh.KeyAlgoRSASHA256},
	certificateAlgorithms,
}

// knownKey describes a key, pinned by the lines or not.
func knownKey(key xssh.PublicKey, pins []string) HostKey {
	return HostKey{
		Type: key.Type(), Fingerprint: xssh.FingerprintSHA256(key), Key: line(key),
		Pinned: slices.ContainsFunc(pins, func(text string) bool {
			pin, err := parseKey(text)
			return err == nil && equalKeys(pin, key)
		}),
	}
}

func line(key xssh.PublicKey) string {
	return strings.TrimSpace(string(xssh.MarshalAuthorizedKey(key)))
}

// described is what a target showed: a key, or a certificate, of which its authority counts.
func described(key xssh.PublicKey, at net.Addr, target configs.Target) HostKey {
	certificate, ok := key.(*xssh.Certificate)
	if !ok {
		k := knownKey(key, target.HostKeys)
		k.Shown, k.From = true, "shown at "+at.String()
		return k
	}
	k := knownKey(certificate.SignatureKey, []string{target.HostCA})
	k.Authority, k.Shown = true, true
	k.From = "vouches, in a certificate shown at " + at.String() + ", for " + xssh.FingerprintSHA256(certificate.Key) + " as " + shown(strings.Join(certificate.ValidPrincipals, ", "))
	return k
}

// pinnedKeys are what the configuration trusts and the target does not show.
func pinnedKeys(target configs.Target, keys []HostKey) (more []HostKey) {
	add := func(text string, authority bool) {
		key, err := parseKey(text)
		if err != nil || slices.ContainsFunc(keys, func(k HostKey) bool { return k.Authority == authority && k.Key == line(key) }) {
			return
		}
		k := knownKey(key, []string{text})
		k.Authority, k.From = authority, "the configuration alone; the target does not show it"
		more = append(more, k)
	}
	for _, text := range target.HostKeys {
		add(text, false)
	}
	if target.HostCA != "" {
		add(target.HostCA, true)
	}
	return more
}

// ScanHostKeys reads the keys that a target shows now, for a person to compare and pin, and says where each comes from; what is pinned
// and not shown is among them. Nothing is trusted by it, and no login is tried. who asked for it; each connection is audited.
func (h *Handler) ScanHostKeys(ctx context.Context, who authn.Identity, target configs.Target) ([]HostKey, error) {
	keys := []HostKey{}
	for _, algorithms := range hostKeyKinds {
		err := h.Sessions.ActOn(ctx, target, who, session.Act{Kind: session.ActTrust, Reason: "targets trust", Do: func(_ context.Context, conn net.Conn) (string, error) {
			key, err := h.scan(conn, algorithms)
			if key == nil {
				return "no such key", err
			}
			k := described(key, conn.RemoteAddr(), target)
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
	return append(keys, pinnedKeys(target, keys)...), nil
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
