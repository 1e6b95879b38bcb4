package ephemeral

import (
	"context"
	"fmt"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/store"
	"sallyport/session"
)

// sweeps looks at all targets for roles of this gateway that have no row: at the start, then from time to time, and sooner where a target
// could not be looked at.
func (r *Roles) sweeps(ctx context.Context) {
	failures := 0
	for {
		wait := r.times.sweep
		if err := r.Sweep(ctx); err != nil {
			failures++
			wait = min(wait, r.times.pause(failures))
			if ctx.Err() == nil {
				r.Log.Warn("targets could not be looked at for roles whose grant is over", "again", wait, "error", err)
			}
		} else {
			failures = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// Sweep looks at all targets for roles of this gateway that have no row, and drops those whose grant is over. It goes on after a failure
// and returns the first.
func (r *Roles) Sweep(ctx context.Context) (failed error) {
	for _, t := range r.Targets() {
		if !t.Ephemeral() || t.MakeRolesWith == "" {
			continue
		}
		if err := r.sweep(ctx, t); err != nil && failed == nil {
			failed = fmt.Errorf("target %s: %s", t.Name, describe(err))
		}
	}
	return failed
}

func (r *Roles) sweep(ctx context.Context, t configs.Target) error {
	known := r.known() // before the target is asked: what is dropped meanwhile is not found
	var names []string
	err := r.Reach(ctx, t, "", authn.Identity{}, session.ActSweep, "roles of grants that are over", func(_ context.Context, c Conn) (_ string, err error) {
		names, err = strays(c, r.prefix())
		return fmt.Sprintf("%d roles are there", len(names)), err
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		grant, ours := r.grantOf(name)
		if !ours || known[name] || r.row(name) != nil {
			continue
		}
		one := row{name: name, grant: grant, target: t.Name, state: making, made: time.Now()}
		event := store.AuditEvent{Kind: "role.found", Reason: "it stood on the target, and nothing here said so"}
		if err := r.insert(ctx, one, event); err != nil {
			if r.row(name) != nil {
				continue // a session made it known meanwhile
			}
			return err
		}
		r.Log.Warn("a role of this gateway's that nothing here knew of was found", "role", name, "target", t.Name)
	}
	r.wake()
	return nil
}

// known are the names of the roles that have a row.
func (r *Roles) known() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make(map[string]bool, len(r.rows))
	for name := range r.rows {
		names[name] = true
	}
	return names
}
