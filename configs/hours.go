package configs

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // what a zone means must not depend on the machine that reads the configuration
)

// Hours are a time of the day on some days of the week, in one zone.
type Hours struct {
	Days [7]bool // by time.Weekday
	// From and To are minutes from midnight by the wall clock. Where To is not after From, they end on the next day.
	From, To int
	Zone     *time.Location
	text     string
}

// String is what ParseHours read.
func (h Hours) String() string { return h.text }

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// ParseHours reads hours written as "mon-fri 08:00-19:00 Europe/Berlin": days (one, a range, or several with commas
// between), times of the day, the end being excluded and 24:00 the last, and a zone of the IANA database. Where the end
// is not after the beginning, it is on the next day.
func ParseHours(text string) (Hours, error) {
	wrong := func(what string) (Hours, error) {
		return Hours{}, fmt.Errorf("%q are no hours: %s; write them like mon-fri 08:00-19:00 Europe/Berlin", text, what)
	}
	parts := strings.Fields(text)
	if len(parts) != 3 {
		return wrong("they have days, times and a zone")
	}
	h := Hours{text: strings.Join(parts, " ")}
	for _, days := range strings.Split(parts[0], ",") {
		first, last, found := strings.Cut(days, "-")
		if !found {
			last = first
		}
		from, to := slices.Index(weekdays, first), slices.Index(weekdays, last)
		if from < 0 || to < 0 {
			return wrong("the days are mon, tue, wed, thu, fri, sat and sun")
		}
		for d := from; ; d = (d + 1) % 7 {
			h.Days[d] = true
			if d == to {
				break
			}
		}
	}
	from, to, found := strings.Cut(parts[1], "-")
	var okFrom, okTo bool
	h.From, okFrom = minuteOfDay(from)
	h.To, okTo = minuteOfDay(to)
	if !found || !okFrom || !okTo || h.From == 24*60 {
		return wrong("times are 00:00 to 24:00")
	}
	if parts[2] == "Local" {
		return wrong("the zone has to be named")
	}
	zone, err := time.LoadLocation(parts[2])
	if err != nil {
		return wrong("there is no zone " + parts[2])
	}
	h.Zone = zone
	return h, nil
}

func minuteOfDay(text string) (int, bool) {
	if text == "24:00" {
		return 24 * 60, true
	}
	t, err := time.Parse("15:04", text)
	return t.Hour()*60 + t.Minute(), err == nil && len(text) == len("15:04")
}

// Open says whether the hours hold at that time, and until when; if not, when they next begin.
//
// By the wall clock of the zone: a beginning or end that falls into the hour left out in spring is where that hour
// would have been, and of the hour that comes twice in autumn the first counts.
func (h Hours) Open(at time.Time) (open bool, change time.Time) {
	local := at.In(h.Zone)
	year, month, day := local.Date()
	to := h.To
	if to <= h.From {
		to += 24 * 60
	}
	var next time.Time
	for d := -1; d <= 8; d++ {
		date := time.Date(year, month, day+d, 0, 0, 0, 0, time.UTC)
		if !h.Days[date.Weekday()] {
			continue
		}
		begin, end := h.instant(date, h.From), h.instant(date, to)
		if !at.Before(begin) && at.Before(end) {
			// The hours of the next day may begin when these end, and then it is one.
			if open, later := h.openFrom(end, date); open {
				return true, later
			}
			return true, end
		}
		if next.IsZero() && begin.After(at) && end.After(begin) {
			next = begin
		}
	}
	return false, next
}

// openFrom follows hours over midnight, for as long as a week.
func (h Hours) openFrom(end time.Time, date time.Time) (bool, time.Time) {
	to := h.To
	if to <= h.From {
		to += 24 * 60
	}
	found := false
	for range 7 {
		date = date.AddDate(0, 0, 1)
		if !h.Days[date.Weekday()] || h.instant(date, h.From).After(end) {
			break
		}
		end, found = h.instant(date, to), true
	}
	return found, end
}

// instant is when the wall clock of the zone shows that many minutes after that date's midnight (a date in UTC).
func (h Hours) instant(date time.Time, minutes int) time.Time {
	shown := date.Add(time.Duration(minutes) * time.Minute)
	var guess time.Time
	for i, around := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		_, offset := shown.Add(around).In(h.Zone).Zone()
		t := shown.Add(-time.Duration(offset) * time.Second)
		_, really := t.In(h.Zone).Zone()
		if really == offset { // the clock before the change comes first, and is the earlier of two
			return t
		}
		if i == 0 {
			guess = t
		}
	}
	start, _ := guess.In(h.Zone).ZoneBounds() // the clock is never shown: it jumps over it here
	return start.UTC()
}
