package postgres

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/protocols/postgres/server"
	"sallyport/protocols/postgres/wire"
)

func dialTest(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestLogin(t *testing.T) {
	c := startCluster(t)
	plain := c.target
	plain.TLS.Mode = "off"
	wrongName := c.target
	wrongName.TLS.ServerName = "billing.test"
	otherName := c.target
	otherName.TLS.ServerName = "orders.test"
	noCA := c.target
	noCA.TLS.CA = ""
	tests := []struct {
		name     string
		target   configs.Target
		user     string
		password string
		want     string // part of the error; empty: it works
	}{
		{"SCRAM bound to TLS", c.target, "app", appPassword, ""},
		{"another name of the server's", otherName, "app", appPassword, ""},
		{"wrong password", c.target, "app", "wrong", "password authentication failed"},
		{"no password configured", c.target, "app", "", "has none configured"},
		{"trust and no password", plain, "open", "", ""},
		{"trust where a password is configured", plain, "open", "x", "without asking"},
		{"MD5", plain, "md5er", "x", "MD5"},
		{"clear text", plain, "clear", "x", "clear text"},
		{"the server's certificate is another's", wrongName, "app", appPassword, "billing.test"},
		{"the server's authority is not trusted", noCA, "app", appPassword, "certificate"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b, err := server.Login(dialTest(t, c.address), server.Credentials{Target: test.target, User: test.user, Password: test.password,
				Params: []wire.Param{{Name: "database", Value: "postgres"}}})
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("got error %v, want one with %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			rows, err := b.Query("select current_user, null, pg_backend_pid()")
			if err != nil || len(rows) != 1 || rows[0][0] != test.user {
				t.Fatalf("got %v, %v", rows, err)
			}
			if b.Version() < 9 || b.Key.PID == 0 || len(b.Key.Key) != 4 {
				t.Fatalf("version %d, key %v", b.Version(), b.Key)
			}
		})
	}
}

func TestLoginRefusedByTarget(t *testing.T) {
	c := startCluster(t)
	_, err := server.Login(dialTest(t, c.address), server.Credentials{Target: c.target, User: "app", Password: appPassword,
		Params: []wire.Param{{Name: "database", Value: "nowhere"}}})
	refused, ok := errors.AsType[*server.Error](err)
	if !ok || refused.Response.Code != "3D000" {
		t.Fatalf("got %v, want SQLSTATE 3D000", err)
	}
}
