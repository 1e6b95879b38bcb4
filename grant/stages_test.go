package grant

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// staged is a policy with two stages, whose groups share people.
func staged() configs.Policy {
	return configs.Policy{
		Name: "own", Groups: []string{"engineers", "deployers"}, Accounts: []string{"owner@orders"}, MaxDuration: minutes(30), MaxTotal: minutes(60),
		Approve: configs.Approve{Within: minutes(120), Start: minutes(60), Stages: []configs.Stage{
			{Name: "peer", Groups: []string{"leads"}, Count: 1}, {Name: "owners", Groups: []string{"security", "leads"}, Count: 1},
		}},
	}
}

// inStagesWorld is one where owner@orders is given in stages.
func inStagesWorld(t *testing.T, changes ...func(c *configs.Config)) *world {
	t.Helper()
	return with(t, func(c *configs.Config) {
		c.Policies = append(c.Policies, staged())
		for _, change := range changes {
			change(c)
		}
	})
}

func (w *world) vote(who authn.Identity, id string, want State) Grant {
	w.t.Helper()
	g, err := w.Approve(context.Background(), who, id, "")
	if err != nil {
		w.t.Fatal(err)
	}
	if g.State != want {
		w.t.Fatalf("%s is %s after the vote of %s, want %s", id, g.State, who.Name, want)
	}
	return g
}

