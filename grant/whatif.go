package grant

import (
	"context"
	"database/sql"
	"math"
	"slices"
	"time"

	"sallyport/configs"
	"sallyport/grant/evidence"
	"sallyport/grant/policy"
	"sallyport/internal/refusal"
)

// How a request would have gone under other policies than those that it was decided by.
const (
	NowDenied  = "denied"          // nobody would get it
	NowAtOnce  = "at once"         // it needed approval, and would not
	NowFewer   = "fewer approvals" // than it needed
	NowMore    = "more approvals"
	NowOthers  = "other approvers"
	NowAnother = "another policy" // with as many approvals by the same
)

// WhatIf is a real request that would have gone another way.
type WhatIf struct {
	Grant  Grant
	Change string // one of the words above
	Was    string // policy and approvals
	Now    string // likewise, or why not
}

// WhatIfs asks a configuration's policies about the requests that a gateway's database knows since then, each as it was asked: who, what,
// when, from where, with the evidence that was known. It returns those that would have gone another way, newest first, and how many
// there were. What was refused when it was asked is not among them: of that the audit log alone knows.
func WhatIfs(ctx context.Context, c *configs.Config, db *sql.DB, since time.Time) (found []WhatIf, asked int, err error) {
	r, err := index(c, time.Now, nil, nil)
	if err != nil {
		return nil, 0, err
	}
	grants, err := query(ctx, db, math.MaxInt32, `WHERE requested >= ? ORDER BY requested DESC, id`, toNano(since))
	if err != nil {
		return nil, 0, err
	}
	for _, g := range grants {
		if w, other := r.whatIf(g); other {
			found = append(found, w)
		}
	}
	return found, len(grants), nil
}

// whatIf says how one request would go; false: as it went.
func (r *rules) whatIf(g Grant) (WhatIf, bool) {
	w := WhatIf{Grant: g, Was: "policy " + g.Policy + ", " + approvalsOf(g.stages())}
	t, a, err := r.find(g.Target, g.Account)
	if err != nil {
		w.Change, w.Now = NowDenied, refusal.Of(err).Message
		return w, true
	}
	facts := map[string]evidence.Fact{}
	for _, name := range r.evidenceFor(g.Identity, t, a.Name) {
		facts[name] = evidence.Fact{Missing: "it was not looked at then"}
		if data, known := g.Terms.Evidence[name]; known {
			facts[name] = evidence.Fact{Data: data}
		}
	}
	e := policy.Decide(r.policies, policy.Ask{
		Identity: g.Identity, Target: t, Account: a.Name, Duration: g.Duration, Reason: g.Reason, Ticket: g.Ticket,
		Time: g.Requested, Source: g.Source, Start: g.Start, BreakGlass: g.BreakGlass, Evidence: facts,
	})
	if e.Winner == nil {
		w.Change, w.Now = NowDenied, e.Detail()
		return w, true
	}
	was, is := g.stages(), stagesOf(e.Winner)
	w.Now = "policy " + e.Winner.Name + ", " + approvalsOf(is)
	switch before, after := total(was), total(is); {
	case before > 0 && after == 0:
		w.Change = NowAtOnce
	case after < before:
		w.Change = NowFewer
	case after > before:
		w.Change = NowMore
	case approvalsOf(was) != approvalsOf(is):
		w.Change = NowOthers
	case e.Winner.Name != g.Policy:
		w.Change = NowAnother
	}
	return w, w.Change != ""
}

// approvalsOf says whose approvals stages take: "approved by leads, then 2 of security", or "at once".
func approvalsOf(stages []Stage) string {
	if len(stages) == 0 {
		return "at once"
	}
	ordered := slices.Clone(stages) // groups in any order are the same people
	for i := range ordered {
		ordered[i].Groups = slices.Sorted(slices.Values(ordered[i].Groups))
	}
	return "approved by " + inTurn(ordered)
}
