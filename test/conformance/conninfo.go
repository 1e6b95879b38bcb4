package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// conninfo is a libpq connection string of the keyword=value form, taken apart.
type conninfo map[string]string

// variables are libpq's names in the environment for the keywords that a rig may use. The suites' own programs build
// connection strings of their own, so the environment is the one way to reach them all.
var variables = map[string]string{
	"host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD",
	"passfile": "PGPASSFILE", "dbname": "PGDATABASE", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT",
	"sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY", "gssencmode": "PGGSSENCMODE", "channel_binding": "PGCHANNELBINDING",
	"connect_timeout": "PGCONNECT_TIMEOUT", "application_name": "PGAPPNAME", "options": "PGOPTIONS",
}

// parseConninfo reads libpq's quoting: values in single quotes, backslash before a quote or a backslash.
func parseConninfo(text string) (conninfo, error) {
	parsed := conninfo{}
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimLeft(rest, " \t\n") {
		key, after, found := strings.Cut(rest, "=")
		key = strings.TrimSpace(key)
		if !found || key == "" {
			return nil, fmt.Errorf("connection string: expected keyword=value, found no %q after a keyword", "=")
		}
		after = strings.TrimLeft(after, " \t\n")
		var value strings.Builder
		quoted := strings.HasPrefix(after, "'")
		if quoted {
			after = after[1:]
		}
		i, closed := 0, false
		for ; i < len(after); i++ {
			ch := after[i]
			switch {
			case ch == '\\' && i+1 < len(after):
				i++
				value.WriteByte(after[i])
				continue
			case quoted && ch == '\'':
				closed = true
			case !quoted && strings.IndexByte(" \t\n", ch) >= 0:
				closed = true
			default:
				value.WriteByte(ch)
				continue
			}
			i++
			break
		}
		if quoted && !closed {
			return nil, fmt.Errorf("connection string: the quoted value of %s has no end", key)
		}
		if _, known := variables[key]; !known {
			return nil, fmt.Errorf("connection string: the keyword %s has no variable here; add it to conninfo.go", key)
		}
		parsed[key] = value.String()
		rest = after[i:]
	}
	return parsed, nil
}

// environment gives the variables that make any libpq program connect as c says.
func (c conninfo) environment() []string {
	var env []string
	for _, key := range slices.Sorted(maps.Keys(c)) {
		env = append(env, variables[key]+"="+c[key])
	}
	return env
}

// with is c with one keyword changed.
func (c conninfo) with(key, value string) conninfo {
	changed := maps.Clone(c)
	changed[key] = value
	return changed
}

// text is c as a connection string again, for Go's drivers: without hostaddr, which is not one of their keywords and would
// be sent to the server as a setting. The host says enough.
func (c conninfo) text() string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(c)) {
		if key != "hostaddr" {
			parts = append(parts, key+"='"+strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(c[key])+"'")
		}
	}
	return strings.Join(parts, " ")
}
