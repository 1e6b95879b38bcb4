// Package persons tells which identities are one person's.
//
// Somebody may be known by more than one identity: at the company's provider and at a partner's. Such are one person
//
//   - where the configuration says so (approvals.people, also),
//   - where two providers name the same e-mail address, and
//   - by both one after the other: who shares an address with one identity of a person is that person.
//
// What it promises: it only ever takes. Nobody is given anything for another identity, but neither approves for it, nor votes
// twice, nor reviews what it did. The address is no proof of who somebody is, and needs none for that.
package persons

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
)

// Persons are a configuration's links, with what is known of the addresses of those who are linked. Safe for concurrent use.
type Persons struct {
	links []configs.LinkedPerson
	now   atomic.Pointer[graph]
}

// graph is who is one with whom; it is never changed, only replaced.
type graph struct {
	mark map[string]string           // of each identity that is linked, by its key (authn.Identity.Key): one of the person's, for all
	all  map[string][]authn.Identity // by that mark
	at   map[string][]authn.Identity // linked identities by their address, in lower case
}

// Of are the links of a configuration. Of addresses only those are known that stand there, until Learn or With.
func Of(people []configs.LinkedPerson) *Persons {
	p := &Persons{links: people}
	p.now.Store(p.graph(nil))
	return p
}

// Learn looks up the addresses of identities that are linked to others: current is an identity as it is known now, and refuses with
// refusal.NotFound who is not. Where it fails, what was known before stays.
func (p *Persons) Learn(ctx context.Context, current func(context.Context, authn.Identity) (authn.Identity, error)) error {
	if current == nil {
		return nil
	}
	var known []authn.Identity
	for _, one := range p.links {
		if len(one.Also) == 0 {
			continue // its only address is the one that it comes with
		}
		for _, who := range identities(one) {
			now, err := current(ctx, who)
			if refusal.Is(err, refusal.NotFound) {
				continue
			}
			if err != nil {
				return fmt.Errorf("look up who is one person: %w", err)
			}
			known = append(known, now)
		}
	}
	p.now.Store(p.graph(known))
	return nil
}

// With has the addresses of those people known.
func (p *Persons) With(people []authn.Identity) *Persons {
	p.now.Store(p.graph(people))
	return p
}

// identities are those of an entry, the first with the address that stands there.
func identities(one configs.LinkedPerson) []authn.Identity {
	all := []authn.Identity{{Issuer: one.Issuer, Subject: one.Subject, Kind: authn.Human, Email: one.Email}}
	for _, key := range one.Also {
		all = append(all, identity(key))
	}
	return all
}

func identity(key string) authn.Identity {
	issuer, subject, _ := strings.Cut(key, " ")
	return authn.Identity{Issuer: issuer, Subject: subject, Kind: authn.Human}
}

// graph joins those who are linked, and then those of whom two have one address at different providers.
func (p *Persons) graph(known []authn.Identity) *graph {
	g := &graph{mark: map[string]string{}, all: map[string][]authn.Identity{}, at: map[string][]authn.Identity{}}
	add := func(who authn.Identity) {
		mark := g.mark[who.Key()]
		if !slices.Contains(keysOf(g.all[mark]), who.Key()) || who.Email != "" {
			g.all[mark] = append(g.all[mark], who)
		}
		if who.Email != "" {
			g.at[strings.ToLower(who.Email)] = append(g.at[strings.ToLower(who.Email)], who)
		}
	}
	for _, one := range p.links {
		for _, who := range identities(one) {
			if g.mark[who.Key()] == "" {
				g.mark[who.Key()] = one.Issuer + " " + one.Subject
			}
			add(who)
		}
	}
	for _, who := range known {
		if g.mark[who.Key()] != "" && who.Kind != authn.Workload {
			add(who)
		}
	}
	for _, address := range slices.Sorted(maps.Keys(g.at)) {
		for i, a := range g.at[address] {
			for _, b := range g.at[address][i+1:] {
				if a.Issuer != b.Issuer {
					g.join(g.mark[a.Key()], g.mark[b.Key()])
				}
			}
		}
	}
	return g
}

// join makes one person of two.
func (g *graph) join(a, b string) {
	if a == b {
		return
	}
	for _, who := range g.all[b] {
		g.mark[who.Key()] = a
	}
	g.all[a] = append(g.all[a], g.all[b]...)
	delete(g.all, b)
}

func keysOf(list []authn.Identity) (keys []string) {
	for _, who := range list {
		if !slices.Contains(keys, who.Key()) {
			keys = append(keys, who.Key())
		}
	}
	return keys
}

// marks are those of the person that somebody is, by their identity and by their address.
func (g *graph) marks(who authn.Identity) (marks []string) {
	marks = []string{who.Key()}
	if mark, linked := g.mark[who.Key()]; linked {
		marks = append(marks, mark)
	}
	if who.Kind == authn.Workload || who.Email == "" {
		return marks
	}
	for _, other := range g.at[strings.ToLower(who.Email)] {
		if mark := g.mark[other.Key()]; other.Issuer != who.Issuer && !slices.Contains(marks, mark) {
			marks = append(marks, mark)
		}
	}
	return marks
}

// Same reports whether two identities are one person's.
func (p *Persons) Same(a, b authn.Identity) bool { return p.now.Load().same(a, b) }

func (g *graph) same(a, b authn.Identity) bool {
	if a.Kind != authn.Workload && b.Kind != authn.Workload && a.Issuer != b.Issuer && a.Email != "" && strings.EqualFold(a.Email, b.Email) {
		return true
	}
	marks := g.marks(b)
	return slices.ContainsFunc(g.marks(a), func(mark string) bool { return slices.Contains(marks, mark) })
}

// Identities are all that are known to be somebody's, the given one first; one of which several addresses are known, with each.
func (p *Persons) Identities(who authn.Identity) []authn.Identity { return p.now.Load().theirs(who) }

// theirs are all identities that are known to be somebody's, with each address that is known of them.
func (g *graph) theirs(who authn.Identity) []authn.Identity {
	all := []authn.Identity{who}
	for _, mark := range g.marks(who) {
		all = append(all, g.all[mark]...)
	}
	return all
}

// Own reports whether what somebody asks for is a person's own: asked for by any of their identities, or by a job that they started.
func (p *Persons) Own(asks, who authn.Identity) (asked, started bool) {
	return p.now.Load().own(asks, who)
}

func (g *graph) own(asks, who authn.Identity) (asked, started bool) {
	started = asks.StartedBy != authn.Starter{} && who.Kind != authn.Workload && slices.ContainsFunc(g.theirs(who), func(one authn.Identity) bool {
		return asks.StartedBy.Is(one)
	})
	return g.same(asks, who), started
}

// Others are the people among identities who are not the one who asks, and did not start the job that does: each once, with the
// groups of all that are theirs.
func (p *Persons) Others(asks authn.Identity, among []authn.Identity) (people []authn.Identity) {
	g := p.now.Load()
	type place struct {
		who authn.Identity
		at  int // among people
	}
	near := map[string][]place{} // who might be the same, by mark and by address
	for _, who := range among {
		if asked, started := g.own(asks, who); asked || started {
			continue
		}
		marks := g.marks(who)
		if who.Email != "" {
			marks = append(marks, strings.ToLower(who.Email))
		}
		known := -1
		for _, mark := range marks {
			if i := slices.IndexFunc(near[mark], func(one place) bool { return g.same(one.who, who) }); i >= 0 {
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
