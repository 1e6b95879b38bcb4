package grant

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/persons"
	"sallyport/grant/policy"
)

// used is what came of a policy.
type used struct {
	grants   int             // that gave access
	longest  time.Duration   // for which one of them did
	accounts map[string]bool // that they were for
	groups   map[string]bool // of their holders, when they asked
}

// LintUsed finds, in what a gateway's database knows, what of a configuration is broader than was used since then, and groups that lack
// people: of those who may ask, approve, review and do more. people are those who are known (authn.KnownPeople). Nothing of it is a
// mistake; whoever writes the policies decides. Places are those in the files.
func LintUsed(ctx context.Context, c *configs.Config, db *sql.DB, people []authn.Identity, since, now time.Time) (configs.Problems, error) {
	var first sql.NullInt64 // before which nothing can be said
	if err := db.QueryRowContext(ctx, `SELECT min(requested) FROM grants`).Scan(&first); err != nil {
		return nil, fmt.Errorf("read what was used: %w", err)
	}
	if first.Valid && fromNano(first.Int64).After(since) {
		since = fromNano(first.Int64)
	}
	uses, err := usesOf(ctx, db, since, now)
	if err != nil {
		return nil, err
	}
	policies, err := policy.Compile(c)
	if err != nil {
		return nil, err
	}
	var found configs.Problems
	empty := emptyGroups(c, people)
	for i, p := range policies {
		say := func(key, format string, args ...any) {
			found = append(found, c.PolicyProblem(i, key, 1, 1, "policy "+p.Name+" "+format, args...))
		}
		if lack := empty(p.Groups); len(lack) > 0 {
			say("groups", "is for members of %s, and nobody is known in %s", policy.Or(p.Groups), policy.Or(lack))
		}
		if p.Forbids() {
			continue
		}
		if lacks := short(stagesOf(p), persons.Of(c.Approvals.People).With(people).Others(authn.Identity{}, people)); lacks != nil {
			stages := stagesOf(p)
			var wanted []Stage
			for _, at := range lacks.stages {
				wanted = append(wanted, stages[at])
			}
			say("approve", "asks for %d approvals by %s, of whom %d are known", lacks.needed, policy.Or(groupsOf(wanted)), lacks.have)
		}
		if lack := empty(p.Review.Groups); len(lack) > 0 {
			say("review", "is reviewed by members of %s, and nobody is known in %s", policy.Or(p.Review.Groups), policy.Or(lack))
		}
		if !p.BreakGlass && first.Valid { // an emergency nobody should need
			broader(c, p, uses[p.Name], since, say)
		}
	}
	for _, p := range c.Permissions {
		if lack := empty(p.Groups); len(lack) > 0 {
			found = append(found, configs.Problem{File: c.File, Message: fmt.Sprintf("permissions %s are for members of %s, and nobody is known in %s", strings.Join(p.May, ", "), policy.Or(p.Groups), policy.Or(lack))})
		}
	}
	return found, nil
}

// emptyGroups returns those of some groups in which neither a known person nor a configured pipeline is.
func emptyGroups(c *configs.Config, people []authn.Identity) func([]string) []string {
	known := map[string]bool{}
	for _, who := range people {
		for _, g := range who.Groups {
			known[g] = true
		}
	}
	for _, w := range c.Workloads {
		for _, g := range w.Groups {
			known[g] = true
		}
	}
	return func(groups []string) []string {
		return slices.DeleteFunc(slices.Clone(groups), func(g string) bool { return known[g] })
	}
}

// broader says what of a policy that permits was not used.
func broader(c *configs.Config, p *policy.Policy, u used, since time.Time, say func(key, format string, args ...any)) {
	day := since.UTC().Format(time.DateOnly)
	if u.grants == 0 {
		say("name", "has given nobody access since %s", day)
		return
	}
	if most := p.MaxDuration.D(); u.longest <= most/2 {
		say("max_duration", "gives up to %s; the longest of %d grants since %s gave access for %s", policy.Short(most), u.grants, day, policy.Short(max(u.longest.Round(time.Second), time.Second)))
	}
	var unused []string
	gives := 0
	for _, t := range c.Targets {
		for _, a := range t.Accounts {
			if !p.Covers(t, a.Name) || NotForPeople(t, a) != nil {
				continue
			}
			gives++
			if name := a.Name + "@" + t.Name; !u.accounts[name] {
				unused = append(unused, name)
			}
		}
	}
	if len(unused) > 0 {
		const named = 10
		text := strings.Join(unused[:min(len(unused), named)], ", ")
		if len(unused) > named {
			text += fmt.Sprintf(" and %d more", len(unused)-named)
		}
		say("accounts", "gives %d accounts, of which %d were not used since %s: %s", gives, len(unused), day, text)
	}
	if idle := slices.DeleteFunc(slices.Clone(p.Groups), func(g string) bool { return u.groups[g] }); len(idle) > 0 {
		say("groups", "was not used by members of %s since %s", policy.Or(idle), day)
	}
}

// usesOf reads what came of each policy, by name: of grants that gave access and were asked for since then.
func usesOf(ctx context.Context, db *sql.DB, since, now time.Time) (map[string]used, error) {
	rows, err := db.QueryContext(ctx, `SELECT policy, target, account, identity, started, until, ended_at FROM grants WHERE requested >= ? AND started > 0`, toNano(since))
	if err != nil {
		return nil, fmt.Errorf("read what was used: %w", err)
	}
	defer rows.Close()
	uses := map[string]used{}
	for rows.Next() {
		var name, target, account string
		var identity []byte
		var started, until, ended int64
		if err := rows.Scan(&name, &target, &account, &identity, &started, &until, &ended); err != nil {
			return nil, fmt.Errorf("read what was used: %w", err)
		}
		var who authn.Identity
		if err := json.Unmarshal(identity, &who); err != nil {
			return nil, fmt.Errorf("read what was used: %w", err)
		}
		u := uses[name]
		if u.grants++; u.accounts == nil {
			u.accounts, u.groups = map[string]bool{}, map[string]bool{}
		}
		u.accounts[account+"@"+target] = true
		for _, g := range who.Groups {
			u.groups[g] = true
		}
		end := min(until, toNano(now))
		if ended > 0 {
			end = min(end, ended)
		}
		u.longest = max(u.longest, time.Duration(end-started))
		uses[name] = u
	}
	return uses, rows.Err()
}
