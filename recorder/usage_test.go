package recorder

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/recorder/format"
)

func TestUsage(t *testing.T) {
	r := openRecorder(t, t.TempDir(), configs.Written)
	if l := r.SyncLatency(); l.Median <= 0 || l.Slowest < l.Median {
		t.Errorf("a sync takes %+v", l)
	}
	for _, session := range []string{"s1", "s2"} {
		rec := begin(t, r, session)
		if err := rec.Record(t.Context(), said("some text")); err != nil {
			t.Fatal(err)
		}
		if err := rec.End(format.End{Reason: "done"}); err != nil {
			t.Fatal(err)
		}
	}
	u, err := r.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	today := u.Days[len(u.Days)-1]
	if u.Recordings != 2 || u.Bytes < 500 || len(u.Days) != usageDays || today.Recordings != 2 || today.Bytes != u.Bytes || u.Free <= 0 || u.Left != 0 {
		t.Errorf("%+v", u)
	}
	r.clock = func() time.Time { return time.Now().AddDate(0, 0, 3) }
	if u, err = r.Usage(t.Context()); err != nil || u.Days[len(u.Days)-4].Bytes != u.Bytes || u.Left <= 0 {
		t.Errorf("three days later: %+v, %v", u, err)
	}
}

// Six whole days are behind, today does not count, and what is below the reserve neither.
func TestForecast(t *testing.T) {
	day := func(bytes ...int64) Usage {
		u := Usage{Free: 1300, Reserve: 100}
		for _, b := range bytes {
			u.Days = append(u.Days, DayUsage{Bytes: b})
		}
		return u
	}
	for _, c := range []struct {
		u    Usage
		want time.Duration
	}{
		{day(100, 100, 100, 100, 100, 100, 5), 12 * 24 * time.Hour},
		{day(0, 0, 0, 0, 0, 600, 5), 12 * 24 * time.Hour},
		{day(0, 0, 0, 0, 0, 0, 5), 0},
	} {
		if got := c.u.forecast(); got != c.want {
			t.Errorf("%+v: %v, want %v", c.u, got, c.want)
		}
	}
	full := day(1, 1, 1, 1, 1, 1, 1)
	full.Free = 50
	if got := full.forecast(); got != 0 {
		t.Errorf("below the reserve: %v", got)
	}
	huge := day(1, 0, 0, 0, 0, 0, 0)
	huge.Free = 1 << 60
	if got := huge.forecast(); got <= 0 {
		t.Errorf("on a huge disk: %v", got)
	}
}

// TestBallastComesBack: the room that is kept for endings is kept again after somebody has deleted it, also while the gateway runs.
func TestBallastComesBack(t *testing.T) {
	r := openRecorder(t, t.TempDir(), configs.Written)
	defer r.Close(t.Context())
	if err := r.Ready(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.recordings(), "ballast")
	was, err := os.Stat(path)
	if err != nil || was.Size() == 0 {
		t.Fatal(was, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if r.ballast.Release() {
		t.Error("there was none to give back")
	}
	if err := r.Ready(); err != nil {
		t.Fatal(err)
	}
	if now, err := os.Stat(path); err != nil || now.Size() != was.Size() {
		t.Errorf("%v %v, it was %d bytes", now, err, was.Size())
	}
}
