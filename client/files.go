package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"sallyport/client/keyagent"
	"sallyport/client/userfile"
	"sallyport/web/api"
)

// Certify has fresh keys certified and writes the files that stock clients read. It tells on out what else was touched.
func (c *Client) Certify(ctx context.Context, out io.Writer) error {
	keys, err := newKeys()
	if err != nil {
		return err
	}
	var certificates api.Certificates
	if err := c.Do(ctx, http.MethodPost, "/v1/certificates", keys.public, &certificates); err != nil {
		return err
	}
	if err := c.home.writeCredentials(keys, certificates); err != nil {
		return err
	}
	s, err := c.home.settings()
	if err != nil {
		return err
	}
	if err := c.home.writeFormats(s.Formats, keys.tls, []byte(certificates.TLSCertificate)); err != nil {
		return err
	}
	if s.Agent {
		if err := keyagent.Add(keys.ssh, certificates.SSHCertificate); err != nil {
			fmt.Fprintf(out, "Note: %v. ssh finds the key in its file.\n", err)
		}
	}
	if !c.home.Shared {
		return nil
	}
	return c.home.share(certificates, out)
}

// writeCredentials writes keys, certificates and client files. Certificates come last, so that a new one never stands
// beside an old key for longer than the renames take.
func (h Home) writeCredentials(keys keyPair, c api.Certificates) error {
	services, err := h.services(c)
	if err != nil {
		return err
	}
	config, err := h.sshConfig(c)
	if err != nil {
		return err
	}
	for _, line := range c.KnownHosts {
		if strings.ContainsAny(line, "\r\n\x00") || !strings.HasPrefix(line, "@cert-authority ") {
			return fmt.Errorf("the gateway sends %.64q as a line of known_hosts, which is none", line)
		}
	}
	return errors.Join(
		h.write(fileKnownHosts, []byte(strings.Join(c.KnownHosts, "\n")+"\n"), 0o644),
		h.write(fileServices, []byte(services), 0o600),
		h.write(fileSSHConfig, []byte(config), 0o600),
		h.write(fileTLSKey, keys.tls, 0o600),
		h.write(fileSSHKey, keys.ssh, 0o600),
		h.write(fileSSHPublic, []byte(keys.public.SSHKey), 0o644),
		h.write(fileTLSCertificate, []byte(c.TLSCertificate), 0o644),
		h.write(fileSSHCertificate, []byte(strings.TrimSpace(c.SSHCertificate)+"\n"), 0o644),
	)
}

// share merges the home's files into the user's own.
func (h Home) share(c api.Certificates, out io.Writer) error {
	services, err := h.services(c)
	if err != nil {
		return err
	}
	file, err := userServices()
	if err != nil {
		return err
	}
	if err := userfile.Merge(file, services, userfile.AtBottom); err != nil {
		return err
	}
	for _, name := range shadowed(file, services) {
		fmt.Fprintf(out, "Note: %s has a service [%s] of your own, which psql takes instead of the gateway's.\n", file, name)
	}
	if file, err = userSSHConfig(); err != nil {
		return err
	}
	// An Include counts for all hosts only before the first Host line.
	return userfile.Merge(file, "Include "+includePath(h.Path(fileSSHConfig)), userfile.AtTop)
}

// Logout ends the identity's tokens and certificates at the gateway and removes them, and what was made of them, here.
// What is here goes in any case; an error of the gateway's is returned after that.
func Logout(ctx context.Context, home Home) error {
	var remote error
	if c, err := Open(home); err != nil {
		remote = err
	} else {
		remote = c.Do(ctx, http.MethodPost, "/v1/logout", nil, nil)
	}
	s, _ := home.settings() // none: nobody has signed in
	local := home.forgetToken()
	if s.Agent {
		if err := keyagent.Remove(); err != nil && os.Getenv("SSH_AUTH_SOCK") != "" {
			local = errors.Join(local, err)
		}
	}
	local = errors.Join(local, home.remove(fileTLSKey, fileTLSCertificate, fileSSHKey, fileSSHPublic, fileSSHCertificate,
		fileKnownHosts, fileSSHConfig, fileServices, fileTLSKeyDER, filePKCS12, filePKCS12Password, fileTunnelKey, fileTunnelKnown))
	if home.Shared {
		if file, err := userServices(); err != nil {
			local = errors.Join(local, err)
		} else {
			local = errors.Join(local, userfile.Merge(file, "", userfile.AtBottom))
		}
		if file, err := userSSHConfig(); err != nil {
			local = errors.Join(local, err)
		} else {
			local = errors.Join(local, userfile.Merge(file, "", userfile.AtTop))
		}
	}
	return errors.Join(local, remote)
}
