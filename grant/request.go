package grant

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/policy"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

const (
	maxText    = 1000 // characters of a reason or comment
	maxTicket  = 100
	maxPending = 20 // requests of one identity that wait at a time
)

// Ask is a request for a grant.
type Ask struct {
	Target   string
	Account  string
	Duration time.Duration // 0: the policy's default
	Reason   string
	Ticket   string // of another system, "" where the policy asks for none
	// Start is when it is to begin; zero: with its first use.
	Start time.Time
	// BreakGlass asks for an emergency: no approval, no evidence, and everybody is told.
	BreakGlass bool
}

// Request files a request; it is approved at once where the policy says so. A refusal says what was missing.
func (s *Service) Request(ctx context.Context, who authn.Identity, ask Ask) (Grant, error) {
	g, err := s.request(ctx, who, ask)
	if err != nil {
		return Grant{}, s.refused(ctx, "request.refused", who, Grant{Target: clip(ask.Target), Account: clip(ask.Account), Duration: ask.Duration}, err)
	}
	return g, nil
}

func (s *Service) request(ctx context.Context, who authn.Identity, ask Ask) (Grant, error) {
	may := proven
	if ask.BreakGlass {
		may = inEmergency
	}
	if err := may(who); err != nil {
		return Grant{}, err
	}
	reason, err := clean("reason", ask.Reason)
	if err != nil {
		return Grant{}, err
	}
	ask.Reason = reason
	if ask.Ticket, err = clean("ticket", ask.Ticket); err != nil {
		return Grant{}, err
	}
	if utf8.RuneCountInString(ask.Ticket) > maxTicket {
		return Grant{}, refusal.New(refusal.Invalid, "the ticket is longer than %d characters", maxTicket).WithHint("give its number, such as OPS-42")
	}
	if ask.Duration < 0 || ask.Duration > 0 && ask.Duration < time.Second {
		return Grant{}, refusal.New(refusal.Invalid, "a grant of %s makes no sense", ask.Duration).
			WithHint("ask for a second or more, such as --duration 30m")
	}
	if !ask.Start.IsZero() && !ask.Start.After(s.clock.stamp()) {
		ask.Start = time.Time{} // that is now
	}
	if err := s.meet(ctx); err != nil {
		return Grant{}, fmt.Errorf("file a request: %w", err)
	}
	s.learnFor(ctx, who, ask)
	s.transitions.Lock()
	defer s.transitions.Unlock()
	var g Grant
	err = s.store.Do(ctx, func(tx *store.Tx) error {
		// The rules are read inside the transaction: a reload either is seen here, or sees what is made here.
		if g, err = s.admit(ctx, who, ask, s.rules.Load()); err != nil {
			return err
		}
		if err := s.singular(ctx, tx, who, g); err != nil {
			return err
		}
		if err := s.paused(ctx, tx, who, g); err != nil {
			return err
		}
		if g.ID, err = freshID(ctx, tx); err != nil {
			return err
		}
		requested := s.event("grant.requested", &who, g)
		requested.Reason = g.Reason
		if g.Ticket != "" {
			requested.Fields["ticket"] = g.Ticket
		}
		err := errors.Join(insert(ctx, tx, g), saveHigh(ctx, tx, s.clock.stamp()), tx.Audit(requested), announce(ctx, tx, requested, g))
		if g.BreakGlass {
			err = errors.Join(err, s.breakGlass(ctx, tx, who, g))
		}
		if g.State == Approved {
			approved := s.event("grant.approved", nil, g)
			approved.Fields["approvers"], approved.Fields["waited"] = strings.Join(g.Approvers(), ","), "0s"
			err = errors.Join(err, tx.Audit(approved), announce(ctx, tx, approved, g))
		}
		tx.AfterCommit(func() { s.install(g) })
		return err
	})
	if err != nil && refusal.Of(err) == nil {
		if g.ID != "" {
			s.refresh(g.ID)
		}
		return Grant{}, fmt.Errorf("file a request: %w", err)
	}
	return g.clone(), err
}

