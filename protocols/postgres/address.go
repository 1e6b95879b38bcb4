package postgres

import (
	"strings"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
)

// address is which target and which of its databases a client wants.
type address struct {
	target   string
	database string
}

// addressOf finds it, best first: the listener was the target's own (own is its name), the TLS server name chose it, or
// else the database's name does, as TARGET or TARGET/DATABASE. Behind the first two, database is the real one.
func (h *Handler) addressOf(own, serverName string, s startup) address {
	target := own
	if target == "" && serverName != "" {
		if t, ok := h.grants.TargetByServerName(serverName); ok {
			target = t.Name
		}
	}
	if target != "" {
		// A server takes the user's name where none is given.
		database := s.database
		if database == "" {
			database = s.user
		}
		return address{target: target, database: database}
	}
	name, database, _ := strings.Cut(s.database, "/")
	return address{target: name, database: database}
}

// checkKind refuses what no lease should be taken for: a name that is missing, or another protocol's target. An unknown
// target is left to grant, which says no to it as it does to one without a grant, and audits that.
func (h *Handler) checkKind(a address) error {
	if a.target == "" {
		return refusal.New(refusal.UnknownTarget, "no target was named").
			WithHint("connect with dbname=TARGET or dbname=TARGET/DATABASE; see which there are with: sallyport targets")
	}
	if t, ok := h.grants.Target(a.target); ok && t.Kind != configs.KindPostgres {
		return refusal.New(refusal.UnknownTarget, "target %s is not a PostgreSQL server", t.Name).
			WithHint("see which there are with: sallyport targets")
	}
	return nil
}

// resolve finds the target and account of a lease, and refuses replication where the account may not.
func (h *Handler) resolve(a address, s startup) (configs.Target, configs.Account, error) {
	t, ok := h.grants.Target(a.target)
	if !ok || t.Kind != configs.KindPostgres {
		return t, configs.Account{}, refusal.New(refusal.UnknownTarget, "no PostgreSQL target %q", a.target).
			WithHint("see which there are with: sallyport targets")
	}
	account, ok := grant.Account(t, s.user)
	if !ok {
		return t, account, refusal.New(refusal.UnknownAccount, "target %s has no account %q", t.Name, s.user).
			WithHint("see which there are with: sallyport targets")
	}
	if err := grant.NotForPeople(t, account); err != nil {
		return t, account, err
	}
	if s.replication != "" && !account.Replication {
		return t, account, refusal.New(refusal.NotPermitted, "account %s@%s may not be used for replication", account.Name, t.Name).
			WithHint("an administrator can allow it for the account with: replication: true")
	}
	return t, account, nil
}

// realDatabase is the database on the target.
func (a address) realDatabase(t configs.Target) string {
	switch {
	case a.database != "":
		return a.database
	case t.Database != "":
		return t.Database
	}
	return t.Name
}
