package postgres

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/configs"
)

// TestWarningsInTime: each warning comes at its time before the end as that stands then, and those alone that are still to come.
func TestWarningsInTime(t *testing.T) {
	const minute = time.Minute
	tests := map[string]struct {
		before []time.Duration
		lasts  time.Duration
		moved  time.Duration            // the end, after three minutes
		want   map[time.Duration]string // by the time since the beginning
	}{
		"two of three":       {[]time.Duration{2 * minute, 5 * minute, time.Hour}, 10 * minute, 0, map[time.Duration]string{5 * minute: "5m0s", 8 * minute: "2m0s"}},
		"an extension":       {[]time.Duration{5 * minute}, 10 * minute, 30 * minute, map[time.Duration]string{35 * minute: "5m0s"}},
		"an extension after": {[]time.Duration{8 * minute, 2 * minute}, 10 * minute, 30 * minute, map[time.Duration]string{2 * minute: "8m0s", 38 * minute: "2m0s"}},
		"none to come":       {[]time.Duration{time.Hour}, 10 * minute, 0, map[time.Duration]string{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var lasts atomic.Int64
				lasts.Store(int64(test.lasts))
				var before []configs.Duration
				for _, d := range test.before {
					before = append(before, configs.Duration(d))
				}
				stop := remind(before, func() time.Time { return began.Add(time.Duration(lasts.Load())) }, func(before time.Duration) {
					at := time.Since(began)
					if test.want[at] != before.String() {
						t.Errorf("after %s it was warned %s before the end", at, before)
					}
					delete(test.want, at)
				})
				time.Sleep(3 * minute)
				synctest.Wait()
				lasts.Add(int64(test.moved))
				time.Sleep(time.Hour)
				synctest.Wait()
				stop()
				for at, before := range test.want {
					t.Errorf("it was not warned %s before the end, after %s", before, at)
				}
			})
		})
	}
}

// TestWarnedBetweenAnswers: a warning that comes while answers do is told at the end of one, and breaks none.
func TestWarnedBetweenAnswers(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	config, err := pgx.ParseConfig(h.connection(h.alice))
	h.must(err)
	var said []string
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { said = append(said, n.Severity+": "+n.Message) }
	conn, err := pgx.ConnectConfig(ctx, config)
	h.must(err)
	defer conn.Close(ctx)
	cancels := &h.handler.cancels
	cancels.mu.Lock()
	r := cancels.byPID[conn.PgConn().PID()][0].relay
	cancels.mu.Unlock()
	told := make(chan struct{})
	go func() {
		defer close(told)
		for _, before := range []time.Duration{5 * time.Minute, 2 * time.Minute} {
			r.warn(before)
			for waits := true; waits && ctx.Err() == nil; runtime.Gosched() {
				r.out.mu.Lock()
				waits = r.out.notice != nil
				r.out.mu.Unlock()
			}
		}
	}()
	for over := false; !over; {
		select {
		case <-told:
			over = true // once more, for it may stand behind the last answer
		default:
		}
		h.must(runs(ctx, conn, "select generate_series(1, 1000)"))
	}
	if want := []string{"WARNING: this session ends in 5m0s", "WARNING: this session ends in 2m0s"}; !slices.Equal(said, want) {
		t.Errorf("it was told %s", strings.Join(said, "; "))
	}
}
