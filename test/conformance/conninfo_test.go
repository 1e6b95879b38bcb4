package main

import (
	"maps"
	"testing"
)

func TestParseConninfo(t *testing.T) {
	for text, want := range map[string]conninfo{
		"host=localhost port=5432":         {"host": "localhost", "port": "5432"},
		" host = localhost\tuser=a ":       {"host": "localhost", "user": "a"},
		`password='it''s' user=b`:          nil,
		`password='it\'s \\ so' user=b`:    {"password": `it's \ so`, "user": "b"},
		`password=a\ b dbname=c`:           {"password": "a b", "dbname": "c"},
		`options='-c a=b' sslmode=disable`: {"options": "-c a=b", "sslmode": "disable"},
		`password='' host=h`:               {"password": "", "host": "h"},
		"host":                             nil,
		"host='open":                       nil,
		"service=elsewhere":                nil,
	} {
		got, err := parseConninfo(text)
		if want == nil {
			if err == nil {
				t.Errorf("%q: read as %v, want an error", text, got)
			}
			continue
		}
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestConninfoText(t *testing.T) {
	want := conninfo{"host": "localhost", "password": `it's \ so`, "dbname": ""}
	got, err := parseConninfo(want.with("hostaddr", "127.0.0.1").text())
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}
