package configs

import (
	"net"
	"net/url"
	"path/filepath"
	"time"
)

// setDefaults fills in what the file left out.
func (c *Config) setDefaults() {
	if c.TLS.ACME.Used() {
		set(&c.TLS.ACME.Directory, "https://acme-v02.api.letsencrypt.org/directory")
	}
	set(&c.SSH.Version, "OpenSSH_9.9 sallyport")
	set(&c.SSH.Host, c.defaultSSHHost())
	c.Provider.setDefaults()
	for i := range c.Providers {
		c.Providers[i].setDefaults()
	}
	set(&c.Credentials.SignIn, Duration(12*time.Hour))
	set(&c.Credentials.Certificate, Duration(12*time.Hour))
	set(&c.Credentials.SSHKey, Duration(8*time.Hour))
	set(&c.Credentials.StandingGrace, Duration(10*time.Minute))
	if k := c.Credentials.EnrolledKeys; k != nil {
		set(&k.SignIn.MaxAge, Duration(15*time.Minute))
		set(&k.Known, Duration(7*24*time.Hour))
	}
	set(&c.Recording.Durability, Synced)
	set(&c.Recording.Reserve, 512<<20)
	set(&c.Recording.Warn, 4*c.Recording.Reserve)
	set(&c.Recording.End, c.Recording.Reserve/4)
	set(&c.Recording.Keep, Duration(400*24*time.Hour))
	set(&c.Recording.Progress, Duration(10*time.Second))
	set(&c.Recording.MaxUnwitnessed, Duration(15*time.Minute))
	c.Archive.setDefaults()
	set(&c.Limits.Unauthenticated, 200)
	set(&c.Limits.Connections, 5000)
	set(&c.Limits.Handshake, Duration(10*time.Second))
	set(&c.Limits.Drain, Duration(30*time.Second))
	for i := range c.Workloads {
		c.Workloads[i].setDefaults()
	}
	for i := range c.Targets {
		t := &c.Targets[i]
		set(&t.Durability, c.Recording.Durability)
		set(&t.Keep, c.Recording.Keep)
		set(&t.Bulk, c.Recording.Bulk)
		if t.RecipientsInput == nil {
			t.RecipientsInput = c.Recording.RecipientsInput
		}
		if t.Recipients == nil {
			t.Recipients = c.Recording.Recipients
		}
		if t.Kind == KindPostgres {
			set(&t.Database, t.Name)
			set(&t.TLS.Mode, TLSVerifyFull)
			if host, _, err := net.SplitHostPort(t.Address); err == nil {
				set(&t.TLS.ServerName, host)
			}
			t.setEphemeralDefaults()
		}
	}
	for i := range c.Policies {
		c.Policies[i].setDefaults()
	}
	for i := range c.Evidence {
		c.Evidence[i].setDefaults()
	}
	c.setApprovalDefaults()
}

// defaultSSHHost is the host of the URL with the port of the SSH listener.
func (c *Config) defaultSSHHost() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return ""
	}
	_, port, err := net.SplitHostPort(c.Listen.SSH)
	if err != nil {
		return ""
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// resolvePaths makes paths absolute; relative ones are taken from the main file's directory.
func (c *Config) resolvePaths() {
	directory := filepath.Dir(c.File)
	resolve := func(paths ...*string) {
		for _, path := range paths {
			if *path != "" && !filepath.IsAbs(*path) {
				*path = filepath.Join(directory, *path)
			}
		}
	}
	secret := func(refs ...*SecretRef) {
		for _, ref := range refs {
			if kind, path, err := ref.Parse(); err == nil && kind == "file" {
				resolve(&path)
				*ref = SecretRef("file:" + path)
			}
		}
	}
	resolve(&c.State, &c.TLS.Certificate, &c.TLS.Key, &c.TLS.CA, &c.TLS.ACME.CA, &c.Provider.CA, &c.GroupFile, &c.Releases, &c.Archive.CA)
	secret(&c.Archive.AccessKey, &c.Archive.SecretKey, &c.Archive.SessionToken)
	secret(&c.Provider.ClientSecret)
	for i := range c.Providers {
		resolve(&c.Providers[i].CA)
		secret(&c.Providers[i].ClientSecret)
	}
	for _, p := range c.AllProviders() {
		if p.SCIM != nil {
			secret(&p.SCIM.Token)
		}
	}
	for i := range c.Workloads {
		resolve(&c.Workloads[i].CA)
		secret(&c.Workloads[i].Running.Token)
	}
	for i := range c.Approvals.Webhooks {
		w := &c.Approvals.Webhooks[i]
		resolve(&w.CA)
		secret(&w.Secret, &w.DecisionSecret)
	}
	for i := range c.Evidence {
		resolve(&c.Evidence[i].File, &c.Evidence[i].CA)
		secret(&c.Evidence[i].Token)
	}
	for i := range c.Approvals.Jira {
		resolve(&c.Approvals.Jira[i].CA)
		secret(&c.Approvals.Jira[i].Token)
	}
	for i := range c.Approvals.Slack {
		secret(&c.Approvals.Slack[i].AppToken, &c.Approvals.Slack[i].BotToken)
	}
	for i := range c.Targets {
		t := &c.Targets[i]
		resolve(&t.TLS.CA)
		for j := range t.Accounts {
			resolve(&t.Accounts[j].Certificate)
			secret(&t.Accounts[j].Password, &t.Accounts[j].Key)
		}
	}
}

func (p *Provider) setDefaults() {
	set(&p.GroupsClaim, "groups")
	set(&p.NameClaim, "name")
	set(&p.EmailClaim, "email")
	if len(p.Scopes) == 0 {
		p.Scopes = []string{"openid", "profile", "email"}
	}
}

// set gives *value the default if it has none.
func set[T comparable](value *T, defaultValue T) {
	var zero T
	if *value == zero {
		*value = defaultValue
	}
}
