package grant

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sallyport/authn"
	"sallyport/grant/persons"
	"sallyport/grant/policy"
)

// Stage is one of the approvals that a request needs, one after the other. They are settled when it is asked for.
type Stage struct {
	Name   string   `json:"name"`
	Groups []string `json:"groups"`           // any member of which may approve
	Needed int      `json:"approvals_needed"` // of different people
}

// How a stage stands.
const (
	StageMet     = "met"     // as many have approved as it needs
	StageOpen    = "open"    // the first that is not met: who may approve now is decided by it
	StageWaiting = "waiting" // an earlier one is not met; votes that it has already stand
)

// Standing is a stage and how it stands.
type Standing struct {
	Stage
	Number    int      `json:"number"` // from 1
	State     string   `json:"state"`
	Approvals int      `json:"approvals"`
	By        []string `json:"by"` // the names of those who approved at it
}

// stagesOf are a policy's as they are settled for a request; none where the policy approves by itself.
func stagesOf(p *policy.Policy) (stages []Stage) {
	for _, s := range policy.Stages(p.Policy) {
		stages = append(stages, Stage{Name: s.Name, Groups: slices.Clone(s.Groups), Needed: s.Count})
	}
	return stages
}

// written are stages as they are kept: one alone is the groups and the number that are kept beside them.
func written(stages []Stage) []Stage {
	if len(stages) < 2 {
		return nil
	}
	return stages
}

// stages are those that its request needs; none where a policy approved.
func (g Grant) stages() []Stage { return inStages(g.Stages, g.MayApprove, g.Needed) }

// stages are those that the extension needs.
func (e Extension) stages() []Stage { return inStages(e.Stages, e.MayApprove, e.Needed) }

func inStages(kept []Stage, groups []string, needed int) []Stage {
	if len(kept) > 0 || needed == 0 {
		return kept
	}
	return []Stage{{Name: "1", Groups: groups, Needed: needed}}
}

// total is how many approvals stages need, groupsOf whose.
func total(stages []Stage) (n int) {
	for _, s := range stages {
		n += s.Needed
	}
	return n
}

func groupsOf(stages []Stage) (groups []string) {
	for _, s := range stages {
		for _, g := range s.Groups {
			if !slices.Contains(groups, g) {
				groups = append(groups, g)
			}
		}
	}
	return groups
}

