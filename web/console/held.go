package console

import (
	"net/http"
	"slices"
	"strings"

	"sallyport/grant"
	"sallyport/web/api"
)

// heldPath is the page of policies that wait for a second person.
const heldPath = "/console/policies/held"

// heldView is a set of policies that waits, for those who decide on it.
type heldView struct {
	api.HeldPolicies
	Groups []heldGroup
	Mine   bool // whoever looks is said to have made it
}

// heldGroup is what is different in one policy, role, target or the like.
type heldGroup struct {
	What   string
	Widens bool // it may give somebody more
	Fields []api.PolicyDifference
}

// held shows the policies that wait, what is different, and what of it may give somebody more.
func (s *server) held(v *visit) error {
	all, err := s.Desk.HeldPolicies(v.Context(), v.who)
	if err != nil {
		return err
	}
	var body struct{ Held []heldView }
	for _, h := range all {
		view := heldView{HeldPolicies: h}
		view.Mine = h.MadeBy != "" && (strings.EqualFold(h.MadeBy, v.who.Email) || h.MadeBy == v.who.Subject || h.MadeBy == v.who.Key())
		for _, d := range h.Differences {
			if n := len(view.Groups); n == 0 || view.Groups[n-1].What != d.What {
				// What widens is said of targets as a whole.
				widens := slices.Contains(h.Widens, d.What) || strings.HasPrefix(d.What, "target ") && slices.Contains(h.Widens, "targets") ||
					strings.HasPrefix(d.What, "evidence ") && slices.Contains(h.Widens, "evidence")
				view.Groups = append(view.Groups, heldGroup{What: d.What, Widens: widens})
			}
			last := &view.Groups[len(view.Groups)-1]
			last.Fields = append(last.Fields, d)
		}
		body.Held = append(body.Held, view)
	}
	s.show(v, http.StatusOK, "held.html", page{Title: "Policies that wait", Path: "/console/policies", Body: body})
	return nil
}

// decideHeld confirms or rejects them.
func (s *server) decideHeld(v *visit) (err error) {
	revision, verb := v.PathValue("revision"), v.PathValue("verb")
	switch verb {
	case "confirm":
		_, err = s.Desk.ConfirmPolicies(v.Context(), v.who, revision)
	case "reject":
		_, err = s.Desk.RejectPolicies(v.Context(), v.who, revision, strings.TrimSpace(v.PostForm.Get("comment")))
	default:
		return s.nothing(v)
	}
	if err != nil {
		return err
	}
	return v.redirect(heldPath, "policies-"+verb)
}

// waitingPolicies is how many sets of policies wait for the word of whoever looks.
func (s *server) waitingPolicies(v *visit) (int, error) {
	if !s.Desk.May(v.who.Identity, grant.ConfirmPolicies, "") {
		return 0, nil
	}
	all, err := s.Desk.HeldPolicies(v.Context(), v.who)
	return len(slices.DeleteFunc(all, func(h api.HeldPolicies) bool { return h.Confirmed || h.RejectedBy != "" })), err
}
