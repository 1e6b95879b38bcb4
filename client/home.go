package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/lockedfile"

	"sallyport/client/userfile"
	"sallyport/internal/refusal"
)

// Home is the directory that holds what the client keeps: where the gateway is, who is signed in, keys and
// certificates, and the files that stock clients read. Secrets in it are readable by their owner only.
type Home struct {
	// Dir is an absolute path.
	Dir string
	// Shared says that login may also write to the user's own ~/.pg_service.conf and ~/.ssh/config. It is false where
	// SALLYPORT_HOME names the directory: then nothing outside it is touched.
	Shared bool
}

// The files of a home.
const (
	fileConfig         = "config.json"
	fileToken          = "token.json"
	fileAuthority      = "ca.pem"
	fileTLSKey         = "tls.key"
	fileTLSCertificate = "tls.crt"
	fileSSHKey         = "ssh_key"
	fileSSHPublic      = "ssh_key.pub"
	fileSSHCertificate = "ssh_key-cert.pub"
	fileKnownHosts     = "known_hosts"
	fileSSHConfig      = "ssh_config"
	fileServices       = "pg_service.conf"
)

// DefaultHome is $SALLYPORT_HOME, else the directory "sallyport" in the place where this system keeps settings.
func DefaultHome() (Home, error) {
	dir, given := os.LookupEnv("SALLYPORT_HOME")
	if !given || dir == "" {
		base, err := os.UserConfigDir()
		if err != nil {
			return Home{}, fmt.Errorf("find a place for settings: %w; set SALLYPORT_HOME to a directory", err)
		}
		return Home{Dir: filepath.Join(base, "sallyport"), Shared: true}, nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Home{}, fmt.Errorf("SALLYPORT_HOME: %w", err)
	}
	return Home{Dir: dir}, nil
}

// Path is the path of a file in the home.
func (h Home) Path(name string) string { return filepath.Join(h.Dir, name) }

// Services is the file for psql, and whatever else is built on libpq.
func (h Home) Services() string { return h.Path(fileServices) }

// SSHConfig is the file for ssh.
func (h Home) SSHConfig() string { return h.Path(fileSSHConfig) }

// settings are what is known of the gateway.
type settings struct {
	Gateway string `json:"gateway"`
	// CA is the file with the authority that signed the gateway's certificate, relative to the home; empty: the system's.
	CA string `json:"ca,omitempty"`
	// Keychain says that the tokens are in the system's keychain, not in a file.
	Keychain bool `json:"keychain,omitempty"`
	// Agent says that ssh-agent gets the SSH key too, Formats in which other forms the TLS key is written.
	Agent   bool     `json:"agent,omitempty"`
	Formats []Format `json:"formats,omitempty"`
}

// settings reads config.json; a refusal says that nobody has signed in yet.
func (h Home) settings() (settings, error) {
	var s settings
	err := h.readJSON(fileConfig, &s)
	if errors.Is(err, fs.ErrNotExist) {
		return s, refusal.New(refusal.NotAuthenticated, "you are not signed in").
			WithDetail("%s names no gateway", h.Dir).WithHint("sallyport login --gateway https://GATEWAY")
	}
	return s, err
}

func (h Home) readJSON(name string, v any) error {
	data, err := os.ReadFile(h.Path(name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s: %w; remove it and sign in again", h.Path(name), err)
	}
	return nil
}

func (h Home) writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return h.write(name, append(data, '\n'), 0o600)
}

// write replaces a file of the home whole.
func (h Home) write(name string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(h.Dir, 0o700); err != nil {
		return fmt.Errorf("make the directory for settings: %w", err)
	}
	return userfile.Write(h.Path(name), data, mode)
}

// lock takes a lock that other processes of the same home take too, and returns what gives it back. It waits no longer than ctx.
func (h Home) lock(ctx context.Context, name string) (unlock func(), err error) {
	type outcome struct {
		unlock func()
		err    error
	}
	came := make(chan outcome, 1)
	go func() {
		unlock, err := lockedfile.MutexAt(h.Path(name)).Lock()
		came <- outcome{unlock, err}
	}()
	select {
	case o := <-came:
		if o.err != nil {
			return nil, fmt.Errorf("lock the directory for settings: %w", o.err)
		}
		return o.unlock, nil
	case <-ctx.Done():
		go func() { // whenever it comes
			if o := <-came; o.err == nil {
				o.unlock()
			}
		}()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, fmt.Errorf("another sallyport command is renewing the sign-in in %s and does not come to an end", h.Dir)
		}
		return nil, ctx.Err()
	}
}

// remove removes files of the home; what is not there is fine.
func (h Home) remove(names ...string) error {
	var errs []error
	for _, name := range names {
		if err := os.Remove(h.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// plainPath refuses a home whose path can't stand in the files of libpq and OpenSSH as it is.
func (h Home) plainPath() error {
	if strings.ContainsAny(h.Dir, "\r\n\x00\"") || strings.Contains(h.Dir, "${") ||
		(filepath.Separator != '\\' && strings.Contains(h.Dir, `\`)) {
		return fmt.Errorf("the path %q can't be written into ssh_config: it holds a quote, a backslash, a line break or ${; set SALLYPORT_HOME to another directory", h.Dir)
	}
	return nil
}