// admit decides on a request by policy and returns the grant to be, without an id.
func (s *Service) admit(ctx context.Context, who authn.Identity, ask Ask, r *rules) (Grant, error) {
	t, a, err := r.find(ask.Target, ask.Account)
	if err != nil {
		return Grant{}, err
	}
	now := s.clock.stamp()
	asked := s.asked(ctx, r, who, t, a.Name, ask)
	e := policy.Decide(r.policies, asked)
	if e.Winner == nil {
		return Grant{}, refusal.New(refusal.NotPermitted, "no policy lets you have %s@%s as asked", a.Name, t.Name).
			WithDetail("%s", e.Detail()).WithHint("%s", s.nearest(e, who, t.Name, a.Name))
	}
	p := e.Winner.Policy
	g := Grant{
		State: Pending, Identity: who, Target: t.Name, Account: a.Name, Reason: ask.Reason, Ticket: ask.Ticket,
		Source: source(ctx), Policy: p.Name, Duration: e.Duration, Total: e.Winner.Total(), Idle: p.Idle.D(),
		Needed: policy.Needed(p), MayApprove: policy.Approving(p), Requested: now, Version: 1,
	}
	g.Terms = Terms{Role: e.Role.Name, Limits: e.Role.Limits, Confirm: p.Approve.Confirm != "", Start: ask.Start, BreakGlass: p.BreakGlass, Revision: r.revision, Stages: written(stagesOf(e.Winner))}
	for _, name := range p.Evidence {
		if g.Terms.Evidence == nil {
			g.Terms.Evidence = map[string]map[string]any{}
		}
		g.Terms.Evidence[name] = asked.Evidence[name].Data
	}
	if g.Needed > 0 {
		if err := s.approvable(ctx, r, g, g.name(), g.stages()); err != nil {
			return Grant{}, err
		}
		g.DecideBy = now.Add(policy.Within(p))
		return g.clone(), nil
	}
	if err := s.clock.sound(); err != nil {
		return Grant{}, err
	}
	g.State, g.ActivateBy = Approved, maxTime(now, g.Start).Add(policy.StartWithin(p))
	return g.clone(), nil
}

// approvable refuses what nobody could approve, as far as that is known, and names the groups that lack people: a request, or an
// extension of a grant. what names it, stages are the approvals that it takes.
func (s *Service) approvable(ctx context.Context, r *rules, g Grant, what string, stages []Stage) error {
	if !r.onlyKnown || s.members == nil {
		return nil
	}
	members, err := s.members(ctx, groupsOf(stages))
	if err != nil {
		return err
	}
	members = r.persons.Others(g.Identity, members)
	lacks := short(stages, members)
	if lacks == nil {
		return nil
	}
	var wanted []Stage
	for _, i := range lacks.stages {
		wanted = append(wanted, stages[i])
	}
	groups := groupsOf(wanted)
	var empty []string
	for _, group := range groups {
		if !slices.ContainsFunc(members, func(m authn.Identity) bool { return slices.Contains(m.Groups, group) }) {
			empty = append(empty, group)
		}
	}
	detail := fmt.Sprintf("it takes %d of %s, of whom %d other than you are known here", lacks.needed, policy.Or(groups), lacks.have)
	if len(stages) > 1 {
		var names []string
		for _, i := range lacks.stages {
			names = append(names, stages[i].Name)
		}
		if len(names) == 1 {
			detail = "stage " + names[0] + ": " + detail
		} else {
			detail = "stages " + strings.Join(names, " and ") + ", with one vote for each person: " + detail
		}
	}
	if len(empty) > 0 {
		detail += "; nobody else is known in " + policy.Or(empty)
	}
	return refusal.New(refusal.NotPermitted, "nobody could approve %s now", what).WithDetail("%s", detail).
		WithHint("somebody of %s has to sign in at the gateway first (sallyport login); then ask again", policy.Or(groups))
}

// Explain says what the policies would answer to a request, and files none.
func (s *Service) Explain(ctx context.Context, who authn.Identity, ask Ask) (policy.Explanation, error) {
	if err := proven(who); err != nil {
		return policy.Explanation{}, err
	}
	r := s.rules.Load()
	t, a, err := r.find(ask.Target, ask.Account)
	if err != nil {
		return policy.Explanation{}, err
	}
	s.learnFor(ctx, who, ask)
	return policy.Explain(r.policies, s.asked(ctx, r, who, t, a.Name, ask)), nil
}

// asked is a request as the policies see it, now.
func (s *Service) asked(ctx context.Context, r *rules, who authn.Identity, t configs.Target, account string, ask Ask) policy.Ask {
	return policy.Ask{
		Identity: who, Target: t, Account: account, Duration: ask.Duration, Reason: ask.Reason, Ticket: ask.Ticket,
		Time: s.clock.stamp(), Source: source(ctx), Start: ask.Start, BreakGlass: ask.BreakGlass,
		Evidence: r.facts(r.evidenceFor(who, t, account), aboutAsk(who, t.Name, account, ask.Ticket)),
	}
}

// nearest says what the smallest change is that policy would allow.
func (s *Service) nearest(e policy.Explanation, who authn.Identity, target, account string) string {
	if len(e.Forbidden) > 0 {
		return "see what you may ask for with: sallyport targets"
	}
	for _, c := range e.Nearest() {
		if policy.InAny(who.Groups, c.Policy.Groups) && !slices.ContainsFunc(c.Misses, func(m policy.Miss) bool { return m.Clause == policy.Approvers }) {
			return "ask with: " + command(target, account, c.Policy.MaxDuration.D(), c.Policy.ReasonLength, c.Policy.Policy.Ticket)
		}
	}
	if groups := e.MayAsk(); len(groups) > 0 {
		return fmt.Sprintf("members of %s may ask for %s@%s; see what you may ask for with: sallyport targets", policy.Or(groups), account, target)
	}
	return fmt.Sprintf("nobody may have %s@%s until a policy says so; see what you may ask for with: sallyport targets", account, target)
}

