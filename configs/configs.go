// Package configs is the gateway's configuration: its schema, defaults, loading and validation.
//
// A file is YAML. Unknown keys are errors. Every error names file, line and column and what was expected, so that
// `sallyport check` can be trusted to have read what the gateway will read. Nothing here opens a connection or reads a
// secret: a secret stands in the file as a reference (SecretRef) and is resolved by the room that uses it.
package configs

import "time"

// Config is a whole gateway, as written in sallyport.yaml.
type Config struct {
	// State is the directory that holds everything the gateway keeps: database, keys, recordings. One gateway a
	// directory. A relative path is taken from the configuration file's directory.
	State string `yaml:"state"`
	// Store is the connection string of a PostgreSQL database in which grants, sign-ins and what waits for the audit log are
	// kept instead of in State; recordings and keys stay in State. Empty: in State.
	Store SecretRef `yaml:"store"`
	// URL is the gateway's public HTTPS address, without a path: what browsers, the CLI and the issuer use.
	URL    string `yaml:"url"`
	Listen Listen `yaml:"listen"`
	// TLS is the server certificate of all TLS listeners; it is read again when its files change.
	TLS      ServerTLS `yaml:"tls"`
	SSH      SSH       `yaml:"ssh"`
	Provider Provider  `yaml:"provider"`
	// Providers are more of them, such as one for people of another company; whoever signs in chooses.
	Providers []Provider `yaml:"providers"`
	// GroupFile names a YAML file with groups of people, in addition to those that providers tell: each group's name with
	// a list of subjects at Provider, or of "ISSUER SUBJECT". It is read again when it changes.
	GroupFile   string      `yaml:"group_file"`
	Workloads   []Workload  `yaml:"workloads"`
	Credentials Credentials `yaml:"credentials"`
	Recording   Recording   `yaml:"recording"`
	Masking     Masking     `yaml:"masking"`
	// Archive is where recordings are copied to.
	Archive Archive `yaml:"archive"`
	Limits  Limits  `yaml:"limits"`
	// Targets and Policies may also stand in files of their own, named here relative to this file.
	Targets     []Target `yaml:"targets"`
	TargetFiles []string `yaml:"target_files"`
	Policies    []Policy `yaml:"policies"`
	PolicyFiles []string `yaml:"policy_files"`
	// Roles may stand in policy files too.
	Roles     []Role    `yaml:"roles"`
	Approvals Approvals `yaml:"approvals"`
	// Evidence is what policies can ask of other systems.
	Evidence      []Evidence    `yaml:"evidence"`
	Permissions   []Permission  `yaml:"permissions"`
	PolicyChanges PolicyChanges `yaml:"policy_changes"`
	// StepUp are the deeds for which somebody must have proven themselves lately.
	StepUp []StepUp `yaml:"step_up"`
	// Alerts are what is told when it happens.
	Alerts []Alert `yaml:"alerts"`
	// Releases is a directory with the client's binaries, as RELEASES/VERSION/NAME; those of the gateway's own version are
	// served at /download/. Empty: none are.
	Releases string `yaml:"releases"`

	// File is where this was loaded from.
	File string `yaml:"-"`

	policyPlaces []place // of Policies, by index; see PolicyProblem
	main         *file   // the configuration's own
}

// PolicyChanges says how other policies come into force.
type PolicyChanges struct {
	// Confirm has those that may widen access wait until somebody with the permission policies.confirm confirms them.
	Confirm bool `yaml:"confirm"`
	// MadeBy is who made the change that the files have in them, by e-mail address or subject at the provider: written there by whatever
	// puts them there, such as the pipeline that knows whose change it merged. Who it names can't confirm it.
	MadeBy string `yaml:"made_by"`
}

// Listen are the addresses (host:port) to listen on. A port of 0 takes a free one.
type Listen struct {
	HTTPS string `yaml:"https"`
	// Postgres is the shared listener, on which the database name chooses the target (TARGET or TARGET/DATABASE).
	Postgres string `yaml:"postgres"`
	SSH      string `yaml:"ssh"`
}

