// Package api is the gateway's JSON API as types: what the web room sends and the client room reads.
//
// They are plain structs without behaviour, and a contract: a field is added, never renamed and never given another
// meaning. Times are RFC 3339 in UTC; a duration is a whole number of nanoseconds in a field that ends in "_ns", or
// text such as "30m" where a person types it.
package api

import "time"

// Gateway is what a client needs to know before anybody has signed in.
type Gateway struct {
	URL     string `json:"url" doc:"The gateway's public HTTPS address; also the issuer of its tokens."`
	Version string `json:"version"`
	Issuer  string `json:"issuer" doc:"OpenID issuer at which CLI, psql, ssh and console sign in."`
	CA      string `json:"ca,omitempty" doc:"PEM of the authority that signed the gateway's certificate; empty when every machine trusts it."`
	// HostAuthority certifies the gateway's SSH host keys; in authorized_keys form.
	HostAuthority string   `json:"host_authority" doc:"SSH host authority's public key in authorized_keys form."`
	SSH           Endpoint `json:"ssh"`
	Postgres      Endpoint `json:"postgres" doc:"The shared listener, where the database name chooses the target; without a port when there is none."`
}

// Endpoint is a host and a port. Port 0: not offered.
type Endpoint struct {
	Host string `json:"host"`
	Port int    `json:"port"`
}

// Identity is a person or a workload.
type Identity struct {
	Issuer   string    `json:"issuer"`
	Subject  string    `json:"subject"`
	Kind     string    `json:"kind" enum:"human,workload"`
	Name     string    `json:"name"`
	Email    string    `json:"email,omitempty"`
	Groups   []string  `json:"groups"`
	SignedIn time.Time `json:"signed_in,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	Method   string    `json:"method,omitempty" doc:"How the identity was proven."`
	AuthTime time.Time `json:"auth_time,omitzero" doc:"When the person last proved themselves at the provider, as it says."`
	ACR      string    `json:"acr,omitempty" doc:"The class of that proof, as the provider names it."`
	AMR      []string  `json:"amr,omitempty" doc:"By what, such as pwd, otp, hwk (RFC 8176)."`
	// Emergency is set where the person signed in with an enrolled key while their provider could not be asked.
	Emergency bool `json:"emergency,omitempty" doc:"Signed in with an enrolled key: good for what is taken in an emergency alone."`
}

// Label is the best name for people: name, else e-mail, else subject.
func (i Identity) Label() string {
	for _, s := range []string{i.Name, i.Email} {
		if s != "" {
			return s
		}
	}
	return i.Subject
}

// CertificateRequest asks for certificates for keys that never leave the client; either may be missing.
type CertificateRequest struct {
	TLSKey string `json:"tls_key,omitempty" maxLength:"4096" doc:"Public key (PKIX) for the TLS client certificate, as PEM or as DER in base64: ECDSA P-256 or Ed25519."`
	SSHKey string `json:"ssh_key,omitempty" maxLength:"8192" doc:"Public key for the SSH user certificate, in authorized_keys form."`
}

// Certificates are issued certificates and everything the client's files are made of.
type Certificates struct {
	ID             string    `json:"id" doc:"Of the credential, as in the audit log."`
	TLSCertificate string    `json:"tls_certificate,omitempty" doc:"PEM."`
	SSHCertificate string    `json:"ssh_certificate,omitempty" doc:"In authorized_keys form."`
	Expires        time.Time `json:"expires"`
	Gateway        Gateway   `json:"gateway"`
	// KnownHosts are the lines of a known_hosts file for the gateway and the SSH targets.
	KnownHosts []string `json:"known_hosts"`
	// Targets are those the identity may use.
	Targets []Connection `json:"targets"`
}

// Connection is how a client reaches a target.
type Connection struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind" enum:"postgres,ssh"`
	Accounts []string `json:"accounts" doc:"Those the identity may use, in the configuration's order."`
	Host     string   `json:"host"`
	Port     int      `json:"port"`
	// Database is what a Postgres client gives as the database name at this host and port.
	Database string `json:"database,omitempty"`
	// ServerName chooses the target on any Postgres listener, where name service leads there.
	ServerName string   `json:"server_name,omitempty"`
	Aliases    []string `json:"aliases,omitempty" doc:"Other names of an SSH target."`
}

