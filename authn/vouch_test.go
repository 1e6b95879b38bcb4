package authn

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// vouchedRig is a rig whose provider gives refresh tokens, with alice signed in.
func vouchedRig(t *testing.T) (*rig, Identity, string) {
	r := newRig(t)
	r.stand()
	r.company.set(func(c *company) { c.refresh, c.closed = true, map[string]bool{} })
	_, token := r.signedIn("alice")
	return r, must(r.Bearer(t.Context(), token.AccessToken))(t), token.AccessToken
}

// TestDisabledAtTheProvider: who is disabled there is found out within the time that a session's looks are apart, which ends the
// sign-in; before that the provider is asked again and again, each time with the token that it gave last.
func TestDisabledAtTheProvider(t *testing.T) {
	r, who, access := vouchedRig(t)
	for range 5 {
		r.advance(vouchEvery)
		if err := r.Standing(t.Context(), who); err != nil {
			t.Fatal(err)
		}
	}
	r.company.set(func(c *company) { c.closed["alice"] = true })
	r.advance(vouchEvery)
	refused(t, r.Standing(t.Context(), who), refusal.IdentityDisabled)
	refused(t, r.Standing(t.Context(), who), refusal.NotAuthenticated)
	_, err := r.Bearer(t.Context(), access)
	refused(t, err, refusal.NotAuthenticated)
	if e := r.events("login.withdrawn"); len(e) != 1 || e[0].Fields["identity"] != who.Key() {
		t.Errorf("%+v", e)
	}
	// Another sign-in of hers is good once she is let in again.
	r.company.set(func(c *company) { c.closed["alice"] = false })
	r.advance(time.Second)
	_, token := r.signedIn("alice")
	if err := r.Standing(t.Context(), must(r.Bearer(t.Context(), token.AccessToken))(t)); err != nil {
		t.Error(err)
	}
}

// TestProviderIsDownMeanwhile: nothing is known then, which ends nothing for standing_grace, and then the sessions; the sign-in
// is good again when the provider is. What is wrong with the gateway's own client is no word about the person.
func TestProviderIsDownMeanwhile(t *testing.T) {
	for name, change := range map[string]struct{ down, up func(*company) }{
		"down":                    {func(c *company) { c.down = true }, func(c *company) { c.down = false }},
		"the client is wrong":     {func(c *company) { c.refused = "invalid_client" }, func(c *company) { c.refused = "" }},
		"too much is asked of it": {func(c *company) { c.refused = "temporarily_unavailable" }, func(c *company) { c.refused = "" }},
	} {
		t.Run(name, func(t *testing.T) {
			r, who, access := vouchedRig(t)
			r.company.set(change.down)
			if err := r.Standing(t.Context(), who); err != nil {
				t.Fatalf("within %s: %v", vouchEvery, err)
			}
			r.advance(vouchEvery)
			for range 3 {
				if err := r.Standing(t.Context(), who); !errors.Is(err, ErrUnvouched) || refusal.Of(err) != nil {
					t.Fatalf("while it is down: %v", err)
				}
			}
			r.advance(9 * time.Minute)
			if err := r.Standing(t.Context(), who); !errors.Is(err, ErrUnvouched) || refusal.Of(err) != nil {
				t.Fatalf("after nine minutes: %v", err)
			}
			r.advance(2 * time.Minute)
			refused(t, r.Standing(t.Context(), who), refusal.NotAuthenticated)
			r.company.set(change.up)
			r.advance(vouchAgain)
			if err := r.Standing(t.Context(), who); err != nil {
				t.Fatalf("once it is up: %v", err)
			}
			if _, err := r.Bearer(t.Context(), access); err != nil {
				t.Errorf("the sign-in: %v", err)
			}
		})
	}
}