// ServerTLS names PEM files.
type ServerTLS struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	// CA is the authority that signed Certificate when it is not one that every machine trusts; `sallyport login`
	// hands it to the client's files.
	CA string `yaml:"ca"`
	// ACME has the certificate made and renewed by an authority, instead of Certificate and Key.
	ACME ACME `yaml:"acme"`
}

// ACME is about an authority that certifies by RFC 8555, such as Let's Encrypt. It certifies the host of URL and the server
// names of targets, which it must be able to reach: at port 443 if listen.https is there (TLS-ALPN-01), or at port 80
// if Listen is (HTTP-01).
type ACME struct {
	// AcceptTerms says that the authority's terms of service are agreed to; without it there is no ACME.
	AcceptTerms bool `yaml:"accept_terms"`
	// Directory is the authority's address; default: Let's Encrypt.
	Directory string `yaml:"directory"`
	// Email is whom the authority may write to; it may be empty.
	Email string `yaml:"email"`
	// Listen is an address for the authority's questions over HTTP, mostly ":80"; empty: it asks at listen.https alone.
	Listen string `yaml:"listen"`
	// CA is a PEM file to trust for the directory beside the system's authorities.
	CA string `yaml:"ca"`
}

// Used tells whether ACME is configured.
func (a ACME) Used() bool { return a != ACME{} }

// SSH is about the SSH listener.
type SSH struct {
	// Host is the name (and port, if not 22) under which clients reach the SSH listener; the host certificate is made
	// for it. Default: the host of URL, with the port of listen.ssh.
	Host string `yaml:"host"`
	// Version is the identification after "SSH-2.0-". It begins with "OpenSSH_", because OpenSSH's client sends
	// eow@openssh.com only to such servers.
	Version string `yaml:"version"`
}

// Provider is an OpenID provider of people, of which only the gateway is a client.
type Provider struct {
	// Name is what people choose it by, and a part of the redirect address of each of Config.Providers. Where there is only
	// one provider it needs none.
	Name         string    `yaml:"name"`
	Issuer       string    `yaml:"issuer"`
	ClientID     string    `yaml:"client_id"`
	ClientSecret SecretRef `yaml:"client_secret"`
	Scopes       []string  `yaml:"scopes"`
	// GroupsClaim, NameClaim and EmailClaim say which claims of the ID token hold them.
	GroupsClaim string `yaml:"groups_claim"`
	NameClaim   string `yaml:"name_claim"`
	EmailClaim  string `yaml:"email_claim"`
	// Groups are the only groups that count of those that it names; empty: all.
	Groups []string `yaml:"groups"`
	// Claims are other claims that conditions of policies may look at, as identity.claims. Only those with one text, number or
	// Boolean for a value are kept, as texts.
	Claims []string `yaml:"claims"`
	// CA is a PEM file to trust for the provider beside the system's authorities.
	CA string `yaml:"ca"`
	// SCIM lets the provider say by itself who its people are and in which groups; nil: it does not.
	SCIM *SCIM `yaml:"scim"`
}

// SCIM is how a provider that provisions people (SCIM 2.0) does so.
type SCIM struct {
	// Token is what it shows; at least 32 characters.
	Token SecretRef `yaml:"token"`
	// Claim of the ID token or userinfo, and Attribute of the provisioned user, have the same value for the same person. Default:
	// sub and externalId; Attribute may also be userName.
	Claim     string `yaml:"claim"`
	Attribute string `yaml:"attribute"`
	// AdmitUnknown lets people sign in whom the provider has not provisioned. Default: it does not.
	AdmitUnknown bool `yaml:"admit_unknown"`
}

// AllProviders are Provider and Providers.
func (c *Config) AllProviders() []Provider {
	return append([]Provider{c.Provider}, c.Providers...)
}

