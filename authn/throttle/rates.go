// Package throttle bounds what strangers may ask for, and how often they may fail.
//
// It promises that no source costs more memory or time than any other, however many there are: beyond thousands they are not told
// apart any more, and share what one may do; and that whoever guesses at somebody's password, from wherever, keeps nobody out who
// has it. All of it is in memory and begins anew with the process.
package throttle

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// mostApart is how many sources, or users, are told apart.
const mostApart = 4096

// sweepEvery is how often a full table is looked through, at most: not at each attempt of a flood, for which everybody waits.
const sweepEvery = time.Second

// Rates keeps a token bucket a source, of Rate a second and Burst. Safe for concurrent use.
type Rates struct {
	Rate  rate.Limit
	Burst int

	mu      sync.Mutex
	sources map[string]*rate.Limiter
	others  *rate.Limiter // shared by those beyond mostApart
	swept   time.Time     // when sources were last looked through for ones to forget
}

// Allow takes a token of the source's; false where it has none left.
func (l *Rates) Allow(source string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket := l.sources[source]
	if bucket == nil {
		if l.sources == nil {
			l.sources, l.others = map[string]*rate.Limiter{}, rate.NewLimiter(l.Rate, l.Burst)
		}
		if len(l.sources) >= mostApart && now.Sub(l.swept) >= sweepEvery {
			l.swept = now
			for s, b := range l.sources {
				if b.TokensAt(now) >= float64(l.Burst) { // as good as new
					delete(l.sources, s)
				}
			}
		}
		if bucket = l.others; len(l.sources) < mostApart {
			bucket = rate.NewLimiter(l.Rate, l.Burst)
			l.sources[source] = bucket
		}
	}
	return bucket.AllowN(now, 1)
}
