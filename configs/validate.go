package configs

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// How TLS towards a Postgres target is done.
const (
	TLSVerifyFull = "verify-full"
	TLSOff        = "off"
)

// Verbs are what permissions may name beside "*"; grant.Permission has their meaning.
var Verbs = []string{
	"grants.list", "grants.revoke", "sessions.list", "sessions.kill", "sessions.watch",
	"recordings.read", "recordings.export", "recordings.hold", "recordings.shred", "recordings.unmask", "log.verify", "targets.manage",
	"authorities.manage", "policies.confirm", "notifications.retry",
}

var (
	// targetName is also a host name, so that it can stand in ssh_config and in certificates.
	targetName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)
	// accountName leaves out what separates it from a target (@ + /) and what shells and ssh_config would expand.
	accountName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$`)
	policyName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}$`)
	pattern     = regexp.MustCompile(`^[A-Za-z0-9_.*-]+@[a-z0-9.*-]+$`)
)

// validate notes everything that is wrong with a configuration whose defaults are set.
func (l *loader) validate(main *file, c *Config) {
	at := func(path, format string, args ...any) { l.at(main, "$."+path, format, args...) }
	if c.State == "" {
		at("state", "state is missing; name the directory in which the gateway keeps everything")
	}
	checkSecret(at, "store", c.Store)
	l.validateURL(at, c.URL)
	if c.Listen.HTTPS == "" {
		at("listen.https", "listen.https is missing; write host:port, like 0.0.0.0:8443")
	}
	for _, listener := range []struct{ key, address string }{
		{"listen.https", c.Listen.HTTPS}, {"listen.postgres", c.Listen.Postgres}, {"listen.ssh", c.Listen.SSH},
	} {
		if listener.address != "" {
			checkAddress(at, listener.key, listener.address)
		}
	}
	for _, f := range []struct{ key, path string }{{"tls.certificate", c.TLS.Certificate}, {"tls.key", c.TLS.Key}} {
		switch used := c.TLS.ACME.Used(); {
		case f.path == "" && !used:
			at(f.key, "%s is missing; name the PEM file, or use tls.acme", f.key)
		case f.path != "" && used:
			at(f.key, "%s is set, and tls.acme too; the certificate comes from one of them", f.key)
		}
	}
	validateACME(at, c)
	for _, f := range []struct{ key, path string }{
		{"tls.acme.ca", c.TLS.ACME.CA},
		{"tls.certificate", c.TLS.Certificate}, {"tls.key", c.TLS.Key}, {"tls.ca", c.TLS.CA}, {"provider.ca", c.Provider.CA},
	} {
		checkFile(at, f.key, f.path)
	}
	if c.Listen.SSH != "" {
		if _, _, err := net.SplitHostPort(c.SSH.Host); err != nil {
			at("ssh.host", "ssh.host is %q; write the name and port under which clients reach the SSH listener, like gateway.example:2222", c.SSH.Host)
		}
		if !strings.HasPrefix(c.SSH.Version, "OpenSSH_") || strings.ContainsFunc(c.SSH.Version, notPrintable) {
			at("ssh.version", `ssh.version must begin with "OpenSSH_" and be printable, or stock clients hang in some cases`)
		}
	}
	l.validateProviders(at, c)
	if c.GroupFile != "" {
		if _, err := ReadGroups(c.GroupFile); err != nil {
			at("group_file", "%s", err)
		}
	}
	validateWorkloads(at, c)
	validateApprovals(at, c)
	validateAlerts(at, c)
	for _, d := range []struct {
		key   string
		value Duration
	}{{"credentials.sign_in", c.Credentials.SignIn}, {"credentials.certificate", c.Credentials.Certificate}, {"credentials.ssh_key", c.Credentials.SSHKey}, {"credentials.standing_grace", c.Credentials.StandingGrace}} {
		if d.value.D().Hours() > 7*24 {
			at(d.key, "%s is %s; at most 7d", d.key, d.value)
		}
	}
	validateEnrolledKeys(at, c)
	checkDurability(at, "recording.durability", c.Recording.Durability)
	checkKeep(at, "recording.keep", c.Recording.Keep)
	checkRecipients(at, "recording.recipients", c.Recording.Recipients)
	checkInputRecipients(at, "recording.recipients_input", c.Recording.RecipientsInput, c.Recording.Recipients)
	if r := c.Recording; r.Warn < r.Reserve {
		at("recording.warn", "recording.warn is %d bytes; it is at least recording.reserve, %d", r.Warn, r.Reserve)
	} else if r.End > r.Reserve {
		at("recording.end", "recording.end is %d bytes; it is at most recording.reserve, %d", r.End, r.Reserve)
	}
	validateWitnesses(at, c.Recording)
	validateArchive(at, c.Archive)
	l.validateTargets(c)
	l.validateMasking(at, c)
	validateEvidence(at, c)
	l.validateRoles(c)
	l.validatePolicies(c)
	validateStepUp(at, c.StepUp)
	for i, p := range c.Permissions {
		path := fmt.Sprintf("permissions[%d]", i)
		if len(p.Groups) == 0 {
			at(path+".groups", "groups is missing; name the groups that may do this")
		}
		if len(p.May) == 0 {
			at(path+".may", "may is missing; the verbs are: %s, or \"*\"", strings.Join(Verbs, ", "))
		}
		for j, verb := range p.May {
			if verb != "*" && !slices.Contains(Verbs, verb) {
				at(fmt.Sprintf("%s.may[%d]", path, j), "unknown permission %q; the verbs are: %s, or \"*\"", verb, strings.Join(Verbs, ", "))
			}
		}
	}
}

