package web

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"

	"golang.org/x/crypto/ssh"

	"sallyport/authn"
	"sallyport/internal/refusal"
	"sallyport/web/api"
	"sallyport/web/said"
)

func (s *server) registerMe() {
	handle(s, inEmergency(operation("get-me", http.MethodGet, "/v1/me", "Who you are to the gateway")),
		func(_ context.Context, who caller, _ *struct{}) (*body[api.Identity], error) {
			return &body[api.Identity]{said.Identity(who.Identity)}, nil
		})
	handle(s, inEmergency(operation("certify", http.MethodPost, "/v1/certificates", "Certificates for your keys, and what your files are made of")), s.certify)
	handle(s, inEmergency(operation("logout", http.MethodPost, "/v1/logout", "End all your tokens and certificates")),
		func(ctx context.Context, who caller, _ *struct{}) (*struct{}, error) {
			return nil, s.Authn.Revoke(ctx, who.Identity)
		})
}

func (s *server) certify(ctx context.Context, who caller, in *body[api.CertificateRequest]) (*body[api.Certificates], error) {
	keys, err := parseKeys(in.Body)
	if err != nil {
		return nil, err
	}
	issued, err := s.Authn.Certify(ctx, who.Identity, keys)
	if err != nil {
		return nil, err
	}
	out := api.Certificates{ID: issued.ID, SSHCertificate: issued.SSH, Expires: issued.Expires}
	if len(issued.TLS) > 0 {
		out.TLSCertificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issued.TLS}))
	}
	if out.Gateway, err = s.gateway(); err != nil {
		return nil, err
	}
	if out.Targets, err = s.connections(ctx, who, out.Gateway); err != nil {
		return nil, err
	}
	out.KnownHosts = s.knownHosts(out.Gateway, out.Targets)
	return &body[api.Certificates]{out}, nil
}

// parseKeys reads the public keys of a request; authn judges whether they are strong enough.
func parseKeys(in api.CertificateRequest) (authn.Keys, error) {
	var keys authn.Keys
	if in.TLSKey != "" {
		key, err := parseTLSKey(in.TLSKey)
		if err != nil {
			return keys, refusal.New(refusal.Invalid, "tls_key is no public key").
				WithDetail("it must be a PKIX public key as PEM, or as DER in base64").Because(err)
		}
		keys.TLS = key
	}
	if in.SSHKey != "" {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(in.SSHKey))
		if err != nil {
			return keys, refusal.New(refusal.Invalid, "ssh_key is no public key").
				WithDetail("it must be one line in authorized_keys form").Because(err)
		}
		if _, certificate := key.(*ssh.Certificate); certificate {
			return keys, refusal.New(refusal.Invalid, "ssh_key is a certificate").WithDetail("send the public key it certifies")
		}
		keys.SSH = key
	}
	if keys.TLS == nil && keys.SSH == nil {
		return keys, refusal.New(refusal.Invalid, "there is no key to certify").WithHint("send tls_key, ssh_key or both")
	}
	return keys, nil
}

func parseTLSKey(text string) (crypto.PublicKey, error) {
	if block, _ := pem.Decode([]byte(text)); block != nil {
		return x509.ParsePKIXPublicKey(block.Bytes)
	}
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	return x509.ParsePKIXPublicKey(der)
}
