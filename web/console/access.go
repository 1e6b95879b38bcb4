package console

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/session"
	"sallyport/web/api"
)

// pastShown is how many of one's grants that are over stand on the first page.
const pastShown = 8

const (
	// mostMine bounds one's own grants, and those that wait, on one page.
	mostMine = 200
	// pastInbox is how many that were decided stand below the inbox.
	pastInbox = 20
	// useOf is how far back an approver is told what somebody did with the same access.
	useOf = 90 * 24 * time.Hour
)

// grantView is a grant with what the pages say of it beside the API's fields.
type grantView struct {
	api.Grant
	Kind    string
	Labels  map[string]string
	Mine    bool
	Decides bool   // whoever looks may approve or deny it
	Denies  bool   // whoever looks may deny it, whether or not it is their turn to approve
	Ends    bool   // whoever looks may revoke it
	Tag     string // names this state of it, for forms that decide on what somebody looked at; empty: any
	Lines   []line
	Use     *use // what the person did with the same access before; for approvers
}

// reviewView is a review that is due.
type reviewView struct {
	api.Review
	G    grantView
	Mine bool // whoever looks may do it
	Late bool
}

// use is what somebody did with an account before.
type use struct {
	Given, Refused, Sessions int
	Last                     time.Time
	Counts                   bool // whoever looks may see the sessions
}

// pastUse finds what the requester did with the account before, as far as whoever looks may see it.
func (s *server) pastUse(v *visit, g api.Grant) (*use, error) {
	since := time.Now().Add(-useOf)
	all, _, err := s.Desk.Grants(v.Context(), v.who, grant.Filter{All: true, Target: g.Target, Account: g.Account, Limit: mostMine, Keep: func(other grant.Grant) bool {
		return other.ID != g.ID && other.Identity.Issuer == g.Identity.Issuer && other.Identity.Subject == g.Identity.Subject && other.Requested.After(since)
	}})
	if err != nil {
		return nil, err
	}
	u := &use{Counts: s.Desk.May(v.who.Identity, grant.ListSessions, g.Target)}
	for _, other := range all {
		switch {
		case other.State == string(grant.Denied):
			u.Refused++
		case !other.From.IsZero():
			u.Given++
			if other.From.After(u.Last) {
				u.Last = other.From
			}
			if !u.Counts {
				continue
			}
			sessions, err := s.Desk.FindSessions(v.Context(), v.who, session.Filter{Grant: other.ID, Limit: 100})
			if err != nil {
				return nil, err
			}
			u.Sessions += len(sessions)
		}
	}
	return u, nil
}

// line is something to copy.
type line struct{ Label, Text string }

func (s *server) grantView(who Caller, g api.Grant) grantView {
	t := s.Desk.Targets()[g.Target]
	v := grantView{Grant: g, Kind: t.Kind, Labels: t.Labels, Mine: g.Identity.Issuer+" "+g.Identity.Subject == who.Key()}
	in := func(groups []string) bool {
		return !v.Mine && slices.ContainsFunc(groups, func(group string) bool { return slices.Contains(who.Groups, group) })
	}
	approver := in(g.MayApprove)
	switch e := g.Extension; {
	case e != nil:
		v.Decides, v.Denies = in(e.Asked()), in(e.MayApprove)
		v.Decides = v.Decides && !(len(e.Stages) > 1 && voted(e.Votes, who))
	case g.State == string(grant.Pending):
		v.Decides, v.Denies = in(g.Asked()), approver
		v.Decides = v.Decides && !(len(g.Stages) > 1 && voted(g.Votes, who)) // who has one vote over all stages
	}
	v.Ends = !v.Mine && g.EndedAt.IsZero() && g.State != string(grant.Pending) &&
		(approver || s.Desk.May(who.Identity, grant.RevokeGrants, g.Target))
	var err error
	if v.Tag, err = s.Desk.Tag(g); err != nil {
		s.Log.Error("a grant has no tag: forms about it are taken whatever became of it", "grant", g.ID, "error", err)
	}
	return v
}

// voted reports whether somebody has approved already.
func voted(votes []api.Vote, who Caller) bool {
	return slices.ContainsFunc(votes, func(v api.Vote) bool { return v.Approve && v.Issuer+" "+v.Subject == who.Key() })
}

