package authn

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/configs"
	"sallyport/internal/store"
)

// readGroupsEvery is how soon a change of the file of groups counts.
const readGroupsEvery = 5 * time.Second

// groupFile are the groups that config.GroupFile tells of. The zero value has none.
type groupFile struct {
	of atomic.Pointer[map[string][]string] // by Identity.Key; replaced whole

	mu      sync.Mutex // of one who reads it
	problem string     // with it, as it was last told
}

// readGroups reads the file and takes it in whole, if it changed. One that can't be read leaves what is known as it is, and is
// told in the log and the audit log (groups.broken), once for each way in which it is broken; the error is only the store's.
func (s *Service) readGroups(ctx context.Context) error {
	if s.config.GroupFile == "" {
		return nil
	}
	s.file.mu.Lock()
	defer s.file.mu.Unlock()
	groups, err := configs.ReadGroups(s.config.GroupFile)
	if err != nil {
		problem := err.Error()
		if problem == s.file.problem {
			return nil
		}
		s.log.Error("the file of groups is broken; the groups that were read before still count", "err", err)
		if err := s.store.Audit(ctx, store.AuditEvent{Kind: "groups.broken", Actor: system.Actor, Reason: problem, Fields: map[string]string{"file": s.config.GroupFile}}); err != nil {
			return err
		}
		s.file.problem = problem
		return nil
	}
	of, members := s.byMember(groups)
	if before := s.file.of.Load(); before != nil && s.file.problem == "" && sameGroups(*before, of) {
		return nil
	}
	// First the event, so that nobody has a right of which nothing is written.
	if err := s.store.Audit(ctx, store.AuditEvent{Kind: "groups.loaded", Actor: system.Actor, Fields: map[string]string{
		"file": s.config.GroupFile, "groups": strconv.Itoa(len(groups)), "members": strconv.Itoa(members),
	}}); err != nil {
		return err
	}
	s.file.of.Store(&of)
	s.file.problem = ""
	return nil
}

// byMember are the groups of each member, by Identity.Key, and how many memberships there are.
func (s *Service) byMember(groups map[string][]string) (of map[string][]string, members int) {
	of = map[string][]string{}
	for group, list := range groups {
		for _, member := range list {
			key := member
			if !strings.Contains(key, " ") {
				key = Identity{Issuer: s.config.Provider.Issuer, Subject: member}.Key()
			}
			if !slices.Contains(of[key], group) {
				of[key] = append(of[key], group)
				members++
			}
		}
	}
	for _, list := range of {
		slices.Sort(list)
	}
	return of, members
}

func sameGroups(a, b map[string][]string) bool {
	if len(a) != len(b) {
		return false
	}
	for key, groups := range a {
		if other, known := b[key]; !known || !slices.Equal(groups, other) {
			return false
		}
	}
	return true
}

// withFile are the groups of a person by their provider, and by the file.
func (s *Service) withFile(who Identity) []string {
	of := s.file.of.Load()
	if of == nil || who.Kind != Human {
		return who.Groups
	}
	all := slices.Clone(who.Groups)
	for _, group := range (*of)[who.Key()] {
		if !slices.Contains(all, group) {
			all = append(all, group)
		}
	}
	return all
}
