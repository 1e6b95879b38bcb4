package verify

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/recorder/format"
)

// recording writes a file of two blocks, ended or not, and returns where the last block begins.
func recording(t *testing.T, path string, end bool) int64 {
	t.Helper()
	name := filepath.Base(path)
	content, b, err := format.Create(format.Header{Session: name[:len(name)-len(".srec")], Protocol: "test", Started: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	for i := range 2 {
		last = b.State().Offset
		if err := b.Add(format.Event{Type: format.TypeSaid, Data: fmt.Append(nil, "event ", i)}); err != nil {
			t.Fatal(err)
		}
		b.Finish()
	}
	if end {
		last = b.State().Offset
		if err := b.Seal(format.End{Reason: "done"}, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(content, b.Bytes()...), 0o600); err != nil {
		t.Fatal(err)
	}
	return last
}

// Without a gateway, a recording that was not ended may be one that a crash left, and one whose last block is not whole may
// be one too, or was cut: whoever asks must be told.
func TestStatesOfFiles(t *testing.T) {
	for _, c := range []struct {
		name  string
		end   bool
		harm  func(path string, last int64) error
		state State
		whole bool
		live  State // with a gateway that does not know the file
	}{
		{"sealed", true, nil, Sealed, true, Sealed},
		{"open", false, nil, Open, true, Damaged},
		{"torn", false, func(p string, last int64) error { return os.Truncate(p, last+20) }, Torn, false, Damaged},
		{"ending torn", true, func(p string, last int64) error { return os.Truncate(p, last+20) }, Torn, false, Damaged},
		{"ending gone", true, func(p string, last int64) error { return os.Truncate(p, last) }, Open, true, Damaged},
		{"first block gone", true, func(p string, last int64) error {
			content, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			content[last-1] ^= 1
			return os.WriteFile(p, content, 0o600)
		}, Damaged, false, Damaged},
		{"empty", true, func(p string, _ int64) error { return os.Truncate(p, 0) }, Damaged, false, Damaged},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "audit"), 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "recordings", "2026", "s1.srec")
		last := recording(t, path, c.end)
		if c.harm != nil {
			if err := c.harm(path, last); err != nil {
				t.Fatal(err)
			}
		}
		report, err := Check(dir, Options{})
		if err != nil || len(report.Recordings) != 1 || report.Recordings[0].State != c.state || report.Whole != c.whole {
			t.Errorf("%s: %+v %v", c.name, report, err)
		}
		report, err = Check(dir, Options{Live: func(string) (int64, bool) { return 0, false }})
		if err != nil || report.Recordings[0].State != c.live || report.Whole != (c.live == Sealed) {
			t.Errorf("%s, with a gateway: %+v %v", c.name, report, err)
		}
	}
	if _, err := Check(t.TempDir(), Options{}); err == nil {
		t.Error("a directory that holds no session log was checked")
	}
}

func TestNumbersOfTheAuditLog(t *testing.T) {
	for _, c := range []struct {
		numbers, waiting []uint64
		want             string
	}{
		{nil, nil, "last 0 missing [] repeated [] waiting []"},
		{[]uint64{1, 2, 3}, []uint64{3, 4, 5}, "last 3 missing [] repeated [] waiting [4 to 5]"},
		{[]uint64{2, 3, 6}, nil, "last 6 missing [1 4 to 5] repeated [] waiting []"},
		{[]uint64{1, 2, 2, 3, 3, 3, 4}, nil, "last 4 missing [] repeated [2 to 3] waiting []"},
		{[]uint64{1}, []uint64{4, 5, 7}, "last 1 missing [2 to 3 6] repeated [] waiting [4 to 5 7]"},
	} {
		var a Audit
		a.count(c.numbers, c.waiting)
		if got := fmt.Sprintf("last %d missing %v repeated %v waiting %v", a.Last, a.Missing, a.Repeated, a.Waiting); got != c.want {
			t.Errorf("%v, %v: %s", c.numbers, c.waiting, got)
		}
	}
}