// command is the exact line that asks for a grant.
func command(target, account string, most time.Duration, reasonLength int, ticket string) string {
	reason := "…"
	if reasonLength > 1 {
		reason = fmt.Sprintf("… (%d characters or more)", reasonLength)
	}
	line := fmt.Sprintf(`sallyport request %s@%s --duration %s --reason "%s"`, account, target, policy.Short(min(30*time.Minute, most)), reason)
	if ticket != "" {
		line += ` --ticket "…"`
	}
	return line
}

// singular refuses a second grant for the same, and too many requests at once. An open grant whose time is over but
// was not yet written down as such is ended on the way.
func (s *Service) singular(ctx context.Context, tx *store.Tx, who authn.Identity, g Grant) error {
	open, err := query(ctx, tx, 1, `WHERE issuer = ? AND subject = ? AND target = ? AND account = ? AND `+isOpen,
		who.Issuer, who.Subject, g.Target, g.Account)
	if err != nil {
		return err
	}
	if len(open) == 1 {
		ended, over := s.judgeTime(s.rowOf(open[0]))
		if !over {
			return refusal.New(refusal.Conflict, "you have a grant for %s already: %s", g.name(), open[0].ID).
				WithDetail("%s", s.describe(open[0])).WithHint("%s", next(open[0], who))
		}
		if _, err := s.commit(ctx, tx, open[0], ended, s.over(ended)); err != nil {
			return err
		}
	}
	if p, ok := s.rules.Load().policy(g.Policy); ok && p.Concurrent > 0 {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM grants WHERE issuer = ? AND subject = ? AND policy = ? AND `+isOpen,
			who.Issuer, who.Subject, g.Policy).Scan(&n); err != nil {
			return fmt.Errorf("count grants: %w", err)
		}
		if n >= p.Concurrent {
			return refusal.New(refusal.TooMany, "you have %d grants by policy %s, which is as many as it gives at a time", n, g.Policy).
				WithHint("give one back with: sallyport release ID")
		}
	}
	n, err := pendingOf(ctx, tx, who)
	if err != nil {
		return err
	}
	if n >= maxPending {
		return refusal.New(refusal.TooMany, "%d of your requests wait for approval, which is as many as may", n).
			WithHint("take one back with: sallyport release ID")
	}
	return nil
}

// letters are those of ids: no i, l, o or u, so that none is misread.
const letters = "0123456789abcdefghjkmnpqrstvwxyz"

// freshID makes an id that no grant has.
func freshID(ctx context.Context, tx *store.Tx) (string, error) {
	for range 10 {
		var b [6]byte
		rand.Read(b[:])
		for i := range b {
			b[i] = letters[b[i]%byte(len(letters))]
		}
		id := "g-" + string(b[:])
		if _, err := load(ctx, tx, id); errors.Is(err, errNoRow) {
			return id, nil
		} else if err != nil {
			return "", err
		}
	}
	return "", errors.New("no free grant id was found in ten tries")
}

// canonical reads an id as a person may type it.
func canonical(id string) string {
	return strings.NewReplacer("i", "1", "l", "1", "o", "0").Replace(strings.ToLower(strings.TrimSpace(clip(id))))
}

// clean makes one line of what somebody wrote, or refuses. Other people read it on their terminals when they decide, so
// it has no control characters and none that change the direction of what follows.
func clean(what, text string) (string, error) {
	if !utf8.ValidString(text) {
		return "", refusal.New(refusal.Invalid, "the %s is not UTF-8", what)
	}
	if utf8.RuneCountInString(text) > maxText {
		return "", refusal.New(refusal.Invalid, "the %s is longer than %d characters", what, maxText).WithHint("say it in fewer words")
	}
	line := strings.Map(func(r rune) rune {
		switch r {
		case '\n', '\r', '\t', '\u2028', '\u2029', '\u0085':
			return ' '
		}
		return r
	}, text)
	for _, r := range line {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return "", refusal.New(refusal.Invalid, "the %s has a character in it that is no text: %U", what, r).WithHint("write it without that")
		}
	}
	return strings.TrimSpace(line), nil
}

// clip bounds what goes into messages and the audit log.
func clip(s string) string {
	const most = 64
	runes := []rune(s[:min(len(s), 4*most)])
	if len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return string(runes)
}

// quote writes what a peer sent so that it can do no harm.
func quote(s string) string { return fmt.Sprintf("%+q", clip(s)) }
