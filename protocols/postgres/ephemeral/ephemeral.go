// Package ephemeral makes a role on a PostgreSQL server for one grant, and drops it after the grant.
//
// What it promises:
//
//   - Intent before effect: a role's row is in the store before the role is on the server, and goes after it was seen to be
//     gone. Its name comes from the grant's id, so what is found without a row is known for what it is, and dropped.
//   - One grant, one role. Its privileges are those of the group roles that the account's configuration names, and nothing is
//     granted to it by itself. Each session begins with a new random password, which is never written down: the server is
//     given its SCRAM verifier. So what somebody makes the password meanwhile holds at most until the next session begins.
//   - Access never waits for any of this: sessions are cut by their lease, and VALID UNTIL bounds logins besides. The close is
//     tried until it is done, in the order forbid, end, give what is owned to the heir, drop, look. What is not done yet is seen with
//     Pending, and is an audit event (role.cleanup_stuck) where it takes long.
//   - A role is never made and dropped at the same time: each has a lock here, and an advisory lock on the server.
//
// The account that does it is the target's make_roles_with. It needs CREATEROLE, and ADMIN on the group roles (PostgreSQL 16 and
// later), membership in the heir, pg_signal_backend and pg_read_all_stats (PostgreSQL documentation, "Role Attributes", "Role
// Membership", "Dropping Roles").
package ephemeral

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/session"
)

// Conn is a connection of the gateway's own to a server, as the account that makes roles. Its errors that are the server's tell
// their SQLSTATE (see sqlState).
type Conn interface {
	// Query runs statements and returns the rows as text.
	Query(sql string) ([][]string, error)
}

// Reach runs do on a new connection to a database of the target: one act of the gateway's own, bounded and audited. An empty
// database is the one that the target's configuration names.
type Reach func(ctx context.Context, target configs.Target, database string, who authn.Identity, act session.ActKind, reason string,
	do func(context.Context, Conn) (outcome string, err error)) error

// Options configure Open; all are required.
type Options struct {
	Store *store.Store
	Log   *slog.Logger
	Reach Reach
	// Targets are those of the configuration as it is now.
	Targets func() []configs.Target
	// Running says until when a grant gives access as it stands, and whether it does.
	Running func(grant string) (until time.Time, running bool)
}

// Roles are the roles of one gateway. Safe for concurrent use.
type Roles struct {
	Options
	tag    string
	times  times
	cancel context.CancelFunc
	over   sync.WaitGroup
	nudge  chan struct{}

	mu      sync.Mutex
	rows    map[string]*row          // by name; as last committed
	locks   map[string]chan struct{} // by name
	working map[string]bool          // targets on which roles are being dropped
	later   map[string]outage        // targets that can't be reached
}

// outage is a target that could not be reached.
type outage struct {
	until   time.Time
	tries   int
	alarmed time.Time
}

// times are how long things wait.
type times struct {
	first, most time.Duration // between two tries
	stuck       time.Duration // until somebody is told
	again       time.Duration // until they are told again
	sweep       time.Duration // between two looks for roles without a row
	settle      time.Duration // after something has happened
}

var patience = times{
	first: time.Second, most: 10 * time.Minute, stuck: 10 * time.Minute, again: 24 * time.Hour, sweep: time.Hour, settle: 20 * time.Millisecond,
}

// Open reads which roles there are and starts to drop those whose grant is over, and what is found on targets without a row.
func Open(ctx context.Context, o Options) (*Roles, error) { return open(ctx, o, patience) }

