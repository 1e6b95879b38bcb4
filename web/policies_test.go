package web_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/web"
	"sallyport/web/api"
)

// TestHeldPolicies states that a change of policies that may widen access is shown in the console with what is different and who made it,
// and is confirmed or rejected there by somebody else who has signed in lately: not by who made it, and not in passing.
func TestHeldPolicies(t *testing.T) {
	r := newRig(t)
	load := func(change func(*configs.Config)) error {
		t.Helper()
		text, err := json.Marshal(r.config)
		if err != nil {
			t.Fatal(err)
		}
		c := &configs.Config{}
		if err := json.Unmarshal(text, c); err != nil {
			t.Fatal(err)
		}
		change(c)
		err = r.grants.Reload(t.Context(), c)
		if err == nil {
			r.config = c
		}
		return err
	}
	if err := load(func(c *configs.Config) {
		c.PolicyChanges.Confirm = true
		c.Permissions = append(c.Permissions, configs.Permission{Groups: []string{"approvers"}, May: []string{"policies.confirm"}})
	}); err != nil {
		t.Fatal(err)
	}
	longer := func(hours int) func(c *configs.Config) {
		return func(c *configs.Config) {
			c.PolicyChanges.MadeBy = "Bob@Example.com"
			c.Policies[1].MaxDuration = configs.Duration(time.Duration(hours) * time.Hour)
			c.Policies[1].Approve.Groups = append(c.Policies[1].Approve.Groups, "<script>alert(1)</script>")
		}
	}
	if err := load(longer(9)); !refusal.Is(err, refusal.Conflict) {
		t.Fatal(err)
	}
	bob, carol, alice := r.window("bob"), r.window("carol"), r.window("alice")
	if page := carol.get("/console/policies"); !strings.Contains(page.html, `href="/console/policies/held"`) {
		t.Errorf("nothing on the page of policies says that a change waits: %s", page.text)
	}
	if page := alice.get("/console/policies"); strings.Contains(page.html, "/console/policies/held") {
		t.Errorf("who may not decide is led to it")
	}
	page := carol.get("/console/policies/held")
	for _, want := range []string{"Made by Bob@Example.com", "policy orders", "may widen", "max_duration", "8h", "9h", "approve.groups", "approvers"} {
		if !strings.Contains(page.text, want) {
			t.Errorf("the page does not say %q: %s", want, page.text)
		}
	}
	if strings.Contains(page.html, "<script>alert") || !strings.Contains(page.html, "&lt;script&gt;alert") {
		t.Errorf("what stands in a policy is not text")
	}
	held := func() api.HeldPolicies {
		t.Helper()
		_, body := r.call("carol", "GET", "/v1/policies/held", nil)
		var all []api.HeldPolicies
		if err := json.Unmarshal(body, &all); err != nil || len(all) != 1 {
			t.Fatalf("%s", body)
		}
		return all[0]
	}
	h := held()
	if h.MadeBy != "Bob@Example.com" || len(h.Differences) != 2 {
		t.Fatalf("%+v", h)
	}
	at := "/console/policies/held/" + h.Revision

	// Who made it decides nothing, and is shown no form.
	if page := bob.get("/console/policies/held"); strings.Contains(page.html, "/confirm") || !strings.Contains(page.text, "somebody else has to decide") {
		t.Errorf("who made it is offered to decide: %s", page.text)
	}
	for _, verb := range []string{"confirm", "reject"} {
		if page := bob.post(at+"/"+verb, nil); page.StatusCode != http.StatusForbidden || !strings.Contains(page.text, "ou made this change") {
			t.Errorf("%s by who made it: %s %s", verb, page.Status, page.text)
		}
		if status, body := r.call("bob", "POST", "/v1/policies/"+h.Revision+"/"+verb, map[string]any{}); status != http.StatusForbidden {
			t.Errorf("%s by who made it, at the API: %d %s", verb, status, body)
		}
	}
	// It takes a sign-in of the last minutes, by whatever the configuration asks for, and without that.
	r.config.StepUp = []configs.StepUp{{For: []string{"policies.confirm"}, Within: configs.Duration(time.Nanosecond)}}
	for _, verb := range []string{"confirm", "reject"} {
		page := carol.post(at+"/"+verb, nil)
		if page.StatusCode != http.StatusUnauthorized || !strings.Contains(page.html, "fresh=1") || !strings.Contains(page.html, "next=%2fconsole%2fpolicies%2fheld") {
			t.Errorf("%s with an old sign-in: %s %s", verb, page.Status, page.html)
		}
	}
	r.config.StepUp = nil
	who, err := r.options.Authn.Bearer(t.Context(), r.tokens["carol"])
	if err != nil {
		t.Fatal(err)
	}
	if err := web.MayDecidePolicies(t.Context(), r.options, who); err != nil {
		t.Errorf("signed in just now: %v", err)
	}
	who.SignedIn, who.AuthTime = time.Now().Add(-time.Hour), time.Time{}
	if err := web.MayDecidePolicies(t.Context(), r.options, who); !refusal.Is(err, refusal.StepUp) {
		t.Errorf("signed in an hour ago: %v", err)
	}
	if who.AuthTime = time.Now(); web.MayDecidePolicies(t.Context(), r.options, who) != nil {
		t.Errorf("proven anew, it is refused")
	}

	// Rejected, it stays out, and can't be confirmed; put back and loaded again it waits anew.
	if page := carol.post(at+"/reject", url.Values{"comment": {"nobody needs that"}}); page.StatusCode != http.StatusOK || !strings.Contains(page.text, "Rejected by Carol Security") || !strings.Contains(page.text, "nobody needs that") {
		t.Errorf("%s %s", page.Status, page.text)
	}
	if page := carol.post(at+"/confirm", nil); page.StatusCode != http.StatusConflict {
		t.Errorf("what was rejected is confirmed: %s %s", page.Status, page.text)
	}
	if err := load(longer(9)); !refusal.Is(err, refusal.Conflict) || !strings.Contains(refusal.Of(err).Message, "rejected by") {
		t.Errorf("loaded again: %v", err)
	}
	if err := load(func(*configs.Config) {}); err != nil {
		t.Fatal(err)
	}
	if err := load(longer(9)); !refusal.Is(err, refusal.Conflict) || held().RejectedBy != "" {
		t.Errorf("put back and loaded again: %v, %+v", err, held())
	}
	if page := carol.post(at+"/confirm", nil); page.StatusCode != http.StatusOK || !strings.Contains(page.text, "Confirmed") {
		t.Errorf("%s %s", page.Status, page.text)
	}
	if err := load(longer(9)); err != nil || r.config.Policies[1].MaxDuration.D() != 9*time.Hour {
		t.Errorf("what was confirmed does not come into force: %v", err)
	}
	audit := strings.Join(r.audited("carol"), "\n")
	for _, want := range []string{"policy.rejected", "policy.confirmed", "api.refused step_up"} {
		if !strings.Contains(audit, want) {
			t.Errorf("the audit log has no %s: %s", want, audit)
		}
	}
	if audit := strings.Join(r.audited("bob"), "\n"); !strings.Contains(audit, "policy.confirm_refused") || !strings.Contains(audit, "policy.reject_refused") {
		t.Errorf("the audit log has not that who made it was refused: %s", audit)
	}
}