// connect are the lines by which the stock programs use a grant.
func connect(gateway api.Gateway, c api.Connection, account string) []line {
	first := len(c.Accounts) > 0 && c.Accounts[0] == account
	if c.Kind == configs.KindSSH {
		command := "ssh " + account + "@" + c.Name
		if first {
			command = "ssh " + c.Name
		}
		lines := []line{{"After sallyport login", command}}
		if gateway.SSH.Port != 0 {
			lines = append(lines, line{"With any SSH client", fmt.Sprintf("ssh -p %d %s@%s@%s", gateway.SSH.Port, account, c.Name, gateway.SSH.Host)})
		}
		return lines
	}
	service := c.Name
	if !first {
		service += "-" + account
	}
	return []line{
		{"After sallyport login", "psql service=" + service},
		{"With any Postgres client", fmt.Sprintf("host=%s port=%d dbname=%s user=%s sslmode=verify-full", c.Host, c.Port, c.Database, account)},
	}
}

// suggest is half an hour, or all there is where that is less.
func suggest(most time.Duration) string {
	if most > 0 && most < 30*time.Minute {
		return configs.Duration(most).String()
	}
	return "30m"
}

// access is the first page: what I have, what I wait for, what I may ask for.
func (s *server) access(v *visit) error {
	ctx := v.Context()
	offers, err := s.Desk.Offers(ctx, v.who)
	if err != nil {
		return err
	}
	grants, _, err := s.Desk.Grants(ctx, v.who, grant.Filter{All: true, Mine: true, Limit: mostMine})
	if err != nil {
		return err
	}
	connections, err := s.Desk.Connections(ctx, v.who)
	if err != nil {
		return err
	}
	gateway, err := s.Desk.Gateway()
	if err != nil {
		return err
	}
	var body struct {
		Live, Waiting, Past []grantView
		Offers              []api.Offer
		Steps               []step
		Gateway             api.Gateway
		Keys                []authn.EnrolledKey // to tell of
	}
	if body.Keys, err = s.keyNews(ctx, v.who.Identity); err != nil {
		return err
	}
	body.Gateway = gateway
	for _, g := range grants {
		view := s.grantView(v.who, g)
		switch {
		case !view.Mine:
		case g.State == string(grant.Pending):
			body.Waiting = append(body.Waiting, view)
		case g.EndedAt.IsZero():
			if i := slices.IndexFunc(connections, func(c api.Connection) bool { return c.Name == g.Target }); i >= 0 {
				view.Lines = connect(gateway, connections[i], g.Account)
			}
			body.Live = append(body.Live, view)
		case len(body.Past) < pastShown:
			body.Past = append(body.Past, view)
		}
	}
	body.Offers = offers
	seen := grants // for the first steps: an approver sees that others asked
	if len(seen) == 0 {
		if seen, _, err = s.Desk.Grants(ctx, v.who, grant.Filter{All: true, Limit: 20}); err != nil {
			return err
		}
	}
	if body.Steps, err = s.steps(v, offers, seen); err != nil {
		return err
	}
	s.show(v, http.StatusOK, "access.html", page{Title: "Access", Path: home, Body: body})
	return nil
}

// step is one on the way to the first recorded session.
type step struct {
	Done       bool
	Name, What string
	Line       string // to be typed; may be empty
}