func validateEnrolledKeys(at reporter, c *Config) {
	k := c.Credentials.EnrolledKeys
	if k == nil {
		return
	}
	const key = "credentials.enrolled_keys"
	if u, err := url.Parse(c.URL); err == nil {
		if _, err := netip.ParseAddr(u.Hostname()); err == nil {
			at(key, "browsers bind keys to a name, and url is an address; give the gateway a name, like https://gateway.example")
		}
	}
	if m := k.SignIn.MaxAge.D(); m < time.Minute || m > 24*time.Hour {
		at(key+".sign_in.max_age", "max_age is %s; 1m to 24h", k.SignIn.MaxAge)
	}
	if k.Known.D() < time.Hour || k.Known.D() > 28*24*time.Hour {
		at(key+".known", "known is %s; 1h to 28d", k.Known)
	}
}

// Approving is what step_up calls the approving of a request, which policies give and no permission does.
const Approving = "approve"

func validateStepUp(at reporter, all []StepUp) {
	known := append([]string{Approving}, Verbs...)
	for i, s := range all {
		path := fmt.Sprintf("step_up[%d]", i)
		if len(s.For) == 0 {
			at(path+".for", "for is missing; the deeds are: %s", strings.Join(known, ", "))
		}
		for j, deed := range s.For {
			if !slices.Contains(known, deed) {
				at(fmt.Sprintf("%s.for[%d]", path, j), "unknown deed %q; the deeds are: %s", deed, strings.Join(known, ", "))
			}
		}
		if s.Within <= 0 {
			at(path+".within", "within is missing; write how old the proof may be, such as 15m")
		}
	}
}

type reporter func(path, format string, args ...any)

func (l *loader) validateURL(at reporter, text string) {
	if text == "" {
		at("url", "url is missing; write the gateway's public address, like https://gateway.example:8443")
		return
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		at("url", "url is %q; write https:// and the host, with a port if it is not 443, and nothing behind it (no slash)", text)
	}
}

