package welcome

import (
	"crypto/rand"
	_ "embed"
	"html/template"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"sallyport/authn"
)

//go:embed connect.html
var connectHTML string

var connectPage = template.Must(template.New("connect").Parse(connectHTML))

// connectName is what may stand in the address in the place of a target's or account's name.
var connectName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9_])?$`)

// Connect is the page for people with nothing installed: complete lines for the stock programs. It is public and says what
// anybody may know of this gateway; names of targets and accounts are only repeated from the address.
func (p *Pages) Connect(w http.ResponseWriter, r *http.Request) {
	gateway, hosts, err := p.Gateway()
	if err != nil {
		p.Fail(w, err)
		return
	}
	named := func(parameter, otherwise string) string {
		if name := r.URL.Query().Get(parameter); connectName.MatchString(name) {
			return name
		}
		return otherwise
	}
	target, account := named("target", "TARGET"), named("account", "ACCOUNT")
	root, ca := "system", ""
	if gateway.CA != "" {
		root, ca = "sallyport-ca.pem", gateway.CA
	}
	postgres := "host=" + gateway.Postgres.Host + " port=" + strconv.Itoa(gateway.Postgres.Port) + " dbname=" + target + " sslmode=verify-full sslrootcert=" + root
	jdbc := url.Values{"user": {account + "+ID"}, "sslmode": {"verify-full"}}
	if ca != "" {
		jdbc.Set("sslrootcert", root)
	}
	page := struct {
		Nonce, URL, CA, CAFile                 string
		Postgres, SSH                          bool
		PsqlNative, PsqlPrompt, PsqlPass, JDBC string
		Shell, KnownHosts                      string
		Authority, HostKey                     string
		Target, Account                        string
	}{
		Nonce: rand.Text(), URL: p.URL, CA: ca, CAFile: root, Target: target, Account: account,
		Postgres:   gateway.Postgres.Port != 0,
		SSH:        gateway.SSH.Port != 0,
		PsqlNative: `psql "` + postgres + " user=" + account + " oauth_issuer=" + gateway.Issuer + " oauth_client_id=" + authn.PostgresClient + `"`,
		PsqlPrompt: `psql "` + postgres + " user=" + account + `+sso"`,
		PsqlPass:   `psql "` + postgres + " user=" + account + `+ID channel_binding=require"`,
		JDBC:       "jdbc:postgresql://" + gateway.Postgres.Host + ":" + strconv.Itoa(gateway.Postgres.Port) + "/" + target + "?" + jdbc.Encode(),
		Shell:      "ssh -p " + strconv.Itoa(gateway.SSH.Port) + " " + account + "@" + target + "@" + gateway.SSH.Host,
		KnownHosts: strings.Join(hosts.Known, "\n"),
	}
	if hosts.Authority != nil {
		page.Authority = ssh.FingerprintSHA256(hosts.Authority)
	}
	if hosts.Key != nil {
		page.HostKey = ssh.FingerprintSHA256(hosts.Key)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+page.Nonce+"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	if err := connectPage.Execute(w, page); err != nil {
		p.Log.Debug("the page for newcomers was not read to its end", "error", err)
	}
}
