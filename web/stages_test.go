package web_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/web/api"
)

// A request in stages is shown with them, by the API and on the console's pages, and only those whose turn it is are asked there;
// the report says who approved at which.
func TestStagesAreShown(t *testing.T) {
	r := newRig(t)
	c := *r.config
	c.Policies = slices.Clone(c.Policies)
	at := slices.IndexFunc(c.Policies, func(p configs.Policy) bool { return p.Name == "orders" })
	c.Policies[at].Approve = configs.Approve{Within: configs.Duration(time.Hour), Start: configs.Duration(time.Hour), Stages: []configs.Stage{
		{Name: "peer", Groups: []string{"approvers"}, Count: 1}, {Name: "owners", Groups: []string{"security"}, Count: 1},
	}}
	if err := r.grants.Reload(t.Context(), &c); err != nil {
		t.Fatal(err)
	}
	var e api.Explanation
	r.must("alice", "POST", "/v1/policy/explain", api.GrantRequest{Target: "orders", Account: "app", Reason: "INC-42: slow"}, &e)
	if e.Needed != 2 || len(e.Stages) != 2 || e.Stages[1].Name != "owners" || e.Stages[1].Needed != 1 {
		t.Errorf("%+v", e)
	}
	// So do the accounts that one may ask for, at the API and on the page.
	var offers []api.Offer
	r.must("alice", "GET", "/v1/targets", nil, &offers)
	if at := slices.IndexFunc(offers, func(o api.Offer) bool { return o.Policy == "orders" }); at < 0 || offers[at].ApprovedBy() != "approvers, then security" || offers[at].Stages[1].Name != "owners" {
		t.Errorf("%+v", offers)
	}
	alice := r.window("alice")
	for path, says := range map[string]string{"/console/": "Approved by a member of approvers, then security.", "/console/ask?target=orders&account=app": "It is approved by a member of approvers, then security."} {
		if page := alice.get(path); !strings.Contains(page.text, says) {
			t.Errorf("%s does not say %q: %s", path, says, page.text)
		}
	}
	g := r.request()
	if len(g.Stages) != 2 || g.Stages[0].State != "open" || g.Stages[1].State != "waiting" || g.WaitsFor() != "approvers (stage 1 of 2, peer)" {
		t.Fatalf("%+v", g.Stages)
	}
	path := "/console/requests/" + g.ID
	bob, carol := r.window("bob"), r.window("carol")
	if inbox := carol.get("/console/inbox"); strings.Contains(inbox.html, path+"/approve") || !strings.Contains(inbox.text, "stage 1 of 2, peer") {
		t.Errorf("whose turn it is not: %s", inbox.text)
	}
	if page := carol.get(path); strings.Contains(page.html, path+"/approve") || !strings.Contains(page.html, path+"/deny") || !strings.Contains(page.text, "not your turn") {
		t.Errorf("whose turn it is not: %s", page.text)
	}
	if early := carol.post(path+"/approve", url.Values{}); early.StatusCode != http.StatusConflict {
		t.Errorf("an early approval: %s", early.Status)
	}
	if page := bob.get(path); !strings.Contains(page.html, path+"/approve") || !strings.Contains(page.text, "stage 2 of 2, owners: 0 of 1 by security") {
		t.Errorf("whose turn it is: %s", page.text)
	}
	if done := bob.post(path+"/approve", url.Values{}); done.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", done.Status, done.text)
	}
	if page := bob.get(path); strings.Contains(page.html, path+"/approve") || !strings.Contains(page.text, "stage 1 of 2, peer: 1 of 1 by approvers, approved by Bob Approver") {
		t.Errorf("who has approved: %s", page.text)
	}
	if inbox := carol.get("/console/inbox"); !strings.Contains(inbox.html, path+"/approve") {
		t.Errorf("whose turn it is now: %s", inbox.text)
	}
	r.must("carol", "POST", "/v1/requests/"+g.ID+"/approve", api.Decision{}, &g)
	if g.State != "approved" || g.Votes[0].Stage != 1 || g.Votes[1].Stage != 2 || g.Stages[1].By[0] != "Carol Security" || g.Stages[1].State != "met" {
		t.Fatalf("%+v", g)
	}
	from, to := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	if code, body := r.call("carol", "GET", "/v1/reports/access?from="+url.QueryEscape(from)+"&to="+url.QueryEscape(to), nil); code != http.StatusOK ||
		!strings.Contains(string(body), "Bob Approver (stage 1 of 2, peer), Carol Security (stage 2 of 2, owners)") {
		t.Errorf("%d %s", code, body)
	}
}
