package provider

import (
	"net/http"
	"slices"
)

// account is what an administrator of the provider does to somebody: it takes name and password of that person, and then
// disabled=true or disabled=false, and each group=NAME that they are to be in (none: the groups stay; one that is empty: no group).
// Nothing tells the relying party; it finds out when it asks.
func (s *storage) account(w http.ResponseWriter, r *http.Request) {
	name := r.PostFormValue("name")
	if err := s.known(name, r.PostFormValue("password")); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	user := s.users[name]
	if groups := r.PostForm["group"]; len(groups) > 0 {
		user.Groups = slices.DeleteFunc(slices.Clone(groups), func(group string) bool { return group == "" })
	}
	switch r.PostFormValue("disabled") {
	case "true":
		user.Disabled = true
	case "false":
		user.Disabled = false
	}
	s.users[name] = user
	w.WriteHeader(http.StatusNoContent)
}
