package authn

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"sallyport/authn/keyring"
	"sallyport/authn/throttle"
	"sallyport/internal/refusal"
	"sallyport/internal/store/storetest"
)

var fromThere = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}

// prove runs SCRAM from the client's side.
func (r *rig) prove(id, secret string, endpoint []byte) (Identity, Password, error) {
	r.t.Helper()
	p, err := r.BeginPassword(r.t.Context(), id, fromThere, endpoint)
	if err != nil {
		return Identity{}, Password{}, err
	}
	client := must(scram.SHA256.NewClient("", secret, ""))(r.t)
	talk := client.NewConversation()
	if endpoint != nil {
		talk = client.NewConversationWithChannelBinding(scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: endpoint})
	}
	challenge, err := p.First(p.Mechanisms()[0], must(talk.Step(""))(r.t))
	if err != nil {
		return Identity{}, Password{}, err
	}
	verifier, err := p.Final(must(talk.Step(challenge))(r.t))
	if err != nil {
		if _, _, err := p.Identity(r.t.Context()); err == nil {
			r.t.Error("it failed, and names an identity")
		}
		return Identity{}, Password{}, err
	}
	if _, err := talk.Step(verifier); err != nil || !talk.Valid() {
		r.t.Errorf("the gateway did not prove that it knows the password: %v", err)
	}
	return p.Identity(r.t.Context())
}

func TestPasswordLife(t *testing.T) {
	r := newRig(t)
	who := must(r.SignIn(t.Context(), alice, ""))(t)
	p, secret, err := r.IssuePassword(t.Context(), who, "orders", "app", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if len(secret) < 26 || p.User() != "app+"+p.ID || p.Expires.Sub(p.Issued) != time.Hour {
		t.Errorf("%+v, %d characters", p, len(secret))
	}
	for _, endpoint := range [][]byte{nil, []byte("hash of the certificate")} {
		proven, what, err := r.prove(p.ID, secret, endpoint)
		if err != nil || proven.Key() != who.Key() || proven.Method != password || proven.Credential != p.ID || what.Target != "orders" || what.Account != "app" || !proven.Expires.Equal(p.Expires) {
			t.Errorf("%+v %+v %v", proven, what, err)
		}
	}
	_, _, err = r.prove(p.ID, secret+"x", nil)
	refused(t, err, refusal.NotAuthenticated)
	if list := must(r.Passwords(t.Context(), who))(t); len(list) != 1 || list[0].ID != p.ID {
		t.Errorf("%+v", list)
	}
	r.advance(61 * time.Minute)
	_, _, err = r.prove(p.ID, secret, nil)
	refused(t, err, refusal.CredentialExpired)
	if list := must(r.Passwords(t.Context(), who))(t); len(list) != 0 {
		t.Errorf("after its end: %+v", list)
	}
}

// TestPasswordEndsWithTheSignIn, whatever was asked for.
func TestPasswordEndsWithTheSignIn(t *testing.T) {
	r := newRig(t)
	who := must(r.SignIn(t.Context(), alice, ""))(t)
	for _, lasts := range []time.Duration{0, 1000 * time.Hour} {
		p, secret, err := r.IssuePassword(t.Context(), who, "orders", "app", lasts)
		if err != nil || !p.Expires.Equal(who.Expires) {
			t.Errorf("for %s: until %s, the sign-in until %s, %v", lasts, p.Expires, who.Expires, err)
		}
		if lasts != 0 {
			r.advance(13 * time.Hour)
			_, _, err = r.prove(p.ID, secret, nil)
			refused(t, err, refusal.CredentialExpired)
		}
	}
	_, _, err := r.IssuePassword(t.Context(), who, "orders", "app", time.Hour)
	refused(t, err, refusal.CredentialExpired)
}

// TestPasswordRevocation: by its owner, nobody else; by logout; by being disabled. Each is audited.
func TestPasswordRevocation(t *testing.T) {
	r := newRig(t)
	who := must(r.SignIn(t.Context(), alice, ""))(t)
	bob := must(r.SignIn(t.Context(), Identity{Issuer: alice.Issuer, Subject: "bob", Kind: Human}, ""))(t)
	issue := func() (Password, string) {
		p, secret, err := r.IssuePassword(t.Context(), who, "orders", "app", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return p, secret
	}
	first, secret := issue()
	refused(t, r.RevokeCredential(t.Context(), bob, first.ID), refusal.NotFound)
	if _, _, err := r.prove(first.ID, secret, nil); err != nil {
		t.Errorf("after somebody else's attempt: %v", err)
	}
	if err := r.RevokeCredential(t.Context(), who, first.ID); err != nil {
		t.Fatal(err)
	}
	refused(t, r.RevokeCredential(t.Context(), who, first.ID), refusal.NotFound)
	_, _, err := r.prove(first.ID, secret, nil)
	refused(t, err, refusal.NotAuthenticated)

	second, secret := issue()
	if err := r.Revoke(t.Context(), who); err != nil {
		t.Fatal(err)
	}
	_, _, err = r.prove(second.ID, secret, nil)
	refused(t, err, refusal.NotAuthenticated)

	who = must(r.SignIn(t.Context(), alice, ""))(t)
	third, secret := issue()
	if err := r.Disable(t.Context(), who.Key()); err != nil {
		t.Fatal(err)
	}
	_, _, err = r.prove(third.ID, secret, nil)
	refused(t, err, refusal.IdentityDisabled)
	told := map[string]bool{}
	for _, e := range r.events("credential.revoked") {
		told[e.Fields["credential"]] = true
	}
	if !told[first.ID] || !told[second.ID] || !told[third.ID] {
		t.Errorf("not all revocations are audited: %v", told)
	}
}

// TestPasswordIsNotKept: neither the password nor anything that opens with it stands in the store, its write-ahead log or
// the audit log.
func TestPasswordIsNotKept(t *testing.T) {
	r := newRig(t)
	who := must(r.SignIn(t.Context(), alice, ""))(t)
	_, secret, err := r.IssuePassword(t.Context(), who, "orders", "app", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	look := func(data []byte, path string) {
		looked += len(data)
		for _, form := range []string{secret, strings.ToUpper(secret)} {
			if bytes.Contains(data, []byte(form)) {
				t.Errorf("the password stands in %s", path)
			}
		}
	}
	look(storetest.Contents(t, r.cfg.State), "the store")
	err = filepath.WalkDir(r.cfg.State, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		look(data, path)
		return err
	})
	if err != nil || looked < 2_000 {
		t.Errorf("%d bytes looked at, %v", looked, err)
	}
}

// TestPasswordFailuresAreCounted by source: others are not kept out, and waiting helps.
func TestPasswordFailuresAreCounted(t *testing.T) {
	r := newRig(t)
	who := must(r.SignIn(t.Context(), alice, ""))(t)
	p, secret, err := r.IssuePassword(t.Context(), who, "orders", "app", 0)
	if err != nil {
		t.Fatal(err)
	}
	for range throttle.Most {
		_, _, err := r.prove(p.ID, "guess", nil)
		refused(t, err, refusal.NotAuthenticated)
	}
	_, _, err = r.prove(p.ID, secret, nil)
	refused(t, err, refusal.TooMany)
	if _, err := r.BeginPassword(t.Context(), p.ID, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 8)}, nil); err != nil {
		t.Errorf("another source: %v", err)
	}
	r.advance(throttle.Window)
	if _, _, err := r.prove(p.ID, secret, nil); err != nil {
		t.Errorf("after %s: %v", throttle.Window, err)
	}
}

