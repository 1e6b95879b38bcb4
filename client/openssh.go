package client

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/configs"
	"sallyport/web/api"
)

// gatewayHost is the name of the gateway's own block in ssh_config.
const gatewayHost = "sallyport-gateway"

// sshConfig is an ssh_config in which every SSH target the identity may use is a host of its name, reached by a jump
// through the gateway. Keys, certificate and known hosts are this home's alone, so that neither the user's agent nor
// their known_hosts has a say and no first-use question is asked.
func (h Home) sshConfig(c api.Certificates) (string, error) {
	if c.Gateway.SSH.Port == 0 {
		return "", nil
	}
	if err := plainWord(c.Gateway.SSH.Host, hostCharacters); err != nil {
		return "", fmt.Errorf("the gateway's SSH host: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by \"sallyport login\"; changes here are lost.\n\nHost %s\n  HostName %s\n  Port %d\n  User sallyport\n",
		gatewayHost, c.Gateway.SSH.Host, c.Gateway.SSH.Port)
	h.sshOptions(&b)

	taken := map[string]bool{gatewayHost: true}
	for _, t := range c.Targets {
		taken[t.Name] = true
	}
	for _, t := range c.Targets {
		if t.Kind != configs.KindSSH {
			continue
		}
		if err := plain(t); err != nil {
			return "", err
		}
		names := []string{t.Name}
		for _, alias := range t.Aliases {
			if host, _, err := net.SplitHostPort(alias); err == nil {
				alias = host
			}
			if !taken[alias] {
				taken[alias] = true
				names = append(names, alias)
			}
		}
		fmt.Fprintf(&b, "\nHost %s\n  HostName %s\n  Port 22\n  User %s\n  ProxyJump %s\n", strings.Join(names, " "), t.Name, t.Accounts[0], gatewayHost)
		h.sshOptions(&b)
	}
	return b.String(), nil
}

func (h Home) sshOptions(b *strings.Builder) {
	fmt.Fprintf(b, "  IdentityFile %s\n  CertificateFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n  StrictHostKeyChecking yes\n",
		sshPath(h.Path(fileSSHKey)), sshPath(h.Path(fileSSHCertificate)), sshPath(h.Path(fileKnownHosts)))
}

// sshPath writes a path as ssh_config takes it: in quotes, percent signs doubled, slashes forward on Windows too.
func sshPath(path string) string {
	return `"` + strings.ReplaceAll(filepath.ToSlash(path), "%", "%%") + `"`
}

// includePath is sshPath for Include, which takes patterns: what could be one, or a token to newer versions, becomes "any
// one character".
func includePath(path string) string {
	return `"` + strings.NewReplacer("[", "?", "*", "?", "%", "?").Replace(filepath.ToSlash(path)) + `"`
}

// userSSHConfig is the ssh_config of the user's own.
func userSSHConfig() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".ssh", "config"), nil
}

// Characters of what the gateway names. They are fewer than any of the files could hold; whatever else comes is not
// written into a file that decides which host and key a client trusts.
const (
	nameCharacters     = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	hostCharacters     = nameCharacters + ":"
	databaseCharacters = nameCharacters + "/ $+@#"
)

// plain refuses a target whose names can't stand in a client's files.
func plain(t api.Connection) error {
	checks := []error{plainWord(t.Name, nameCharacters), plainWord(t.Host, hostCharacters)}
	if t.Kind == configs.KindPostgres {
		checks = append(checks, plainWord(t.Database, databaseCharacters))
	}
	for _, a := range t.Accounts {
		checks = append(checks, plainWord(a, nameCharacters))
	}
	for _, a := range t.Aliases {
		checks = append(checks, plainWord(strings.Trim(a, "[]"), hostCharacters+"[]"))
	}
	if len(t.Accounts) == 0 {
		checks = append(checks, fmt.Errorf("it has no account"))
	}
	if i := slices.IndexFunc(checks, func(err error) bool { return err != nil }); i >= 0 {
		return fmt.Errorf("the gateway names a target %q that can't be written into a client's file: %w", t.Name, checks[i])
	}
	return nil
}

func plainWord(word, characters string) error {
	switch {
	case word == "" || len(word) > 253:
		return fmt.Errorf("%.32q is empty or too long", word)
	case strings.HasPrefix(word, "-"):
		return fmt.Errorf("%q begins with a dash", word)
	case strings.Trim(word, characters) != "" || strings.TrimSpace(word) != word:
		return fmt.Errorf("%q holds a character that is not allowed there", word)
	}
	return nil
}