func (l *loader) validateProviders(at reporter, c *Config) {
	names, issuers := map[string]bool{}, map[string]bool{}
	for i, p := range c.AllProviders() {
		key := "provider"
		if i > 0 {
			key = fmt.Sprintf("providers[%d]", i-1)
			checkFile(at, key+".ca", p.CA)
		}
		validateProvider(at, key, p)
		if p.Name != "" || len(c.Providers) > 0 {
			if !targetName.MatchString(p.Name) {
				at(key+".name", "where there are several providers each needs a name of lower-case letters, digits, dots and dashes, at most 63; got %q", p.Name)
			} else if names[p.Name] {
				at(key+".name", "there is another provider named %q", p.Name)
			}
		}
		if issuers[p.Issuer] && p.Issuer != "" {
			at(key+".issuer", "there is another provider with the issuer %q", p.Issuer)
		}
		names[p.Name], issuers[p.Issuer] = true, true
	}
	if len(c.Providers) > maxProviders {
		at("providers", "%d providers are too many to choose from; at most %d", len(c.Providers)+1, maxProviders+1)
	}
}

// maxProviders bounds Config.Providers.
const maxProviders = 15

func validateProvider(at reporter, key string, p Provider) {
	u, err := url.Parse(p.Issuer)
	switch {
	case p.Issuer == "":
		at(key+".issuer", key+".issuer is missing; write the address of your OpenID provider")
	case err != nil || u.Hostname() == "" || (u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname()))):
		at(key+".issuer", key+".issuer is %q; write an https:// address", p.Issuer)
	}
	if p.ClientID == "" {
		at(key+".client_id", key+".client_id is missing; register the gateway at the provider")
	}
	checkSecret(at, key+".client_secret", p.ClientSecret)
	if !slices.Contains(p.Scopes, "openid") {
		at(key+".scopes", key+`.scopes must have "openid"`)
	}
	validateClaims(at, key+".claims", p.Claims)
	if p.SCIM == nil {
		return
	}
	if kind, _, _ := strings.Cut(string(p.SCIM.Token), ":"); kind != "file" && kind != "env" { // it is read at each request of anybody
		at(key+".scim.token", key+".scim.token is written as file:PATH or env:NAME")
	}
	if a := p.SCIM.Attribute; a != "" && a != "externalId" && a != "userName" {
		at(key+".scim.attribute", key+".scim.attribute is %q; it is externalId or userName", a)
	}
}

func (l *loader) validateTargets(c *Config) {
	names, listeners, servers := map[string]bool{}, map[string]string{}, map[string]string{}
	for i, t := range c.Targets {
		where := l.targets[i]
		at := func(path, format string, args ...any) { l.at(where.file, where.path+"."+path, format, args...) }
		if !targetName.MatchString(t.Name) {
			at("name", "a target's name is lower-case letters, digits, dots and dashes, at most 63; got %q", t.Name)
		}
		if names[t.Name] {
			at("name", "there is another target named %q", t.Name)
		}
		names[t.Name] = true
		if t.Address == "" {
			at("address", "address is missing; write host:port")
		} else {
			checkAddress(at, "address", t.Address)
		}
		checkDurability(at, "durability", t.Durability)
		checkKeep(at, "keep", t.Keep)
		for i, before := range t.WarnBefore {
			if before.D() <= 0 {
				at(fmt.Sprintf("warn_before[%d]", i), "warn_before is how long before the end, such as 5m; got %s", before)
			}
		}
		if len(t.WarnBefore) > maxWarnings {
			at("warn_before", "%d warnings are too many; %d are enough for anybody", len(t.WarnBefore), maxWarnings)
		}
		if !slices.Equal(t.Recipients, c.Recording.Recipients) {
			checkRecipients(at, "recipients", t.Recipients)
		}
		if !slices.Equal(t.RecipientsInput, c.Recording.RecipientsInput) || !slices.Equal(t.Recipients, c.Recording.Recipients) {
			checkInputRecipients(at, "recipients_input", t.RecipientsInput, t.Recipients)
		}
		if label := t.sensitive(); label != "" && len(t.Recipients) == 0 {
			at("labels", "label %s says that the target has data whose recordings are kept only locked; set recording.recipients, or recipients of the target", label)
		}
		switch t.Kind {
		case KindPostgres:
			validatePostgres(at, t)
			unique(at, "listen", t.Listen, t.Name, listeners)
			unique(at, "server_name", t.ServerName, t.Name, servers)
		case KindSSH:
			validateSSH(at, t)
		default:
			at("kind", "kind is %q; it is %q or %q", t.Kind, KindPostgres, KindSSH)
		}
		validateAccounts(at, t)
	}
}