// Credentials bounds what the gateway hands out.
type Credentials struct {
	// SignIn is how long a sign-in lasts: tokens and certificates end with it.
	SignIn Duration `yaml:"sign_in"`
	// Certificate is how long a client certificate lasts, at most.
	Certificate Duration `yaml:"certificate"`
	// SSHKey is how long a plain SSH key stands for the person who signed in with it at the prompt (sso), at most; never
	// beyond the sign-in. Default: 8h.
	SSHKey Duration `yaml:"ssh_key"`
	// StandingGrace is how long open sessions go on while a person's provider can't be asked whether they may still sign in.
	// Default: 10m.
	StandingGrace Duration `yaml:"standing_grace"`
	// EnrolledKeys lets people enrol WebAuthn keys, with which they can sign in while their provider can't be asked, for what is taken in
	// an emergency and nothing else; without it none are enrolled or taken.
	EnrolledKeys *EnrolledKeys `yaml:"enrolled_keys"`
}

// EnrolledKeys says who may enrol a key, and how long it is good without the provider's word.
type EnrolledKeys struct {
	// SignIn is how somebody must have proven themselves at the provider to enrol one. Default: within 15m.
	SignIn SignIn `yaml:"sign_in"`
	// Known is how long ago somebody may have signed in at the provider, at most, for their key to be taken. Default: 7d.
	Known Duration `yaml:"known"`
}

// Durability is when a record counts as safe.
type Durability string

// The levels of DESIGN.md, section 4.
const (
	Written Durability = "written" // with the kernel: survives the gateway's death
	Synced  Durability = "synced"  // on stable storage: survives power loss
)

// Recording is about the session log.
type Recording struct {
	Durability Durability `yaml:"durability"`
	// AllowVolatile lets level synced run on a file system that keeps nothing (tmpfs); for tests.
	AllowVolatile bool `yaml:"allow_volatile"`
	// Reserve is the free space in bytes below which no new session starts; it always leaves room for endings.
	Reserve ByteSize `yaml:"reserve"`
	// Warn is the free space below which the gateway warns: in its log, in the audit log, in status. Default: four times
	// Reserve.
	Warn ByteSize `yaml:"warn"`
	// End is the free space below which open sessions are ended, while there is still room for all they have left to say.
	// Default: a quarter of Reserve.
	End ByteSize `yaml:"end"`
	// Bulk is how much is recorded whole of one COPY, of a command's output without a terminal, and of what a terminal puts
	// out while nothing is typed; of the rest length and hash. Default: 64 KiB, 8 MiB, and all. A target can have its own.
	Bulk ByteSize `yaml:"bulk"`
	// Keep is how long recordings are kept after they ended; then they are deleted, unless on hold. Default: 400d. A target
	// can have its own.
	Keep Duration `yaml:"keep"`
	// Recipients are age recipients (age1… or age1pq1…) that recordings are locked to: the gateway cannot read them once they
	// ended. Default: none, and recordings are in the clear. A target's own list replaces it.
	Recipients []string `yaml:"recipients"`
	// RecipientsInput are stricter ones, for what is typed and for parameters of statements: those in Recipients alone cannot read it.
	// Default: none, and it is for Recipients too. A target's own list replaces it.
	RecipientsInput []string `yaml:"recipients_input"`
	// Progress is how often live recordings are bound to the log over all of them. Default: 10s.
	Progress Duration `yaml:"progress"`
	// Witnesses cosign that log. They are to be run by people who do not run the gateway.
	Witnesses []Witness `yaml:"witnesses"`
	// MaxUnwitnessed is for how long no witness may have seen a part of the log before status and the gateway's own log warn.
	// Default: 15m.
	MaxUnwitnessed Duration `yaml:"max_unwitnessed"`
	// RequireWitness is for how long no witness may have seen a part of the log before no session begins any more. Default: sessions
	// need no witness.
	RequireWitness Duration `yaml:"require_witness"`
	// PublicLog serves the log's checkpoints and tiles to anybody. It names no person, account or target, but tells how many
	// sessions there are, and when. Otherwise it takes an access token and the permission log.verify.
	PublicLog bool `yaml:"public_log"`
}