// Offer is an account that the identity may ask for, and how.
type Offer struct {
	Target      string            `json:"target"`
	Kind        string            `json:"kind"`
	Labels      map[string]string `json:"labels,omitempty"`
	Account     string            `json:"account"`
	Policy      string            `json:"policy"`
	MaxDuration time.Duration     `json:"max_duration_ns"`
	Auto        bool              `json:"auto" doc:"Approved by the policy, without a person."`
	MayApprove  []string          `json:"may_approve,omitempty" doc:"Groups whose members may approve, at one stage or another."`
	Stages      []Stage           `json:"stages,omitempty" doc:"The approvals that it takes, one after the other; none where the policy approves."`
	Role        string            `json:"role,omitempty" doc:"The role that the policy gives it by; empty: none."`
	Limits      []string          `json:"limits,omitempty" doc:"What the role does not allow, or allows beyond the usual, in words."`
	BreakGlass  bool              `json:"break_glass,omitempty" doc:"Only in an emergency, with break_glass in the request."`
	Ticket      string            `json:"ticket,omitempty" doc:"Regular expression that a ticket has to match; empty: none is asked for."`
	Live        string            `json:"live,omitempty" doc:"The identity's own grant that is approved or active."`
}

// Setup is what a target needs, as text to paste.
type Setup struct {
	Target string      `json:"target"`
	Kind   string      `json:"kind"`
	Parts  []SetupPart `json:"parts"`
}

// SetupPart is one file or program's share of a Setup.
type SetupPart struct {
	Name  string `json:"name" doc:"Stable word: sql, pg_hba, sshd_config, trusted_ca, principals, ansible."`
	Title string `json:"title" doc:"What it is and where it goes, for people."`
	Text  string `json:"text"`
}

// Check is how a target was found.
type Check struct {
	Target string      `json:"target"`
	OK     bool        `json:"ok"`
	Steps  []CheckStep `json:"steps"`
}

// CheckStep is one thing that was looked at.
type CheckStep struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// Trust are the keys by which a target proves itself now.
type Trust struct {
	Target string    `json:"target"`
	Keys   []HostKey `json:"keys"`
}

// HostKey is one key or certificate of a target.
type HostKey struct {
	Type        string `json:"type"`
	Fingerprint string `json:"fingerprint" doc:"SHA256:… as ssh prints it."`
	Key         string `json:"key" doc:"In authorized_keys form, or PEM: what goes into the configuration."`
	Authority   bool   `json:"authority,omitempty" doc:"It is of an authority that vouches for the target's key: host_ca."`
	Shown       bool   `json:"shown" doc:"The target shows it now, or a certificate of it."`
	Pinned      bool   `json:"pinned" doc:"The configuration trusts it already."`
	From        string `json:"from" doc:"Where it comes from, in words."`
}

// GrantRequest asks for a grant.
type GrantRequest struct {
	Target   string `json:"target" minLength:"1" maxLength:"253"`
	Account  string `json:"account" minLength:"1" maxLength:"128"`
	Duration string `json:"duration,omitempty" maxLength:"32" doc:"Such as 30m, 8h or 1d; empty: the policy's default."`
	Reason   string `json:"reason,omitempty" maxLength:"2000"`
	Ticket   string `json:"ticket,omitempty" maxLength:"200" doc:"Of another system, where the policy asks for one: OPS-42."`
	// Start and BreakGlass ask for something out of the ordinary.
	Start      *time.Time `json:"start,omitempty" doc:"When it is to begin; empty: with its first use."`
	BreakGlass bool       `json:"break_glass,omitempty" doc:"An emergency: waits for nobody, everybody is told, and it is reviewed."`
}

// ExtensionRequest asks that an active grant end later.
type ExtensionRequest struct {
	Duration string `json:"duration" maxLength:"32" doc:"By how much, such as 30m."`
	Reason   string `json:"reason,omitempty" maxLength:"2000"`
}

// Extension is one that waits for approval; the grant goes on to its old end meanwhile.
type Extension struct {
	Duration   time.Duration `json:"duration_ns"`
	Reason     string        `json:"reason"`
	Requested  time.Time     `json:"requested"`
	Votes      []Vote        `json:"votes"`
	Needed     int           `json:"approvals_needed"`
	MayApprove []string      `json:"may_approve"`
	Stages     []Stage       `json:"stages"`
}

