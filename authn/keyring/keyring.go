// Package keyring keeps the gateway's keys on disk.
//
// It promises that a key is made once, at the first start, and then never again without somebody having rotated it or
// removed its file; that a key file is complete and on stable storage before anything is signed with it; and that a file which
// others than its owner may read or write is refused, not used. Each authority has a key of its own, because each is
// trusted by somebody else: a target must not accept what a user holds, and the gateway must not accept what a target
// was shown.
package keyring

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Keyring is every key of one gateway. It does not change after Open; rotating an authority makes another one.
type Keyring struct {
	SSHHost ed25519.PrivateKey // the gateway's SSH host key
	HostCA  ed25519.PrivateKey // certifies SSHHost; trusted by users' known_hosts
	LoginCA ed25519.PrivateKey // signs users' SSH certificates; trusted by the gateway only
	// TargetCA signs the certificates of the gateway's own logins; trusted by targets only.
	TargetCA ed25519.PrivateKey
	// ClientCA signs users' TLS certificates; trusted by the gateway only. ClientCACertificate is its own.
	ClientCA            *ecdsa.PrivateKey
	ClientCACertificate *x509.Certificate
	// Issuer signs the ID tokens of the gateway's issuer (ES256).
	Issuer *ecdsa.PrivateKey
	// Token encrypts the issuer's opaque tokens (AES-256-GCM).
	Token [32]byte

	// Next are the keys that published authorities will have, Old those that authorities had and that still count.
	Next map[Name]ed25519.PrivateKey
	Old  map[Name][]Retired

	dir string
	log *slog.Logger
}

// The PEM types of the files.
const (
	typeKey         = "PRIVATE KEY" // PKCS #8
	typeCertificate = "CERTIFICATE"
	typeSymmetric   = "SALLYPORT SYMMETRIC KEY"
)

// authorityLife is how long the client authority's certificate is good: it stands in no trust store but the gateway's
// own, so it is only bounded, not short.
const authorityLife = 20 * 365 * 24 * time.Hour

// maxFile bounds what is read of a key file.
const maxFile = 64 << 10

// Open loads the keys in dir and makes those that are missing; dir is made with mode 0700. Only one process may use a
// directory (the store's lock sees to it).
func Open(dir string, log *slog.Logger) (*Keyring, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of keys: %w", err)
	}
	r := ring{dir: dir, log: log}
	k := &Keyring{
		dir: dir, log: log,
		SSHHost:  load(&r, "ssh_host", makeEd25519, parseKey[ed25519.PrivateKey]),
		HostCA:   load(&r, "host_ca", makeEd25519, parseKey[ed25519.PrivateKey]),
		LoginCA:  load(&r, "login_ca", makeEd25519, parseKey[ed25519.PrivateKey]),
		TargetCA: load(&r, "target_ca", makeEd25519, parseKey[ed25519.PrivateKey]),
		ClientCA: load(&r, "client_ca", makeP256, parseKey[*ecdsa.PrivateKey]),
		Issuer:   load(&r, "issuer", makeP256, parseKey[*ecdsa.PrivateKey]),
		Token:    load(&r, "token", makeSymmetric, parseSymmetric),
	}
	if r.err == nil { // one that was rotated brings its certificate in its own file
		blocks, err := readAll(k.path(ClientCA, ""))
		if err == nil && len(blocks) == 2 {
			k.ClientCACertificate, err = parseAuthority(blocks[1])
		}
		if err != nil {
			r.err = fmt.Errorf("key %s: %w", k.path(ClientCA, ""), err)
		}
	}
	if k.ClientCACertificate == nil {
		k.ClientCACertificate = load(&r, "client_ca_certificate", func() (*pem.Block, error) { return selfSign(k.ClientCA) }, parseAuthority)
	}
	if r.err != nil {
		return nil, r.err
	}
	if !k.ClientCA.PublicKey.Equal(k.ClientCACertificate.PublicKey) {
		return nil, fmt.Errorf("keys in %s: client_ca_certificate.pem is not the certificate of client_ca.pem; restore both from the same backup", dir)
	}
	if err := k.loadOthers(); err != nil {
		return nil, err
	}
	return k, nil
}

// ring carries the first error through Open's list, so that the list can be read as one.
type ring struct {
	dir string
	log *slog.Logger
	err error
}

// load reads one key or makes it.
func load[K any](r *ring, name string, generate func() (*pem.Block, error), parse func(*pem.Block) (K, error)) (key K) {
	if r.err != nil {
		return key
	}
	path := filepath.Join(r.dir, name+".pem")
	block, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		if block, err = generate(); err == nil {
			err = write(path, block)
		}
		if err == nil {
			r.log.Info("made a new key", "file", path)
		}
	}
	if err == nil {
		key, err = parse(block)
	}
	if err != nil {
		r.err = fmt.Errorf("key %s: %w", path, err)
	}
	return key
}

func read(path string) (*pem.Block, error) {
	blocks, err := readAll(path)
	if err != nil {
		return nil, err
	}
	return blocks[0], nil
}

// readAll reads the PEM blocks of a file, one at least.
func readAll(path string) (blocks []*pem.Block, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a plain file")
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others than its owner may use it (mode %#o); if it is still secret, run chmod 600 on it", info.Mode().Perm())
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("is %d bytes long, which no key is", info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		blocks = append(blocks, block)
	}
	if len(blocks) == 0 {
		return nil, errors.New("holds no PEM block; restore it from a backup, or remove it to have a new one made (what it signed is then no longer accepted)")
	}
	return blocks, nil
}

// write makes the file appear whole and durable, or not at all. It never replaces a file.
func write(path string, block *pem.Block) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err = pem.Encode(f, block); err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDirectory(dir)
}

func syncDirectory(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // it can't, and no gateway runs there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func makeEd25519() (*pem.Block, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return pkcs8(key)
}

func makeP256() (*pem.Block, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return pkcs8(key)
}

func pkcs8(key any) (*pem.Block, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &pem.Block{Type: typeKey, Bytes: der}, nil
}

func parseKey[K crypto.PrivateKey](block *pem.Block) (key K, err error) {
	if block.Type != typeKey {
		return key, fmt.Errorf("holds a %s where a %s is expected", block.Type, typeKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return key, err
	}
	key, ok := parsed.(K)
	if !ok {
		return key, fmt.Errorf("is a %T where a %T is expected", parsed, key)
	}
	return key, nil
}

func makeSymmetric() (*pem.Block, error) {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	return &pem.Block{Type: typeSymmetric, Bytes: key}, nil
}

func parseSymmetric(block *pem.Block) (key [32]byte, err error) {
	if block.Type != typeSymmetric || len(block.Bytes) != len(key) {
		return key, fmt.Errorf("is not a %s of %d bytes", typeSymmetric, len(key))
	}
	return [32]byte(block.Bytes), nil
}

// selfSign makes the client authority's certificate, which may sign end certificates only.
func selfSign(key *ecdsa.PrivateKey) (*pem.Block, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Sallyport client authority"},
		NotBefore:             now.Add(-time.Hour), // for clocks that are a little behind
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		// What it signs can be for nothing else. Which names it may have clientCredential checks: one credential, and none of
		// the world's. (Name constraints can't say that: they have no form for addresses without a host, RFC 5280, 4.2.1.10.)
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &pem.Block{Type: typeCertificate, Bytes: der}, nil
}

func parseAuthority(block *pem.Block) (*x509.Certificate, error) {
	if block.Type != typeCertificate {
		return nil, fmt.Errorf("holds a %s where a %s is expected", block.Type, typeCertificate)
	}
	return x509.ParseCertificate(block.Bytes)
}