// steps are what is missing to the first session that somebody can see here; none when there is one.
func (s *server) steps(v *visit, offers []api.Offer, grants []api.Grant) ([]step, error) {
	recorded, err := s.Desk.FindSessions(v.Context(), v.who, session.Filter{Limit: 1})
	if err != nil || len(recorded) > 0 {
		return nil, err
	}
	gateway, err := s.Desk.Gateway()
	if err != nil {
		return nil, err
	}
	targets := len(s.Desk.Targets())
	used := func(states ...grant.State) bool {
		return slices.ContainsFunc(grants, func(g api.Grant) bool { return slices.Contains(states, grant.State(g.State)) })
	}
	mine := len(offers) > 0
	may := step{Done: mine, Name: "A policy lets you ask", What: "Those who run the gateway name one of your groups (" + strings.Join(v.who.Groups, ", ") + ") under policies in its configuration."}
	if !mine && s.maySome(v.who, grant.ListSessions) {
		may = step{Done: s.Desk.Policies() > 0, Name: "A policy lets engineers ask", What: "It stands under policies in the gateway's configuration: who, for which accounts, how long, approved by whom."}
	}
	asked := step{Done: len(grants) > 0, Name: "Somebody asked for access", What: "An engineer asks for an account on a target, and says why."}
	approved := step{Done: used(grant.Approved, grant.Active, grant.Ended), Name: "It was approved", What: "Somebody else decides, in the inbox or on the command line."}
	begin := step{Name: "The first session runs", What: "Through the gateway, with the stock programs. It is recorded from its first byte, and then shows under Sessions."}
	if mine {
		asked.Name, asked.What = "You asked for access", "Choose an account below and say why you need it."
		for _, o := range offers {
			if o.Kind == configs.KindPostgres {
				begin.Line = "psql service=" + o.Target
				break
			}
			begin.Line = "ssh " + o.Target
		}
	}
	return []step{
		{Done: targets > 0, Name: "A target is configured", What: "A database or host stands under targets in the gateway's configuration; “sallyport targets setup NAME” says what it needs."},
		may, asked, approved,
		{Name: "The engineer's machine is signed in", What: "Once a day; it also writes the files that psql and ssh read.", Line: "sallyport login --gateway " + gateway.URL},
		begin,
	}, nil
}

// askForm asks why, and for how long.
func (s *server) askForm(v *visit) error {
	return s.showAsk(v, v.URL.Query().Get("target"), v.URL.Query().Get("account"), nil)
}

// showAsk shows the form, with what was refused where it was.
func (s *server) showAsk(v *visit, target, account string, refused *asked) error {
	offers, err := s.Desk.Offers(v.Context(), v.who)
	if err != nil {
		return err
	}
	var found []api.Offer
	for _, o := range offers {
		if o.Target == target && o.Account == account {
			found = append(found, o)
		}
	}
	if len(found) == 0 {
		return refusal.New(refusal.NotFound, "there is nothing of that name that you may ask for").WithHint("see what you may ask for under Access")
	}
	last := found[len(found)-1] // the longest
	status, said := http.StatusOK, asked{Duration: suggest(last.MaxDuration)}
	if refused != nil {
		status, said = refused.Problem.Status, *refused
	}
	s.show(v, status, "ask.html", page{Title: "Ask for " + account + "@" + target, Path: home, Body: struct {
		api.Offer
		Said asked
	}{last, said}})
	return nil
}

// asked is what somebody wrote into the form that asks, and why it was not taken.
type asked struct {
	Duration, Reason, Ticket string
	Problem                  *api.Problem
}

// ask files a request.
func (s *server) ask(v *visit) error {
	g, err := s.Desk.Ask(v.Context(), v.who, api.GrantRequest{
		Target: v.PostForm.Get("target"), Account: v.PostForm.Get("account"),
		Duration: strings.TrimSpace(v.PostForm.Get("duration")), Reason: strings.TrimSpace(v.PostForm.Get("reason")),
		Ticket: strings.TrimSpace(v.PostForm.Get("ticket")),
	})
	if refusal.Is(err, refusal.Invalid) { // nothing that was written is lost
		return s.showAsk(v, v.PostForm.Get("target"), v.PostForm.Get("account"), &asked{
			Duration: v.PostForm.Get("duration"), Reason: v.PostForm.Get("reason"), Ticket: v.PostForm.Get("ticket"), Problem: s.Desk.Problem("ask", err),
		})
	}
	if err != nil {
		return err
	}
	return v.redirect("/console/requests/"+g.ID, "asked")
}

// stale is what somebody wrote about a request that had changed since they looked at it.
type stale struct{ Verb, Comment, Duration string }

// request is one request and what became of it.
func (s *server) request(v *visit) error { return s.showRequest(v, nil) }