func validatePostgres(at reporter, t Target) {
	if t.Listen != "" {
		checkAddress(at, "listen", t.Listen)
	}
	if t.ServerName != "" && !targetName.MatchString(t.ServerName) {
		at("server_name", "server_name is %q; it is a host name in lower-case letters", t.ServerName)
	}
	host, _, _ := net.SplitHostPort(t.Address)
	switch t.TLS.Mode {
	case TLSVerifyFull:
	case TLSOff:
		if !loopback(host) {
			at("tls.mode", "tls.mode is off, which is for loopback addresses only; %s is not one", host)
		}
	default:
		at("tls.mode", "tls.mode is %q; it is %q or %q", t.TLS.Mode, TLSVerifyFull, TLSOff)
	}
	checkFile(at, "tls.ca", t.TLS.CA)
	if t.EndWith != "" && !slices.ContainsFunc(t.Accounts, func(a Account) bool { return a.Name == t.EndWith }) {
		at("end_with", "end_with names an account of this target; there is no %q", t.EndWith)
	}
	validateEphemeral(at, t)
	if len(t.HostKeys) > 0 || t.HostCA != "" || len(t.Aliases) > 0 {
		at("host_keys", "aliases, host_keys and host_ca are for targets of kind %q", KindSSH)
	}
	if t.CertificateSource != "" {
		at("certificate_source", "certificate_source is for targets of kind %q", KindSSH)
	}
}

func validateSSH(at reporter, t Target) {
	for i, key := range t.HostKeys {
		checkPublicKey(at, fmt.Sprintf("host_keys[%d]", i), key)
	}
	if t.HostCA != "" {
		checkPublicKey(at, "host_ca", t.HostCA)
	}
	if source := t.CertificateSource; source != "" && source != AnySource {
		_, address := netip.ParseAddr(source)
		_, network := netip.ParsePrefix(source)
		if address != nil && network != nil {
			at("certificate_source", "certificate_source is an address or a network such as 10.0.0.5 or 10.0.0.0/28, or %q; got %q", AnySource, source)
		}
	}
	for i, alias := range t.Aliases {
		if alias == "" || strings.ContainsAny(alias, " \t\n\"'%@*?!,") {
			at(fmt.Sprintf("aliases[%d]", i), "an alias is a host name or address, with a port if it is not the target's; got %q", alias)
		}
	}
	if t.Listen != "" || t.ServerName != "" || t.Database != "" || t.TLS != (TargetTLS{}) || t.EndWith != "" || t.MakeRolesWith != "" || t.Heir != "" {
		at("listen", "listen, server_name, database, tls, end_with, make_roles_with and heir are for targets of kind %q", KindPostgres)
	}
}

