package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"time"

	"github.com/zalando/go-keyring"
	"golang.org/x/oauth2"
)

// keychainService is the name under which the tokens of a home stand in the system's keychain.
const keychainService = "sallyport"

// keychainTime bounds the keychain: one that is locked may ask a person who is not there.
const keychainTime = 20 * time.Second

// KeychainLikely tells whether this system has a keychain that can be tried without asking somebody.
func KeychainLikely() bool {
	switch runtime.GOOS {
	case "darwin", "windows":
		return true
	}
	return os.Getenv("DBUS_SESSION_BUS_ADDRESS") != "" && (os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "")
}

// inTime runs what asks the keychain.
func inTime[T any](do func() (T, error)) (T, error) {
	type outcome struct {
		v   T
		err error
	}
	came := make(chan outcome, 1)
	go func() {
		v, err := do()
		came <- outcome{v, err}
	}()
	select {
	case o := <-came:
		return o.v, o.err
	case <-time.After(keychainTime):
		var none T
		return none, fmt.Errorf("the keychain does not answer; is it locked? Sign in with --keychain=false to keep the tokens in a file")
	}
}

// keptToken is what is kept of a sign-in. A home that names another gateway than the tokens are of is one whose sign-in there was
// broken off half-way: the other gateway must not get to see them. Gateway is empty where they were kept by an earlier version.
type keptToken struct {
	oauth2.Token
	Gateway string `json:"gateway,omitempty"`
}

// of returns the token if it is that gateway's, and else fs.ErrNotExist.
func (k *keptToken) of(gateway string) (*oauth2.Token, error) {
	if k.Gateway != "" && k.Gateway != gateway {
		return nil, fs.ErrNotExist
	}
	return &k.Token, nil
}

// readToken reads a gateway's tokens from where they are kept.
func (h Home) readToken(gateway string) (*oauth2.Token, error) {
	var token keptToken
	s, err := h.settings()
	if err != nil || !s.Keychain {
		if err := h.readJSON(fileToken, &token); err != nil {
			return nil, err
		}
		return token.of(gateway)
	}
	text, err := inTime(func() (string, error) { return keyring.Get(keychainService, h.Dir) })
	if errors.Is(err, keyring.ErrNotFound) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("read the tokens from the keychain: %w", err)
	}
	if err := json.Unmarshal([]byte(text), &token); err != nil {
		return nil, fmt.Errorf("the tokens in the keychain are damaged: %w; sign in again", err)
	}
	return token.of(gateway)
}

// writeToken keeps a gateway's tokens.
func (h Home) writeToken(gateway string, token *oauth2.Token) error {
	kept := keptToken{*token, gateway}
	s, err := h.settings()
	if err != nil || !s.Keychain {
		return h.writeJSON(fileToken, kept)
	}
	text, err := json.Marshal(kept) //nolint:gosec // the keychain is for secrets
	if err != nil {
		return err
	}
	if _, err := inTime(func() (struct{}, error) { return struct{}{}, keyring.Set(keychainService, h.Dir, string(text)) }); err != nil {
		return fmt.Errorf("keep the tokens in the keychain: %w", err)
	}
	return h.remove(fileToken) // of a sign-in without the keychain
}

// keepToken is writeToken at a sign-in: a keychain that can't be used is not used, which out is told.
func (h Home) keepToken(s *settings, token *oauth2.Token, out io.Writer) error {
	err := h.writeToken(s.Gateway, token)
	if err == nil || !s.Keychain {
		return err
	}
	fmt.Fprintf(out, "Note: %v. The tokens are kept in a file that only you can read.\n", err)
	s.Keychain = false
	return errors.Join(h.writeJSON(fileConfig, *s), h.writeToken(s.Gateway, token))
}

// forgetToken removes the tokens, wherever they are.
func (h Home) forgetToken() error {
	var kept error
	if s, err := h.settings(); err == nil && s.Keychain {
		_, kept = inTime(func() (struct{}, error) { return struct{}{}, keyring.Delete(keychainService, h.Dir) })
		if errors.Is(kept, keyring.ErrNotFound) {
			kept = nil
		}
	}
	return errors.Join(kept, h.remove(fileToken))
}