// Witness is one by c2sp.org/tlog-witness: `sallyport witness`, or any other.
type Witness struct {
	// URL is its prefix, to which /add-checkpoint is added.
	URL string `yaml:"url"`
	// Key is its public key, NAME+HASH+KEY.
	Key string `yaml:"key"`
	// CA is a file of PEM certificates that its server's is checked with; empty: the system's.
	CA string `yaml:"ca"`
}

// KeepFor is how long the recordings of a target are kept. Those of one that is not configured any more are kept as long
// as any: what its own time was is not known.
func (c *Config) KeepFor(target string) Duration {
	longest := c.Recording.Keep
	for _, t := range c.Targets {
		if t.Name == target {
			return t.Keep
		}
		longest = max(longest, t.Keep)
	}
	return longest
}

// Limits bounds what strangers can cost.
type Limits struct {
	// Unauthenticated is how many connections may be open at once that have not proven an identity; per source
	// address a quarter of it.
	Unauthenticated int `yaml:"unauthenticated"`
	// Connections is how many may be open at once in all.
	Connections int `yaml:"connections"`
	// Handshake is the deadline for everything up to a proven identity.
	Handshake Duration `yaml:"handshake"`
	// Drain is how long sessions may go on after SIGTERM.
	Drain Duration `yaml:"drain"`
}

// The kinds of target.
const (
	KindPostgres = "postgres"
	KindSSH      = "ssh"
)

// Target is one production system.
type Target struct {
	// Name is what users type: lower-case letters, digits, dots and dashes.
	Name   string            `yaml:"name"`
	Kind   string            `yaml:"kind"`
	Labels map[string]string `yaml:"labels"`
	// Address is host:port.
	Address    string     `yaml:"address"`
	Durability Durability `yaml:"durability"` // default: recording.durability
	Keep       Duration   `yaml:"keep"`       // default: recording.keep
	Bulk       ByteSize   `yaml:"bulk"`       // default: recording.bulk
	Recipients []string   `yaml:"recipients"` // default: recording.recipients; [] is none
	// RecipientsInput replaces recording.recipients_input; [] is none.
	RecipientsInput []string  `yaml:"recipients_input"`
	Accounts        []Account `yaml:"accounts"`
	// WarnBefore are how long before the end of its grant a session is told of it: ssh on terminals, by default 5m and 1m (an
	// empty list: never); Postgres as notices, by default never.
	WarnBefore []Duration `yaml:"warn_before"`
	// SSO lets people with nothing installed sign in while the connection waits: psql as user ACCOUNT+sso, ssh with any
	// key as ACCOUNT@TARGET@gateway. Whoever connects sends its person a link, so it is off by default.
	SSO bool `yaml:"sso"`

	// Postgres: Listen is a listener of the target's own (host:port), ServerName the TLS server name that chooses it on
	// any listener; behind either, the client's database name is the real one. Database is the one used when the
	// client on the shared listener names only the target; default: the target's name.
	Listen     string    `yaml:"listen"`
	ServerName string    `yaml:"server_name"`
	Database   string    `yaml:"database"`
	TLS        TargetTLS `yaml:"tls"`
	// Postgres: EndWith is the account that ends what another account's session left running where that account is locked out of its own
	// role; without one nobody does, and it is audited.
	EndWith string `yaml:"end_with"`
	// Postgres: MakeRolesWith is the account with which the gateway makes and drops the roles of ephemeral accounts; nobody
	// connects as it. Heir is the role that gets what such a role leaves owned; default: sallyport_estate.
	MakeRolesWith string `yaml:"make_roles_with"`
	Heir          string `yaml:"heir"`

	// SSH: Aliases are other names and addresses (host or host:port) under which users jump to it. HostKeys are pinned
	// keys in authorized_keys form, HostCA a host authority's key; with neither, no connection is made.
	Aliases  []string `yaml:"aliases"`
	HostKeys []string `yaml:"host_keys"`
	HostCA   string   `yaml:"host_ca"`
	// SSH: CertificateSource is the address or network that the gateway's certificates are good from, as the target sees it; default: the
	// gateway's own address on each connection. AnySource leaves it open.
	CertificateSource string `yaml:"certificate_source"`
}