// Explanation is what the policies would answer to a request.
type Explanation struct {
	Outcome    string        `json:"outcome" enum:"permit,forbid,none"`
	Policy     string        `json:"policy,omitempty" doc:"The one that permits it."`
	Duration   time.Duration `json:"duration_ns,omitempty" doc:"What it would give."`
	Role       string        `json:"role,omitempty" doc:"By which role."`
	Limits     []string      `json:"limits,omitempty" doc:"The role's limits, in words."`
	Needed     int           `json:"approvals_needed"`
	MayApprove []string      `json:"may_approve"`
	Stages     []Stage       `json:"stages" doc:"The approvals that it would need, one after the other."`
	Ends       []string      `json:"ends,omitempty" doc:"What would end the request and the grant, in words."`
	Forbidden  []Forbidden   `json:"forbidden" doc:"Policies that forbid it, whatever the others say."`
	Candidates []Candidate   `json:"candidates" doc:"Policies that speak of the account, in their order, up to the one that admits the request."`
}

// Forbidden is a policy that forbids a request.
type Forbidden struct {
	Policy string `json:"policy"`
	Text   string `json:"text"`
}

// Candidate is a policy that speaks of the account, and what the request lacks under it.
type Candidate struct {
	Policy string `json:"policy"`
	Misses []Miss `json:"misses"`
}

// Miss is one part of a policy that the request fails.
type Miss struct {
	Clause string `json:"clause" doc:"Stable word: coverage, group, hours, duration, reason, ticket, start, network, sign_in, evidence, when, approvers."`
	Text   string `json:"text"`
}

// Notification is how the delivery of one event of a grant to one channel stands.
type Notification struct {
	ID       string    `json:"id" doc:"The receiver's key for it."`
	Channel  string    `json:"channel"`
	Kind     string    `json:"kind" enum:"requested,decided,active,ended,voted,stage,alarm,alert"`
	Grant    string    `json:"grant"`
	State    string    `json:"state" enum:"pending,delivered,dead"`
	Attempts int       `json:"attempts"`
	NextTry  time.Time `json:"next_try,omitzero"`
	Error    string    `json:"error,omitempty" doc:"Of the last attempt."`
	Created  time.Time `json:"created"`
	Done     time.Time `json:"done,omitzero"`
}

// NotificationRetry says which notifications are to be tried again at once, for another day: some by their ids, or all that were
// given up.
type NotificationRetry struct {
	IDs     []string `json:"ids,omitempty" maxItems:"100"`
	GivenUp bool     `json:"given_up,omitempty"`
	Channel string   `json:"channel,omitempty" maxLength:"100" doc:"Only of this channel."`
}

// Decision is an approver's or a revoker's word.
type Decision struct {
	Comment string `json:"comment,omitempty" maxLength:"2000"`
}

// Vote is one approver's word as kept.
type Vote struct {
	Issuer  string    `json:"issuer"`
	Subject string    `json:"subject"`
	Name    string    `json:"name"`
	Approve bool      `json:"approve"`
	Comment string    `json:"comment,omitempty"`
	Time    time.Time `json:"time"`
	Stage   int       `json:"stage" doc:"The stage at which it counts, from 1."`
}

// Stage is one of the approvals that something needs, one after the other.
type Stage struct {
	Number    int      `json:"number"`
	Name      string   `json:"name"`
	Groups    []string `json:"groups" doc:"Groups whose members may approve at it."`
	Needed    int      `json:"approvals_needed"`
	Approvals int      `json:"approvals"`
	By        []string `json:"by" doc:"Who has approved at it."`
	State     string   `json:"state,omitempty" enum:"met,open,waiting" doc:"open is the first that is not met: its people are asked. Of what is decided, how it stood then."`
}

