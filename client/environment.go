package client

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"sallyport/client/job"
	"sallyport/configs"
	"sallyport/web/api"
)

// fileTLSKeyDER is the TLS key as JDBC takes it.
const fileTLSKeyDER = "tls.pk8"

// prepare has fresh keys certified, writes the files that stock programs read into the run's directory, and returns the
// command's environment.
func (r *run) prepare(ctx context.Context) ([]string, error) {
	keys, err := newKeys()
	if err != nil {
		return nil, err
	}
	var c api.Certificates
	if err := r.client.Do(ctx, http.MethodPost, "/v1/certificates", keys.public, &c); err != nil {
		return nil, err
	}
	r.issued = c.ID
	if c.Targets, err = narrow(c.Targets, r.o.Accounts); err != nil {
		return nil, err
	}
	home := r.client.home
	der, _ := pem.Decode(keys.tls)
	if err := errors.Join(home.writeCredentials(keys, c), home.write(fileTLSKeyDER, der.Bytes, 0o600)); err != nil {
		return nil, err
	}
	variables := r.variables(c)
	// What else stands in the environment must not lead the programs elsewhere, and the job's token is nobody else's.
	drop := map[string]bool{}
	for _, name := range job.Secret {
		drop[name] = true
	}
	for _, v := range variables {
		drop[v[0]] = true
		if v[0] == "PGHOST" {
			for _, name := range connectionVariables {
				drop[name] = true
			}
		}
	}
	var environment []string
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); !drop[name] {
			environment = append(environment, pair)
		}
	}
	for _, v := range variables {
		environment = append(environment, v[0]+"="+v[1])
	}
	return environment, nil
}

// connectionVariables are libpq's that say where and as whom to connect.
var connectionVariables = []string{
	"PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE", "PGREQUIREAUTH",
	"PGCHANNELBINDING", "PGSSLMODE", "PGREQUIRESSL", "PGSSLCERT", "PGSSLKEY", "PGSSLCERTMODE", "PGSSLROOTCERT", "PGSSLCRL", "PGSSLCRLDIR",
	"PGSSLSNI", "PGSSLNEGOTIATION", "PGGSSENCMODE", "PGTARGETSESSIONATTRS",
}

// narrow keeps of the targets that there are those that were asked for, with the accounts that were asked for, in order.
func narrow(targets []api.Connection, accounts []Account) ([]api.Connection, error) {
	var kept []api.Connection
	for _, a := range accounts {
		found := -1
		for i := range kept {
			if kept[i].Name == a.Target {
				found = i
			}
		}
		if found >= 0 {
			kept[found].Accounts = append(kept[found].Accounts, a.Name)
			continue
		}
		for _, t := range targets {
			if t.Name == a.Target {
				t.Accounts = []string{a.Name}
				kept, found = append(kept, t), len(kept)
				break
			}
		}
		if found < 0 {
			return nil, fmt.Errorf("the gateway does not say how target %s is reached", a.Target)
		}
	}
	return kept, nil
}

// variables are what the command gets: for the first Postgres target under libpq's own and the usual names, for each
// under a prefix of its name, and for all the two files.
func (r *run) variables(c api.Certificates) (all [][2]string) {
	home := r.client.home
	set := func(name, value string) { all = append(all, [2]string{name, value}) }
	var first, hosts bool
	for _, t := range c.Targets {
		if t.Kind == configs.KindSSH {
			hosts = true
			continue
		}
		for i, account := range t.Accounts {
			a := addressOf(t, account, r.client.authority(c.Gateway))
			a.Certificate, a.Key, a.KeyDER = home.Path(fileTLSCertificate), home.Path(fileTLSKey), home.Path(fileTLSKeyDER)
			libpq := [][2]string{{"PGHOST", a.Host}, {"PGPORT", strconv.Itoa(a.Port)}, {"PGDATABASE", a.Database}, {"PGUSER", a.User}}
			urls := [][2]string{{"DATABASE_URL", a.URL()}, {"JDBC_URL", a.JDBC()}}
			if !first {
				first = true
				all = append(append(all, libpq...), urls...)
				set("PGSSLMODE", "verify-full")
				set("PGSSLROOTCERT", a.root())
				set("PGSSLCERT", a.Certificate)
				set("PGSSLKEY", a.Key)
				set("PGSERVICEFILE", home.Services())
			}
			prefix := variablePrefix(t.Name)
			if i > 0 {
				prefix += variablePrefix(account)
			}
			for _, v := range append(libpq, urls...) {
				set(prefix+v[0], v[1])
			}
		}
	}
	if hosts {
		set("SALLYPORT_SSH_CONFIG", home.SSHConfig())
		program := "ssh -F " + shellWord(home.SSHConfig())
		set("GIT_SSH_COMMAND", program)
		set("RSYNC_RSH", program)
		set("ANSIBLE_SSH_ARGS", "-F "+shellWord(home.SSHConfig()))
	}
	return all
}

// variablePrefix makes the beginning of variables' names out of a target's or an account's.
func variablePrefix(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name) + "_"
}

// shellWord is a path as a shell takes it.
func shellWord(path string) string {
	if strings.Trim(path, nameCharacters+"/") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
