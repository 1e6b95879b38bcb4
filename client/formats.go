package client

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"software.sslmate.com/src/go-pkcs12"

	"sallyport/internal/refusal"
)

// Format is a form of the TLS key beside PEM, for programs that take no PEM.
type Format string

// The formats. PKCS8 is the key in DER, as Java's driver takes it; PKCS12 is key and certificate in one file, behind a
// password that stands beside it.
const (
	PKCS8  Format = "pkcs8"
	PKCS12 Format = "pkcs12"
)

// The files of the formats.
const (
	filePKCS12         = "tls.p12"
	filePKCS12Password = "tls.p12.password"
)

// ParseFormats reads formats as they are written on a command line.
func ParseFormats(names []string) ([]Format, error) {
	var all []Format
	for _, name := range names {
		f := Format(strings.ToLower(name))
		if f != PKCS8 && f != PKCS12 {
			return nil, refusal.New(refusal.Invalid, "format %q is neither %s nor %s", name, PKCS8, PKCS12).WithHint("PEM is always written: tls.key and tls.crt")
		}
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	return all, nil
}

// FormatFiles are the files of a format, by what they are for.
func (h Home) FormatFiles(f Format) []string {
	if f == PKCS12 {
		return []string{h.Path(filePKCS12), h.Path(filePKCS12Password)}
	}
	return []string{h.Path(fileTLSKeyDER)}
}

// writeFormats writes the TLS key and its certificate in those formats.
func (h Home) writeFormats(formats []Format, keyPEM, certificatePEM []byte) error {
	if len(formats) == 0 {
		return nil
	}
	key, _ := pem.Decode(keyPEM)
	certificate, _ := pem.Decode(certificatePEM)
	if key == nil || certificate == nil {
		return errors.New("the gateway certified no TLS key")
	}
	if slices.Contains(formats, PKCS8) {
		if err := h.write(fileTLSKeyDER, key.Bytes, 0o600); err != nil {
			return err
		}
	}
	if !slices.Contains(formats, PKCS12) {
		return nil
	}
	private, err := x509.ParsePKCS8PrivateKey(key.Bytes)
	if err != nil {
		return fmt.Errorf("write PKCS #12: %w", err)
	}
	parsed, err := x509.ParseCertificate(certificate.Bytes)
	if err != nil {
		return fmt.Errorf("write PKCS #12: %w", err)
	}
	password, err := os.ReadFile(h.Path(filePKCS12Password)) // the one that the program has been told
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(password) == 0 {
		password, err = []byte(rand.Text()), nil
	}
	if err != nil {
		return err
	}
	bundle, err := pkcs12.Modern.Encode(private, parsed, nil, string(password))
	if err != nil {
		return fmt.Errorf("write PKCS #12: %w", err)
	}
	return errors.Join(h.write(filePKCS12Password, password, 0o600), h.write(filePKCS12, bundle, 0o600))
}
