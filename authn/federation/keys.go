package federation

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	// Refetch is the shortest time between two questions for an issuer's keys, whatever comes.
	Refetch = 30 * time.Second
	// fresh is how long keys are used without asking again; after stale they are not used any more, so that a key that
	// its issuer has withdrawn dies here too.
	fresh = time.Hour
	stale = 24 * time.Hour
	// maxKeys bounds what is taken from an issuer.
	maxKeys = 100
)

// algorithms are those that a token may be signed with: asymmetric ones only.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// Algorithms are the names of those that a token may be signed with.
func Algorithms() []string {
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = string(a)
	}
	return names
}

// Keys are an issuer's public keys, for tokens that anybody can send: go-oidc's own KeySet asks the issuer again for every
// unknown key id, and anybody can make those up. Safe for concurrent use.
type Keys struct {
	issuer, ca, setting string
	now                 func() time.Time

	known atomic.Pointer[keys]

	mu     sync.Mutex // held while asking
	tried  time.Time
	failed error // of the last attempt
}

// NewKeys prepares an issuer's keys; they are asked for when they are needed. ca is a PEM file to trust beside the system's
// ("": none), setting its name in the configuration.
func NewKeys(issuer, ca, setting string, now func() time.Time) *Keys {
	return &Keys{issuer: issuer, ca: ca, setting: setting, now: now}
}

// Issuer is whose they are.
func (k *Keys) Issuer() string { return k.issuer }

// Like tells whether o are the same issuer's, found in the same way.
func (k *Keys) Like(o *Keys) bool { return k.issuer == o.issuer && k.ca == o.ca }

// Ready asks for the keys unless they are known. Where it can't, the error has ErrUnavailable in it; go-oidc hides what
// VerifySignature fails with.
func (k *Keys) Ready(ctx context.Context) error {
	_, err := k.current(ctx, nil)
	return err
}

type keys struct {
	list []jose.JSONWebKey
	at   time.Time
}

// VerifySignature returns the payload of a token that one of the issuer's keys signed. Only the token's key id and
// algorithm are looked at; keys that it brings itself (jwk, jku, x5c, x5u) are not.
func (k *Keys) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	token, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil {
		return nil, err
	}
	if len(token.Signatures) != 1 {
		return nil, errors.New("it has not exactly one signature")
	}
	header := token.Signatures[0].Protected
	all, err := k.current(ctx, nil)
	if err != nil {
		return nil, err
	}
	fitting := all.fitting(header)
	if len(fitting) == 0 {
		if all, err = k.current(ctx, all); err != nil {
			return nil, err
		}
		fitting = all.fitting(header)
	}
	for _, key := range fitting {
		if payload, err := token.Verify(key.Key); err == nil {
			return payload, nil
		}
	}
	return nil, errors.New("none of the issuer's keys made its signature")
}

// fitting are the keys that may have made a signature with that header.
func (s *keys) fitting(header jose.Header) (found []jose.JSONWebKey) {
	for _, key := range s.list {
		if (header.KeyID == "" || key.KeyID == header.KeyID) && (key.Algorithm == "" || key.Algorithm == header.Algorithm) {
			found = append(found, key)
		}
	}
	return found
}

// current are the issuer's keys; others than those that were not enough, if it has been long enough since it was asked.
func (k *Keys) current(ctx context.Context, notEnough *keys) (*keys, error) {
	if have := k.known.Load(); have != nil && have != notEnough && k.now().Sub(have.at) < fresh {
		return have, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	have := k.known.Load()
	if have != nil && have != notEnough && now.Sub(have.at) < fresh {
		return have, nil // somebody else has just asked
	}
	if since := now.Sub(k.tried); since < 0 || since >= Refetch {
		k.tried = now
		var list []jose.JSONWebKey
		// Whoever asked first may go away; those who wait for the same answer should still get it.
		if list, k.failed = k.fetch(context.WithoutCancel(ctx)); k.failed == nil {
			have = &keys{list, now}
			k.known.Store(have)
			return have, nil
		}
	}
	switch {
	case have != nil && now.Sub(have.at) < stale:
		return have, nil
	case k.failed != nil:
		return nil, k.failed
	}
	return nil, fmt.Errorf("%w: its keys are older than %s", ErrUnavailable, stale)
}

// fetch asks the issuer where its keys are, and for them.
func (k *Keys) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	client, err := Client(k.ca, k.setting)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer client.CloseIdleConnections()
	unavailable := func(err error) error {
		return fmt.Errorf("%w: the keys of %s: %w", ErrUnavailable, k.issuer, err)
	}
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), k.issuer)
	if err != nil {
		return nil, unavailable(err)
	}
	var metadata struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&metadata); err != nil {
		return nil, unavailable(err)
	}
	if !strings.HasPrefix(metadata.Keys, "https://") && strings.HasPrefix(k.issuer, "https://") {
		return nil, unavailable(errors.New("jwks_uri is no https:// address"))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, metadata.Keys, nil)
	if err != nil {
		return nil, unavailable(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, unavailable(err)
	}
	defer answer.Body.Close()
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if answer.StatusCode != http.StatusOK {
		return nil, unavailable(fmt.Errorf("jwks_uri answers %s", answer.Status))
	}
	if err := json.NewDecoder(answer.Body).Decode(&set); err != nil {
		return nil, unavailable(err)
	}
	if len(set.Keys) > maxKeys {
		return nil, unavailable(fmt.Errorf("it has %d keys; the most that is taken is %d", len(set.Keys), maxKeys))
	}
	var list []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) == nil && usable(key) { // a kind of key that is not known here hides no other
			list = append(list, key)
		}
	}
	if len(list) == 0 {
		return nil, unavailable(errors.New("it has no key that tokens can be verified with"))
	}
	return list, nil
}

// usable leaves out keys that are secret, weak or for encryption.
func usable(key jose.JSONWebKey) bool {
	if key.Use != "" && key.Use != "sig" {
		return false
	}
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= 2048
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}
