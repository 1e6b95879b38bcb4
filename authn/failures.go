package authn

import (
	"sync"
	"time"
)

// Wrong passwords that may be tried in a minute. Each is one guess at 130 bits, so this is about noise and load.
const (
	maxFailures     = 20  // from one source
	maxUserFailures = 100 // for one user, from all sources
	failureWindow   = time.Minute
	// rememberProof is how long a source is known to have the password of a user.
	rememberProof = 24 * time.Hour
	// sweepEvery is how often a full table is looked through, at most: not at each attempt of a flood, for which everybody waits.
	sweepEvery = time.Second
)

// Whom failures keeps waiting.
type block int

const (
	blockedNot    block = iota
	blockedSource       // the source has failed often
	blockedUser         // the user's password was often guessed, from wherever
)

// failures counts wrong passwords by source and by user. A source that has proven a user's password is counted by itself for that
// user: neither those who share its address nor those who guess at the user from elsewhere can keep it out. Users that there are
// none of are counted as others are. The zero value is ready.
type failures struct {
	mu      sync.Mutex
	sources tally
	users   tally
	proofs  map[holding]*proof
	swept   time.Time // when proofs were last looked through for ones to forget
}

type holding struct{ source, user string }

// proof is a source's that has proven a user's password.
type proof struct {
	failed
	at time.Time
}

// blocked tells whether an attempt must wait, and for what.
func (f *failures) blocked(source, user string, now time.Time) block {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.proof(source, user, now); p != nil {
		if p.within(now) >= maxFailures {
			return blockedSource
		}
		return blockedNot
	}
	switch {
	case f.sources.of[source].within(now) >= maxFailures:
		return blockedSource
	case f.users.of[user].within(now) >= maxUserFailures:
		return blockedUser
	}
	return blockedNot
}

// add counts a failure.
func (f *failures) add(source, user string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.proof(source, user, now); p != nil {
		p.add(now)
		return
	}
	f.sources.add(source, now)
	if len(user) == passwordIDLength { // no other has a password
		f.users.add(user, now)
	}
}

// succeeded remembers that the source has the user's password.
func (f *failures) succeeded(source, user string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.proof(source, user, now); p != nil {
		p.at = now
		return
	}
	if f.proofs == nil {
		f.proofs = map[holding]*proof{}
	}
	if len(f.proofs) >= maxRates && now.Sub(f.swept) >= sweepEvery {
		f.swept = now
		for of, p := range f.proofs {
			if now.Sub(p.at) >= rememberProof {
				delete(f.proofs, of)
			}
		}
	}
	if len(f.proofs) >= maxRates { // it is only worth something while somebody guesses
		return
	}
	f.proofs[holding{source, user}] = &proof{at: now}
}

func (f *failures) proof(source, user string, now time.Time) *proof {
	p := f.proofs[holding{source, user}]
	if p == nil || now.Sub(p.at) >= rememberProof {
		return nil
	}
	return p
}

// failed counts what one has failed at within a window. The zero value is ready, and nil has failed at nothing.
type failed struct {
	since time.Time
	count int
}

func (f *failed) within(now time.Time) int {
	if f == nil || now.Sub(f.since) >= failureWindow {
		return 0
	}
	return f.count
}

func (f *failed) add(now time.Time) {
	if now.Sub(f.since) >= failureWindow {
		*f = failed{since: now}
	}
	f.count++
}

// tally are counts by name, of which maxRates are told apart. The zero value is ready.
type tally struct {
	of    map[string]*failed
	swept time.Time // when it was last looked through for ones to forget
}

func (t *tally) add(name string, now time.Time) {
	if t.of == nil {
		t.of = map[string]*failed{}
	}
	of := t.of[name]
	if of == nil {
		if len(t.of) >= maxRates && now.Sub(t.swept) >= sweepEvery {
			t.swept = now
			for n, other := range t.of {
				if now.Sub(other.since) >= failureWindow {
					delete(t.of, n)
				}
			}
		}
		if len(t.of) >= maxRates {
			return // so many at once that telling them apart would be the attack
		}
		of = &failed{}
		t.of[name] = of
	}
	of.add(now)
}
