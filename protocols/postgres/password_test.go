package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
	"github.com/jackc/pgx/v5"

	"sallyport/authn"
	"sallyport/protocols/postgres/wire"
)

// What the gateway asks clients for, and the mechanisms (PostgreSQL documentation, "SASL Authentication").
const (
	authSASL         = 10
	authSASLContinue = 11
	scramPlain       = "SCRAM-SHA-256"
	scramPlus        = "SCRAM-SHA-256-PLUS"
)

// password makes one for Alice.
func (h *house) password(account string, lasts time.Duration) (authn.Password, string) {
	h.t.Helper()
	p, secret, err := h.authn.IssuePassword(context.Background(), h.alice.Identity, "orders", account, lasts)
	h.must(err)
	return p, secret
}

// byPassword is a connection string without a certificate.
func (h *house) byPassword(user, secret string, more ...string) string {
	host, port, _ := net.SplitHostPort(h.own)
	return strings.Join(append([]string{
		"host=" + host, "port=" + port, "user=" + user, "password=" + secret, "dbname=postgres", "sslmode=verify-full", "sslrootcert=" + h.ca, "connect_timeout=20",
	}, more...), " ")
}

// TestPassword: psql gets in with nothing but name and password, also where it insists on SCRAM and on channel binding,
// and the session is recorded as Alice's.
func TestPassword(t *testing.T) {
	h := newHouse(t)
	p, secret := h.password("writer", 0)
	for name, more := range map[string][]string{
		"as it is":                    nil,
		"only SCRAM":                  {"require_auth=scram-sha-256"},
		"bound to the connection":     {"channel_binding=require"},
		"not bound":                   {"channel_binding=disable"},
		"with a certificate as well":  {"sslcert=" + h.alice.certificate, "sslkey=" + h.alice.key},
		"through the shared listener": {"port=" + portOf(h.shared), "dbname=orders"},
		"without a database's name":   {"port=" + portOf(h.shared), "dbname=orders/postgres"},
	} {
		if more != nil && strings.HasPrefix(more[0], "require_auth") && !psqlKnowsRequireAuth() {
			continue // before psql 16
		}
		out, err := h.runPsql(h.byPassword(p.User(), secret, more...), "-c", "select current_user")
		if err != nil || out != "app" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	info := h.ended()
	if info.Identity.Subject != "alice" || info.Identity.Method != "password" || info.Identity.Credential != p.ID || info.Account != "writer" {
		t.Errorf("%+v", info)
	}
}

func psqlKnowsRequireAuth() bool {
	out, err := exec.Command("psql", "--version").Output()
	return err == nil && !bytes.Contains(out, []byte(") 15.")) && !bytes.Contains(out, []byte(") 14."))
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// TestPasswordForManyConnections: pgbench with twenty, and a pool of pgx.
func TestPasswordForManyConnections(t *testing.T) {
	h := newHouse(t)
	p, secret := h.password("writer", time.Hour)
	script := filepath.Join(h.dir, "script.sql")
	h.must(os.WriteFile(script, []byte("select 1;\n"), 0o600))
	if pgbench := serverProgram("pgbench"); pgbench != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		command := exec.CommandContext(ctx, pgbench, "-n", "-c", "20", "-t", "3", "-f", script, h.byPassword(p.User(), secret))
		out, err := command.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "60/60") {
			t.Errorf("pgbench: %v\n%s", err, out)
		}
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			conn, err := pgx.Connect(context.Background(), h.byPassword(p.User(), secret))
			if err != nil {
				t.Error(err)
				return
			}
			var one int
			if err := conn.QueryRow(context.Background(), "select $1::int", 1).Scan(&one); err != nil {
				t.Error(err)
			}
			conn.Close(context.Background())
		})
	}
	all.Wait()
}

