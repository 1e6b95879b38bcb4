package client

import (
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestAddresses: what we write is what drivers read.
func TestAddresses(t *testing.T) {
	a := Address{Host: "gateway.example", Port: 6432, Database: "orders/shop $1", User: "app+k7f3m2q9xa", Password: "secret"}
	if !strings.HasPrefix(a.URL(), "postgresql://app+k7f3m2q9xa:secret@gateway.example:6432/orders") {
		t.Error(a.URL())
	}
	config, err := pgx.ParseConfig(strings.Replace(a.URL(), "sslrootcert=system", "", 1))
	if err != nil {
		t.Fatal(err)
	}
	if config.User != a.User || config.Password != a.Password || config.Host != a.Host || config.Port != 6432 || config.Database != a.Database || config.TLSConfig.ServerName != a.Host {
		t.Errorf("pgx reads %+v", config.Config)
	}
	java, ok := strings.CutPrefix(a.JDBC(), "jdbc:")
	u, err := url.Parse(java)
	if !ok || err != nil {
		t.Fatalf("%s: %v", a.JDBC(), err)
	}
	q := u.Query()
	// A plus in a query means a blank to some; the driver must get it as %2B.
	if q.Get("user") != a.User || !strings.Contains(java, "app%2Bk7f3m2q9xa") || q.Get("password") != "secret" || q.Get("sslmode") != "verify-full" || u.User != nil {
		t.Errorf("%s", a.JDBC())
	}
	withKey := Address{Host: "::1", Port: 1, Database: "d", User: "app", Authority: "/a b/ca.pem", Certificate: "/a b/tls.crt", Key: "/a b/tls.key", KeyDER: "/a b/tls.pk8"}
	if u := withKey.URL(); !strings.Contains(u, "[::1]:1") || !strings.Contains(u, "sslkey=%2Fa%20b") || strings.Contains(u, "pk8") || strings.Contains(u, "password") {
		t.Error(u)
	}
	if u := withKey.JDBC(); !strings.Contains(u, "tls.pk8") || strings.Contains(u, "tls.key") || strings.Contains(u, "sslfactory") {
		t.Error(u)
	}
}
