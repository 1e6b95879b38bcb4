package client

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"sallyport/client/userfile"
	"sallyport/configs"
	"sallyport/web/api"
)

// services is a pg_service.conf in which every target the identity may use is a service of its name, with the first
// account as the user; where there are several, each is a service TARGET-ACCOUNT too, and TARGET-wait waits for an
// approval. Then `psql service=orders` is all
// there is to type. libpq takes a value as everything up to the end of the line, so there is nothing to quote and a
// line break is all that has to be kept out.
func (h Home) services(c api.Certificates) (string, error) {
	var b strings.Builder
	taken := map[string]bool{}
	for _, t := range c.Targets {
		taken[t.Name] = true
	}
	for _, t := range c.Targets {
		if t.Kind != configs.KindPostgres || t.Port == 0 {
			continue
		}
		if err := plain(t); err != nil {
			return "", err
		}
		h.service(&b, t.Name, t, t.Accounts[0], c.Gateway.CA != "")
		if name := t.Name + waitSuffix; !taken[name] {
			taken[name] = true
			h.service(&b, name, t, t.Accounts[0], c.Gateway.CA != "", waitOptions)
		}
		for _, account := range t.Accounts {
			if name := t.Name + "-" + account; len(t.Accounts) > 1 && !taken[name] {
				taken[name] = true
				h.service(&b, name, t, account, c.Gateway.CA != "")
			}
		}
	}
	return b.String(), nil
}

// A service of this suffix waits at the prompt for an approval, for people. It is one of its own because options of a
// service go before PGOPTIONS, and because programs that use a service are to be told at once.
const (
	waitSuffix  = "-wait"
	waitOptions = "options=-c sallyport.wait=5m"
)

func (h Home) service(b *strings.Builder, name string, t api.Connection, account string, ownAuthority bool, more ...string) {
	root := "system" // the authorities that every machine trusts
	if ownAuthority {
		root = h.Path(fileAuthority)
	}
	fmt.Fprintf(b, "[%s]\nhost=%s\nport=%d\ndbname=%s\nuser=%s\nsslmode=verify-full\nsslrootcert=%s\nsslcert=%s\nsslkey=%s\n",
		name, t.Host, t.Port, t.Database, account, root, h.Path(fileTLSCertificate), h.Path(fileTLSKey))
	for _, line := range append(more, "") {
		b.WriteString(line + "\n")
	}
}

// userServices is the service file of the user's own.
func userServices() (string, error) {
	if runtime.GOOS == "windows" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return "", err
		}
		return filepath.Join(dir, "postgresql", ".pg_service.conf"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".pg_service.conf"), nil
}

// shadowed lists the services that stand in the user's own part of the file too. libpq takes the first it finds, so the
// user's entry wins and login says so.
func shadowed(path, ours string) []string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	before, err := userfile.Before(string(data))
	if err != nil {
		return nil
	}
	own := sections(before)
	var both []string
	for _, name := range sections(ours) {
		for _, o := range own {
			if name == o {
				both = append(both, name)
			}
		}
	}
	return both
}

func sections(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			names = append(names, line[1:len(line)-1])
		}
	}
	return names
}