// AnySource is a CertificateSource that bounds nothing.
const AnySource = "any"

// Warnings are the times before the end of a grant at which the user of an SSH session is told.
func (t Target) Warnings() []time.Duration {
	if t.WarnBefore == nil {
		return []time.Duration{5 * time.Minute, time.Minute}
	}
	all := make([]time.Duration, len(t.WarnBefore))
	for i, d := range t.WarnBefore {
		all[i] = d.D()
	}
	return all
}

// TargetTLS is TLS towards a Postgres target.
type TargetTLS struct {
	// Mode is "verify-full" (default) or "off", which is refused for an address that is not loopback.
	Mode string `yaml:"mode"`
	// CA is a PEM file; default: the system's authorities. ServerName overrides the host of address.
	CA         string `yaml:"ca"`
	ServerName string `yaml:"server_name"`
}

// Account is a login on a target.
type Account struct {
	Name string `yaml:"name"`
	// User is the login's name on the target; default: Name.
	User string `yaml:"user"`
	// Password is what the gateway logs in with (Postgres: SCRAM; SSH: password).
	Password SecretRef `yaml:"password"`
	// ReadOnly keeps the account's sessions in read-only transactions (Postgres). It is a seat belt: privileges on the
	// target enforce.
	ReadOnly bool `yaml:"read_only"`
	// Certificate is a PEM file with the client certificate that the gateway shows a Postgres target, and Key its key.
	Certificate string `yaml:"certificate"`
	// Key is an SSH private key; with neither Key nor Password the gateway uses a fresh key with a certificate of its
	// target authority, of minutes, for this account (or Principal, default User).
	Key       SecretRef `yaml:"key"`
	Principal string    `yaml:"principal"`
	// Replication allows replication connections (Postgres).
	Replication bool `yaml:"replication"`
	// Ephemeral has the login made for each grant, as a member of the roles in MemberOf, and dropped after it (Postgres).
	// ConnectionLimit is how many sessions a grant may have on the target at once; default: 5.
	Ephemeral       bool     `yaml:"ephemeral"`
	MemberOf        []string `yaml:"member_of"`
	ConnectionLimit int      `yaml:"connection_limit"`
	// Forwarding allows direct-tcpip through the target (SSH).
	Forwarding bool `yaml:"forwarding"`
	// RecordInput has the lines recorded that are typed on a terminal and shown by it (SSH). What a program does not show, such as
	// a password, is not. Default: only how much was typed.
	RecordInput bool `yaml:"record_input"`
}

// UserName is the login's name on the target.
func (a Account) UserName() string {
	if a.User != "" {
		return a.User
	}
	return a.Name
}

// StepUp asks for a fresh proof: who does one of the deeds on a target with the labels must have proven themselves at the
// company's provider (auth_time of OpenID Connect Core, section 2) no longer ago than Within.
type StepUp struct {
	// For are verbs of grant.Permission, and "approve".
	For    []string          `yaml:"for"`
	Labels map[string]string `yaml:"labels"`
	Within Duration          `yaml:"within"`
}

// Permission lets groups do things to grants and sessions of targets. Deny by default.
type Permission struct {
	Groups []string `yaml:"groups"`
	// May are verbs of grant.Permission ("sessions.list", "sessions.kill", "recordings.read", …) or "*".
	May    []string          `yaml:"may"`
	Labels map[string]string `yaml:"labels"`
}

// Instruction is one file's or program's share of what a target needs before the gateway can use it: text to paste.
type Instruction struct {
	Name  string // stable word: sql, pg_hba, postgresql_conf, trusted_ca, principals, sshd_config, ansible
	Title string // what it is and where it goes
	Text  string
}
