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

// readToken reads the tokens from where they are kept.
func (h Home) readToken() (*oauth2.Token, error) {
	var token oauth2.Token
	s, err := h.settings()
	if err != nil || !s.Keychain {
		return &token, h.readJSON(fileToken, &token)
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
	return &token, nil
}

// writeToken keeps the tokens.
func (h Home) writeToken(token *oauth2.Token) error {
	s, err := h.settings()
	if err != nil || !s.Keychain {
		return h.writeJSON(fileToken, token)
	}
	text, err := json.Marshal(token) //nolint:gosec // the keychain is for secrets
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
	err := h.writeToken(token)
	if err == nil || !s.Keychain {
		return err
	}
	fmt.Fprintf(out, "Note: %v. The tokens are kept in a file that only you can read.\n", err)
	s.Keychain = false
	return errors.Join(h.writeJSON(fileConfig, *s), h.writeToken(token))
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
