//go:build unix

package attacks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/test/rig"
)

// race opens sessions as fast as it goes while their grant is revoked. None that begins after the answer to the revoking is let in, and
// none of those that were on their way lives on.
func (s *scene) race(t *testing.T) {
	admin := s.admin(t)
	config, err := pgx.ParseConfig(s.Env["SALLYPORT_PG_SUPERUSER"])
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = "racer"
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for round := range 2 {
		id := s.superuserGrant(t)
		var revoked, over atomic.Bool
		var in atomic.Int64
		var racers sync.WaitGroup
		for range 6 {
			racers.Go(func() {
				for !over.Load() && ctx.Err() == nil {
					late := revoked.Load()
					conn, err := pgx.ConnectConfig(ctx, config)
					if err != nil {
						continue
					}
					in.Add(1)
					if late {
						t.Errorf("round %d: let in after the grant was revoked", round)
					}
					if _, err := conn.Exec(ctx, "SELECT pg_sleep(0.05)"); err == nil && late {
						t.Errorf("round %d: a statement ran after the grant was revoked", round)
					}
					go func() { <-ctx.Done(); conn.Close(context.WithoutCancel(ctx)) }() // it is kept open
				}
			})
		}
		rig.Until(t, time.Minute, "sessions begin", func() error {
			if n := in.Load(); n < 8 {
				return fmt.Errorf("%d so far", n)
			}
			return nil
		})
		out := s.As("carol", "revoke", id)
		revoked.Store(true)
		if out.Code != 0 {
			t.Fatal(out.Text())
		}
		rig.Until(t, 30*time.Second, "the target has none of them", func() error {
			var n int
			err := admin.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'racer'").Scan(&n)
			if err == nil && n > 0 {
				err = fmt.Errorf("%d are left", n)
			}
			return err
		})
		over.Store(true)
		racers.Wait()
		rig.Until(t, 30*time.Second, "none of its sessions is listed", func() error {
			var sessions []struct{ ID, Grant string }
			s.Ask(&sessions, "carol", "sessions")
			for _, session := range sessions {
				if session.Grant == id {
					return errors.New(session.ID + " is")
				}
			}
			return nil
		})
	}
	s.undisturbed()
}

// superuserGrant is Alice's grant for postgres@orders, a new one if she has none.
func (s *scene) superuserGrant(t *testing.T) string {
	t.Helper()
	var grants []struct{ ID, Account, State string }
	s.Ask(&grants, "alice", "grants")
	for _, g := range grants {
		if g.Account == "postgres" && (g.State == "active" || g.State == "approved") {
			return g.ID
		}
	}
	var asked struct{ ID string }
	s.Ask(&asked, "alice", "request", "postgres@orders", "--duration", "30m", "--reason", "racing")
	if out := s.As("bob", "approve", asked.ID); out.Code != 0 {
		t.Fatal(out.Text())
	}
	return asked.ID
}

// decideAtOnce has a request approved, denied and taken back by several at the same time: one of it is what happened, once.
func (s *scene) decideAtOnce(t *testing.T) {
	s.As("alice", "release", s.superuserGrant(t))
	for range 2 {
		var asked struct{ ID string }
		s.Ask(&asked, "alice", "request", "postgres@orders", "--duration", "10m", "--reason", "all at once")
		start := make(chan struct{})
		var deciding sync.WaitGroup
		for _, c := range [][]string{{"bob", "approve"}, {"bob", "deny"}, {"bob", "approve"}, {"bob", "deny"}, {"alice", "release"}, {"alice", "approve"}} {
			deciding.Go(func() {
				<-start
				if out := s.As(c[0], c[1], asked.ID); c[0] == "alice" && c[1] == "approve" && out.Code == 0 {
					t.Errorf("alice approved her own request: %s", out.Text())
				}
			})
		}
		close(start)
		deciding.Wait()
		var happened []string
		rig.Until(t, 20*time.Second, "the audit log tells what was decided", func() error {
			happened = nil
			events := json.NewDecoder(strings.NewReader(s.As("carol", "audit", "--json").Stdout))
			for events.More() {
				var raw json.RawMessage
				var e struct{ Kind string }
				if err := events.Decode(&raw); err != nil {
					return err
				}
				if err := json.Unmarshal(raw, &e); err != nil {
					return err
				}
				if strings.Contains(string(raw), asked.ID) && strings.HasPrefix(e.Kind, "grant.") && e.Kind != "grant.requested" {
					happened = append(happened, e.Kind)
				}
			}
			if len(happened) == 0 {
				return errors.New("nothing yet")
			}
			return nil
		})
		count := map[string]int{}
		for _, kind := range happened {
			count[kind]++
		}
		approved, denied, over := count["grant.approved"], count["grant.denied"], count["grant.withdrawn"]+count["grant.ended"]
		if approved+denied > 1 || over > 1 || denied+over > 1 || approved+denied+over == 0 {
			t.Errorf("of %s: %q", asked.ID, happened)
		}
		s.As("alice", "release", asked.ID) // where it was approved
	}
	s.undisturbed()
}
