package ephemeral

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// These tests are about ways in which a role, or what it may do, could outlive its grant or its account.

// TestSweepSeesAll: a stray role is found behind however many others.
func TestSweepSeesAll(t *testing.T) {
	h := newHouse(t)
	many := func(do string) {
		t.Helper()
		_, err := h.run("postgres", "postgres", fmt.Sprintf("do $$ begin for i in 1..%d loop execute format('%s role %%I', %s || ' ' || i); end loop; end $$", page+10, do, literal(h.roles.prefix())))
		h.must(err)
	}
	many("create")
	defer many("drop")
	_, err := h.run("maker", "postgres", "create role "+identifier(h.roles.prefix()+"stray")+" login")
	h.must(err)
	h.eventually("the stray one is gone", func() bool { return !slices.Contains(h.roleNames(), h.roles.prefix()+"stray") })
}

// TestDroppedMeanwhileIsNotFound: a role whose grant ends while a sweep looks is no stray one.
func TestDroppedMeanwhileIsNotFound(t *testing.T) {
	h := newHouse(t)
	h.begin("g-ends")
	h.login("g-ends", "read", "postgres")
	var once sync.Once
	gone := make(chan bool, 1)
	h.mu.Lock()
	h.after = func(sql string) {
		if !strings.Contains(sql, "order by rolname") {
			return
		}
		once.Do(func() {
			h.end("g-ends")
			left := true
			for deadline := time.Now().Add(30 * time.Second); left && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				left = h.roles.row(h.roles.prefix()+"ends") != nil
			}
			gone <- !left
		})
	}
	h.mu.Unlock()
	if !<-gone {
		t.Fatal("it was not dropped")
	}
	h.clean()
	h.roles.Close() // so the sweep is over
	if found := h.events("role.found"); len(found) != 0 {
		t.Errorf("the audit log says %+v", found)
	}
}

// TestLockOfSomebodyElse: who takes the lock that a role is made and dropped under keeps nobody out and nothing there.
func TestLockOfSomebodyElse(t *testing.T) {
	h := newHouse(t)
	h.begin("g-locked")
	sum := sha256.Sum256([]byte("sallyport role " + h.roles.prefix() + "locked"))
	take := func(how string) *conn {
		t.Helper()
		c, err := h.connect(t.Context(), "other", "", "postgres")
		h.must(err)
		_, err = c.Query(fmt.Sprintf("select %s(%d)", how, int64(binary.BigEndian.Uint64(sum[:]))))
		h.must(err)
		return c
	}
	first := take("pg_advisory_lock")
	h.login("g-locked", "read", "postgres")
	if _, err := first.Query("select 1"); err == nil {
		t.Error("the session with the lock goes on")
	}
	take("pg_advisory_lock_shared")
	h.end("g-locked")
	h.clean()
	if failed := h.roles.Pending(); len(failed) != 0 {
		t.Errorf("pending: %+v", failed)
	}
}

// TestRoleFollowsItsAccount: what the account does not name any more, the next session has not; what others gave is theirs.
func TestRoleFollowsItsAccount(t *testing.T) {
	h := newHouse(t)
	h.begin("g-narrow")
	first := h.login("g-narrow", "write", "postgres")
	if _, err := first.Query("delete from stock where false"); err != nil {
		t.Fatal(err)
	}
	role := h.roleNames()[0]
	_, err := h.run("postgres", "postgres", "grant pg_monitor to "+identifier(role))
	h.must(err)
	second := h.login("g-narrow", "read", "postgres") // the same account by another configuration
	if rows, err := second.Query("select n from stock"); err != nil || rows[0][0] != "10" {
		t.Errorf("reading: %v, %v", rows, err)
	}
	if _, err := second.Query("delete from stock where false"); sqlState(err) != "42501" {
		t.Errorf("writing: %v", err)
	}
	rows, err := h.run("postgres", "postgres", "select pg_has_role("+literal(role)+", 'pg_monitor', 'member')")
	if err != nil || rows[0][0] != "t" {
		t.Errorf("what somebody else gave is gone: %v, %v", rows, err)
	}
	h.end("g-narrow")
	h.clean()
}
