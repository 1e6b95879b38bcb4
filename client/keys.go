package client

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"golang.org/x/crypto/ssh"

	"sallyport/web/api"
)

// keyPair are fresh keys: their private halves as files, their public halves as the gateway certifies them.
type keyPair struct {
	tls, ssh []byte // PEM of the private keys
	public   api.CertificateRequest
}

// newKeys makes a P-256 key for TLS, because every TLS library takes it, and an Ed25519 key for SSH.
func newKeys() (keyPair, error) {
	var k keyPair
	forTLS, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return k, fmt.Errorf("make a key: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(forTLS)
	if err != nil {
		return k, fmt.Errorf("make a key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(forTLS.Public())
	if err != nil {
		return k, fmt.Errorf("make a key: %w", err)
	}
	k.tls = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	k.public.TLSKey = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))

	sshPublic, sshPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return k, fmt.Errorf("make a key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(sshPrivate, "sallyport")
	if err != nil {
		return k, fmt.Errorf("make a key: %w", err)
	}
	wire, err := ssh.NewPublicKey(sshPublic)
	if err != nil {
		return k, fmt.Errorf("make a key: %w", err)
	}
	k.ssh = pem.EncodeToMemory(block)
	k.public.SSHKey = string(ssh.MarshalAuthorizedKey(wire))
	return k, nil
}