// Grant is one request and what became of it.
type Grant struct {
	ID         string        `json:"id"`
	State      string        `json:"state" enum:"pending,approved,active,ended,denied,withdrawn,lapsed"`
	Identity   Identity      `json:"identity"`
	Target     string        `json:"target"`
	Account    string        `json:"account"`
	Reason     string        `json:"reason"`
	Ticket     string        `json:"ticket,omitempty"`
	Policy     string        `json:"policy"`
	Role       string        `json:"role,omitempty" doc:"The role it was given by."`
	Limits     []string      `json:"limits,omitempty" doc:"The role's limits, in words."`
	Start      time.Time     `json:"start,omitzero" doc:"It can't be used before."`
	BreakGlass bool          `json:"break_glass,omitempty" doc:"It was taken in an emergency, approved by nobody."`
	Confirm    bool          `json:"confirm,omitempty" doc:"Approvals count only from people who show that they are signed in."`
	Duration   time.Duration `json:"duration_ns"`
	Total      time.Duration `json:"total_ns" doc:"How long it may last with all extensions."`
	Idle       time.Duration `json:"idle_ns,omitempty" doc:"It ends after so long without a session."`
	Votes      []Vote        `json:"votes"`
	Approvers  []string      `json:"approvers"`
	Needed     int           `json:"approvals_needed" doc:"At all stages together."`
	MayApprove []string      `json:"may_approve" doc:"Groups whose members may approve, at one stage or another."`
	Stages     []Stage       `json:"stages" doc:"The approvals that it needs, one after the other; one person's counts at one of them. None where a policy approved."`
	Requested  time.Time     `json:"requested"`
	DecideBy   time.Time     `json:"decide_by,omitzero"`
	ActivateBy time.Time     `json:"activate_by,omitzero"`
	From       time.Time     `json:"from,omitzero"`
	Until      time.Time     `json:"until,omitzero"`
	Extension  *Extension    `json:"extension,omitempty" doc:"One that waits for approval."`
	EndedAt    time.Time     `json:"ended_at,omitzero"`
	EndReason  string        `json:"end_reason,omitempty"`
	EndedBy    string        `json:"ended_by,omitempty"`
	EndComment string        `json:"end_comment,omitempty" doc:"What they said, or what exactly was gone."`
}

// Review is the duty to look at what was done in an emergency.
type Review struct {
	Grant   Grant     `json:"grant"`
	Groups  []string  `json:"groups" doc:"Whose members may do it; never the holder."`
	Due     time.Time `json:"due"`
	Done    time.Time `json:"done,omitzero"`
	By      string    `json:"by,omitempty"`
	Comment string    `json:"comment,omitempty"`
}

// Session is one connection under a grant. Every field is always there; Ended is null while the session lives.
type Session struct {
	ID        string     `json:"id"`
	Protocol  string     `json:"protocol"`
	Identity  Identity   `json:"identity"`
	Target    string     `json:"target"`
	Account   string     `json:"account"`
	Grant     string     `json:"grant"`
	Reason    string     `json:"reason"`
	Approvers []string   `json:"approvers"`
	Client    string     `json:"client"`
	Started   time.Time  `json:"started"`
	Ended     *time.Time `json:"ended"`
	EndReason string     `json:"end_reason"`
	EndDetail string     `json:"end_detail"`
	Live      bool       `json:"live"`
}

// Problem is a refusal or failure as RFC 9457 problem details. Code is a stable word; the list of them is in
// docs/api.md.
type Problem struct {
	Type    string   `json:"type" doc:"urn:sallyport:problem: and the code."`
	Title   string   `json:"title"`
	Status  int      `json:"status"`
	Code    string   `json:"code"`
	Message string   `json:"message" doc:"One short sentence."`
	Detail  string   `json:"detail,omitempty" doc:"Why."`
	Hint    string   `json:"hint,omitempty" doc:"What to do next."`
	Errors  []string `json:"errors,omitempty" doc:"What was wrong with the request, one place each."`
}

// Error is all of it on one line.
func (p *Problem) Error() string {
	text := p.Message
	for _, s := range []string{p.Detail, p.Hint} {
		if s != "" {
			text += ": " + s
		}
	}
	return text
}

// GetStatus is the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is RFC 9457's where the answer is JSON.
func (p *Problem) ContentType(negotiated string) string {
	if negotiated == "application/json" {
		return "application/problem+json"
	}
	return negotiated
}

// The codes that only the API has.
const (
	// Internal is a failure of the gateway's own, which its log explains.
	Internal = "internal"
	// Changed says that If-Match names another state than the thing is in.
	Changed = "changed"
)
