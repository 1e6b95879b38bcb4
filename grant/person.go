package grant

import (
	"slices"
	"strings"

	"sallyport/authn"
	"sallyport/configs"
)

// Somebody may be known by more than one identity: at the company's provider and at a partner's. Such are one person where the
// configuration says so (approvals.people, also), and where two providers name the same e-mail address. It only ever takes: nobody
// is given anything for another identity, but neither approves for it, nor votes twice. The address is no proof of who somebody is,
// and needs none for that.

// persons tells which identities are one person's, by authn.Identity.Key.
type persons struct {
	first map[string]string   // of each that is linked, the one that stands for all
	all   map[string][]string // by that one
}

func personsOf(c *configs.Config) persons {
	p := persons{first: map[string]string{}, all: map[string][]string{}}
	for _, one := range c.Approvals.People {
		if len(one.Also) == 0 {
			continue
		}
		main := one.Issuer + " " + one.Subject
		for _, key := range append([]string{main}, one.Also...) {
			p.first[key] = main
			p.all[main] = append(p.all[main], key)
		}
	}
	return p
}

// of is the identity that stands for all of a person.
func (p persons) of(key string) string {
	if first, linked := p.first[key]; linked {
		return first
	}
	return key
}

// same reports whether two identities are one person's.
func (p persons) same(a, b authn.Identity) bool {
	return p.of(a.Key()) == p.of(b.Key()) ||
		a.Kind != authn.Workload && b.Kind != authn.Workload && a.Issuer != b.Issuer && a.Email != "" && strings.EqualFold(a.Email, b.Email)
}

// keys are all identities that are linked to somebody's, with it.
func (p persons) keys(who authn.Identity) []string {
	if all := p.all[p.of(who.Key())]; len(all) > 0 {
		return all
	}
	return []string{who.Key()}
}

// own reports whether a grant is somebody's own: asked for by any of their identities, or by a job that they started.
func (p persons) own(g Grant, who authn.Identity) (asked, started bool) {
	started = g.Identity.StartedBy != authn.Starter{} && slices.ContainsFunc(p.keys(who), func(key string) bool {
		issuer, subject, _ := strings.Cut(key, " ")
		return g.Identity.StartedBy.Is(authn.Identity{Issuer: issuer, Subject: subject, Kind: who.Kind, Email: who.Email})
	})
	return p.same(g.Identity, who), started
}

// voted is the place of somebody's vote, by whichever of their identities they cast it; -1: they have not.
func (p persons) voted(b Ballot, who authn.Identity) int {
	return slices.IndexFunc(b.Votes, func(v Vote) bool {
		return p.same(authn.Identity{Issuer: v.Issuer, Subject: v.Subject, Email: b.addresses[v.key()]}, who)
	})
}

// others are the people among identities who may vote on a grant, each once, with the groups of all that are theirs.
func (p persons) others(g Grant, identities []authn.Identity) (people []authn.Identity) {
	type place struct {
		who authn.Identity
		at  int // among people
	}
	near := map[string][]place{} // who might be the same, by identity and by address
	for _, who := range identities {
		if asked, started := p.own(g, who); asked || started {
			continue
		}
		marks := []string{p.of(who.Key())}
		if who.Email != "" {
			marks = append(marks, strings.ToLower(who.Email))
		}
		known := -1
		for _, mark := range marks {
			if i := slices.IndexFunc(near[mark], func(one place) bool { return p.same(one.who, who) }); i >= 0 {
				known = near[mark][i].at
			}
		}
		if known < 0 {
			known = len(people)
			people = append(people, who)
		} else {
			people[known].Groups = append(slices.Clone(people[known].Groups), who.Groups...)
		}
		for _, mark := range marks {
			near[mark] = append(near[mark], place{who, known})
		}
	}
	return people
}
