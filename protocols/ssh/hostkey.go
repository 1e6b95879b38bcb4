package ssh

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"strings"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/internal/refusal"
)

// hostProof is what a target must show to prove itself: a pinned key, or a certificate of its host authority. A session
// never learns a key.
type hostProof struct {
	target    string
	pins      []xssh.PublicKey
	authority xssh.PublicKey // nil: none
	names     []string       // that a host certificate may be for
}

// proofOf reads a target's pins; without any it refuses.
func proofOf(t configs.Target) (hostProof, error) {
	p := hostProof{target: t.Name, names: []string{t.Name}}
	if host, _, err := net.SplitHostPort(t.Address); err == nil {
		p.names = append(p.names, host)
	}
	for _, line := range t.HostKeys {
		key, err := parseKey(line)
		if err != nil {
			return hostProof{}, misconfigured(t.Name, "one of its host_keys can't be read: %v", err)
		}
		p.pins = append(p.pins, key)
	}
	if t.HostCA != "" {
		key, err := parseKey(t.HostCA)
		if err != nil {
			return hostProof{}, misconfigured(t.Name, "its host_ca can't be read: %v", err)
		}
		p.authority = key
	}
	if len(p.pins) == 0 && p.authority == nil {
		return hostProof{}, misconfigured(t.Name, "no host key of it is pinned, so it could be anybody")
	}
	return p, nil
}

func misconfigured(target, detail string, args ...any) *refusal.Refusal {
	return refusal.New(refusal.TargetFailed, "target %s can't prove itself", target).WithDetail(detail, args...).
		WithHint("an administrator pins its key with: sallyport targets trust %s", target)
}

func parseKey(line string) (xssh.PublicKey, error) {
	key, _, _, rest, err := xssh.ParseAuthorizedKey([]byte(strings.TrimSpace(line)))
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, errors.New("more than one line")
	}
	return key, nil
}

// certificateAlgorithms are those of host certificates.
var certificateAlgorithms = []string{
	xssh.CertAlgoED25519v01, xssh.CertAlgoECDSA256v01, xssh.CertAlgoECDSA384v01,
	xssh.CertAlgoECDSA521v01, xssh.CertAlgoRSASHA512v01, xssh.CertAlgoRSASHA256v01,
}

// algorithms are the host key algorithms to ask for: those whose proof can be checked. A server that may choose freely
// can show a key of a type that isn't pinned although it has the pinned one too.
func (p hostProof) algorithms() []string {
	var list []string
	add := func(names ...string) {
		for _, name := range names {
			if !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	if p.authority != nil {
		add(certificateAlgorithms...)
	}
	for _, pin := range p.pins {
		if pin.Type() == xssh.KeyAlgoRSA {
			add(xssh.KeyAlgoRSASHA512, xssh.KeyAlgoRSASHA256)
		} else {
			add(pin.Type())
		}
	}
	return list
}

// check is a HostKeyCallback. Every doubt is a refusal.
func (p hostProof) check(_ string, _ net.Addr, key xssh.PublicKey) error {
	shownKey := key
	if certificate, ok := key.(*xssh.Certificate); ok {
		if p.authority != nil && certificate.CertType == xssh.HostCert && equalKeys(certificate.SignatureKey, p.authority) {
			return p.checkCertificate(certificate)
		}
		shownKey = certificate.Key
	}
	for _, pin := range p.pins {
		if equalKeys(shownKey, pin) {
			return nil
		}
	}
	r := refusal.New(refusal.TargetFailed, "target %s did not prove itself: its host key is not the one that is pinned", p.target).
		WithDetail("it showed %s %s; either its key was changed, or somebody else answers at its address", shownKey.Type(), xssh.FingerprintSHA256(shownKey)).
		WithHint("if the key was changed on purpose, an administrator pins the new one with: sallyport targets trust %s", p.target)
	return r
}

func (p hostProof) checkCertificate(certificate *xssh.Certificate) error {
	err := errors.New("it names no host")
	if len(certificate.ValidPrincipals) > 0 { // none would stand for all
		for _, name := range p.names {
			if err = new(xssh.CertChecker).CheckCert(name, certificate); err == nil {
				return nil
			}
		}
	}
	return refusal.New(refusal.TargetFailed, "target %s did not prove itself: its host certificate is not good", p.target).
		WithDetail("%s", shown(err.Error())).
		WithHint("whoever runs %s renews its host certificate for the name %s", p.target, p.target).Because(err)
}

func equalKeys(a, b xssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }
