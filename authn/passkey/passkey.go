// Package passkey is the gateway as a relying party of WebAuthn (https://www.w3.org/TR/webauthn-3): it has keys made, and has
// people prove that they hold one.
//
// It promises that a key it takes was made, and is used, at the gateway's own address (origin and relying party id), in answer to
// one challenge of the gateway's, by somebody whom their authenticator has verified (PIN, fingerprint), not only touched; and that
// a signature counter which does not grow is told, for then there may be two of one key. What kind of authenticator it is nobody
// asks (attestation "none"). Challenges and keys are for the caller to keep: it holds nothing.
package passkey

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/go-webauthn/webauthn/webauthn"
)

// What is taken of a browser. An authenticator's id of a key has 1023 bytes at most (WebAuthn, section 4, credential id).
const (
	MaxAnswer     = 16 << 10
	MaxCredential = 1023
	maxPublic     = 2 << 10
)

// Patience is how long a person may take with their authenticator.
const Patience = 3 * time.Minute

// Party is a relying party. Safe for concurrent use.
type Party struct{ party *webauthn.WebAuthn }

// Key is one that an authenticator has made for the gateway.
type Key struct {
	Credential []byte // the authenticator's id of it
	Public     []byte // in COSE form
	Counter    uint32 // of signatures; 0 where the authenticator does not count
	Synced     bool   // it may be in several devices (backup eligible)
}

// ErrCloned says that a key's counter has not grown since its last signature: another copy of it may be in use.
var ErrCloned = errors.New("the key's signature counter has not grown")

// Usable tells why keys can't be bound to a gateway of that public address; nil: they can.
func Usable(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return errors.New("browsers bind keys to a name, and it is an address")
	}
	if u.Scheme != "https" || u.Hostname() == "" {
		return errors.New("browsers use keys only over https")
	}
	return nil
}

// New makes the party of the gateway of that public address; see Usable.
func New(address string) (*Party, error) {
	if err := Usable(address); err != nil {
		return nil, err
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	required := true
	party, err := webauthn.New(&webauthn.Config{
		RPID: strings.ToLower(u.Hostname()), RPDisplayName: "Sallyport", RPOrigins: []string{u.Scheme + "://" + u.Host},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			// Who signs in is not known before the key says it: it has to be kept where it can be found by the gateway's name.
			ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: &required,
			UserVerification: protocol.VerificationRequired,
		},
		Timeouts: webauthn.TimeoutsConfig{Login: webauthn.TimeoutConfig{Timeout: Patience}, Registration: webauthn.TimeoutConfig{Timeout: Patience}},
	})
	if err != nil {
		return nil, err
	}
	return &Party{party}, nil
}

// person is one as the library sees them.
type person struct {
	handle      []byte
	name, label string
	keys        []webauthn.Credential
}

func (p person) WebAuthnID() []byte                         { return p.handle }
func (p person) WebAuthnName() string                       { return p.name }
func (p person) WebAuthnDisplayName() string                { return p.label }
func (p person) WebAuthnCredentials() []webauthn.Credential { return p.keys }

// algorithms are those of keys that are taken, the best first.
var algorithms = []protocol.CredentialParameter{
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgES256},
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgEdDSA},
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgRS256},
}

// Make asks a browser for a new key of a person, whom handle (64 bytes at most) stands for; name and label are shown by the
// authenticator. It is not to be one of those in have. What is returned is what navigator.credentials.create takes, as JSON, and
// the challenge in it.
func (p *Party) Make(handle []byte, name, label string, have [][]byte) (options []byte, challenge string, err error) {
	others := make([]protocol.CredentialDescriptor, len(have))
	for i, id := range have {
		others[i] = protocol.CredentialDescriptor{Type: protocol.PublicKeyCredentialType, CredentialID: id}
	}
	asked, session, err := p.party.BeginRegistration(person{handle: handle, name: name, label: label},
		webauthn.WithExclusions(others), webauthn.WithCredentialParameters(algorithms))
	if err != nil {
		return nil, "", fmt.Errorf("ask for a key: %w", err)
	}
	options, err = json.Marshal(asked.Response)
	return options, session.Challenge, err
}

// NewKey is a browser's answer to Make, of which nothing is proven yet.
type NewKey struct {
	said *protocol.ParsedCredentialCreationData
}

// ReadNew reads one.
func ReadNew(answer []byte) (NewKey, error) {
	if len(answer) > MaxAnswer {
		return NewKey{}, fmt.Errorf("the answer is longer than %d bytes", MaxAnswer)
	}
	said, err := protocol.ParseCredentialCreationResponseBytes(answer)
	if err != nil {
		return NewKey{}, readable(err)
	}
	return NewKey{said}, nil
}

// Challenge is what it says that it answers.
func (n NewKey) Challenge() string { return n.said.Response.CollectedClientData.Challenge }

// Made verifies an answer to Make, for that person and challenge, and returns the key.
func (p *Party) Made(n NewKey, challenge string, handle []byte) (Key, error) {
	made, err := p.party.CreateCredential(person{handle: handle}, webauthn.SessionData{
		Challenge: challenge, RelyingPartyID: p.party.Config.RPID, UserID: handle, UserVerification: protocol.VerificationRequired, CredParams: algorithms,
	}, n.said)
	if err != nil {
		return Key{}, readable(err)
	}
	if len(made.ID) == 0 || len(made.ID) > MaxCredential || len(made.PublicKey) > maxPublic {
		return Key{}, errors.New("the key's id or public part is too long")
	}
	return Key{Credential: made.ID, Public: made.PublicKey, Counter: made.Authenticator.SignCount, Synced: made.Flags.BackupEligible}, nil
}

// Ask asks a browser for the proof that somebody holds a key, whoever that is. What is returned is what navigator.credentials.get
// takes, as JSON, and the challenge in it.
func (p *Party) Ask() (options []byte, challenge string, err error) {
	asked, session, err := p.party.BeginDiscoverableLogin()
	if err != nil {
		return nil, "", fmt.Errorf("ask for a proof: %w", err)
	}
	options, err = json.Marshal(asked.Response)
	return options, session.Challenge, err
}

// Answer is a browser's answer to Ask, of which nothing is proven yet.
type Answer struct {
	said *protocol.ParsedCredentialAssertionData
}

// Read reads one.
func Read(answer []byte) (Answer, error) {
	if len(answer) > MaxAnswer {
		return Answer{}, fmt.Errorf("the answer is longer than %d bytes", MaxAnswer)
	}
	said, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return Answer{}, readable(err)
	}
	if len(said.RawID) == 0 || len(said.RawID) > MaxCredential {
		return Answer{}, errors.New("the key's id is too long")
	}
	return Answer{said}, nil
}

// Challenge is what it says that it answers.
func (a Answer) Challenge() string { return a.said.Response.CollectedClientData.Challenge }

// Credential is the authenticator's id of the key that it says to be made with.
func (a Answer) Credential() []byte { return slices.Clone(a.said.RawID) }

// Proven verifies an answer with the key that it says to be made with, for the person whom handle stands for, and returns the key's
// counter after it. The error wraps ErrCloned where the answer is good and only the counter is not.
func (p *Party) Proven(a Answer, challenge string, handle []byte, key Key) (counter uint32, err error) {
	who := person{handle: handle, keys: []webauthn.Credential{{
		ID: key.Credential, PublicKey: key.Public, Flags: webauthn.CredentialFlags{BackupEligible: key.Synced},
		Authenticator: webauthn.Authenticator{SignCount: key.Counter},
	}}}
	_, proven, err := p.party.ValidatePasskeyLogin(func(_, _ []byte) (webauthn.User, error) { return who, nil }, webauthn.SessionData{
		Challenge: challenge, RelyingPartyID: p.party.Config.RPID, UserVerification: protocol.VerificationRequired,
	}, a.said)
	if err != nil {
		return 0, readable(err)
	}
	if proven.Authenticator.CloneWarning {
		return 0, fmt.Errorf("%w: it says %d after %d", ErrCloned, a.said.Response.AuthenticatorData.Counter, key.Counter)
	}
	return proven.Authenticator.SignCount, nil
}

// readable is what is wrong, without what the library repeats of challenges and answers.
func readable(err error) error {
	if known, ok := errors.AsType[*protocol.Error](err); ok && known.Details != "" {
		return errors.New(known.Details)
	}
	return err
}
