package recorder

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
	"sallyport/recorder/format"
	"sallyport/recorder/verify"
)

// No recording is deleted that is not kept elsewhere, as it is here, whatever its age.
func TestPurgeAsksTheArchive(t *testing.T) {
	dir := t.TempDir()
	g := keeping(t, dir)
	defer g.Close(context.Background())
	kept := map[string]string{} // chain values, by session
	var failing error
	asked := 0
	g.Archived = func(_ context.Context, session string) (string, map[string]string, error) {
		asked++
		return kept[session], map[string]string{"object": "object of " + session}, failing
	}
	chain := func(session string) string {
		_, _, state, _, err := g.epitaph(format.Header{Session: session})
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(state.Chain[:])
	}
	recorded(t, g, "s1", "short", true)
	recorded(t, g, "s2", "short", true)
	recorded(t, g, "s3", "short", true)
	if purge(t, g); asked != 0 {
		t.Error("the archive was asked about recordings whose time is not over")
	}
	after(g, 11*day)
	kept["s1"], kept["s2"] = chain("s1"), chain("s3") // something else is kept as s2, and s3 is not kept
	if got := purge(t, g); got != "s1" {
		t.Errorf("purged %q; only s1 is kept elsewhere as it is here", got)
	}
	for event, err := range g.Audit(t.Context(), AuditFilter{Kind: "recording.purged"}) {
		if err != nil || event.Session != "s1" || event.Fields["object"] != "object of s1" {
			t.Errorf("%+v, %v: want s1, and where it is kept", event, err)
		}
	}
	kept["s2"], kept["s3"] = chain("s2"), chain("s3")
	asked, failing = 0, errors.New("nobody there")
	if purged, err := g.Purge(t.Context()); err == nil || len(purged) > 0 || asked != 1 {
		t.Errorf("purged %v, %v after %d questions; an archive that does not answer is not asked again in one go", purged, err, asked)
	}
	failing = nil
	if got := purge(t, g); got != "s2 s3" {
		t.Errorf("purged %q", got)
	}
}

// An audit file is ended at its age, so that it can be archived; nothing of the audit log is lost by that, nor written twice.
func TestAuditFilesEndByAge(t *testing.T) {
	dir := t.TempDir()
	s := storetest.New(t, dir)
	r, err := Open(t.Context(), Options{
		Dir: dir, Log: testLog(t), Store: s, Config: configs.Recording{Durability: configs.Written}, EndAudit: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(context.Background())
	for i := range 3 {
		if err := s.Audit(t.Context(), store.AuditEvent{Kind: "test.happened", Actor: "x"}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "an audit file is ended", func() bool {
			files := r.auditFiles()
			if len(files) <= i {
				return false
			}
			_, settled := r.Stored(sessionOf(files[i]))
			return settled
		})
	}
	report, err := r.Verify(t.Context())
	if err != nil || !report.Whole || report.Audit.Events != 3 || len(report.Audit.Files) < 3 {
		t.Errorf("%+v, %v: want 3 events in as many files", report, err)
	}
}

// A copy of an archive lacks what had not ended, which --archive takes as that, and nothing else.
func TestVerifyOfACopyOfAnArchive(t *testing.T) {
	dir := t.TempDir()
	s := storetest.New(t, dir)
	r := bound(t, dir, s)
	ended, alive := begin(t, r, "ended"), begin(t, r, "alive")
	if err := errors.Join(ended.Record(t.Context(), said("a")), alive.Record(t.Context(), said("b")), ended.End(format.End{Reason: "done"})); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Ledger.Publish(); err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	unbind(t, r)
	remove := func(pattern string) {
		t.Helper()
		paths, err := filepath.Glob(filepath.Join(copied, filepath.FromSlash(pattern)))
		if err == nil && len(paths) == 0 {
			err = fs.ErrNotExist
		}
		for _, path := range paths {
			err = errors.Join(err, os.Remove(path))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(archive bool) *verify.Report {
		t.Helper()
		o, err := verify.Trust(filepath.Join(dir, "keys", "log.pub"), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		o.Archive = archive
		report, err := verify.Check(copied, o)
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	remove("recordings/*/*/*/alive.srec")
	if report := check(false); report.Whole {
		t.Error("a state directory without a recording that its log tells of is whole")
	}
	if report := check(true); !report.Whole {
		t.Errorf("a copy of an archive without a recording that had not ended is not whole: %+v", report.Log.Problems)
	} else if !strings.Contains(strings.Join(report.Log.NotProven, "\n"), "1 recordings and audit files that had not ended") {
		t.Errorf("it does not say what it lacks: %q", report.Log.NotProven)
	}
	remove("recordings/*/*/*/ended.srec")
	if report := check(true); report.Whole || len(report.Log.Problems) != 1 || report.Log.Problems[0].Kind != verify.Gone {
		t.Errorf("a copy of an archive without a recording that had ended: %+v", report.Log.Problems)
	}
}
