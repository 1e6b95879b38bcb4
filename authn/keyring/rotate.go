package keyring

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Name is an authority that can be rotated, as its files are named.
type Name string

// The authorities.
const (
	HostCA   Name = "host_ca"
	LoginCA  Name = "login_ca"
	ClientCA Name = "client_ca"
	TargetCA Name = "target_ca"
	Issuer   Name = "issuer"
)

// Names are all authorities that can be rotated.
var Names = []Name{HostCA, LoginCA, ClientCA, TargetCA, Issuer}

// Published tells whether others must learn an authority's new key before it is used: users' known_hosts, targets' sshd.
// What the others sign only the gateway itself looks at.
func (n Name) Published() bool { return n == HostCA || n == TargetCA }

// Retired is an authority's earlier key. Its private half is gone.
type Retired struct {
	Public      crypto.PublicKey
	Certificate *x509.Certificate // of ClientCA
	Until       time.Time         // what it signed is accepted until then
}

// The PEM type of a retired key and its header.
const (
	typePublic  = "PUBLIC KEY"
	headerUntil = "Accepted-Until"
)

// maxRetired bounds the retired keys of one authority.
const maxRetired = 16

// Current is an authority's key.
func (k *Keyring) Current(name Name) crypto.Signer {
	switch name {
	case HostCA:
		return k.HostCA
	case LoginCA:
		return k.LoginCA
	case ClientCA:
		return k.ClientCA
	case TargetCA:
		return k.TargetCA
	}
	return k.Issuer
}

// Since is when an authority's key was made.
func (k *Keyring) Since(name Name) time.Time {
	info, err := os.Stat(k.path(name, ""))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func (k *Keyring) path(name Name, what string) string {
	return filepath.Join(k.dir, string(name)+what+".pem")
}

// Prepare makes the next key of an authority that is published, to be used from Rotate on. One that there is already stays.
func (k *Keyring) Prepare(name Name) (*Keyring, error) {
	if !name.Published() {
		return nil, fmt.Errorf("authority %s needs no preparation", name)
	}
	if k.Next[name] != nil {
		return k, nil
	}
	block, err := makeEd25519()
	if err != nil {
		return nil, err
	}
	if err := write(k.path(name, ".next"), block); err != nil {
		return nil, fmt.Errorf("key %s: %w", k.path(name, ".next"), err)
	}
	return reopen(k)
}

// Rotate makes the prepared key, else a new one, the authority's. What the old one signed is accepted until then; its
// private half is removed. After a crash at any point either the old key is the authority's or the new one, and what either
// signed is accepted.
func (k *Keyring) Rotate(name Name, until time.Time) (*Keyring, error) {
	fail := func(err error) (*Keyring, error) { return nil, fmt.Errorf("rotate %s: %w", name, err) }
	if err := k.retire(name, until); err != nil {
		return fail(err)
	}
	current := k.path(name, "")
	if k.Next[name] != nil {
		if err := errors.Join(os.Rename(k.path(name, ".next"), current), syncDirectory(k.dir)); err != nil {
			return fail(err)
		}
		return reopen(k)
	}
	var blocks []*pem.Block
	var block *pem.Block
	var err error
	switch name {
	case ClientCA, Issuer:
		block, err = makeP256()
	default:
		block, err = makeEd25519()
	}
	if err != nil {
		return fail(err)
	}
	blocks = append(blocks, block)
	if name == ClientCA { // key and certificate change at one moment, so they are in one file from now on
		key, err := parseKey[*ecdsa.PrivateKey](block)
		if err != nil {
			return fail(err)
		}
		certificate, err := selfSign(key)
		if err != nil {
			return fail(err)
		}
		blocks = append(blocks, certificate)
	}
	if err := replace(current, blocks); err != nil {
		return fail(err)
	}
	return reopen(k)
}

// retire notes the current key among the old ones, and forgets those whose time is over.
func (k *Keyring) retire(name Name, until time.Time) error {
	var blocks []*pem.Block
	now := time.Now()
	old := slices.DeleteFunc(slices.Clone(k.Old[name]), func(r Retired) bool { return !now.Before(r.Until) })
	if now.Before(until) {
		r := Retired{Public: k.Current(name).Public(), Until: until}
		if name == ClientCA {
			r.Certificate = k.ClientCACertificate
		}
		old = append([]Retired{r}, old...)
	}
	for _, r := range old[:min(len(old), maxRetired)] {
		block, err := r.block()
		if err != nil {
			return err
		}
		blocks = append(blocks, block)
	}
	if len(blocks) == 0 {
		err := os.Remove(k.path(name, ".old"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return replace(k.path(name, ".old"), blocks)
}

// Refuse forgets an authority's old keys at once: what they signed is not accepted any more.
func (k *Keyring) Refuse(name Name) (*Keyring, error) {
	if err := os.Remove(k.path(name, ".old")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("forget the old keys of %s: %w", name, err)
	}
	return reopen(k)
}

func (r Retired) block() (*pem.Block, error) {
	headers := map[string]string{headerUntil: r.Until.UTC().Format(time.RFC3339)}
	if r.Certificate != nil {
		return &pem.Block{Type: typeCertificate, Headers: headers, Bytes: r.Certificate.Raw}, nil
	}
	der, err := x509.MarshalPKIXPublicKey(r.Public)
	if err != nil {
		return nil, err
	}
	return &pem.Block{Type: typePublic, Headers: headers, Bytes: der}, nil
}

// loadOthers loads the next and the old keys that there are.
func (k *Keyring) loadOthers() error {
	k.Next, k.Old = map[Name]ed25519.PrivateKey{}, map[Name][]Retired{}
	for _, name := range Names {
		path := k.path(name, ".next")
		blocks, err := readAll(path)
		if err == nil {
			if k.Next[name], err = parseKey[ed25519.PrivateKey](blocks[0]); err == nil && !name.Published() {
				err = errors.New("this authority has no next key")
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("key %s: %w", path, err)
		}
		path = k.path(name, ".old")
		blocks, err = readAll(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("key %s: %w", path, err)
		}
		for _, block := range blocks {
			r, err := parseRetired(block)
			if err != nil {
				return fmt.Errorf("key %s: %w", path, err)
			}
			k.Old[name] = append(k.Old[name], r)
		}
	}
	maps.DeleteFunc(k.Next, func(_ Name, key ed25519.PrivateKey) bool { return key == nil })
	return nil
}

func parseRetired(block *pem.Block) (r Retired, err error) {
	if r.Until, err = time.Parse(time.RFC3339, block.Headers[headerUntil]); err != nil {
		return r, fmt.Errorf("an old key does not say until when: %w", err)
	}
	if block.Type == typeCertificate {
		if r.Certificate, err = parseAuthority(block); err == nil {
			r.Public = r.Certificate.PublicKey
		}
		return r, err
	}
	r.Public, err = x509.ParsePKIXPublicKey(block.Bytes)
	return r, err
}

// replace makes the file hold these blocks, whole and durable, or what it held before.
func replace(path string, blocks []*pem.Block) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	for _, block := range blocks {
		if err == nil {
			err = pem.Encode(f, block)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

func reopen(k *Keyring) (*Keyring, error) { return Open(k.dir, k.log) }
