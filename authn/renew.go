package authn

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/authn/federation"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// renewWait is how long a request that opens no session waits to hear what the provider says of its sender now.
const renewWait = 3 * time.Second

// renew keeps what a provider said, asked again with a sign-in's refresh token, and tells those who listen where that changes a
// person's groups. Some providers repeat what they said at the sign-in for as long as it lasts: so only what differs from what
// they last said with this one is news, and an older sign-in brings back nothing that a newer one has lost.
func (s *Service) renew(ctx context.Context, who Identity, v *voucher, said federation.Renewed, now time.Time) error {
	if said.Silent {
		said.GroupsIn = v.groupsIn
	}
	groups := inJSON(said.Groups)
	news := !said.Silent && groups != v.groups
	if said.Silent {
		groups = v.groups
	}
	changed := false
	err := s.store.Do(ctx, func(tx *store.Tx) error {
		done, err := tx.ExecContext(ctx, `UPDATE vouchers SET token = ?, vouched = ?, asked = ?, groups = ?, groups_in = ? WHERE sign_in = ?`,
			v.token, stamp(now), stamp(now), groups, said.GroupsIn, v.signIn)
		if err != nil {
			return fmt.Errorf("note what the provider said: %w", err)
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 { // the sign-in has ended meanwhile
			return err
		}
		id := identityID(who.Issuer, who.Subject)
		if _, err := tx.ExecContext(ctx, `UPDATE identities SET name = CASE WHEN ? = '' THEN name ELSE ? END, email = CASE WHEN ? = '' THEN email ELSE ? END WHERE id = ?`,
			said.Name, said.Name, said.Email, said.Email, id); err != nil {
			return fmt.Errorf("note what the provider said: %w", err)
		}
		if !news {
			return nil
		}
		var before []string
		var kept []byte
		if err := tx.QueryRowContext(ctx, `SELECT groups FROM identities WHERE id = ?`, id).Scan(&kept); err != nil {
			return fmt.Errorf("the groups of %s: %w", who.Key(), err)
		}
		if err := json.Unmarshal(kept, &before); err != nil {
			return fmt.Errorf("the groups of %s: %w", who.Key(), err)
		}
		lost, gained := without(before, said.Groups), without(said.Groups, before)
		if changed = len(lost)+len(gained) > 0; !changed {
			return nil
		}
		if _, err := tx.ExecContext(ctx, `UPDATE identities SET groups = ? WHERE id = ?`, groups, id); err != nil {
			return fmt.Errorf("note the groups of %s: %w", who.Key(), err)
		}
		return tx.Audit(groupsChanged(who, "the provider names others now", lost, gained))
	})
	if err == nil && changed {
		err = s.tell(ctx, who)
	}
	return err
}

// groupsChanged is the event of it.
func groupsChanged(who Identity, why string, lost, gained []string) store.AuditEvent {
	return store.AuditEvent{Kind: "groups.changed", Actor: system.Actor, Reason: why, Fields: map[string]string{
		"identity": who.Key(), "name": who.Label(), "lost": listed(lost), "gained": listed(gained),
	}}
}

// listed is a list of groups as an audit event holds it.
func listed(groups []string) string { return printable(strings.Join(groups, ", "), 4096) }

// without are those of all that are not in some.
func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(one string) bool { return slices.Contains(some, one) })
}

// inJSON is a list of groups as the tables hold it.
func inJSON(groups []string) string {
	text, _ := json.Marshal(append([]string{}, groups...)) // of texts it can't fail
	return string(text)
}

// changes are those who want to know of changed groups, and of ended sign-ins. The zero value is ready.
type changes struct {
	mu       sync.Mutex
	told     []func(context.Context, Identity) error
	watching map[string]map[chan struct{}]struct{} // by Identity.Key
}

// Watch has a channel ready whenever sign-ins of an identity have ended here, so that whoever holds something for it asks for its
// Standing at once; what another gateway ends is only found by asking. Call stop when it is not needed any more.
func (s *Service) Watch(who Identity) (ended <-chan struct{}, stop func()) {
	c, key, one := &s.changes, who.Key(), make(chan struct{}, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watching == nil {
		c.watching = map[string]map[chan struct{}]struct{}{}
	}
	if c.watching[key] == nil {
		c.watching[key] = map[chan struct{}]struct{}{}
	}
	c.watching[key][one] = struct{}{}
	return one, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if delete(c.watching[key], one); len(c.watching[key]) == 0 {
			delete(c.watching, key)
		}
	}
}

func (c *changes) stir(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for one := range c.watching[key] {
		select {
		case one <- struct{}{}:
		default:
		}
	}
}

// OnChange has f called after the groups of a person have changed at their provider, with the person as known now. Whoever asked for
// their standing meanwhile waits for f, which must not ask for it itself; its error is theirs.
func (s *Service) OnChange(f func(context.Context, Identity) error) {
	s.changes.mu.Lock()
	defer s.changes.mu.Unlock()
	s.changes.told = append(s.changes.told, f)
}

func (s *Service) tell(ctx context.Context, who Identity) error {
	now, err := s.Current(ctx, who)
	if err != nil {
		return err
	}
	s.changes.mu.Lock()
	told := slices.Clone(s.changes.told)
	s.changes.mu.Unlock()
	for _, f := range told {
		err = errors.Join(err, f(ctx, now))
	}
	return err
}

// Current is the identity with name, e-mail and groups as they are known now, from all that names any; what else it holds stays as
// it is. It asks no provider.
func (s *Service) Current(ctx context.Context, who Identity) (Identity, error) {
	var groups, directory []byte
	err := s.store.Read().QueryRowContext(ctx, `SELECT kind, name, email, groups, directory FROM identities WHERE id = ?`, identityID(who.Issuer, who.Subject)).
		Scan(&who.Kind, &who.Name, &who.Email, &groups, &directory)
	if errors.Is(err, sql.ErrNoRows) {
		return Identity{}, refusal.New(refusal.NotFound, "%s never signed in here", who.Key())
	}
	if err != nil {
		return Identity{}, fmt.Errorf("look up %s: %w", who.Key(), err)
	}
	if err := who.name(groups, directory); err != nil {
		return Identity{}, err
	}
	who.Groups = s.withFile(who)
	return who, nil
}

// asNow is a standing as the provider sees it now, for what opens no session: it refuses who is withdrawn. Where the provider can't be
// asked, or not quickly, what is known still counts: session and grant see to it that nothing begins then.
func (s *Service) asNow(ctx context.Context, st standing) (standing, error) {
	asking, cancel := context.WithTimeout(ctx, renewWait)
	defer cancel()
	if err := s.vouchedFor(asking, st.Identity); refusal.Is(err, refusal.IdentityDisabled) {
		return standing{}, err
	}
	now, err := s.Current(ctx, st.Identity)
	if err != nil {
		return standing{}, err
	}
	st.Identity = now
	return st, nil
}