func open(ctx context.Context, o Options, t times) (*Roles, error) {
	r := &Roles{
		Options: o, times: t, nudge: make(chan struct{}, 1), rows: map[string]*row{}, locks: map[string]chan struct{}{},
		working: map[string]bool{}, later: map[string]outage{},
	}
	if err := r.load(ctx); err != nil {
		return nil, fmt.Errorf("open the roles made for grants: %w", err)
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel = cancel
	r.over.Go(func() { r.keep(running) })
	r.over.Go(func() { r.sweeps(running) })
	return r, nil
}

// Close stops; what is not dropped yet is at the next start.
func (r *Roles) Close() {
	r.cancel()
	r.over.Wait()
}

// Wanted is whose role it is.
type Wanted struct {
	Grant   string
	Who     authn.Identity
	Target  configs.Target
	Account configs.Account
}

// Login is what one session logs in with.
type Login struct {
	User, Password string
	done           func()
}

// Done says that the login is over, whether it succeeded or not. Until then no other session of the grant gets one, as each has a
// password of its own.
func (l Login) Done() { l.done() }

// Login makes the role of a grant, or gives it a new password where it is there. It refuses with NoGrant once the grant is over.
func (r *Roles) Login(ctx context.Context, w Wanted) (Login, error) {
	name, err := r.name(w.Grant)
	if err != nil {
		return Login{}, err
	}
	unlock, err := r.lock(ctx, name)
	if err != nil {
		return Login{}, err
	}
	l, err := r.login(ctx, name, w)
	if err != nil {
		unlock()
		r.wake() // where the grant is over, what was made goes
		return Login{}, err
	}
	l.done = unlock
	return l, nil
}

func (r *Roles) login(ctx context.Context, name string, w Wanted) (Login, error) {
	until, running := r.Running(w.Grant)
	if !running {
		return Login{}, overRefusal(w.Grant)
	}
	if err := r.intend(ctx, name, w); err != nil {
		return Login{}, err
	}
	password, verifier, err := newPassword()
	if err != nil {
		return Login{}, err
	}
	reason := fmt.Sprintf("role %s for grant %s", name, w.Grant)
	err = r.Reach(ctx, w.Target, "", w.Who, session.ActMakeRole, reason, func(_ context.Context, c Conn) (string, error) {
		return makeRole(c, name, verifier, until.Add(loginsAfter), w)
	})
	if err != nil {
		return Login{}, notMade(w, err)
	}
	if err := r.made(ctx, name, w); err != nil {
		return Login{}, err
	}
	return Login{User: name, Password: password}, nil
}

// loginsAfter is how long after the grant's end its role could still log in by the server's clock, so that one which is fast does
// not end it early. By then the role is dropped; and the gateway lets nobody in after the grant's end anyway.
const loginsAfter = 5 * time.Minute

func overRefusal(grant string) error {
	return refusal.New(refusal.NoGrant, "grant %s is over", grant).WithHint("see what you may ask for with: sallyport targets")
}

// notMade tells the user in a few words; the server's are for who runs it.
func notMade(w Wanted, err error) error {
	if r := refusal.Of(err); r != nil && r.Code != refusal.TargetFailed {
		return err
	}
	return refusal.New(refusal.TargetFailed, "no role could be made for you on target %s", w.Target.Name).
		WithDetail("Account %s has a role made for each grant, by account %s of the target.", w.Account.Name, w.Target.MakeRolesWith).
		WithHint("an administrator can look with: sallyport targets check %s", w.Target.Name).Because(err)
}

// Pending is a role that is still there although its grant is over.
type Pending struct {
	Role, Grant, Target, Account string
	Ended                        time.Time // when the grant was found over; access had ended then
	Attempts                     int
	Next                         time.Time // when it is tried again
	Stuck                        bool      // for so long that it was said aloud
	Error                        string    // of the last try
}

// Pending are those, the oldest first.
func (r *Roles) Pending() []Pending {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pending()
}

// Live is how many roles there are for grants that go on.
func (r *Roles) Live() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range r.rows {
		if row.state != dropping {
			n++
		}
	}
	return n
}

// Retry has what waits on a target tried at once.
func (r *Roles) Retry(target string) {
	r.mu.Lock()
	delete(r.later, target)
	for name, one := range r.rows {
		if one.target == target && one.state == dropping {
			now := *one
			now.next = time.Time{}
			r.rows[name] = &now
		}
	}
	r.mu.Unlock()
	r.wake()
}

// Owner is the grant that one of this gateway's roles was made for.
func (r *Roles) Owner(role string) (grant string, ours bool) { return r.grantOf(role) }

// lock waits for the role's lock.
func (r *Roles) lock(ctx context.Context, name string) (unlock func(), err error) {
	r.mu.Lock()
	lock := r.locks[name]
	if lock == nil {
		lock = make(chan struct{}, 1)
		r.locks[name] = lock
	}
	r.mu.Unlock()
	select {
	case lock <- struct{}{}:
		return func() { <-lock }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// tryLock takes it where it is free.
func (r *Roles) tryLock(name string) (unlock func(), taken bool) {
	now, cancel := context.WithCancelCause(context.Background())
	cancel(errBusy)
	for range 2 { // of two ways that are open, select takes any
		if unlock, err := r.lock(now, name); err == nil {
			return unlock, true
		}
	}
	return nil, false
}

var errBusy = errors.New("a session is beginning with it")

// wake has the keeper look.
func (r *Roles) wake() {
	select {
	case r.nudge <- struct{}{}:
	default:
	}
}
