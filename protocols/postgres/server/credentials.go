package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"

	"sallyport/authn/secrets"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/protocols/postgres/wire"
)

// Credentials are what the gateway logs in to a target with.
type Credentials struct {
	Target   configs.Target
	User     string
	Password string       // empty: none is configured, and the target must let the account in without
	Params   []wire.Param // beside user
	// Certificate is shown to a target that asks for one; nil: none.
	Certificate *tls.Certificate
}

// CredentialsOf are what the gateway logs in to a target with; params are left to the caller.
func CredentialsOf(ctx context.Context, t configs.Target, account configs.Account) (Credentials, error) {
	c := Credentials{Target: t, User: account.UserName()}
	var err error
	if account.Certificate != "" {
		if c.Certificate, err = accountCertificate(ctx, account); err != nil {
			return c, refusal.New(refusal.TargetFailed, "the gateway has no certificate for %s@%s", account.Name, t.Name).
				WithDetail("The certificate and key that the account's configuration names could not be read.").
				WithHint("an administrator can look with: sallyport targets check %s", t.Name).Because(err)
		}
	}
	if account.Password == "" {
		return c, nil
	}
	if c.Password, err = secrets.Resolve(ctx, account.Password); err != nil {
		return c, refusal.New(refusal.TargetFailed, "the gateway has no password for %s@%s", account.Name, t.Name).
			WithDetail("The secret that the account's configuration refers to could not be read.").
			WithHint("an administrator can look with: sallyport targets check %s", t.Name).Because(err)
	}
	return c, nil
}

// accountCertificate is what the gateway shows the target. It is read each time, so that a new one counts at once.
func accountCertificate(ctx context.Context, account configs.Account) (*tls.Certificate, error) {
	certificate, err := os.ReadFile(account.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := secrets.Resolve(ctx, account.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, []byte(key))
	if err != nil {
		return nil, fmt.Errorf("%s and its key: %w", account.Certificate, err)
	}
	return &pair, nil
}

// OwnParams are the settings of the gateway's own connections. What is set at the start goes before what a role keeps for
// itself (ALTER ROLE … SET), which a client may do to its own: it would make the gateway's logins fail, time out, or see
// nothing as another role, and so keep a statement running that the gateway must end. version is the server's major one,
// 0 where it isn't known.
func OwnParams(database string, version int) []wire.Param {
	params := []wire.Param{
		{Name: "database", Value: database}, {Name: "application_name", Value: "sallyport"},
		{Name: "search_path", Value: "pg_catalog"}, {Name: "client_encoding", Value: "UTF8"},
		{Name: "role", Value: "none"}, {Name: "local_preload_libraries", Value: ""},
		{Name: "statement_timeout", Value: "0"}, {Name: "lock_timeout", Value: "0"},
		{Name: "default_transaction_isolation", Value: "read committed"}, {Name: "default_transaction_deferrable", Value: "off"},
		{Name: "client_min_messages", Value: "warning"},
	}
	if version >= 14 {
		params = append(params, wire.Param{Name: "idle_session_timeout", Value: "0"})
	}
	if version >= 17 {
		params = append(params, wire.Param{Name: "transaction_timeout", Value: "0"})
	}
	return params
}

// OwnDatabase is the database for the gateway's own logins to a target: the one that its configuration names, or
// the one that every server has.
func OwnDatabase(t configs.Target) string {
	if t.Database != "" {
		return t.Database
	}
	return "postgres"
}
