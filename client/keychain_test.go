package client

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zalando/go-keyring"
	"golang.org/x/oauth2"

	"sallyport/internal/refusal"
)

// TestKeychain: with a keychain no token is in any file; one that does not work is done without, and said.
func TestKeychain(t *testing.T) {
	keyring.MockInit()
	token := &oauth2.Token{AccessToken: "secret-access", RefreshToken: "secret-refresh", Expiry: time.Now().Add(time.Hour)}
	h := Home{Dir: t.TempDir()}
	s := settings{Gateway: "https://gateway.example", Keychain: true}
	if err := errors.Join(h.writeJSON(fileConfig, s), h.writeJSON(fileToken, token), h.keepToken(&s, token, io.Discard)); err != nil {
		t.Fatal(err)
	}
	back, err := h.readToken(s.Gateway)
	if err != nil || back.AccessToken != token.AccessToken || back.RefreshToken != token.RefreshToken {
		t.Errorf("%+v, %v", back, err)
	}
	files, err := os.ReadDir(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if data, err := os.ReadFile(h.Path(f.Name())); err != nil || strings.Contains(string(data), "secret-") {
			t.Errorf("%s holds a token, or %v", f.Name(), err)
		}
	}
	other := Home{Dir: t.TempDir()} // has its own
	if err := other.writeJSON(fileConfig, s); err != nil {
		t.Fatal(err)
	}
	if _, err := other.readToken(s.Gateway); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another home: %v", err)
	}
	if err := errors.Join(h.forgetToken(), h.forgetToken()); err != nil {
		t.Error(err)
	}
	if _, err := h.readToken(s.Gateway); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after logout: %v", err)
	}

	keyring.MockInitWithError(errors.New("no such bus"))
	var said strings.Builder
	if err := h.keepToken(&s, token, &said); err != nil || s.Keychain || !strings.Contains(said.String(), "no such bus") {
		t.Errorf("without a keychain: %v, %q", err, said.String())
	}
	if back, err := h.readToken(s.Gateway); err != nil || back.AccessToken != token.AccessToken {
		t.Errorf("without a keychain: %+v, %v", back, err)
	}
	if info, err := os.Stat(h.Path(fileToken)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestTokensOfAnotherGateway: where signing in at another gateway was broken off after its address was kept, it does not get the
// tokens of the one before, from the keychain or the file.
func TestTokensOfAnotherGateway(t *testing.T) {
	keyring.MockInit()
	for _, keychain := range []bool{true, false} {
		h := Home{Dir: t.TempDir()}
		first, second := settings{Gateway: "https://first.example", Keychain: keychain}, settings{Gateway: "https://second.example", Keychain: keychain}
		token := &oauth2.Token{AccessToken: "first's", RefreshToken: "first's", Expiry: time.Now().Add(time.Hour)}
		if err := errors.Join(h.writeJSON(fileConfig, first), h.keepToken(&first, token, io.Discard)); err != nil {
			t.Fatal(err)
		}
		if got, err := (&tokens{home: h, gateway: first.Gateway}).access(t.Context(), ""); err != nil || got != token.AccessToken {
			t.Fatalf("%q, %v", got, err)
		}
		if err := h.writeJSON(fileConfig, second); err != nil {
			t.Fatal(err)
		}
		if got, err := (&tokens{home: h, gateway: second.Gateway}).access(t.Context(), ""); !refusal.Is(err, refusal.NotAuthenticated) {
			t.Errorf("keychain %v: the second gateway gets %q, %v", keychain, got, err)
		}
	}
}