// inTurn says whose approvals stages take: "leads", "leads, then 2 of security or dba"; empty: nobody's.
func inTurn(stages []Stage) string {
	var parts []string
	for _, s := range stages {
		part := policy.Or(s.Groups)
		if s.Needed > 1 {
			part = strconv.Itoa(s.Needed) + " of " + part
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", then ")
}

// still are the stages as far as a policy, as it is now, leaves them: of each the groups that could approve and still can, and as
// many approvals as either asks for. false: the policy has come to have more or fewer of them, so that nobody can say which
// votes would count for what.
func still(p *policy.Policy, could []Stage) (now []Stage, same bool) {
	if policy.Auto(p.Policy) { // takes nothing from those who could
		return could, true
	}
	is := stagesOf(p)
	if len(is) != len(could) {
		return nil, false
	}
	for i, s := range could {
		s.Groups = slices.DeleteFunc(slices.Clone(s.Groups), func(group string) bool { return !slices.Contains(is[i].Groups, group) })
		s.Needed = max(s.Needed, is[i].Needed)
		now = append(now, s)
	}
	return now, true
}

// stage is the place of the stage that a vote counts at, from 0.
func (v Vote) stage() int { return max(v.Stage, 1) - 1 }

// counted returns the votes of people who may vote at the stage at which they did: of the others the right is gone.
func (b Ballot) counted(stages []Stage) []Vote {
	return slices.DeleteFunc(slices.Clone(b.Votes), func(v Vote) bool {
		return v.stage() >= len(stages) || !policy.InAny(b.voters[v.key()], stages[v.stage()].Groups)
	})
}

// by is the place of somebody's vote, by whichever of their identities they cast it; -1: they have not.
func (b Ballot) by(all *persons.Persons, who authn.Identity) int {
	return slices.IndexFunc(b.Votes, func(v Vote) bool {
		return all.Same(authn.Identity{Issuer: v.Issuer, Subject: v.Subject, Email: b.addresses[v.key()]}, who)
	})
}

// at counts the approvals at each stage, by people who may vote at it.
func (b Ballot) at(stages []Stage) []int { return tally(b.counted(stages), stages) }

func tally(votes []Vote, stages []Stage) []int {
	n := make([]int, len(stages))
	for _, v := range votes {
		if v.Approve && v.stage() < len(n) {
			n[v.stage()]++
		}
	}
	return n
}

// open is the first stage that is not met by the votes of people who may vote at it; -1: all are.
func (b Ballot) open(stages []Stage) int { return first(b.at(stages), stages) }

func first(n []int, stages []Stage) int {
	for i, s := range stages {
		if n[i] < s.Needed {
			return i
		}
	}
	return -1
}

// standing says how each stage stands, by the votes as they are kept: those that lost their right go with the next that is cast.
func (b Ballot) standing(stages []Stage) (list []Standing) {
	n := tally(b.Votes, stages)
	open := first(n, stages)
	for i, s := range stages {
		one := Standing{Stage: s, Number: i + 1, State: StageWaiting, Approvals: n[i], By: []string{}}
		switch {
		case i == open:
			one.State = StageOpen
		case n[i] >= s.Needed:
			one.State = StageMet
		}
		for _, v := range b.Votes {
			if v.Approve && v.stage() == i {
				one.By = append(one.By, v.Name)
			}
		}
		list = append(list, one)
	}
	return list
}

// Standing says how the stages of a request stand, and none where a policy approved.
func (g Grant) Standing() []Standing { return g.Ballot.standing(g.stages()) }

// Standing says how the stages of an extension stand.
func (e Extension) Standing() []Standing { return e.Ballot.standing(e.stages()) }

// waiting are the stages of what waits to be decided, and which is open, from 0; -1: nothing waits.
func (g Grant) waiting() (stages []Standing, open int) {
	switch {
	case g.Extension != nil:
		stages = g.Extension.Standing()
	case g.State == Pending:
		stages = g.Standing()
	}
	return stages, slices.IndexFunc(stages, func(s Standing) bool { return s.State == StageOpen })
}

// Asked are the groups whose members are to approve now: those of the open stage of what waits; none where nothing does.
func (g Grant) Asked() []string {
	stages, open := g.waiting()
	if open < 0 {
		return nil
	}
	return stages[open].Groups
}

// Stage is the number of the stage that is open of what waits, from 1; 0: nothing waits.
func (g Grant) Stage() int {
	_, open := g.waiting()
	return open + 1
}

// Label names it for people, among how many there are.
func (s Standing) Label(of int) string {
	label := "stage " + strconv.Itoa(s.Number) + " of " + strconv.Itoa(of)
	if s.Name != strconv.Itoa(s.Number) {
		label += ", " + s.Name
	}
	return label
}

// By are the names of those who approved, each with the stage at which they did where there are several; or "policy NAME".
func (g Grant) By() []string {
	stages := g.Standing()
	if len(stages) < 2 {
		return g.Approvers()
	}
	var names []string
	for _, v := range g.Votes {
		if v.Approve && v.stage() < len(stages) {
			names = append(names, v.Name+" ("+stages[v.stage()].Label(len(stages))+")")
		}
	}
	return names
}

// approvalBy says by whom something waits to be approved.
func approvalBy(stages []Standing) string {
	for _, s := range stages {
		if s.State != StageOpen {
			continue
		}
		text := "approval by " + policy.Or(s.Groups)
		var notes []string
		if len(stages) > 1 {
			notes = append(notes, s.Label(len(stages)))
		}
		if s.Needed > 1 {
			notes = append(notes, fmt.Sprintf("%d of %d have", s.Approvals, s.Needed))
		}
		if len(notes) > 0 {
			text += " (" + strings.Join(notes, "; ") + ")"
		}
		return text
	}
	return "approval"
}

// shortage is a set of stages that there are too few different people for.
type shortage struct {
	stages []int // places of them, in order
	needed int
	have   int // different people who may approve at one or more of them
}

// short finds whether each stage can have as many approvals as it needs, each of another person: one person has one vote over
// all stages. It looks for a matching of people to places by augmenting paths; where one can't be made larger, the stages
// that the last search came to are those that have too few people between them (Hall's theorem). nil: there are enough.
func short(stages []Stage, people []authn.Identity) *shortage {
	at := make([]int, len(people)) // the stage that each is needed at; -1: none yet
	for i := range at {
		at[i] = -1
	}
	var place func(stage int, tried []bool, reached map[int]bool) bool
	place = func(stage int, tried []bool, reached map[int]bool) bool {
		reached[stage] = true
		for i, who := range people {
			if tried[i] || !policy.InAny(who.Groups, stages[stage].Groups) {
				continue
			}
			tried[i] = true
			if at[i] < 0 || place(at[i], tried, reached) {
				at[i] = stage
				return true
			}
		}
		return false
	}
	for i, s := range stages {
		for range s.Needed {
			tried, reached := make([]bool, len(people)), map[int]bool{}
			if place(i, tried, reached) {
				continue
			}
			no := &shortage{}
			for j := range stages {
				if reached[j] {
					no.stages, no.needed = append(no.stages, j), no.needed+stages[j].Needed
				}
			}
			for _, t := range tried {
				if t {
					no.have++
				}
			}
			return no
		}
	}
	return nil
}
