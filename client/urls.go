package client

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"sallyport/web/api"
)

// Address is how a program reaches an account on a Postgres target.
type Address struct {
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Database string `json:"database"`
	User     string `json:"user"`
	// Password, or Certificate and Key: what proves who it is.
	Password    string `json:"password,omitempty"`
	Certificate string `json:"-"` // PEM file
	Key         string `json:"-"` // PEM file
	KeyDER      string `json:"-"` // the same key as PKCS#8 in DER, as JDBC takes it
	// Authority is a PEM file; empty: the system's.
	Authority string `json:"authority,omitempty"`
}

// addressOf is where the gateway says a target is.
func addressOf(c api.Connection, user, authority string) Address {
	return Address{Host: c.Host, Port: c.Port, Database: c.Database, User: user, Authority: authority}
}

// URL is the address for libpq and the drivers that take the same: pgx, psycopg, asyncpg, node-pg.
func (a Address) URL() string {
	u := url.URL{Scheme: "postgresql", User: url.User(a.User), Host: net.JoinHostPort(a.Host, strconv.Itoa(a.Port)), Path: "/" + a.Database}
	if a.Password != "" {
		u.User = url.UserPassword(a.User, a.Password)
	}
	q := a.secure()
	if a.Key != "" {
		q.Set("sslkey", a.Key)
	}
	u.RawQuery = encode(q)
	return u.String()
}

// JDBC is the address for Java.
func (a Address) JDBC() string {
	u := url.URL{Scheme: "postgresql", Host: net.JoinHostPort(a.Host, strconv.Itoa(a.Port)), Path: "/" + a.Database}
	q := a.secure()
	q.Set("user", a.User)
	if a.Authority == "" {
		q.Del("sslrootcert")
		q.Set("sslfactory", "org.postgresql.ssl.DefaultJavaSSLFactory") // Java's own authorities
	}
	if a.Password != "" {
		q.Set("password", a.Password)
	}
	if a.KeyDER != "" {
		q.Set("sslkey", a.KeyDER)
	}
	u.RawQuery = encode(q)
	return "jdbc:" + u.String()
}

func (a Address) secure() url.Values {
	q := url.Values{"sslmode": {"verify-full"}, "sslrootcert": {a.root()}}
	if a.Certificate != "" {
		q.Set("sslcert", a.Certificate)
	}
	return q
}

// root is the authority as libpq names it; "system" needs libpq 16 or later.
func (a Address) root() string {
	if a.Authority == "" {
		return "system"
	}
	return a.Authority
}

// encode writes blanks so that libpq reads them too: to it a plus sign is one.
func encode(q url.Values) string { return strings.ReplaceAll(q.Encode(), "+", "%20") }