// TestGuessesLockNobodyOut: guesses at one user from everywhere come to an end, also for a user that there is none of, while whoever
// has proven the password goes on, from behind a shared address too.
func TestGuessesLockNobodyOut(t *testing.T) {
	r := newRig(t)
	r.stand()
	who := must(r.SignIn(t.Context(), alice, ""))(t)
	p, secret, err := r.IssuePassword(t.Context(), who, "orders", "app", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.prove(p.ID, secret, nil); err != nil {
		t.Fatal(err)
	}
	guess := func(id string, source int) error {
		t.Helper()
		a, err := r.BeginPassword(t.Context(), id, &net.TCPAddr{IP: net.IPv4(10, 0, byte(source>>8), byte(source))}, nil)
		if err != nil {
			return err
		}
		client := must(scram.SHA256.NewClient("", "guess", ""))(t).NewConversation()
		challenge := must(a.First(ScramPlain, must(client.Step(""))(t)))(t)
		_, err = a.Final(must(client.Step(challenge))(t))
		return err
	}
	for _, id := range []string{p.ID, "aaaaaaaaaa"} {
		for source := range throttle.MostOfUser {
			refused(t, guess(id, source), refusal.NotAuthenticated)
		}
		if no := refused(t, guess(id, throttle.MostOfUser), refusal.TooMany); !strings.Contains(no.Message, "for this user") {
			t.Errorf("%s: %s", id, no.Message)
		}
	}
	if _, _, err := r.prove(p.ID, secret, nil); err != nil {
		t.Errorf("who has the password is locked out: %v", err)
	}
	// Somebody else behind the same address.
	for range throttle.Most {
		_, _, err := r.prove("bbbbbbbbbb", "guess", nil)
		refused(t, err, refusal.NotAuthenticated)
	}
	_, _, err = r.prove("bbbbbbbbbb", "guess", nil)
	refused(t, err, refusal.TooMany)
	if _, _, err := r.prove(p.ID, secret, nil); err != nil {
		t.Errorf("who has the password is locked out by who shares the address: %v", err)
	}
	// Being known from there is no licence to guess.
	for range throttle.Most {
		_, _, err := r.prove(p.ID, "guess", nil)
		refused(t, err, refusal.NotAuthenticated)
	}
	_, _, err = r.prove(p.ID, "guess", nil)
	refused(t, err, refusal.TooMany)
	r.advance(throttle.Window)
	if err := guess(p.ID, throttle.MostOfUser); !refusal.Is(err, refusal.NotAuthenticated) {
		t.Errorf("after %s: %v", throttle.Window, err)
	}
}

// FuzzPasswordProof: whatever comes as first and last message, nothing panics and nobody gets in.
func FuzzPasswordProof(f *testing.F) {
	for _, seed := range [][2]string{
		{"n,,n=,r=x", "c=biws,r=x,p=AAAA"}, {"y,,n=*,r=x", "c=eSws"}, {"p=tls-server-end-point,,n=,r=x", ",,,"}, {"n,a=b,n=,r=", "p="}, {"", ""},
	} {
		f.Add(seed[0], seed[1], true)
		f.Add(seed[0], seed[1], false)
	}
	s := &Service{now: time.Now}
	s.authorities.Store(&authorities{Keyring: &keyring.Keyring{}})
	f.Fuzz(func(t *testing.T, first, final string, plus bool) {
		var endpoint []byte
		if plus {
			endpoint = []byte("x")
		}
		p, err := s.BeginPassword(context.Background(), "none", nil, endpoint)
		if err != nil {
			s.failures = throttle.Failures{} // the limit is another test's
			return
		}
		if _, err := p.First(p.Mechanisms()[0], first); err == nil {
			if _, err := p.Final(final); err == nil {
				t.Error("let in")
			}
		}
	})
}
