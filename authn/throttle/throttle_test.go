package throttle

import (
	"fmt"
	"testing"
	"time"
)

func TestManySourcesAreBounded(t *testing.T) {
	l := Rates{Rate: 20, Burst: 100}
	now := time.Now()
	for i := range mostApart * 2 {
		l.Allow(string(rune('a'+i%26))+time.Duration(i).String(), now)
	}
	if len(l.sources) > mostApart {
		t.Fatalf("%d sources are kept", len(l.sources))
	}
	now = now.Add(time.Hour) // all of them are as good as new
	if !l.Allow("fresh", now) || len(l.sources) != 1 {
		t.Fatalf("%d sources are kept", len(l.sources))
	}
}

// TestFailuresAreBounded: more sources and users than are told apart cost no more memory.
func TestFailuresAreBounded(t *testing.T) {
	var f Failures
	now := time.Now()
	for i := range mostApart + 1000 {
		source, user := fmt.Sprintf("source %d", i), fmt.Sprintf("user %d", i)
		f.Add(source, user, now)
		f.Succeeded(source, user, now)
	}
	if len(f.sources.of) > mostApart || len(f.users.of) > mostApart || len(f.proofs) > mostApart {
		t.Errorf("%d sources, %d users and %d proofs are kept", len(f.sources.of), len(f.users.of), len(f.proofs))
	}
	// A flood does not have all of them looked through with each attempt, for which everybody else waits.
	first := f.sources.swept
	f.Add("one more", "users of it", now.Add(time.Millisecond))
	if f.sources.swept != first || first != now {
		t.Errorf("looked through at %s and %s", first, f.sources.swept)
	}
	f.Add("fresh", "", now.Add(2*Window)) // of whom it is not known
	f.Add("fresh", "fresh user", now.Add(2*Window))
	f.Succeeded("fresh", "fresh user", now.Add(2*rememberProof))
	if len(f.sources.of) != 1 || len(f.users.of) != 1 || len(f.proofs) != 1 {
		t.Errorf("%d sources, %d users and %d proofs are kept after their time", len(f.sources.of), len(f.users.of), len(f.proofs))
	}
}