// told takes what those who decide are told out of the outbox: kinds, and the groups that are asked.
func (w *world) told() (list []string) {
	w.t.Helper()
	err := w.db.Do(context.Background(), func(tx *store.Tx) error {
		events, _, err := TakeEvents(context.Background(), tx, 100)
		for _, e := range events {
			list = append(list, strings.TrimSpace(string(e.Kind)+" "+strings.Join(e.Grant.Asked(), ",")))
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// The first stage that is not met decides who votes; the grant is there when all are, by different people.
func TestStages(t *testing.T) {
	w := inStagesWorld(t)
	ctx := t.Context()
	g := w.request(alice, "owner", "orders")
	if g.Needed != 2 || len(g.Stages) != 2 || g.Stage() != 1 || !slices.Equal(g.MayApprove, []string{"leads", "security"}) {
		t.Fatalf("%+v", g)
	}
	_, err := w.Approve(ctx, carol, g.ID, "")
	refused(t, err, refusal.Conflict, "does not wait for you yet", "approval by leads (stage 1 of 2, peer)", "yours is stage 2")
	_, err = w.Approve(ctx, alice, g.ID, "")
	refused(t, err, refusal.NotPermitted, "your own request")
	_, err = w.Lease(ctx, alice, "orders", "owner")
	refused(t, err, refusal.NoGrant, "stage 1 of 2, peer")

	g = w.vote(dave, g.ID, Pending)
	if s := g.Standing(); s[0].State != StageMet || s[1].State != StageOpen || s[0].By[0] != "Dave" || g.Stage() != 2 {
		t.Fatalf("%+v", s)
	}
	// Dave is in the second stage's groups too, and has had his vote.
	_, err = w.Approve(ctx, dave, g.ID, "")
	refused(t, err, refusal.Conflict, "you have approved grant "+g.ID+" already", "one person has one vote over all its stages")
	_, err = w.Lease(ctx, alice, "orders", "owner")
	refused(t, err, refusal.NoGrant, "stage 2 of 2, owners")
	// A click on the message of the first stage comes late: it is no word on the second.
	_, err = w.Approve(WithStage(ctx, 1), carol, g.ID, "")
	refused(t, err, refusal.Conflict, "another stage")

	w.restart() // the stage of a vote is kept
	if g = w.row(g.ID); g.Stage() != 2 || g.Votes[0].Stage != 1 {
		t.Fatalf("%+v", g)
	}
	g = w.vote(carol, g.ID, Approved)
	if by := strings.Join(g.By(), "; "); by != "Dave (stage 1 of 2, peer); Carol (stage 2 of 2, owners)" {
		t.Error(by)
	}
	if g.Votes[1].Stage != 2 {
		t.Errorf("%+v", g.Votes)
	}
	w.lease(alice, "owner", "orders")
	if got := strings.Join(w.told(), "; "); got != "requested leads; stage security,leads; decided; active" {
		t.Errorf("told: %s", got)
	}
	e := w.events("grant.approved")
	if f := e[len(e)-1].Fields; f["stage"] != "stage 2 of 2, owners" || f["approvers"] != "Dave (stage 1 of 2, peer),Carol (stage 2 of 2, owners)" {
		t.Errorf("%+v", f)
	}
	if f := w.events("grant.voted")[0].Fields; f["stage"] != "stage 1 of 2, peer" || f["opens"] != "stage 2 of 2, owners" || f["approvals"] != "1 of 1" {
		t.Errorf("%+v", f)
	}
}

// Whoever started a job approves it at no stage, and a no ends it at any, whoever's turn it is.
func TestStagesDenied(t *testing.T) {
	w := inStagesWorld(t)
	ctx := t.Context()
	first := w.request(alice, "owner", "orders")
	if g, err := w.Deny(ctx, carol, first.ID, "not this week"); err != nil || g.State != Denied { // of the second stage
		t.Fatal(g.State, err)
	}
	first = w.request(alice, "owner", "orders")
	w.vote(bob, first.ID, Pending)
	if g, err := w.Deny(ctx, dave, first.ID, "no"); err != nil || g.State != Denied || g.Votes[1].Stage != 2 {
		t.Fatalf("%+v %v", g, err)
	}
	ci := job
	ci.Groups = []string{"deployers"}
	ci.StartedBy = authn.Starter{Person: dave.Subject}
	second := w.request(ci, "owner", "orders")
	_, err := w.Approve(ctx, dave, second.ID, "")
	refused(t, err, refusal.NotPermitted, "a job that you started")
	w.vote(bob, second.ID, Pending)
	_, err = w.Approve(ctx, dave, second.ID, "")
	refused(t, err, refusal.NotPermitted, "a job that you started")
}

// A vote that is taken back opens its stage again. The later ones stay, and give nothing before it is met.
func TestStageIsOpenAgain(t *testing.T) {
	w := inStagesWorld(t, func(c *configs.Config) {
		c.Policies[len(c.Policies)-1].Approve.Stages[1].Count = 2
	})
	ctx := t.Context()
	g := w.request(alice, "owner", "orders")
	w.vote(bob, g.ID, Pending)
	w.vote(carol, g.ID, Pending)
	w.told()
	g, err := w.Withdraw(ctx, bob, g.ID, "wrong database")
	if err != nil || g.State != Pending || g.Stage() != 1 {
		t.Fatalf("%+v %v", g, err)
	}
	if s := g.Standing()[1]; s.Approvals != 1 || s.State != StageWaiting {
		t.Errorf("%+v", s)
	}
	if got := strings.Join(w.told(), "; "); got != "stage leads" {
		t.Errorf("told: %s", got)
	}
	_, err = w.Approve(ctx, carol, g.ID, "")
	refused(t, err, refusal.Conflict, "already")
	g = w.vote(dave, g.ID, Pending)
	if g.Stage() != 2 {
		t.Fatalf("%+v", g.Standing())
	}
	// And the second stage may be full before the first is met anew: then that one vote decides.
	if _, err := w.Withdraw(ctx, dave, g.ID, ""); err != nil {
		t.Fatal(err)
	}
	w.vote(bob, g.ID, Pending)
	g = w.vote(dave, g.ID, Approved)
	if g, err = w.Withdraw(ctx, bob, g.ID, "after all not"); err != nil || g.EndReason != EndApprovalWithdrawn {
		t.Fatalf("%+v %v", g, err)
	}

	g = w.request(alice, "owner", "orders")
	w.vote(bob, g.ID, Pending)
	w.vote(carol, g.ID, Pending)
	lead := person("erin", "leads")
	if _, err := w.Withdraw(ctx, bob, g.ID, ""); err != nil {
		t.Fatal(err)
	}
	w.vote(lead, g.ID, Pending)
	w.vote(dave, g.ID, Approved)
	if _, err := w.Lease(ctx, alice, "orders", "owner"); err != nil {
		t.Error(err)
	}
}

// Many at once at two stages: as many votes as are needed, each of another person, each at one stage.
func TestStagesRace(t *testing.T) {
	w := inStagesWorld(t)
	for round := range 5 {
		g := w.request(alice, "owner", "orders")
		var calls []func() error
		for i := range 6 {
			group := []string{"leads", "security"}[i%2]
			for range 2 { // each twice
				calls = append(calls, func() error {
					_, err := w.Approve(context.Background(), person(fmt.Sprint("v", i), group), g.ID, "")
					return err
				})
			}
		}
		race(calls...)
		g = w.row(g.ID)
		voters := map[string]int{}
		for _, v := range g.Votes {
			voters[v.key()]++
		}
		p := staged()
		if g.State == Approved != (len(g.Votes) == 2 && len(voters) == 2 && enough(g, p)) || len(g.Votes) < 1 || len(g.Votes) > 2 {
			t.Fatalf("round %d: %+v", round, g)
		}
		if _, err := w.Release(t.Context(), alice, g.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// A configuration that is read anew narrows a request at each of its stages; one with other stages ends it.
func TestStagesOverReload(t *testing.T) {
	stages := func(c *configs.Config) *[]configs.Stage { return &c.Policies[len(c.Policies)-1].Approve.Stages }
	for name, test := range map[string]struct {
		change func(c *configs.Config)
		state  State
		text   string
		count  int // at the second stage
	}{
		"one more": {func(c *configs.Config) {
			*stages(c) = append(*stages(c), configs.Stage{Name: "3", Groups: []string{"leads"}})
		}, Denied, "in 3 stages", 0},
		"one only": {func(c *configs.Config) { *stages(c) = (*stages(c))[:1] }, Denied, "in 1 stages", 0},
		"as it was": {func(c *configs.Config) {
			c.Policies[len(c.Policies)-1].Approve.Stages = nil
			c.Policies[len(c.Policies)-1].Approve.Groups = []string{"leads"}
		}, Denied, "in 1 stages", 0},
		"nobody is left":  {func(c *configs.Config) { (*stages(c))[1].Groups = []string{"others"} }, Denied, "nobody is left who could approve it at stage owners", 0},
		"fewer may":       {func(c *configs.Config) { (*stages(c))[1].Groups = []string{"leads"} }, Pending, "", 1},
		"more have to":    {func(c *configs.Config) { (*stages(c))[1].Count = 2 }, Pending, "", 2},
		"others may too":  {func(c *configs.Config) { (*stages(c))[1].Groups = []string{"leads", "security", "others"} }, Pending, "", 1},
		"the first's too": {func(c *configs.Config) { (*stages(c))[0].Groups = []string{"others", "leads"} }, Pending, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := inStagesWorld(t)
			g := w.request(alice, "owner", "orders")
			w.vote(bob, g.ID, Pending)
			test.change(w.config)
			if err := w.Reload(t.Context(), w.config); err != nil {
				t.Fatal(err)
			}
			g = w.row(g.ID)
			if g.State != test.state || !strings.Contains(g.EndComment, test.text) {
				t.Fatalf("%s: %s", g.State, g.EndComment)
			}
			if test.state != Pending {
				return
			}
			_, err := w.Approve(t.Context(), person("otto", "others"), g.ID, "")
			refused(t, err, refusal.NotPermitted)
			voters := []authn.Identity{dave, person("erin", "leads")}
			for _, who := range voters[:test.count-1] {
				w.vote(who, g.ID, Pending)
			}
			w.vote(voters[test.count-1], g.ID, Approved)
		})
	}
	t.Run("what is approved and not used", func(t *testing.T) {
		w := inStagesWorld(t)
		g := w.request(alice, "owner", "orders")
		w.vote(bob, g.ID, Pending)
		w.vote(carol, g.ID, Approved)
		(*stages(w.config))[1].Groups = []string{"leads"}
		if err := w.Reload(t.Context(), w.config); err != nil {
			t.Fatal(err)
		}
		w.state(g.ID, Ended, EndPolicyRemoved)
	})
}

// More time is asked for in the same stages.
func TestExtensionInStages(t *testing.T) {
	w := inStagesWorld(t)
	ctx := t.Context()
	g := w.request(alice, "owner", "orders")
	w.vote(bob, g.ID, Pending)
	w.vote(carol, g.ID, Approved)
	w.lease(alice, "owner", "orders")
	until := w.row(g.ID).Until
	w.told()
	g = w.extend(alice, g.ID, 10*time.Minute)
	if g.Stage() != 1 || g.Extension.Needed != 2 {
		t.Fatalf("%+v", g.Extension)
	}
	_, err := w.Approve(ctx, carol, g.ID, "")
	refused(t, err, refusal.Conflict, "does not wait for you yet")
	w.vote(bob, g.ID, Active)
	_, err = w.Approve(ctx, bob, g.ID, "")
	refused(t, err, refusal.Conflict, "the extension of grant")
	w.restart()
	if g = w.row(g.ID); g.Stage() != 2 || !g.Until.Equal(until) {
		t.Fatalf("%+v", g)
	}
	if g, err = w.Withdraw(ctx, bob, g.ID, ""); err != nil || g.Stage() != 1 {
		t.Fatalf("%+v %v", g, err)
	}
	w.vote(bob, g.ID, Active)
	if got := strings.Join(w.told(), "; "); got != "requested leads; stage security,leads; stage leads; stage security,leads" {
		t.Errorf("told: %s", got)
	}
	g = w.vote(carol, g.ID, Active)
	if !g.Until.Equal(until.Add(10 * time.Minute)) {
		t.Fatalf("%+v", g)
	}
	g = w.extend(alice, g.ID, 10*time.Minute)
	w.vote(bob, g.ID, Active)
	w.config.Policies[len(w.config.Policies)-1].Approve.Stages = append(w.config.Policies[len(w.config.Policies)-1].Approve.Stages, configs.Stage{Name: "3", Groups: []string{"leads"}})
	if err := w.Reload(ctx, w.config); err != nil {
		t.Fatal(err)
	}
	_, err = w.Approve(ctx, carol, g.ID, "")
	refused(t, err, refusal.Conflict, "other stages of approval")
	_, err = w.Extend(ctx, alice, g.ID, time.Minute, "")
	refused(t, err, refusal.NotPermitted, "other stages of approval")
	w.state(g.ID, Active, "")
}

// What nobody could approve is refused when it is asked for: where a stage's groups are empty, and where one person alone is
// there for two.
func TestNobodyForAStage(t *testing.T) {
	w := inStagesWorld(t, func(c *configs.Config) { c.Approvals.Known = true })
	ctx := t.Context()
	ask := Ask{Target: "orders", Account: "owner", Reason: "because"}
	for _, test := range []struct {
		people []authn.Identity
		says   []string // nil: it can be asked for
	}{
		{nil, []string{"stage peer", "nobody else is known in leads"}},
		{[]authn.Identity{carol}, []string{"stage peer", "nobody else is known in leads"}},
		{[]authn.Identity{bob}, []string{"stages peer and owners", "it takes 2 of leads or security, of whom 1 other than you", "nobody else is known in security"}},
		{[]authn.Identity{alice, bob}, []string{"stages peer and owners"}},
		{[]authn.Identity{bob, carol}, nil},
		{[]authn.Identity{bob, dave}, nil},
	} {
		w.members = test.people
		g, err := w.Request(ctx, alice, ask)
		if test.says == nil {
			if err != nil {
				t.Fatalf("%v: %v", test.people, err)
			}
			if _, err := w.Release(ctx, alice, g.ID); err != nil {
				t.Fatal(err)
			}
			continue
		}
		refused(t, err, refusal.NotPermitted, append(test.says, "nobody could approve owner@orders now")...)
	}
	// Of two who may at the first stage one is the only one at the second: their vote is kept for it.
	w.config.Policies[len(w.config.Policies)-1].Approve.Stages[1].Groups = []string{"security"}
	both := person("erin", "leads", "security")
	w.members = []authn.Identity{bob, both}
	if err := w.Reload(ctx, w.config); err != nil {
		t.Fatal(err)
	}
	g := w.request(alice, "owner", "orders")
	_, err := w.Approve(ctx, both, g.ID, "")
	refused(t, err, refusal.Conflict, "nobody could approve grant "+g.ID+" at stage owners if you did now", "another member of leads")
	w.vote(bob, g.ID, Pending)
	w.vote(both, g.ID, Approved)
	// Longer it can be asked for only while there are enough, too.
	w.lease(alice, "owner", "orders")
	w.members = []authn.Identity{both}
	_, err = w.Extend(ctx, alice, g.ID, time.Minute, "not done yet")
	refused(t, err, refusal.NotPermitted, "nobody could approve an extension of grant "+g.ID+" now", "stages peer and owners")
	w.members = []authn.Identity{bob}
	_, err = w.Extend(ctx, alice, g.ID, time.Minute, "not done yet")
	refused(t, err, refusal.NotPermitted, "stage owners", "nobody else is known in security")
	if g = w.row(g.ID); g.Extension != nil || g.Extensions != 0 {
		t.Errorf("%+v", g)
	}
	w.members = []authn.Identity{bob, both}
	w.extend(alice, g.ID, time.Minute)
}

// What one may ask for says whose approvals it takes stage by stage.
func TestOffersSayTheStages(t *testing.T) {
	w := inStagesWorld(t, func(c *configs.Config) { c.Policies[len(c.Policies)-1].Approve.Stages[1].Count = 2 })
	offers, err := w.Offers(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for _, o := range offers {
		said[o.Account] = o.ApprovedBy()
	}
	if said["owner"] != "leads, then 2 of security or leads" || said["app"] != "leads" || said["ro"] != "" || said["deploy"] != "2 of leads or security" {
		t.Errorf("%q", said)
	}
}

// Whether there are enough different people is what trying all ways of choosing them says.
func TestShortIsWhatTryingSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		groups := []string{"a", "b", "c"}
		var stages []Stage
		for i := range rapid.IntRange(1, 3).Draw(t, "stages") {
			stages = append(stages, Stage{
				Name: fmt.Sprint(i + 1), Needed: rapid.IntRange(1, 2).Draw(t, "needed"),
				Groups: rapid.SliceOfNDistinct(rapid.SampledFrom(groups), 1, 2, rapid.ID[string]).Draw(t, "of"),
			})
		}
		var members []authn.Identity
		for i := range rapid.IntRange(0, 5).Draw(t, "people") {
			members = append(members, person(fmt.Sprint("p", i), rapid.SliceOfNDistinct(rapid.SampledFrom(groups), 0, 2, rapid.ID[string]).Draw(t, "in")...))
		}
		in := func(m authn.Identity, s Stage) bool {
			return slices.ContainsFunc(m.Groups, func(g string) bool { return slices.Contains(s.Groups, g) })
		}
		var try func(i int, left []int) bool
		try = func(i int, left []int) bool {
			if !slices.ContainsFunc(left, func(n int) bool { return n > 0 }) {
				return true
			}
			if i == len(members) {
				return false
			}
			for s := range stages {
				if left[s] > 0 && in(members[i], stages[s]) {
					less := slices.Clone(left)
					less[s]--
					if try(i+1, less) {
						return true
					}
				}
			}
			return try(i+1, left)
		}
		var left []int
		for _, s := range stages {
			left = append(left, s.Needed)
		}
		possible := try(0, left)
		no := short(stages, members)
		if possible != (no == nil) {
			t.Fatalf("possible: %v, but %+v", possible, no)
		}
		if no == nil {
			return
		}
		needed, have := 0, 0
		for _, i := range no.stages {
			needed += stages[i].Needed
		}
		for _, m := range members {
			if slices.ContainsFunc(no.stages, func(i int) bool { return in(m, stages[i]) }) {
				have++
			}
		}
		if needed != no.needed || have != no.have || have >= needed {
			t.Fatalf("%+v is no shortage: %d needed of %d", no, needed, have)
		}
	})
}
