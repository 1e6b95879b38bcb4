package ephemeral

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/session"
)

// batch is how many roles one connection drops at the most, and batchTime for how long it begins with another: an act is bounded.
const (
	batch     = 50
	batchTime = 4 * time.Second
)

// keep drops the roles of grants that are over, until ctx ends.
func (r *Roles) keep(ctx context.Context) {
	var workers = make(chan struct{})
	busy := 0
	for {
		committed := r.Store.Committed() // whatever ends a grant is audited
		r.condemn(ctx)
		for target, rows := range r.due() {
			busy++
			go func() {
				defer func() { workers <- struct{}{} }()
				r.dropOn(ctx, target, rows)
			}()
		}
		timer := time.NewTimer(r.untilNext())
		select {
		case <-ctx.Done():
			timer.Stop()
			for ; busy > 0; busy-- {
				<-workers
			}
			return
		case <-workers:
			busy--
		case <-committed:
			select { // what comes at once is looked at once
			case <-time.After(r.times.settle):
			case <-ctx.Done():
			}
		case <-r.nudge:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// condemn finds the roles whose grant is over.
func (r *Roles) condemn(ctx context.Context) {
	r.mu.Lock()
	var all []row
	for _, one := range r.rows {
		if one.state != dropping {
			all = append(all, *one)
		}
	}
	r.mu.Unlock()
	for _, one := range all {
		if _, running := r.Running(one.grant); running {
			continue
		}
		from := one.state
		one.state, one.ended = dropping, time.Now()
		if err := r.move(ctx, from, one, store.AuditEvent{}); err != nil && !errors.Is(err, errMoved) && ctx.Err() == nil {
			r.Log.Error("it could not be kept that a role is to be dropped", "role", one.name, "target", one.target, "error", err)
		}
	}
}

// due takes the roles that are to be dropped now, by target, at most one batch each.
func (r *Roles) due() map[string][]row {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string][]row{}
	for _, one := range r.rows {
		if one.state == dropping && !one.next.After(now) && !r.later[one.target].until.After(now) && !r.working[one.target] {
			all[one.target] = append(all[one.target], *one)
		}
	}
	for target, rows := range all {
		slices.SortFunc(rows, func(a, b row) int { // what failed before does not hold up what is new
			return cmp.Or(cmp.Compare(a.attempts, b.attempts), a.ended.Compare(b.ended))
		})
		all[target] = rows[:min(len(rows), batch)]
		r.working[target] = true
	}
	return all
}

// untilNext is how long nothing is due.
func (r *Roles) untilNext() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := time.Minute // grants end by time, too
	for _, one := range r.rows {
		if one.state != dropping || r.working[one.target] {
			continue
		}
		next := one.next
		if away := r.later[one.target].until; away.After(next) {
			next = away
		}
		wait = min(wait, time.Until(next))
	}
	return max(wait, 0)
}

// condemned is one role on its way.
type condemned struct {
	row
	left      residue
	forbidden bool // it can't log in any more
	elsewhere bool // it left something in other databases
	failed    error
	done      bool
}

// dropOn drops roles on one target.
func (r *Roles) dropOn(ctx context.Context, target string, rows []row) {
	defer func() {
		r.mu.Lock()
		delete(r.working, target)
		r.mu.Unlock()
	}()
	t, err := r.maker(target)
	if err != nil {
		r.away(ctx, target, err)
		return
	}
	var all []*condemned
	for _, one := range rows {
		if unlock, free := r.tryLock(one.name); free {
			defer unlock()
			all = append(all, &condemned{row: one})
		} else {
			r.postpone(one, r.times.first) // the login that is under way finds out
		}
	}
	if len(all) == 0 {
		return
	}
	if err := r.closeAll(ctx, t, all); err != nil {
		if ctx.Err() == nil {
			r.away(ctx, target, err)
		}
		return
	}
	r.mu.Lock()
	delete(r.later, target)
	r.mu.Unlock()
	for _, one := range all {
		switch {
		case one.done:
			if err := r.gone(ctx, one.row, one.left); err != nil && ctx.Err() == nil {
				r.Log.Error("it could not be kept that a role is gone; it is looked for again", "role", one.name, "target", target, "error", err)
				r.postpone(one.row, r.times.first)
			}
		case one.failed != nil:
			r.failed(ctx, one.row, one.failed, one.left)
		}
	}
}

// postpone has a role wait without counting a failure.
func (r *Roles) postpone(one row, by time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.rows[one.name]; known != nil {
		later := *known
		later.next = time.Now().Add(by)
		r.rows[one.name] = &later
	}
}

// closeAll closes the roles of a batch: on one connection what can be done there, then on one for each other database in which they left
// something, then what is left to do. The error is the target's; those of one role are with it.
func (r *Roles) closeAll(ctx context.Context, t configs.Target, all []*condemned) error {
	own := t.Database
	if own == "" {
		own = "postgres"
	}
	act := func(database string, steps ...func(Conn, *condemned)) error {
		var names []string
		for _, one := range all {
			names = append(names, one.grant)
		}
		reason := "the roles of grants that are over: " + strings.Join(names, ", ")
		return r.Reach(ctx, t, database, authn.Identity{}, session.ActDropRole, reason, func(ctx context.Context, c Conn) (string, error) {
			began := time.Now()
			for _, step := range steps {
				for _, one := range all {
					if one.done || one.failed != nil {
						continue
					}
					if ctx.Err() != nil || time.Since(began) > batchTime {
						break // the rest is due again at once
					}
					if err := try(c, one, step); err != nil {
						return "", err
					}
				}
			}
			return outcomeOf(all), nil
		})
	}
	// First of all none of them may log in any more.
	if err := act("", func(c Conn, one *condemned) { one.failed = forbidHere(c, one) }, func(c Conn, one *condemned) {
		if one.forbidden {
			one.failed = closeHere(c, t, own, one)
		}
	}); err != nil {
		return err
	}
	elsewhere := map[string]bool{}
	for _, one := range all {
		for _, database := range one.left.databases {
			one.elsewhere, elsewhere[database] = true, true
		}
	}
	if len(elsewhere) == 0 {
		return nil
	}
	for database := range elsewhere {
		err := act(database, func(c Conn, one *condemned) {
			if i := slices.Index(one.left.databases, database); i >= 0 {
				if one.failed = giveAway(c, one.name, t.Heir, database, &one.left); one.failed == nil {
					one.left.databases = slices.Delete(one.left.databases, i, i+1)
				}
			}
		})
		if err != nil { // one database that can't be reached holds up those that left something in it
			for _, one := range all {
				if slices.Contains(one.left.databases, database) && !one.done && one.failed == nil {
					one.failed = fmt.Errorf("database %s, in which it left something: %w", database, err)
				}
			}
		}
	}
	return act("", func(c Conn, one *condemned) {
		if one.elsewhere && len(one.left.databases) == 0 {
			one.failed = drop(c, one.name)
			one.done = one.failed == nil
		}
	})
}

// forbidHere keeps a role from logging in, or finds that it is not there.
func forbidHere(c Conn, one *condemned) error {
	there, err := forbid(c, one.name)
	if err != nil {
		return fmt.Errorf("forbid it to log in: %w", err)
	}
	one.forbidden, one.done = there, !there
	return nil
}

// closeHere does the rest that can be done on a connection to the target's own database; done says that the role is gone.
func closeHere(c Conn, t configs.Target, own string, one *condemned) error {
	if err := endBackends(c, one.name, &one.left); err != nil {
		return err
	}
	if err := find(c, one.name, &one.left); err != nil {
		return err
	}
	if i := slices.Index(one.left.databases, own); i >= 0 {
		if err := giveAway(c, one.name, t.Heir, own, &one.left); err != nil {
			return err
		}
		one.left.databases = slices.Delete(one.left.databases, i, i+1)
	}
	if len(one.left.databases) > 0 {
		return nil
	}
	if err := drop(c, one.name); err != nil {
		return err
	}
	one.done = true
	return nil
}

// try runs one step for one role. The error is the connection's; what is wrong with the role is with it.
func try(c Conn, one *condemned, step func(Conn, *condemned)) error {
	step(c, one)
	switch err := one.failed; {
	case err == nil, isOurs(err):
		return nil
	case sqlState(err) == "": // nothing that the server said
		one.failed = nil
		return err
	}
	_, err := c.Query("rollback")
	return err
}

func outcomeOf(all []*condemned) string {
	done, failed := 0, 0
	for _, one := range all {
		if one.done {
			done++
		} else if one.failed != nil {
			failed++
		}
	}
	return fmt.Sprintf("%d gone, %d failed", done, failed)
}

// away notes that a target can't be reached, for all its roles at once: it is tried again as one, and told of as one.
func (r *Roles) away(ctx context.Context, target string, why error) {
	r.mu.Lock()
	out := r.later[target]
	out.tries++
	out.until = time.Now().Add(r.times.pause(out.tries))
	var waiting []row
	var alarm bool
	for _, one := range r.rows {
		if one.target == target && one.state == dropping {
			waiting = append(waiting, *one)
			alarm = alarm || r.alarming(*one)
		}
	}
	if alarm = alarm && time.Since(out.alarmed) >= r.times.again; alarm {
		out.alarmed = time.Now()
	}
	r.later[target] = out
	r.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	problem := describe(why)
	r.Log.Warn("the roles of grants that are over can't be dropped now", "target", target, "roles", len(waiting),
		"again", time.Until(out.until).Round(time.Millisecond), "error", problem)
	oldest := waiting[0]
	for i := range waiting {
		one := &waiting[i]
		one.attempts++
		one.problem = problem
		if r.alarming(*one) {
			one.alarmed = out.alarmed
		}
		if one.ended.Before(oldest.ended) {
			oldest = *one
		}
	}
	err := r.Store.Do(ctx, func(tx *store.Tx) error {
		for _, one := range waiting {
			if _, err := tx.Exec(`UPDATE ephemeral_roles SET attempts = ?, error = ?, alarmed = ? WHERE name = ? AND state = ?`,
				one.attempts, one.problem, toMillis(one.alarmed), one.name, dropping); err != nil {
				return err
			}
		}
		if !alarm {
			return nil
		}
		return tx.Audit(store.AuditEvent{Kind: stuckEvent, Actor: "system", Target: target, Outcome: "failed", Reason: problem, Fields: map[string]string{
			"roles": strconv.Itoa(len(waiting)), "over_since": oldest.ended.UTC().Format(time.RFC3339Nano),
		}})
	})
	if err != nil && ctx.Err() == nil {
		r.Log.Error("it could not be kept that roles could not be dropped", "target", target, "error", err)
		return
	}
	r.mu.Lock()
	for _, one := range waiting {
		if known := r.rows[one.name]; known != nil && known.state == dropping {
			r.rows[one.name] = &one
		}
	}
	r.mu.Unlock()
	if alarm {
		r.Log.Error("roles stay on their target although their grants are over: somebody has to look", "target", target, "roles", len(waiting),
			"since", oldest.ended, "error", problem)
	}
}

// stuckEvent is the audit event for what somebody has to look at.
const stuckEvent = "role.cleanup_stuck"

// failed notes that a role could not be dropped.
func (r *Roles) failed(ctx context.Context, one row, why error, left residue) {
	one.next = time.Now().Add(r.times.pause(one.attempts + 1))
	r.Log.Warn("the role of a grant that is over could not be dropped", "role", one.name, "target", one.target, "again", time.Until(one.next).Round(time.Millisecond), "error", describe(why))
	one.attempts++
	one.problem = describe(why)
	var event store.AuditEvent
	if fields := left.fields(); len(fields) > 0 { // the next try does not see it any more
		event = store.AuditEvent{Kind: "role.partly_dropped", Outcome: "failed", Reason: one.problem, Fields: fields}
	}
	if r.alarming(one) {
		one.alarmed = time.Now()
		fields := left.fields()
		fields["over_since"] = one.ended.UTC().Format(time.RFC3339Nano)
		event = store.AuditEvent{Kind: stuckEvent, Outcome: "failed", Reason: one.problem, Fields: fields}
		r.Log.Error("a role stays on its target although its grant is over: somebody has to look", "role", one.name, "grant", one.grant,
			"target", one.target, "since", one.ended, "error", one.problem)
	}
	if err := r.move(ctx, dropping, one, event); err != nil && ctx.Err() == nil && !errors.Is(err, errMoved) {
		r.Log.Error("it could not be kept that a role could not be dropped", "role", one.name, "error", err)
		r.put(one)
	}
}

// alarming says whether it is time to tell somebody.
func (r *Roles) alarming(one row) bool {
	now := time.Now()
	return now.Sub(one.ended) >= r.times.stuck && (one.alarmed.IsZero() || now.Sub(one.alarmed) >= r.times.again)
}

// describe is an error for people who run the gateway.
func describe(err error) string {
	text := err.Error()
	if refused := refusal.Of(err); refused != nil && refused.Detail != "" {
		text = refused.Message + ": " + refused.Detail
	}
	const most = 1000
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// isOurs says that an error is what was found out about a role, and none of the connection's.
func isOurs(err error) bool {
	_, ours := errors.AsType[*finding](err)
	return ours
}

// finding is something about a role that keeps it from being dropped, and that no server said.
type finding struct{ text string }

func (f *finding) Error() string { return f.text }
