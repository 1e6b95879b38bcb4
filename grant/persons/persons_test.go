package persons

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
)

func at(issuer, subject, email string, groups ...string) authn.Identity {
	return authn.Identity{Issuer: "https://" + issuer + ".example", Subject: subject, Email: email, Kind: authn.Human, Groups: groups}
}

func link(main authn.Identity, also ...authn.Identity) configs.LinkedPerson {
	p := configs.LinkedPerson{Issuer: main.Issuer, Subject: main.Subject}
	for _, other := range also {
		p.Also = append(p.Also, other.Key())
	}
	return p
}

// Links by the configuration and by address are followed one after the other, as far as they go, whichever way they are asked about.
func TestChains(t *testing.T) {
	a, b, c := at("login", "a", "a@example.com"), at("partner", "b", "B@example.com"), at("third", "c", "b@EXAMPLE.com")
	d, e := at("login", "d", "d@example.com"), at("fourth", "e", "b@example.com")
	stranger := at("third", "x", "x@example.com")
	all := Of([]configs.LinkedPerson{link(a, b), link(d, e)})
	if all.Same(a, c) || all.Same(a, d) {
		t.Error("they are one before anybody knows an address")
	}
	known := map[string]authn.Identity{}
	for _, who := range []authn.Identity{a, b, d, e} {
		known[who.Key()] = who
	}
	err := all.Learn(t.Context(), func(_ context.Context, who authn.Identity) (authn.Identity, error) { return known[who.Key()], nil })
	if err != nil {
		t.Fatal(err)
	}
	one := []authn.Identity{a, b, c, d, e}
	for _, x := range one {
		for _, y := range one {
			if !all.Same(x, y) {
				t.Errorf("%s and %s are two", x.Key(), y.Key())
			}
		}
		if all.Same(x, stranger) || all.Same(stranger, x) {
			t.Errorf("%s is the stranger", x.Key())
		}
		if asked, _ := all.Own(c, x); !asked {
			t.Errorf("what %s asks for is not %s's own", c.Key(), x.Key())
		}
		started := authn.Identity{Issuer: "https://ci.example", Subject: "job", Kind: authn.Workload, StartedBy: authn.Starter{ID: "7", Person: "e"}}
		if _, theirs := all.Own(started, x); !theirs {
			t.Errorf("the job of %s is not %s's", e.Key(), x.Key())
		}
		started.StartedBy = authn.Starter{ID: "7", Email: "D@example.com"}
		if _, theirs := all.Own(started, x); !theirs {
			t.Errorf("the job of %s is not %s's, by its address", d.Key(), x.Key())
		}
	}
	if people := all.Others(authn.Identity{}, append(slices.Clone(one), stranger)); len(people) != 2 {
		t.Errorf("%+v", people)
	}
}

// An address alone joins people of different providers, and no pipelines.
func TestAddresses(t *testing.T) {
	a := at("login", "a", "shared@example.com")
	same, other := at("login", "b", "shared@example.com"), at("partner", "b", "Shared@Example.com")
	all := Of([]configs.LinkedPerson{link(a, at("partner", "4711", ""))}).With([]authn.Identity{a})
	job := other
	job.Kind = authn.Workload
	if all.Same(a, same) || !all.Same(a, other) || all.Same(a, job) || all.Same(job, a) {
		t.Errorf("%v %v %v", all.Same(a, same), all.Same(a, other), all.Same(a, job))
	}
	if !all.Same(at("partner", "4711", ""), other) { // by the address of the identity that it is linked to
		t.Error("the chain ends too early")
	}
}

// Who never signed in has no address; what can't be looked up is an error, and what was known stays.
func TestLearn(t *testing.T) {
	a, b, c := at("login", "a", ""), at("partner", "b", "b@example.com"), at("third", "c", "b@example.com")
	all := Of([]configs.LinkedPerson{link(a, b), {Issuer: c.Issuer, Subject: "slack", Slack: "T/U"}})
	current := func(_ context.Context, who authn.Identity) (authn.Identity, error) {
		switch who.Key() {
		case b.Key():
			return b, nil
		case a.Key():
			return authn.Identity{}, refusal.New(refusal.NotFound, "never signed in")
		}
		t.Errorf("%s is looked up, whom nobody is linked to", who.Key())
		return who, nil
	}
	if err := all.Learn(t.Context(), current); err != nil || !all.Same(a, c) {
		t.Errorf("%v %v", all.Same(a, c), err)
	}
	lost := errors.New("the store is lost")
	if err := all.Learn(t.Context(), func(context.Context, authn.Identity) (authn.Identity, error) { return authn.Identity{}, lost }); !errors.Is(err, lost) || !all.Same(a, c) {
		t.Errorf("%v %v", all.Same(a, c), err)
	}
}

// As many people as a directory has are told apart in no time.
func TestManyPeople(t *testing.T) {
	var identities []authn.Identity
	for i := range 5_000 {
		identities = append(identities, at("login", fmt.Sprint("p", i), fmt.Sprintf("P%d@example.com", i), "leads"), at("partner", fmt.Sprint(i), fmt.Sprintf("p%d@example.com", i), "security"))
	}
	people := Of([]configs.LinkedPerson{link(identities[0], identities[2])}).Others(identities[4], identities)
	if len(people) != 4_998 { // two are one, and one asks
		t.Fatalf("%d people", len(people))
	}
	if groups := people[0].Groups; !slices.Equal(groups, []string{"leads", "security", "leads", "security"}) {
		t.Errorf("%q", groups)
	}
}
