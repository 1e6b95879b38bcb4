package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/protocols/postgres/ephemeral"
	"sallyport/protocols/postgres/server"
	"sallyport/session"
)

// This file is what the inner room ephemeral needs of this one, and what this one needs of it: roles that are made for one grant.

// KeepRoles opens what makes and drops the roles of ephemeral accounts. targets are those of the configuration as it is now. Call it
// once, before the first connection is served, and Close what it returns before the rooms that the Handler stands on; without it
// nobody gets into an ephemeral account.
func (h *Handler) KeepRoles(ctx context.Context, s *store.Store, targets func() []configs.Target) (*ephemeral.Roles, error) {
	roles, err := ephemeral.Open(ctx, ephemeral.Options{Store: s, Log: h.log, Reach: h.asMaker, Targets: targets, Running: h.grants.Running})
	h.roles = roles
	return roles, err
}

// makerConn is a connection as the account that makes roles.
type makerConn struct{ conn *server.Conn }

// Query tells the server's detail, too: of a role that can't be dropped it says what depends on it.
func (c makerConn) Query(sql string) ([][]string, error) {
	rows, err := c.conn.Query(sql)
	if said, ok := errors.AsType[*server.Error](err); ok && said.Response.Detail != "" {
		err = fmt.Errorf("%w: %s", err, said.Response.Detail)
	}
	return rows, err
}

// asMaker is ephemeral.Reach.
func (h *Handler) asMaker(ctx context.Context, t configs.Target, database string, who authn.Identity, kind session.ActKind, reason string,
	do func(context.Context, ephemeral.Conn) (string, error),
) error {
	c, err := h.makerCredentials(ctx, t, database)
	if err != nil {
		return err
	}
	return h.sessions.ActOn(ctx, t, who, session.Act{Kind: kind, Reason: reason, Do: func(ctx context.Context, conn net.Conn) (string, error) {
		b, err := server.Login(conn, c)
		if err != nil {
			return "", err
		}
		defer b.Bye()
		h.versions.Store(t.Address, b.Version())
		return do(ctx, makerConn{b})
	}})
}

// makerCredentials are those of the account that makes roles. An empty database is the target's own.
func (h *Handler) makerCredentials(ctx context.Context, t configs.Target, database string) (server.Credentials, error) {
	account, ok := grant.Account(t, t.MakeRolesWith)
	if !ok {
		return server.Credentials{}, refusal.New(refusal.TargetFailed, "target %s names no account that makes roles", t.Name).
			WithHint("name one at the target: make_roles_with")
	}
	c, err := server.CredentialsOf(ctx, t, account)
	if database == "" {
		database = server.OwnDatabase(t)
	}
	version, _ := h.versions.Load(t.Address)
	major, _ := version.(int)
	c.Params = server.OwnParams(database, major)
	return c, err
}

// roleFor is what a session of an ephemeral account logs in with; done must be called once it has.
func (r *relay) roleFor(ctx context.Context, c server.Credentials) (_ server.Credentials, done func(), err error) {
	opening := r.session.Opening()
	if r.handler.roles == nil {
		return c, nil, refusal.New(refusal.TargetFailed, "this gateway makes no roles for grants")
	}
	made, err := r.handler.roles.Login(ctx, ephemeral.Wanted{
		Grant: opening.Lease.Grant.ID, Who: opening.Identity, Target: opening.Target, Account: opening.Account,
	})
	if err != nil {
		return c, nil, err
	}
	c.User, c.Password = made.User, made.Password
	return c, made.Done, nil
}

// checkEphemeral is Check for an account whose role is made for each grant.
func (h *Handler) checkEphemeral(ctx context.Context, who authn.Identity, t configs.Target, account configs.Account) (CheckResult, error) {
	result := CheckResult{Account: account.Name}
	c, err := h.makerCredentials(ctx, t, "")
	if err != nil {
		return result, err
	}
	err = h.sessions.ActOn(ctx, t, who, session.Act{Kind: session.ActCheck, Reason: "targets check", Do: func(_ context.Context, conn net.Conn) (string, error) {
		b, err := server.Login(conn, c)
		if err != nil {
			return "", err
		}
		defer b.Bye()
		h.versions.Store(t.Address, b.Version())
		result.User, result.Version, result.TLS = "a role for each grant, made by "+c.User, b.Params["server_version"], b.TLS()
		if result.Warnings, err = ephemeral.Trial(makerConn{b}, t, account); err != nil {
			return "", err
		}
		if h.roles == nil {
			return "PostgreSQL " + result.Version, nil
		}
		strangers, err := h.roles.Strangers(makerConn{b})
		if err != nil {
			return "", fmt.Errorf("look for roles of other gateways: %w", err)
		}
		result.Warnings = append(result.Warnings, strangers...)
		h.roles.Retry(t.Name) // whoever checks has mended something
		return "PostgreSQL " + result.Version, nil
	}})
	return result, err
}
