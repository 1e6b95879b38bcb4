//go:build unix

package attacks

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"
)

// forged begins lines of its own in whatever writes it as it is, clears screens, and turns the direction of what is read.
const forged = "x\r\nFORGED time=2026-01-01T00:00:00Z level=INFO msg=\"all is well\"\n\x1b[2J\x1b]0;FORGED\x07\u009b2J\u202egnihton\u2028FORGED"

// forge writes that into everything that somebody with an account may name, and into what strangers may. In the gateway's log and in
// what other people are shown a line is a line of the gateway's, and nothing in it is a command to a terminal.
func (s *scene) forge(t *testing.T) {
	config, err := pgx.ParseConfig(s.Env["SALLYPORT_PG"])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"user", "database", "application_name", "an option"} {
		c := config.Copy()
		switch name {
		case "user":
			c.User = forged
		case "database":
			c.Database = forged
		case "application_name":
			c.RuntimeParams["application_name"] = forged
		case "an option":
			c.RuntimeParams[forged] = forged
		}
		if conn, err := pgx.ConnectConfig(t.Context(), c); err == nil {
			_, _ = conn.Exec(t.Context(), "SELECT $1::text /* "+forged+" */", forged) // it may be refused
			conn.Close(t.Context())
		}
	}
	client := s.sshClient(t, "deploy@web-1")
	for _, do := range []func(*ssh.Session) error{
		func(session *ssh.Session) error { return session.Run("true '" + forged + "'") },
		func(session *ssh.Session) error { return session.RequestSubsystem(forged) },
		func(session *ssh.Session) error { return session.Setenv("LC_"+forged, forged) },
		func(session *ssh.Session) error { return session.RequestPty(forged, 24, 80, nil) },
	} {
		session, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		_ = do(session) // it may be refused
		session.Close()
	}
	if conn, err := client.Dial("tcp", strings.ReplaceAll(forged, ":", ".")+":22"); err == nil {
		conn.Close()
	}
	client.Close()
	for _, user := range []string{forged, "deploy@" + forged, forged + "@web-1"} {
		if client, err := s.tryClient(t, user); err == nil {
			if session, err := client.NewSession(); err == nil { // the name is looked at when something is asked for
				_ = session.Run("true")
			}
			client.Close()
		}
	}
	for _, args := range [][]string{
		{"request", "app@orders", "--duration", "10m", "--reason", forged, "--ticket", forged},
		{"request", "app@" + forged, "--duration", "10m", "--reason", forged},
		{"request", forged + "@orders", "--duration", "10m", "--reason", forged},
		{"release", forged}, {"requests", "show", forged}, {"search", forged},
	} {
		s.As("alice", args...) // most are refused
	}
	// An application's name is in the requests of strangers too.
	for _, path := range []string{"/nothing/%0d%0aFORGED%1b[2J", "/v1/grants/%0aFORGED%1b[2J%c2%9b2J", "/log/%0aFORGED", "/oauth/authorize?client_id=%0aFORGED%1b[2J&state=%0aFORGED"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Env["SALLYPORT_URL"]+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer FORGED.\u009b2J.\u202e")
		request.Header.Set("User-Agent", "FORGED\u009b2J\u202e")
		request.Header.Set("X-Request-Id", "FORGED\u009b2J\u202e")
		answer, err := s.api().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	s.audited("session.refused", "FORGED") // it came through

	log, err := os.ReadFile(s.Path("log", "gateway.log"))
	if err != nil {
		t.Fatal(err)
	}
	clean := func(where, text string) {
		for line := range strings.SplitSeq(text, "\n") {
			if strings.HasPrefix(strings.TrimLeft(line, "\r"), "FORGED") {
				t.Errorf("%s has a line of somebody else's: %q", where, line)
			}
			for _, c := range line {
				if c != '\t' && (unicode.IsControl(c) || unicode.In(c, unicode.Bidi_Control, unicode.Zl, unicode.Zp)) {
					t.Errorf("%s has %U in it: %q", where, c, line)
					break
				}
			}
		}
	}
	clean("the gateway's log", string(log))
	of := regexp.MustCompile(`(?m)^time=`).FindAllIndex(log, -1)
	if len(of) < 10 {
		t.Errorf("the gateway's log is written in another way now: %d lines", len(of))
	}
	for _, command := range [][]string{{"audit"}, {"sessions", "--all"}, {"grants", "--all"}, {"requests", "--all"}, {"search", "FORGED"}, {"status"}, {"report", "access"}} {
		for _, person := range []string{"bob", "carol"} {
			clean("sallyport "+strings.Join(command, " ")+" of "+person+"'s", s.As(person, command...).Text())
		}
	}
	s.undisturbed()
}
