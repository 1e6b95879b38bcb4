package configs

import (
	"strings"
	"testing"
	"time"
)

func TestParseHours(t *testing.T) {
	for _, text := range []string{
		"", "mon", "mon 08:00-19:00", "mon 08:00-19:00 Nowhere/Land", "mon 8:00-19:00 UTC", "mon 08:00-25:00 UTC", "mon 24:00-01:00 UTC",
		"mo 08:00-19:00 UTC", "mon-fri 08:00 UTC", "mon 08:00-19:00 Local", "Mon 08:00-19:00 UTC", "mon,, 08:00-19:00 UTC", "mon 08:00-19:00 ../UTC",
	} {
		if h, err := ParseHours(text); err == nil || !strings.Contains(err.Error(), "mon-fri 08:00-19:00 Europe/Berlin") {
			t.Errorf("%q reads as %+v, %v", text, h, err)
		}
	}
}

func TestHoursOpen(t *testing.T) {
	for _, tt := range []struct {
		hours, at string
		open      bool
		change    string
	}{
		{"mon-fri 08:00-19:00 Europe/Berlin", "2026-11-24T07:00:00Z", true, "2026-11-24T18:00:00Z"},
		{"mon-fri 08:00-19:00 Europe/Berlin", "2026-11-24T06:59:59Z", false, "2026-11-24T07:00:00Z"},
		{"mon-fri 08:00-19:00 Europe/Berlin", "2026-11-24T18:00:00Z", false, "2026-11-25T07:00:00Z"},
		{"mon-fri 08:00-19:00 Europe/Berlin", "2026-11-27T18:30:00Z", false, "2026-11-30T07:00:00Z"},
		{"mon-fri 08:00-19:00 Europe/Berlin", "2026-07-24T06:00:00Z", true, "2026-07-24T17:00:00Z"},
		// Over midnight, and over several days.
		{"fri 22:00-04:00 UTC", "2026-11-28T03:59:00Z", true, "2026-11-28T04:00:00Z"},
		{"fri 22:00-04:00 UTC", "2026-11-27T03:59:00Z", false, "2026-11-27T22:00:00Z"},
		{"sat-sun 00:00-24:00 UTC", "2026-11-28T10:00:00Z", true, "2026-11-30T00:00:00Z"},
		{"fri-mon 00:00-00:00 UTC", "2026-11-28T10:00:00Z", true, "2026-12-01T00:00:00Z"},
		{"sun 10:00-11:00 UTC", "2026-11-29T11:00:00Z", false, "2026-12-06T10:00:00Z"},
		// In Berlin the clock goes from 02:00 to 03:00 on 2026-03-29, at 01:00 UTC.
		{"sun 02:30-04:00 Europe/Berlin", "2026-03-29T00:59:59Z", false, "2026-03-29T01:00:00Z"},
		{"sun 02:30-04:00 Europe/Berlin", "2026-03-29T01:00:00Z", true, "2026-03-29T02:00:00Z"},
		{"sun 01:00-02:30 Europe/Berlin", "2026-03-29T00:30:00Z", true, "2026-03-29T01:00:00Z"},
		{"sun 02:10-02:50 Europe/Berlin", "2026-03-29T01:00:00Z", false, "2026-04-05T00:10:00Z"},
		// And from 03:00 to 02:00 on 2026-10-25, at 01:00 UTC: what begins in the hour that comes twice begins once.
		{"sun 02:30-03:00 Europe/Berlin", "2026-10-25T00:30:00Z", true, "2026-10-25T02:00:00Z"},
		{"sun 02:30-03:00 Europe/Berlin", "2026-10-25T01:10:00Z", true, "2026-10-25T02:00:00Z"},
		{"sun 02:00-02:30 Europe/Berlin", "2026-10-25T01:10:00Z", false, "2026-11-01T01:00:00Z"},
	} {
		h, err := ParseHours(tt.hours)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		open, change := h.Open(at)
		if got := change.UTC().Format(time.RFC3339); open != tt.open || got != tt.change {
			t.Errorf("%s at %s: %v until %s, want %v until %s", tt.hours, tt.at, open, got, tt.open, tt.change)
		}
	}
}