// TestPasswordRefusals: what a password does not open, and that being wrong sounds the same whatever is wrong.
func TestPasswordRefusals(t *testing.T) {
	h := newHouse(t)
	p, secret := h.password("writer", time.Hour)
	revoked, second := h.password("writer", time.Hour)
	h.must(h.authn.RevokeCredential(context.Background(), h.alice.Identity, revoked.ID))
	unused, third := h.password("wrong", time.Hour)
	bob := h.signIn("bob", "engineers")
	his, fourth, err := h.authn.IssuePassword(context.Background(), bob.Identity, "orders", "writer", time.Hour)
	h.must(err)
	const wrong = "FATAL:  password authentication failed"
	for _, test := range []struct {
		name, connection, want string
	}{
		{"wrong password", h.byPassword(p.User(), "no"+secret), wrong},
		{"no such id", h.byPassword("writer+aaaaaaaaaa", secret), wrong},
		{"an id of another form", h.byPassword("writer+x", secret), wrong},
		{"no id", h.byPassword("writer+", secret), wrong},
		{"revoked", h.byPassword(revoked.User(), second), "it was revoked"},
		{"another account", h.byPassword("postgres+"+p.ID, secret), "this password is for writer@orders only"},
		{"another account's name in it", h.byPassword("writer+wrong+"+unused.ID, third), "this password is for wrong@orders only"},
		{"another target", h.byPassword(p.User(), secret, "port="+portOf(h.shared), "dbname=plain"), "this password is for writer@orders only"},
		{"without TLS", h.byPassword(p.User(), secret, "sslmode=disable"), "speaks TLS only"},
		{"without a grant", h.byPassword(his.User(), fourth), "sallyport request writer@orders"},
	} {
		out, err := h.runPsql(test.connection, "-c", "select 'let ' || 'in'")
		if err == nil || !strings.Contains(out, test.want) || strings.Contains(out, secret) {
			t.Errorf("%s: %v\n%s\nwant %q", test.name, err, out, test.want)
		}
	}
	// After logout it is over, and says so only to who knows the password.
	h.must(h.authn.Revoke(context.Background(), h.alice.Identity))
	if out, err := h.runPsql(h.byPassword(p.User(), secret), "-c", "select 1"); err == nil || !strings.Contains(out, "it was revoked") {
		t.Errorf("after logout: %v\n%s", err, out)
	}
}

// scramStart dials and goes as far as the list of mechanisms.
func (h *house) scramStart(user string) (*rawClient, []byte) {
	h.t.Helper()
	c := h.dialTLS(h.own, func(config *tls.Config) { config.Certificates = nil })
	c.write(startupPacket(wire.Version30, "user", user, "database", "postgres"))
	kind, body, err := c.frame()
	h.must(err)
	if kind != 'R' || binary.BigEndian.Uint32(body) != authSASL {
		h.t.Fatalf("%c %q", kind, body)
	}
	return c, body[4:]
}

func saslFirst(mechanism, message string) []byte {
	b, _ := (&pgproto3.SASLInitialResponse{AuthMechanism: mechanism, Data: []byte(message)}).Encode(nil)
	return b
}

