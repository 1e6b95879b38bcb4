package storage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"sallyport/authn/secrets"
	"sallyport/configs"
	"sallyport/internal/store"
	"sallyport/recorder/archive"
	"sallyport/recorder/transparency"
)

// What has ended goes there, locked; a copy of the bucket, however it is made, is what the auditor's binary proves; no
// checkpoint ever names what was not there yet; and only then are recordings deleted here.
func TestArchive(t *testing.T) {
	s := startStore(t, true)
	type seen struct {
		size  int64
		files []string
	}
	var mu sync.Mutex
	var checkpoints []seen
	between := func(_ http.ResponseWriter, r *http.Request) bool {
		if _, name, ok := strings.Cut(r.URL.Path, "/transparency/checkpoints/"); ok && r.Method == http.MethodPut {
			size, _, _ := strings.Cut(name, "-")
			n, err := strconv.ParseInt(size, 10, 64)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			checkpoints = append(checkpoints, seen{n, s.stored()})
			mu.Unlock()
		}
		return false
	}
	s.between.Store(&between)
	dir := t.TempDir()
	c := config(s.address)
	c.Lock = configs.ArchiveLock{Mode: configs.LockCompliance, For: configs.Duration(48 * time.Hour)}
	g := startGateway(t, dir, c, 0)
	var sessions []string
	for i, size := range []int{10, 100_000, 40 << 20, 5} { // the third goes in parts
		session := "s" + strconv.Itoa(i)
		sessions = append(sessions, session)
		if err := g.record(session, size, true); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			g.complete(t, s, sessions...)
		}
	}
	if err := g.record("alive", 10, false); err != nil {
		t.Fatal(err)
	}
	g.complete(t, s, sessions...)
	if len(g.audited(t, "recording.archived")) != len(sessions) {
		t.Errorf("%+v: want one event for each of %d recordings", g.audited(t, "recording.archived"), len(sessions))
	}

	// Nothing was named before it was there.
	ended := map[string]int64{}
	if err := g.ledger.Recent(func(n int64, leaf transparency.Leaf) bool {
		if leaf.Kind == transparency.Close {
			ended[leaf.Session] = n
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if len(checkpoints) < 2 {
		t.Errorf("%d checkpoints went there", len(checkpoints))
	}
	for _, at := range checkpoints {
		for session, leaf := range ended {
			if leaf < at.size && !slices.ContainsFunc(at.files, func(f string) bool { return strings.HasSuffix(f, "/"+session+".srec") }) {
				t.Errorf("the checkpoint over %d leaves went before the recording of %s, which leaf %d ended", at.size, session, leaf)
			}
		}
	}
	mu.Unlock()

	// Two ways to a copy, the same verdict.
	synced, pulled := t.TempDir(), t.TempDir()
	for _, folder := range []string{"transparency", "audit", "recordings"} { // the log first, for the archive goes on
		if err := os.CopyFS(filepath.Join(synced, folder), os.DirFS(filepath.Join(s.files, filepath.FromSlash(prefix), folder))); err != nil {
			t.Fatal(err)
		}
	}
	o := archive.Options{Config: c, Secret: secrets.Resolve}
	p, err := archive.Pull(t.Context(), o, pulled)
	if err != nil || len(p.Wrong)+len(p.Hidden) > 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	kept := filepath.Join(t.TempDir(), "kept")
	for _, copied := range []string{synced, pulled} {
		logKey := filepath.Join(dir, "keys", "log.pub")
		if code, out := verify(t, copied, "--archive", "--log-key", logKey, "--save", kept); code != 3 || !strings.Contains(out, "had not ended") {
			t.Errorf("exit %d, and nobody vouches for it:\n%s", code, out)
		}
		if code, out := verify(t, copied, "--archive", "--log-key", logKey, "--checkpoint", kept); code != 0 {
			t.Errorf("exit %d with a checkpoint that was kept:\n%s", code, out)
		}
		if code, out := verify(t, copied, "--log-key", logKey); code != 1 {
			t.Errorf("exit %d of an archive that is taken for a state directory:\n%s", code, out)
		}
	}
	if again, err := archive.Pull(t.Context(), o, pulled); err != nil || again.Had < p.Fetched {
		t.Errorf("%+v, %v: what was there was fetched again", again, err)
	}
	one := t.TempDir()
	if p, err := archive.Pull(t.Context(), o, one, "s1"); err != nil || p.Fetched == 0 {
		t.Errorf("%+v, %v", p, err)
	} else if found, _ := filepath.Glob(filepath.Join(one, "recordings", "*", "*", "*", "*", "*.srec")); len(found) != 1 {
		t.Errorf("of one session there are %q", found)
	}

	if got, err := g.due(t); err != nil || got != "s0 s1 s2 s3" {
		t.Errorf("purged %q, %v", got, err)
	}
	for _, e := range g.audited(t, "recording.purged") {
		if !strings.HasSuffix(e.Fields["object"], e.Session+".srec") || e.Fields["version"] == "" {
			t.Errorf("%+v does not say where it is", e)
		}
	}

	// Nobody deletes it there before its time: a delete without a version hides it, and Pull finds it.
	object := strings.TrimPrefix(s.file("s1"), s.files+"/")
	info, err := s.client.StatObject(t.Context(), bucket, object, minio.StatObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.client.RemoveObject(t.Context(), bucket, object, minio.RemoveObjectOptions{VersionID: info.VersionID, GovernanceBypass: true}); err == nil {
		t.Error("a version under compliance was deleted")
	}
	if err := s.client.RemoveObject(t.Context(), bucket, object, minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	if p, err := archive.Pull(t.Context(), o, t.TempDir(), "s1"); err != nil || len(p.Hidden) != 1 || len(p.Wrong) > 0 {
		t.Errorf("%+v, %v: want what was hidden", p, err)
	}
}

// A store that stores something else than it was sent, and says that all is well, is found out, and heals once that is away.
func TestStoreThatLies(t *testing.T) {
	s := startStore(t, false)
	after := func(r *http.Request, answer *http.Response) {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/s1.srec") && answer.StatusCode == http.StatusOK {
			path := s.file("s1")
			content, err := os.ReadFile(path)
			if err == nil {
				content[len(content)/2] ^= 1
				err = os.WriteFile(path, content, 0o644)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
	s.after.Store(&after)
	g := startGateway(t, t.TempDir(), config(s.address), 0)
	if err := g.record("s1", 5000, true); err != nil {
		t.Fatal(err)
	}
	if err := g.record("s2", 5000, true); err != nil {
		t.Fatal(err)
	}
	status := g.status(t, "the lie is found out", func(a archive.Status) bool { return strings.Contains(a.Error, "something else") })
	if i, err := g.Integrity(t.Context(), "s1"); err != nil || i.Leaf < 0 || status.Checkpoint > i.Leaf {
		t.Errorf("%+v, %v, %+v: a checkpoint names what is not there", i, err, status)
	}
	g.status(t, "others go there all the same", func(a archive.Status) bool { return a.Archived >= 1 })
	if got, err := g.due(t); err != nil || got != "s2" {
		t.Errorf("purged %q, %v: s1 is not in the archive", got, err)
	}
	s.after.Store(nil)
	// What is there is never written over: somebody has to take it away.
	path := s.file("s1")
	wrong, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g.status(t, "it is tried again", func(a archive.Status) bool { return a.FailedAt.After(status.FailedAt) })
	if still, err := os.ReadFile(path); err != nil || !bytes.Equal(still, wrong) {
		t.Errorf("what was there was written over (%v)", err)
	}
	pulled, err := archive.Pull(t.Context(), archive.Options{Config: config(s.address), Secret: secrets.Resolve}, t.TempDir())
	if err != nil || len(pulled.Wrong) != 1 || !strings.HasSuffix(pulled.Wrong[0], "/s1.srec") {
		t.Errorf("%+v, %v: want s1 named", pulled, err)
	}
	s.remove("s1")
	g.complete(t, s, "s1")
	if got, err := g.due(t); err != nil || got != "s1" {
		t.Errorf("purged %q, %v", got, err)
	}
}

// Connections that break in the middle of an object leave nothing half there.
func TestHalfWritten(t *testing.T) {
	s := startStore(t, false)
	var cuts atomic.Int32
	between := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, ".srec") && cuts.Add(1) <= 2 {
			r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 1<<20), broken{}))
			s.forward.ServeHTTP(cutter{}, r)
		}
		return false
	}
	s.between.Store(&between)
	g := startGateway(t, t.TempDir(), config(s.address), 0)
	if err := g.record("s1", 3<<20, true); err != nil {
		t.Fatal(err)
	}
	g.complete(t, s, "s1")
	if cuts.Load() < 3 {
		t.Errorf("%d writes: nothing was cut", cuts.Load())
	}
	want, _ := g.Stored("s1")
	here, err := os.ReadFile(filepath.Join(g.Dir, want))
	if err != nil {
		t.Fatal(err)
	}
	if there, err := os.ReadFile(s.file("s1")); err != nil || !bytes.Equal(here, there) {
		t.Errorf("what is there is not what is here (%v)", err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// cutter ends the connection instead of answering.
type cutter struct{}

func (cutter) Header() http.Header         { return http.Header{} }
func (cutter) Write(b []byte) (int, error) { panic(http.ErrAbortHandler) }
func (cutter) WriteHeader(int)             { panic(http.ErrAbortHandler) }

// An object that was there, and is not any more when its recording's time is over here, keeps the recording, which goes again.
func TestDeletedThere(t *testing.T) {
	s := startStore(t, false)
	g := startGateway(t, t.TempDir(), config(s.address), 0)
	if err := g.record("s1", 5000, true); err != nil {
		t.Fatal(err)
	}
	g.complete(t, s, "s1")
	s.remove("s1")
	if got, err := g.due(t); err != nil || got != "" || !g.has("s1") {
		t.Fatalf("purged %q, %v: the only copy", got, err)
	}
	g.later.Store(int64(time.Hour))
	g.status(t, "it goes again", func(a archive.Status) bool { return a.Waiting == 0 })
	s.file("s1")
	if got, err := g.due(t); err != nil || got != "s1" {
		t.Errorf("purged %q, %v", got, err)
	}
}

// A store that never answers keeps no session from beginning, recording and ending; the alarm is given, and taken back.
func TestStoreThatNeverAnswers(t *testing.T) {
	s := startStore(t, false)
	hang := make(chan struct{})
	between := func(_ http.ResponseWriter, r *http.Request) bool {
		io.Copy(io.Discard, r.Body)
		select {
		case <-hang:
		case <-r.Context().Done():
		}
		return false
	}
	s.between.Store(&between)
	c := config(s.address)
	c.MaxBehind = configs.Duration(time.Millisecond)
	g := startGateway(t, t.TempDir(), c, 200*time.Millisecond)
	for i := range 20 {
		began := time.Now()
		if err := g.record("s"+strconv.Itoa(i), 1000, true); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a session took %v", took)
		}
	}
	g.status(t, "the alarm", func(a archive.Status) bool { return a.Behind && strings.Contains(a.Error, "did nothing for") })
	until(t, "the alarm is told, once", func() error {
		if events := g.audited(t, "archive.behind"); len(events) != 1 || events[0].Outcome != "failed" {
			return fmt.Errorf("%+v", events)
		}
		return nil
	})
	if report, err := g.Verify(t.Context()); err != nil || !report.Whole {
		t.Errorf("%+v, %v", report, err)
	}
	s.between.Store(nil)
	close(hang)
	g.status(t, "all is there", func(a archive.Status) bool { return a.Waiting == 0 && a.Archived >= 20 && a.Error == "" })
	until(t, "the end of the alarm is told", func() error {
		if len(g.audited(t, "archive.caught_up")) == 0 {
			return os.ErrNotExist
		}
		return nil
	})
}

// A gateway that is killed in the middle of a large recording goes on where it was: no part that was there is sent again.
func TestKilledHalfWay(t *testing.T) {
	s := startStore(t, true)
	var parts atomic.Int32
	third := make(chan struct{}, 1)
	after := func(r *http.Request, answer *http.Response) {
		if r.Method == http.MethodPut && r.URL.Query().Get("partNumber") != "" && answer.StatusCode == http.StatusOK && parts.Add(1) == 3 {
			third <- struct{}{}
		}
	}
	s.after.Store(&after)
	dir := t.TempDir()
	command := exec.Command(os.Args[0], "gateway", dir, s.address)
	command.Env = append(os.Environ(), "TEST_ARCHIVE_ACCESS="+accessKey, "TEST_ARCHIVE_SECRET="+secretKey)
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "recorded\n" {
		kill(t, command)
		t.Fatalf("%q, %v", line, err)
	}
	select {
	case <-third:
	case <-time.After(time.Minute):
		kill(t, command)
		t.Fatal("no third part")
	}
	kill(t, command)
	g := startGateway(t, dir, config(s.address), 0)
	g.complete(t, s, "large")
	if got := parts.Load(); got > 5+1 { // one may have been on its way, its answer unheard
		t.Errorf("%d parts were sent of a recording of 5", got)
	}
	if got, err := g.due(t); err != nil || got != "large" {
		t.Errorf("purged %q, %v", got, err)
	}
}

// A bucket without Object Lock gets nothing where it is asked for, and the error says so.
func TestNoLockWhereOneIsAskedFor(t *testing.T) {
	s := startStore(t, false)
	c := config(s.address)
	c.Lock = configs.ArchiveLock{Mode: configs.LockGovernance, For: configs.Duration(24 * time.Hour)}
	g := startGateway(t, t.TempDir(), c, 0)
	if err := g.record("s1", 100, true); err != nil {
		t.Fatal(err)
	}
	g.status(t, "it says so", func(a archive.Status) bool { return strings.Contains(a.Error, "Object Lock") })
	if files := s.stored(); len(files) > 0 {
		t.Errorf("%q are there", files)
	}
}

// Wrong credentials are an error without them, and work once they are right; they are read again by themselves.
func TestWrongCredentials(t *testing.T) {
	s := startStore(t, false)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("canary-wrong-2f77"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := config(s.address)
	c.SecretKey = configs.SecretRef("file:" + file)
	dir := t.TempDir()
	g := startGateway(t, dir, c, 0)
	if err := g.record("s1", 100, true); err != nil {
		t.Fatal(err)
	}
	status := g.status(t, "it is refused", func(a archive.Status) bool { return a.Error != "" })
	if strings.Contains(status.Error+g.log.String(), "canary-") {
		t.Errorf("a secret is told: %s", status.Error)
	}
	if err := os.WriteFile(file, []byte(secretKey), 0o600); err != nil {
		t.Fatal(err)
	}
	g.complete(t, s, "s1")
}

// What is destroyed at the gateway is deleted there, with every version of it; what is locked stays until then, which is said, and
// the auditor's binary finds no fault with either.
func TestShredded(t *testing.T) {
	for _, lock := range []bool{false, true} {
		t.Run(fmt.Sprintf("lock=%t", lock), func(t *testing.T) {
			s := startStore(t, lock)
			c := config(s.address)
			if lock {
				c.Lock = configs.ArchiveLock{Mode: configs.LockGovernance, For: configs.Duration(48 * time.Hour)}
			}
			dir := t.TempDir()
			g := startGateway(t, dir, c, 0)
			if err := errors.Join(g.record("s1", 5000, true), g.record("s2", 5000, true), g.record("large", 20<<20, true)); err != nil {
				t.Fatal(err)
			}
			g.complete(t, s, "s1", "s2", "large")
			object := strings.TrimPrefix(s.file("s1"), s.files+"/")
			if lock { // somebody hid it, and it is found all the same
				if err := s.client.RemoveObject(t.Context(), bucket, object, minio.RemoveObjectOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			versions := func(session string) (n int) {
				t.Helper()
				for info := range s.client.ListObjectsIter(t.Context(), bucket, minio.ListObjectsOptions{Prefix: prefix + "/recordings/", Recursive: true, WithVersions: true}) {
					if info.Err != nil {
						t.Fatal(info.Err)
					}
					if strings.HasSuffix(info.Key, "/"+session+".srec") {
						n++
					}
				}
				return n
			}
			for _, session := range []string{"s1", "large"} {
				if err := g.Shred(t.Context(), session, store.AuditEvent{Actor: "idp carol", Reason: "erasure 113"}); err != nil {
					t.Fatal(err)
				}
			}
			proven := func(want string) {
				t.Helper()
				copied := t.TempDir()
				if p, err := archive.Pull(t.Context(), archive.Options{Config: c, Secret: secrets.Resolve}, copied); err != nil || len(p.Wrong) > 0 {
					t.Fatalf("%+v, %v", p, err)
				}
				kept := filepath.Join(t.TempDir(), "kept")
				logKey := filepath.Join(dir, "keys", "log.pub")
				verify(t, copied, "--archive", "--log-key", logKey, "--save", kept)
				if code, out := verify(t, copied, "--archive", "--log-key", logKey, "--checkpoint", kept); code != 0 || !strings.Contains(out, want) {
					t.Errorf("exit %d, want 0 and %q:\n%s", code, want, out)
				}
			}
			if lock {
				status := g.status(t, "both are locked", func(a archive.Status) bool {
					return a.Shredding == 2 && !a.Shreds[0].Locked.IsZero() && !a.Shreds[1].Locked.IsZero()
				})
				if left := time.Until(status.Shreds[0].Locked); left < 47*time.Hour || left > 48*time.Hour || status.Shreds[0].Error != "" {
					t.Errorf("%+v: locked for %v", status.Shreds[0], left)
				}
				if versions("s1") != 2 || versions("large") != 1 {
					t.Errorf("%d and %d versions of what is locked", versions("s1"), versions("large"))
				}
				proven("2 recordings are gone for good")
				return
			}
			g.status(t, "both are deleted", func(a archive.Status) bool {
				return a.Shredding == 0 && a.Checkpoint > 0 && a.Error == "" && versions("s1")+versions("large") == 0
			})
			if versions("s1") != 0 || versions("large") != 0 || versions("s2") != 1 {
				t.Errorf("there are %d, %d and %d", versions("s1"), versions("large"), versions("s2"))
			}
			until(t, "it is told", func() error {
				if events := g.audited(t, "archive.shredded"); len(events) != 2 || events[0].Fields["deleted"] != "1" {
					return fmt.Errorf("%+v", events)
				}
				return nil
			})
			proven("destroyed by")
		})
	}
}
