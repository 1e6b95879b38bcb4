package console

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

// kept is sessions with a clock that the test moves.
func kept(t *testing.T) (*Sessions, *time.Time) {
	t.Helper()
	st := storetest.New(t, filepath.Join(t.TempDir(), "state"))
	now := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	s, err := openSessions(t.Context(), st, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return s, &now
}

func TestSessionStandsForItsToken(t *testing.T) {
	s, _ := kept(t)
	one, err := s.begin(t.Context(), "token one", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.begin(t.Context(), "token two", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	token, first, err := s.find(t.Context(), one, true)
	if err != nil || token != "token one" {
		t.Fatalf("%q, %v", token, err)
	}
	_, second, err := s.find(t.Context(), two, true)
	if err != nil {
		t.Fatal(err)
	}
	if first.token() == second.token() || !first.isToken(first.token()) || first.isToken(second.token()) || first.isToken("") {
		t.Error("the forms' tokens are not each session's own")
	}
	for name, cookie := range map[string]string{"empty": "", "short": one[:20], "long": one + "AAAA", "changed": "A" + one[1:43], "no base64": "!" + one[1:]} {
		if cookie == one {
			continue
		}
		if _, _, err := s.find(t.Context(), cookie, true); !errors.Is(err, errNoSession) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.end(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.find(t.Context(), one, true); !errors.Is(err, errNoSession) {
		t.Errorf("after its end: %v", err)
	}
	if _, _, err := s.find(t.Context(), two, true); err != nil {
		t.Errorf("the other one ended too: %v", err)
	}
}

// What the store holds is no use to who reads it: neither cookie nor token is in it, and a row moved to another session's
// place opens nothing.
func TestStoreHoldsNoSecret(t *testing.T) {
	s, _ := kept(t)
	one, err := s.begin(t.Context(), "the access token", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.begin(t.Context(), "another token", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := s.store.Read().Query(`SELECT id, token FROM console_sessions`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	count := 0
	for rows.Next() {
		var id, token []byte
		if err := rows.Scan(&id, &token); err != nil {
			t.Fatal(err)
		}
		count++
		for _, secret := range []string{one, two, "token"} {
			if bytes.Contains(id, []byte(secret)) || bytes.Contains(token, []byte(secret)) {
				t.Errorf("%q is in the store", secret)
			}
		}
	}
	if err := rows.Err(); err != nil || count != 2 {
		t.Fatalf("%d rows, %v", count, err)
	}
	err = s.store.Do(t.Context(), func(tx *store.Tx) error {
		a, _ := keysOf(one)
		b, _ := keysOf(two)
		_, err := tx.Exec(`UPDATE console_sessions SET token = (SELECT token FROM console_sessions WHERE id = ?) WHERE id = ?`, a.id, b.id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.find(t.Context(), two, true); !errors.Is(err, errNoSession) {
		t.Errorf("a token in another's place: %v", err)
	}
}

func TestSessionEnds(t *testing.T) {
	s, now := kept(t)
	began := *now
	at := func(d time.Duration, cookie string, active bool) error {
		*now = began.Add(d)
		_, _, err := s.find(context.Background(), cookie, active)
		return err
	}
	cookie, err := s.begin(t.Context(), "t", began.Add(3*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := at(59*time.Minute, cookie, true); err != nil {
		t.Errorf("in use: %v", err)
	}
	if err := at(118*time.Minute, cookie, false); err != nil {
		t.Errorf("within an hour of being used: %v", err)
	}
	if err := at(119*time.Minute, cookie, false); !errors.Is(err, errNoSession) {
		t.Errorf("what a page fetches by itself kept it: %v", err)
	}
	*now = began
	if cookie, err = s.begin(t.Context(), "t", began.Add(3*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for d := 30 * time.Minute; d < 3*time.Hour; d += 30 * time.Minute {
		if err := at(d, cookie, true); err != nil {
			t.Errorf("in use after %s: %v", d, err)
		}
	}
	if err := at(3*time.Hour, cookie, true); !errors.Is(err, errNoSession) {
		t.Errorf("it outlived the sign-in: %v", err)
	}
	*now = began
	if cookie, err = s.begin(t.Context(), "t", began.Add(100*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for d := 30 * time.Minute; d < longestLife; d += 30 * time.Minute {
		if err := at(d, cookie, true); err != nil {
			t.Errorf("in use after %s: %v", d, err)
		}
	}
	if err := at(longestLife, cookie, true); !errors.Is(err, errNoSession) {
		t.Errorf("it lasted longer than the longest: %v", err)
	}
}

func TestSafeNext(t *testing.T) {
	for next, want := range map[string]string{
		"/console/sessions/s-1?hit=3&from=1": "/console/sessions/s-1?hit=3&from=1",
		"/console/inbox":                     "/console/inbox",
		"/console/sessions/?x=/..//evil":     "/console/sessions/?x=/..//evil",
		"":                                   home,
		"https://evil.example/console/":      home,
		"//evil.example/console/":            home,
		"/\\evil.example":                    home,
		"/console/\\evil":                    home,
		"/console/../v1/me":                  home,
		"/console//evil.example":             home,
		"/console/%2e%2e/v1/me":              home,
		"/v1/me":                             home,
		"javascript:alert(1)":                home,
		"/console/sign-in?next=/console/":    home,
		"/console/callback?code=x":           home,
		"/console/inbox\r\nSet-Cookie: x=y":  home,
	} {
		if got := safeNext(next); got != want {
			t.Errorf("%q leads to %q, want %q", next, got, want)
		}
	}
}
