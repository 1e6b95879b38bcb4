package configs

import (
	"net"
	"net/url"
	"slices"
	"strings"
)

// CertifiedNames are the names that the server certificate is for: the host of URL, and targets' server names.
func (c *Config) CertifiedNames() []string {
	var names []string
	if u, err := url.Parse(c.URL); err == nil {
		names = append(names, strings.ToLower(u.Hostname()))
	}
	for _, t := range c.Targets {
		if name := strings.ToLower(t.ServerName); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func validateACME(at reporter, c *Config) {
	a := c.TLS.ACME
	if !a.Used() {
		return
	}
	if !a.AcceptTerms {
		at("tls.acme", "tls.acme.accept_terms is not true; read the authority's terms of service and agree to them, or name certificate and key")
	}
	if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Hostname() == "" {
		at("tls.acme.directory", "directory is %q; write the https:// address of an ACME directory", a.Directory)
	}
	if a.Listen != "" {
		if _, _, err := net.SplitHostPort(a.Listen); err != nil {
			at("tls.acme.listen", "listen is %q; write HOST:PORT or :80", a.Listen)
		}
	}
	for _, name := range c.CertifiedNames() {
		if net.ParseIP(name) != nil || !strings.Contains(name, ".") {
			at("tls.acme", "no public authority certifies %q; it needs a name with a dot that leads here", name)
		}
	}
}