// TestManySessionsAskOnce: all sessions of a sign-in look at the same time, and its refresh token is good once.
func TestManySessionsAskOnce(t *testing.T) {
	r, who, _ := vouchedRig(t)
	for range 5 {
		r.advance(vouchEvery)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if err := r.Standing(t.Context(), who); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
}

// TestClosingKeepsWhatProvidersAnswer: a gateway that ends while a provider is asked keeps the refresh token that the answer brings, for
// the one that was asked with is spent; and it asks no more.
func TestClosingKeepsWhatProvidersAnswer(t *testing.T) {
	r, who, _ := vouchedRig(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	r.company.set(func(c *company) { c.renewing = func() { close(asked); <-answer } })
	r.advance(vouchEvery)
	standing, closed := make(chan error, 1), make(chan error, 1)
	go func() { standing <- r.Standing(t.Context(), who) }()
	<-asked
	go func() { closed <- r.Close(t.Context()) }()
	for {
		r.vouching.mu.Lock()
		closing := r.vouching.closed
		r.vouching.mu.Unlock()
		if closing {
			break
		}
		runtime.Gosched()
	}
	close(answer)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	v := must(r.voucher(t.Context(), who))(t)
	kept := must(r.unseal(v.token))(t)
	r.company.mu.Lock()
	good := r.company.fresh[kept]
	r.company.mu.Unlock()
	if good != who.Subject {
		t.Error("what is kept is spent: who asks next with it is told that the person is no more")
	}
	if err := <-standing; err != nil {
		t.Error(err)
	}
	r.advance(vouchEvery)
	if err := r.Standing(t.Context(), who); !errors.Is(err, ErrUnvouched) || refusal.Of(err) != nil {
		t.Errorf("asked after that: %v", err)
	}
}

// TestSlowAnswerIsKept: what a provider answers is written down although the time for asking it is over then.
func TestSlowAnswerIsKept(t *testing.T) {
	r, who, _ := vouchedRig(t)
	asking, cancel := context.WithCancel(t.Context())
	busy, done := make(chan struct{}), make(chan struct{})
	go func() { // somebody else writes for long
		_ = r.store.Do(t.Context(), func(*store.Tx) error { close(busy); <-done; return nil })
	}()
	<-busy
	// The last thing that the provider is asked in this; its answer is on the way then.
	r.company.set(func(c *company) { c.userinfo = func(map[string]any) { time.AfterFunc(time.Second, cancel) } })
	r.advance(vouchEvery)
	told := make(chan error, 1)
	go func() { told <- r.askToVouch(asking, who) }()
	<-asking.Done()
	close(done)
	if err := <-told; err != nil {
		t.Fatal(err)
	}
	if v := must(r.voucher(t.Context(), who))(t); !v.fresh(who, r.clock()) {
		t.Errorf("%+v", v)
	}
}

// TestRefreshTokensAreKeptEncrypted: neither while a sign-in waits for the person's word nor after it does the token stand in
// the store as it is; and it is gone with the sign-in.
func TestRefreshTokensAreKeptEncrypted(t *testing.T) {
	r, who, _ := vouchedRig(t)
	h := must(r.Hold(purpose, somewhere))(t)
	got := r.wait(h)
	b := r.browser()
	_, confirm := b.confirming(h, "bob")
	search := func(when string) {
		t.Helper()
		found := 0
		err := filepath.WalkDir(r.cfg.State, func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			found += strings.Count(string(data), "refresh-")
			return err
		})
		if err != nil || found > 0 {
			t.Errorf("%s: %d stand in the store (%v)", when, found, err)
		}
	}
	search("on the way")
	r.company.mu.Lock()
	given := len(r.company.fresh)
	r.company.mu.Unlock()
	if given != 2 {
		t.Fatalf("the provider gave %d", given)
	}
	r.post(b, confirm, h)
	bob := r.came(got)
	if bob.err != nil {
		t.Fatal(bob.err)
	}
	r.advance(vouchEvery)
	for _, one := range []Identity{who, bob.who} {
		if v := must(r.voucher(t.Context(), one))(t); v == nil {
			t.Errorf("%s: there is nothing to ask with", one.Subject)
		}
		if err := r.Standing(t.Context(), one); err != nil {
			t.Errorf("%s: %v", one.Subject, err)
		}
	}
	search("signed in")
	if err := r.Revoke(t.Context(), who); err != nil {
		t.Fatal(err)
	}
	var kept int
	if err := r.store.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM vouchers`).Scan(&kept); err != nil || kept != 1 {
		t.Errorf("after she signed out %d are kept: %v", kept, err)
	}
}

func (r *rig) post(b *browser, confirm string, h *Hold) {
	r.t.Helper()
	if p := b.post(r.server.URL+pathHoldConfirm, answer(confirm, h.Code(), "approve")); p.StatusCode != http.StatusOK {
		r.t.Fatalf("%s %s", p.Status, p.text)
	}
}