func validateAccounts(at reporter, t Target) {
	if len(t.Accounts) == 0 {
		at("accounts", "accounts is missing; a target needs at least one")
	}
	seen := map[string]bool{}
	for i, a := range t.Accounts {
		path := fmt.Sprintf("accounts[%d]", i)
		if !accountName.MatchString(a.Name) {
			at(path+".name", "an account's name is letters, digits, underscores, dots and dashes, at most 63; got %q (the login on the target can differ: user)", a.Name)
		}
		if seen[a.Name] {
			at(path+".name", "there is another account named %q", a.Name)
		}
		seen[a.Name] = true
		checkSecret(at, path+".password", a.Password)
		checkSecret(at, path+".key", a.Key)
		if t.Kind != KindSSH && (a.Principal != "" || a.Forwarding || a.RecordInput) {
			at(path, "principal, forwarding and record_input are for targets of kind %q", KindSSH)
		}
		if t.Kind != KindPostgres && (a.Replication || a.ReadOnly || a.Certificate != "" || a.Ephemeral || len(a.MemberOf) > 0 || a.ConnectionLimit != 0) {
			at(path, "replication, read_only, certificate, ephemeral, member_of and connection_limit are for targets of kind %q", KindPostgres)
		}
		if t.Kind == KindPostgres {
			checkFile(at, path+".certificate", a.Certificate)
			switch {
			case (a.Certificate == "") != (a.Key == ""):
				at(path, "certificate and key belong together: what the gateway shows the target, and the key of it")
			case a.Certificate != "" && t.TLS.Mode == TLSOff:
				at(path+".certificate", "a certificate can only be shown over TLS, and tls.mode is off")
			}
		}
		if strings.ContainsFunc(a.User+a.Principal, func(r rune) bool { return notPrintable(r) || r == ',' || r == ' ' }) {
			at(path, "user and principal have no blanks, commas or control characters")
		}
	}
}

// checkPattern finds patterns that are no pattern, or name an account that is not there.
func checkPattern(at reporter, path, text string, targets []Target) {
	if !pattern.MatchString(text) {
		at(path, "%q is not ACCOUNT@TARGET, where * stands for any", text)
		return
	}
	if strings.Contains(text, "*") {
		return
	}
	account, target, _ := strings.Cut(text, "@")
	for _, t := range targets {
		if t.Name == target {
			if !slices.ContainsFunc(t.Accounts, func(a Account) bool { return a.Name == account }) {
				at(path, "target %s has no account %q", target, account)
			}
			return
		}
	}
	at(path, "there is no target %q", target)
}

func checkAddress(at reporter, path, address string) {
	if host, port, err := net.SplitHostPort(address); err != nil || strings.ContainsAny(host, " /@") || !isPort(port) {
		at(path, "%s is %q; write host:port", path, address)
	}
}

func isPort(text string) bool {
	p, err := netip.ParseAddrPort("127.0.0.1:" + text)
	return err == nil && (p.Port() > 0 || text == "0")
}

func checkFile(at reporter, path, name string) {
	if name == "" {
		return
	}
	if f, err := os.Open(name); err != nil {
		at(path, "%s can't be read: %s", name, reason(err))
	} else {
		f.Close()
	}
}

func checkSecret(at reporter, path string, ref SecretRef) {
	if ref == "" {
		return
	}
	if _, _, err := ref.Parse(); err != nil {
		at(path, "%s is %s", path, err)
	}
}

func checkDurability(at reporter, path string, d Durability) {
	if d != Written && d != Synced {
		at(path, "durability is %q; it is %q or %q", d, Written, Synced)
	}
}

// maxWarnings is how often a user may be told of the same end.
const maxWarnings = 5

// checkKeep refuses what would delete recordings that have hardly been made: a slip of the unit must not.
func checkKeep(at reporter, path string, keep Duration) {
	if keep.D() < 24*time.Hour {
		at(path, "keep is %s; recordings are kept for a day at least, like 400d", keep)
	}
}

func checkPublicKey(at reporter, path, text string) {
	if _, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(text)); err != nil || len(options) > 0 || len(rest) > 0 {
		at(path, `not a public key; write it as in a .pub file, like "ssh-ed25519 AAAA…"`)
	}
}

// unique notes a value that two targets have.
func unique(at reporter, path, value, target string, owners map[string]string) {
	if value == "" {
		return
	}
	if owner, taken := owners[value]; taken && !strings.HasSuffix(value, ":0") {
		at(path, "%s %s is also target %s's", path, value, owner)
	}
	owners[value] = target
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }
