package grant

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/evidence"
	"sallyport/grant/evidence/jira"
	"sallyport/grant/persons"
	"sallyport/grant/policy"
	"sallyport/grant/sets"
	"sallyport/internal/refusal"
)

// rules are a configuration, indexed; they never change once made.
type rules struct {
	targets     []configs.Target // by name
	policies    []*policy.Policy // in the order in which they are tried
	permissions []configs.Permission

	names     map[string]configs.Target
	servers   map[string]configs.Target // Postgres targets by TLS server name
	hosts     map[string]configs.Target // SSH targets by alias without a port
	addresses map[string]configs.Target // SSH targets by alias with a port, and by address
	dialled   map[string]bool           // addresses of all targets
	digests   map[string]string         // of policies by name, for the audit log
	named     map[string]*policy.Policy
	evidence  *evidence.Reader
	// body and revision are what is kept of it; see remember.
	body, revision string
	onlyKnown      bool // approvals.known
	stepUp         []configs.StepUp
	// withEvidence are the policies that look at evidence.
	withEvidence []*policy.Policy
	roles        map[string]configs.Role
	people       []configs.LinkedPerson // approvals.people
	persons      *persons.Persons
}

// index prepares a configuration. Where two targets claim one name, the first in the file has it. The error is
// configs.Problems. who knows linked people; nil: nobody does.
func index(c *configs.Config, now func() time.Time, before *rules, who jira.Who) (*rules, error) {
	policies, err := policy.Compile(c)
	if err != nil {
		return nil, err
	}
	var known *evidence.Reader
	if before != nil {
		known = before.evidence
	}
	reader, err := evidence.New(c, jira.Open(c, who), now, known)
	if err != nil {
		return nil, err
	}
	r := &rules{
		evidence: reader,
		targets:  slices.Clone(c.Targets), policies: policies, permissions: slices.Clone(c.Permissions),
		names: map[string]configs.Target{}, servers: map[string]configs.Target{}, hosts: map[string]configs.Target{},
		addresses: map[string]configs.Target{}, digests: map[string]string{}, named: map[string]*policy.Policy{},
		roles: map[string]configs.Role{}, dialled: map[string]bool{}, persons: persons.Of(c.Approvals.People),
	}
	if r.body, r.revision, err = sets.Of(c); err != nil {
		return nil, err
	}
	r.onlyKnown, r.stepUp, r.people = c.Approvals.Known, slices.Clone(c.StepUp), slices.Clone(c.Approvals.People)
	claim := func(m map[string]configs.Target, key string, t configs.Target) {
		if _, taken := m[key]; key != "" && !taken {
			m[key] = t
		}
	}
	for _, t := range r.targets {
		claim(r.names, strings.ToLower(t.Name), t)
		switch t.Kind {
		case configs.KindPostgres:
			claim(r.servers, hostName(t.ServerName), t)
		case configs.KindSSH:
			for _, alias := range t.Aliases {
				if host, port, ok := splitAddress(alias); ok {
					claim(r.addresses, address(host, port), t)
				} else {
					claim(r.hosts, hostName(alias), t)
				}
			}
		}
	}
	for _, t := range r.targets { // after the aliases, which were chosen for this
		host, port, ok := splitAddress(t.Address)
		if ok && t.Kind == configs.KindSSH {
			claim(r.addresses, address(host, port), t)
		}
		if ok {
			r.dialled[address(host, port)] = true
		}
	}
	slices.SortFunc(r.targets, func(a, b configs.Target) int { return strings.Compare(a.Name, b.Name) })
	for _, role := range c.Roles {
		r.roles[role.Name] = role
	}
	for _, p := range r.policies {
		r.digests[p.Name] = digest(p.Policy)
		r.named[p.Name] = p
		if len(p.Policy.Evidence) > 0 {
			r.withEvidence = append(r.withEvidence, p)
		}
	}
	return r, nil
}

// Check reads what configs.Load leaves unread: the conditions of policies. The error is configs.Problems, with the places
// in the files.
func Check(c *configs.Config) error {
	_, err := policy.Compile(c)
	return err
}

// digest tells versions of a policy apart in the audit log.
func digest(p configs.Policy) string {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // a plain struct
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// policy finds a policy by name.
func (r *rules) policy(name string) (*policy.Policy, bool) {
	p, ok := r.named[name]
	return p, ok
}

// find returns target and account as configured, or refuses.
func (r *rules) find(target, account string) (configs.Target, configs.Account, error) {
	t, ok := r.names[strings.ToLower(target)]
	if !ok {
		return t, configs.Account{}, refusal.New(refusal.UnknownTarget, "there is no target %s", quote(target)).
			WithHint("see what you may ask for with: sallyport targets")
	}
	a, ok := Account(t, account)
	if !ok {
		return t, a, refusal.New(refusal.UnknownAccount, "target %s has no account %s", t.Name, quote(account)).
			WithHint("see what you may ask for with: sallyport targets")
	}
	return t, a, NotForPeople(t, a)
}

// NotForPeople refuses the account that makes the roles of others (make_roles_with), and any that logs in as it: who has it makes
// logins that do not come through the gateway. It is refused whatever policies say, when it is asked for and when it is used.
func NotForPeople(t configs.Target, a configs.Account) error {
	if t.MakeRolesWith == "" || a.Ephemeral {
		return nil
	}
	maker, ok := Account(t, t.MakeRolesWith)
	if !ok || a.UserName() != maker.UserName() {
		return nil
	}
	return refusal.New(refusal.NotPermitted, "account %s@%s is the gateway's own: it makes the roles of others", a.Name, t.Name).
		WithHint("see what you may ask for with: sallyport targets")
}

// Target finds a target by name, in any case of letters.
func (s *Service) Target(name string) (configs.Target, bool) {
	t, ok := s.rules.Load().names[strings.ToLower(name)]
	return t, ok
}

// TargetByServerName finds a Postgres target by the TLS server name that the client asked for.
func (s *Service) TargetByServerName(name string) (configs.Target, bool) {
	t, ok := s.rules.Load().servers[hostName(name)]
	return t, ok
}

// People are the accounts elsewhere that have a vote, and whose, by the configuration in force. They must not be changed.
func (s *Service) People() []configs.LinkedPerson { return s.rules.Load().people }

// freshFor is how old the proof of who approves something on that target may be; 0: as old as it is.
func (r *rules) freshFor(target string) (within time.Duration) {
	labels := r.names[strings.ToLower(target)].Labels
	for _, step := range r.stepUp {
		if slices.Contains(step.For, configs.Approving) && policy.Labelled(labels, step.Labels) && (within == 0 || step.Within.D() < within) {
			within = step.Within.D()
		}
	}
	return within
}

// TargetByAddress finds an SSH target by a name or address that a jump asks for: its name, an alias, or its address. A
// name or alias without a port stands for SSH's own port and the port of the target's address; on any other port
// something else is asked for, which is no target.
func (s *Service) TargetByAddress(host string, port int) (configs.Target, bool) {
	r := s.rules.Load()
	if t, ok := r.addresses[address(host, port)]; ok {
		return t, true
	}
	t, ok := r.names[hostName(host)]
	if !ok || t.Kind != configs.KindSSH {
		t, ok = r.hosts[hostName(host)]
	}
	if !ok {
		return configs.Target{}, false
	}
	if _, own, _ := splitAddress(t.Address); port != 22 && port != own {
		return configs.Target{}, false
	}
	return t, true
}

// Dials says whether a target of any kind is at that address, by which the gateway itself dials it.
func (s *Service) Dials(host string, port int) bool {
	return s.rules.Load().dialled[address(host, port)]
}

// Account finds an account of a target.
func Account(t configs.Target, name string) (configs.Account, bool) {
	for _, a := range t.Accounts {
		if a.Name == name {
			return a, true
		}
	}
	return configs.Account{}, false
}

// splitAddress splits host:port.
func splitAddress(s string) (host string, port int, ok bool) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, false
	}
	port, err = strconv.Atoi(p)
	return host, port, err == nil
}

func address(host string, port int) string {
	return net.JoinHostPort(hostName(host), strconv.Itoa(port))
}

// hostName brings a host into the one form in which names are compared.
func hostName(s string) string {
	s = strings.TrimSuffix(strings.ToLower(s), ".")
	if ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return ip.Unmap().String()
	}
	return s
}

