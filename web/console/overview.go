package console

import (
	"net/http"
	"net/url"
	"time"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/web/api"
)

// pageOfGrants is how many grants stand on one page of their register.
const pageOfGrants = 50

// grants is the register of requests and grants that somebody may see.
func (s *server) grants(v *visit) error {
	state := field(v, "state")
	f := grant.Filter{
		All: state != "open", Target: field(v, "target"), Account: field(v, "account"), Before: field(v, "before"), Limit: pageOfGrants,
	}
	if state != "" && state != "open" {
		f.Keep = func(g grant.Grant) bool { return string(g.State) == state }
	}
	found, more, err := s.Desk.Grants(v.Context(), v.who, f)
	if err != nil {
		return err
	}
	var body struct {
		Found         []grantView
		Query         url.Values
		States        []struct{ Value, Name string }
		State         string
		Older, Newest string
		Filtered      bool
	}
	body.Query, body.State = v.URL.Query(), state
	body.States = []struct{ Value, Name string }{{"", "any"}, {"open", "open"}}
	for _, one := range []string{"pending", "approved", "active", "ended", "denied", "withdrawn", "lapsed"} {
		body.States = append(body.States, struct{ Value, Name string }{one, states[one]})
	}
	for _, g := range found {
		body.Found = append(body.Found, s.grantView(v.who, g))
	}
	if more {
		body.Older = with(v.URL, "before", found[len(found)-1].ID)
	}
	if f.Before != "" {
		body.Newest = with(v.URL, "before", "")
	}
	body.Filtered = state != "" || f.Target != "" || f.Account != ""
	s.show(v, http.StatusOK, "grants.html", page{Title: "Grants", Path: "/console/grants", Body: body})
	return nil
}

// policies explains what the policies would answer to the one who looks, and shows them to those who may see all grants.
func (s *server) policies(v *visit) error {
	offers, err := s.Desk.Offers(v.Context(), v.who)
	if err != nil {
		return err
	}
	var body struct {
		Query    url.Values
		Offers   []api.Offer
		Asked    bool
		Said     api.Explanation
		Problem  *api.Problem
		Policies []configs.Policy
		Waiting  int // sets that wait for whoever looks
	}
	if body.Waiting, err = s.waitingPolicies(v); err != nil {
		return err
	}
	body.Query, body.Offers, body.Policies = v.URL.Query(), offers, s.Desk.PolicyList(v.who.Identity)
	if target, account := field(v, "target"), field(v, "account"); target != "" && account != "" {
		said, err := s.Desk.Explain(v.Context(), v.who, api.GrantRequest{
			Target: target, Account: account, Duration: field(v, "duration"), Reason: field(v, "reason"), Ticket: field(v, "ticket"),
		})
		if err != nil {
			body.Problem = s.Desk.Problem("explain", err)
		} else {
			body.Asked, body.Said = true, said
		}
	}
	s.show(v, http.StatusOK, "policies.html", page{Title: "Policies", Path: "/console/policies", Body: body})
	return nil
}

// health shows how the gateway stands to those who run it.
func (s *server) health(v *visit) error {
	standing, err := s.Desk.Standing(v.Context(), v.who)
	if err != nil {
		return err
	}
	var body struct {
		S       api.Status
		Told    []api.Notification
		MayTold bool
		At      time.Time
	}
	body.S, body.At = standing, time.Now()
	if body.MayTold = s.Desk.May(v.who.Identity, grant.ListGrants, ""); body.MayTold {
		if body.Told, err = s.Desk.Notifications(v.Context(), v.who); err != nil {
			return err
		}
	}
	s.show(v, http.StatusOK, "health.html", page{Title: "Health", Path: "/console/health", Body: body})
	return nil
}
