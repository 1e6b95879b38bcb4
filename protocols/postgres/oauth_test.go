package postgres

import (
	"strings"
	"testing"
)

func TestBearerToken(t *testing.T) {
	for message, want := range map[string]string{
		"n,,\x01auth=\x01\x01":                                               "",
		"n,,\x01auth=Bearer abc.DEF-_~+/9==\x01\x01":                         "abc.DEF-_~+/9==",
		"y,,\x01auth=bearer    t\x01\x01":                                    "t",
		"n,,\x01host=db.example\x01port=5432\x01auth=BEARER t\x01\x01":       "t",
		"n,,\x01auth=Bearer t\x01unknown=anything at all\x01\x01":            "t",
		"n,,\x01auth=Bearer " + strings.Repeat("t", 3000) + "\x01x=\x01\x01": strings.Repeat("t", 3000),
	} {
		if got, err := bearerToken(message); err != nil || got != want {
			t.Errorf("%q: %q, %v", message, got, err)
		}
	}
	for _, message := range []string{
		"", "\x01", "n,,", "n,,\x01", "n,,\x01\x01", "n,,\x01auth=Bearer t", "n,,\x01auth=Bearer t\x01", "n,,\x01auth=Bearer t\x01\x01more",
		"p=tls-server-end-point,,\x01auth=Bearer t\x01\x01", "n,a=bob,\x01auth=Bearer t\x01\x01", "x,,\x01auth=Bearer t\x01\x01", "n,\x01auth=Bearer t\x01\x01",
		"n,,\x01auth=Bearer t\x01auth=Bearer u\x01\x01", "n,,\x01auth=\x01auth=Bearer u\x01\x01", "n,,\x01auth=Basic t\x01\x01", "n,,\x01auth=Bearer\x01\x01",
		"n,,\x01auth=Bearer \x01\x01", "n,,\x01auth=Bearer =\x01\x01", "n,,\x01auth=Bearer t t\x01\x01", "n,,\x01auth=Bearer t\"\x01\x01", "n,,\x01auth=Bearer t=t\x01\x01",
		"n,,\x01auth=Bearert\x01\x01", "n,,\x01Bearer t\x01\x01", "n,,\x01=x\x01auth=Bearer t\x01\x01", "n,,\x01a-b=x\x01auth=Bearer t\x01\x01", "n,,\x01auth=Bearer t\x00\x01\x01",
	} {
		if got, err := bearerToken(message); err == nil {
			t.Errorf("%q was read as %q", message, got)
		} else if strings.Contains(err.Error(), "Bearer t") {
			t.Errorf("the error repeats what was sent: %v", err)
		}
	}
}

func FuzzBearerToken(f *testing.F) {
	f.Add("n,,\x01auth=Bearer abc\x01\x01")
	f.Add("y,,\x01host=a\x01auth=\x01\x01")
	f.Fuzz(func(t *testing.T, message string) {
		token, err := bearerToken(message)
		if err == nil && (strings.ContainsAny(token, " \x00\x01\"\\") || !strings.Contains(message, token)) {
			t.Errorf("%q gave %q", message, token)
		}
	})
}
