package throttle

import (
	"sync"
	"time"
)

// Wrong passwords that may be tried in a minute. Each is one guess at 130 bits, so this is about noise and load.
const (
	Most       = 20  // from one source
	MostOfUser = 100 // for one user, from all sources
	Window     = time.Minute
	// rememberProof is how long a source is known to have the password of a user.
	rememberProof = 24 * time.Hour
)

// Block is whom Failures keeps waiting.
type Block int

// The kinds.
const (
	Nobody Block = iota
	Source       // the source has failed often
	User         // the user's password was often guessed, from wherever
)

// Failures counts wrong passwords by source and by user ("": it is not known whose, or nobody's). A source that has proven a user's password is counted by itself for that
// user: neither those who share its address nor those who guess at the user from elsewhere can keep it out. Users that there are
// none of are counted as others are. The zero value is ready. Safe for concurrent use.
type Failures struct {
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

// Blocked tells whether an attempt must wait, and for what.
func (f *Failures) Blocked(source, user string, now time.Time) Block {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.proof(source, user, now); p != nil {
		if p.within(now) >= Most {
			return Source
		}
		return Nobody
	}
	switch {
	case f.sources.of[source].within(now) >= Most:
		return Source
	case f.users.of[user].within(now) >= MostOfUser:
		return User
	}
	return Nobody
}

// Add counts a failure.
func (f *Failures) Add(source, user string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.proof(source, user, now); p != nil {
		p.add(now)
		return
	}
	f.sources.add(source, now)
	if user != "" {
		f.users.add(user, now)
	}
}

// Succeeded remembers that the source has the user's password.
func (f *Failures) Succeeded(source, user string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.proof(source, user, now); p != nil {
		p.at = now
		return
	}
	if f.proofs == nil {
		f.proofs = map[holding]*proof{}
	}
	if len(f.proofs) >= mostApart && now.Sub(f.swept) >= sweepEvery {
		f.swept = now
		for of, p := range f.proofs {
			if now.Sub(p.at) >= rememberProof {
				delete(f.proofs, of)
			}
		}
	}
	if len(f.proofs) >= mostApart { // it is only worth something while somebody guesses
		return
	}
	f.proofs[holding{source, user}] = &proof{at: now}
}

func (f *Failures) proof(source, user string, now time.Time) *proof {
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
	if f == nil || now.Sub(f.since) >= Window {
		return 0
	}
	return f.count
}

func (f *failed) add(now time.Time) {
	if now.Sub(f.since) >= Window {
		*f = failed{since: now}
	}
	f.count++
}

// tally are counts by name, of which mostApart are told apart. The zero value is ready.
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
		if len(t.of) >= mostApart && now.Sub(t.swept) >= sweepEvery {
			t.swept = now
			for n, other := range t.of {
				if now.Sub(other.since) >= Window {
					delete(t.of, n)
				}
			}
		}
		if len(t.of) >= mostApart {
			return // so many at once that telling them apart would be the attack
		}
		of = &failed{}
		t.of[name] = of
	}
	of.add(now)
}