// TestPasswordHostile: broken and dishonest messages are refused with a FATAL, and none of them brings a panic.
func TestPasswordHostile(t *testing.T) {
	h := newHouse(t)
	p, _ := h.password("writer", time.Hour)
	frame := func(kind byte, body string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body))), body...)
	}
	const good = "n,,n=,r=nonce"
	finals := map[string]string{
		"empty": "", "no nonce (CVE-2026-19888)": "c=biws", "only commas": ",,,,", "a nonce of one's own": "c=biws,r=mine,p=AAAA",
		"no base64": "c=biws,r=%s,p=!", "a short proof": "c=biws,r=%s,p=AAAA", "a proof of nothing": "c=biws,r=%s,p=",
		"another binding": "c=eSws,r=%s,p=AAAA", "NUL": "c=biws\x00,r=%s,p=AAAA",
	}
	for name, b := range map[string][]byte{
		"a query instead":             frame('Q', "select 1\x00"),
		"a length without end":        {'p', 0xff, 0xff, 0xff, 0xff},
		"a length of gigabytes":       {'p', 0x7f, 0xff, 0xff, 0xff},
		"a length below its own":      {'p', 0, 0, 0, 3},
		"nothing in it":               frame('p', ""),
		"no end of the mechanism":     frame('p', "SCRAM-SHA-256"),
		"no message":                  frame('p', "SCRAM-SHA-256\x00\xff\xff\xff\xff"),
		"a message longer than it is": frame('p', "SCRAM-SHA-256\x00\x00\x00\x00\xffn,,"),
		"another mechanism":           saslFirst("PLAIN", "\x00a\x00b"),
		"an empty first":              saslFirst(scramPlain, ""),
		"no commas":                   saslFirst(scramPlain, "nonsense"),
		"somebody else (authzid)":     saslFirst(scramPlain, "n,a=bob,n=,r=x"),
		"an extension (m=)":           saslFirst(scramPlain, "n,,m=x,n=,r=x"),
		"a downgrade (y, with PLUS)":  saslFirst(scramPlain, "y,,n=,r=x"),
		"PLUS without binding":        saslFirst(scramPlus, good),
		"binding without PLUS":        saslFirst(scramPlain, "p=tls-server-end-point,,n=,r=x"),
		"PLUS of another type":        saslFirst(scramPlus, "p=tls-unique,,n=,r=x"),
		"PLUS of no type":             saslFirst(scramPlus, "p=,,n=,r=x"),
	} {
		c, list := h.scramStart(p.User())
		if string(list) != "SCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00" {
			t.Fatalf("offered: %q", list)
		}
		c.write(b)
		if got := c.fatal(); !strings.HasPrefix(got, "FATAL 28P01") && !strings.HasPrefix(got, "FATAL 08P01") {
			t.Errorf("%s: %s", name, got)
		}
	}
	h = newHouse(t) // which has not counted anything yet
	p, _ = h.password("writer", time.Hour)
	for name, final := range finals {
		c, _ := h.scramStart(p.User())
		c.write(saslFirst(scramPlain, good))
		kind, body, err := c.frame()
		if err != nil || kind != 'R' || binary.BigEndian.Uint32(body) != authSASLContinue {
			t.Fatalf("%s: %c %q %v", name, kind, body, err)
		}
		nonce, _, _ := strings.Cut(strings.TrimPrefix(string(body[4:]), "r="), ",")
		c.write(frame('p', strings.ReplaceAll(final, "%s", nonce)))
		if got := c.fatal(); got != "FATAL 28P01 password authentication failed" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestPasswordIDsCanNotBeFound: an id that there is none of is answered like one that there is: same shape, the same salt
// each time.
func TestPasswordIDsCanNotBeFound(t *testing.T) {
	h := newHouse(t)
	p, _ := h.password("writer", time.Hour)
	challenge := func(user string) (salt, rest string) {
		c, _ := h.scramStart(user)
		c.write(saslFirst(scramPlain, "n,,n=*,r=nonce"))
		_, body, err := c.frame()
		h.must(err)
		fields := strings.Split(string(body[4:]), ",")
		if len(fields) != 3 || !strings.HasPrefix(fields[0], "r=nonce") {
			t.Fatalf("%q", body)
		}
		return fields[1], fields[2]
	}
	salt, iterations := challenge(p.User())
	mock, same := challenge("writer+bbbbbbbbbb")
	again, _ := challenge("writer+bbbbbbbbbb")
	other, _ := challenge("writer+cccccccccc")
	if len(mock) != len(salt) || iterations != same || mock != again || mock == other || iterations != "i=4096" {
		t.Errorf("real %s %s, unknown %s %s, again %s, another %s", salt, iterations, mock, same, again, other)
	}
}

// TestPasswordGuessing: a source that is wrong again and again must wait, and then does not get in with the right one
// either.
func TestPasswordGuessing(t *testing.T) {
	h := newHouse(t)
	p, secret := h.password("writer", time.Hour)
	var out string
	var err error
	for range 40 {
		_, err = pgx.Connect(context.Background(), h.byPassword(p.User(), "guess"))
		if err == nil {
			t.Fatal("a guess was let in")
		}
		if strings.Contains(err.Error(), "too many wrong passwords") {
			break
		}
	}
	if !strings.Contains(err.Error(), "too many wrong passwords") {
		t.Errorf("forty guesses in a row: %v", err)
	}
	if out, err = h.runPsql(h.byPassword(p.User(), secret), "-c", "select 1"); err == nil || !strings.Contains(out, "too many wrong passwords") {
		t.Errorf("the right one at last: %v\n%s", err, out)
	}
}

func FuzzInitialResponse(f *testing.F) {
	f.Add([]byte("SCRAM-SHA-256\x00\x00\x00\x00\x03n,,"))
	f.Add([]byte("\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		mechanism, first, err := initialResponse(body)
		if err == nil && len(mechanism)+len(first)+5 != len(body) {
			t.Errorf("%q: %q, %q", body, mechanism, first)
		}
	})
}