// Offer is an account that somebody may ask for, and how.
type Offer struct {
	Target      string            `json:"target"`
	Kind        string            `json:"kind"`
	Labels      map[string]string `json:"labels,omitempty"`
	Account     string            `json:"account"`
	Policy      string            `json:"policy"`
	MaxDuration time.Duration     `json:"max_duration_ns"`
	Auto        bool              `json:"auto"`
	MayApprove  []string          `json:"may_approve,omitempty"` // groups, of any stage
	Stages      []Stage           `json:"stages,omitempty"`      // the approvals that it takes, one after the other
	Role        string            `json:"role,omitempty"`
	Limits      []string          `json:"limits,omitempty"`      // of the role, in words
	BreakGlass  bool              `json:"break_glass,omitempty"` // only in an emergency: it is told to everybody, and reviewed
	Ticket      string            `json:"ticket,omitempty"`      // what a ticket has to look like; empty: none is asked for
	Live        string            `json:"live,omitempty"`        // the id of a grant of theirs that is approved or active
}

// ApprovedBy says whose approvals it takes, stage by stage: "leads", "leads, then 2 of security or dba"; empty: nobody's.
func (o Offer) ApprovedBy() string { return inTurn(o.Stages) }

// Offers lists what the identity may ask for, by target and account. An account is listed again for a later policy
// where that allows longer than those before it.
func (s *Service) Offers(_ context.Context, who authn.Identity) ([]Offer, error) {
	r := s.rules.Load()
	var offers []Offer
	for _, t := range r.targets {
		accounts := slices.Clone(t.Accounts)
		slices.SortFunc(accounts, func(a, b configs.Account) int { return strings.Compare(a.Name, b.Name) })
		for _, a := range accounts {
			if NotForPeople(t, a) != nil {
				continue
			}
			if who.Emergency == "" {
				offers = append(offers, s.offersOf(r, who, t, a.Name)...)
			}
			offers = append(offers, s.emergencyOf(r, who, t, a.Name)...)
		}
	}
	return offers, nil
}

func (s *Service) offersOf(r *rules, who authn.Identity, t configs.Target, account string) []Offer {
	var offers []Offer
	var longest time.Duration
	for _, p := range r.policies {
		role, covers := p.Role(t, account)
		if p.Forbids() || p.BreakGlass || !covers || !policy.InAny(who.Groups, p.Groups) || p.MaxDuration.D() <= longest ||
			slices.ContainsFunc(policy.Stages(p.Policy), func(s configs.Stage) bool { return len(s.Groups) == 0 }) {
			continue
		}
		longest = p.MaxDuration.D()
		o := Offer{
			Target: t.Name, Kind: t.Kind, Labels: t.Labels, Account: account, Policy: p.Name, MaxDuration: longest,
			Auto: policy.Auto(p.Policy), MayApprove: policy.Approving(p.Policy), Stages: stagesOf(p), Ticket: p.Policy.Ticket,
			Role: role.Name, Limits: role.Limits.Words(),
		}
		if e := s.openOf(who, t.Name, account); e != nil {
			if g := e.row.Load().grant; g.State != Pending {
				o.Live = g.ID
			}
		}
		offers = append(offers, o)
	}
	return offers
}

// emergencyOf is the first policy by which the identity may break the glass for an account.
func (s *Service) emergencyOf(r *rules, who authn.Identity, t configs.Target, account string) []Offer {
	for _, p := range r.policies {
		role, covers := p.Role(t, account)
		if !p.BreakGlass || !covers || !policy.InAny(who.Groups, p.Groups) {
			continue
		}
		o := Offer{
			Target: t.Name, Kind: t.Kind, Labels: t.Labels, Account: account, Policy: p.Name, MaxDuration: p.MaxDuration.D(),
			Auto: true, BreakGlass: true, Role: role.Name, Limits: role.Limits.Words(),
		}
		if e := s.openOf(who, t.Name, account); e != nil {
			if g := e.row.Load().grant; g.State != Pending {
				o.Live = g.ID
			}
		}
		return []Offer{o}
	}
	return nil
}