// showRequest shows a request, and beside it what was not done because it had changed.
func (s *server) showRequest(v *visit, was *stale) error {
	g, err := s.Desk.Grant(v.Context(), v.who, v.PathValue("id"))
	if err != nil {
		return err
	}
	view := s.grantView(v.who, g)
	if view.Mine && g.EndedAt.IsZero() && g.State != string(grant.Pending) {
		gateway, err := s.Desk.Gateway()
		if err != nil {
			return err
		}
		connections, err := s.Desk.Connections(v.Context(), v.who)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(connections, func(c api.Connection) bool { return c.Name == g.Target }); i >= 0 {
			view.Lines = connect(gateway, connections[i], g.Account)
		}
	}
	if view.Decides {
		if view.Use, err = s.pastUse(v, g); err != nil {
			return err
		}
	}
	sessions, err := s.Desk.FindSessions(v.Context(), v.who, session.Filter{Grant: g.ID, Limit: 50})
	if err != nil {
		return err
	}
	at := home
	if !view.Mine && s.Desk.Approves(v.who.Identity) {
		at = "/console/inbox"
	}
	status := http.StatusOK
	if was != nil {
		status = http.StatusPreconditionFailed
	}
	s.show(v, status, "request.html", page{Title: g.Account + "@" + g.Target, Path: at, Body: struct {
		G        grantView
		Sessions []api.Session
		Stale    *stale
	}{view, sessions, was}})
	return nil
}

// decide does what the verb in the address says to a request.
func (s *server) decide(v *visit) error {
	id, verb, comment := v.PathValue("id"), v.PathValue("verb"), strings.TrimSpace(v.PostForm.Get("comment"))
	to := "/console/requests/" + url.PathEscape(id)
	// Who approves, denies or asks for more says yes or no to what they saw. Ending something needs no such care.
	if tag := v.PostForm.Get("seen"); tag != "" && (verb == "approve" || verb == "deny" || verb == "extend") {
		err := s.Desk.Unchanged(v.Context(), v.who, id, tag)
		if refusal.Is(err, api.Changed) {
			return s.showRequest(v, &stale{Verb: verb, Comment: comment, Duration: strings.TrimSpace(v.PostForm.Get("duration"))})
		}
		if err != nil {
			return err
		}
	}
	var err error
	switch verb {
	case "approve":
		_, err = s.Desk.Approve(v.Context(), v.who, id, comment)
		to = "/console/inbox"
	case "deny":
		_, err = s.Desk.Deny(v.Context(), v.who, id, comment)
		to = "/console/inbox"
	case "revoke":
		_, err = s.Desk.Revoke(v.Context(), v.who, id, comment)
	case "extend":
		_, err = s.Desk.Extend(v.Context(), v.who, id, api.ExtensionRequest{Duration: strings.TrimSpace(v.PostForm.Get("duration")), Reason: comment})
	case "review":
		_, err = s.Desk.Review(v.Context(), v.who, id, comment)
		to = "/console/inbox"
	case "release":
		_, err = s.Desk.Release(v.Context(), v.who, id)
		to = home
	default:
		return s.nothing(v)
	}
	if err != nil {
		return err
	}
	return v.redirect(to, verb)
}

// inbox is what waits for a decision, and what was decided lately.
func (s *server) inbox(v *visit) error {
	open, _, err := s.Desk.Grants(v.Context(), v.who, grant.Filter{Limit: mostMine})
	if err != nil {
		return err
	}
	past, _, err := s.Desk.Grants(v.Context(), v.who, grant.Filter{All: true, Limit: pastInbox, Keep: func(g grant.Grant) bool {
		return g.State != grant.Pending && g.Identity.Key() != v.who.Key()
	}})
	if err != nil {
		return err
	}
	var body struct {
		Waiting, Others, Past []grantView
		Reviews               []reviewView
	}
	reviews, err := s.Desk.Reviews(v.Context(), v.who)
	if err != nil {
		return err
	}
	for _, r := range reviews {
		view := reviewView{Review: r, G: s.grantView(v.who, r.Grant), Late: time.Now().After(r.Due)}
		view.Mine = !view.G.Mine && slices.ContainsFunc(r.Groups, func(group string) bool { return slices.Contains(v.who.Groups, group) })
		body.Reviews = append(body.Reviews, view)
	}
	for _, g := range open {
		view := s.grantView(v.who, g)
		switch {
		case view.Decides:
			if view.Use, err = s.pastUse(v, g); err != nil {
				return err
			}
			body.Waiting = append(body.Waiting, view)
		case g.State == string(grant.Pending) && !view.Mine:
			body.Others = append(body.Others, view)
		}
	}
	for _, g := range past {
		body.Past = append(body.Past, s.grantView(v.who, g))
	}
	s.show(v, http.StatusOK, "inbox.html", page{Title: "Inbox", Path: "/console/inbox", Body: body})
	return nil
}
