package archive_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"sallyport/configs"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
	"sallyport/recorder"
	"sallyport/recorder/archive"
	"sallyport/recorder/format"
	"sallyport/recorder/transparency/ledger"
)

// objects is as much of a versioned bucket as the archive asks of one. The real one is in test/storage.
type objects struct {
	mu     sync.Mutex
	all    map[string]*object // by key; each has one version
	refuse bool               // to delete
}

type object struct {
	content []byte
	locked  time.Time
}

func (o *objects) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := strings.TrimPrefix(r.URL.Path, "/evidence/")
	is := func(what string) bool { return r.URL.Query().Has(what) }
	there := o.all[key]
	fail := func(status int, code string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
	}
	switch {
	case is("object-lock"):
		fmt.Fprint(w, "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>")
	case is("uploads"):
		fmt.Fprint(w, "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>")
	case is("versions"):
		type version struct{ Key, VersionId, LastModified string }
		var list struct {
			XMLName     xml.Name `xml:"ListVersionsResult"`
			IsTruncated bool
			Version     []version
		}
		for key := range o.all {
			if strings.HasPrefix(key, r.URL.Query().Get("prefix")) {
				list.Version = append(list.Version, version{key, "v1", "2026-11-25T00:00:00.000Z"})
			}
		}
		xml.NewEncoder(w).Encode(list)
	case r.Method == http.MethodPut && there != nil:
		fail(http.StatusPreconditionFailed, "PreconditionFailed")
	case r.Method == http.MethodPut:
		content, err := io.ReadAll(unchunked(r))
		if err != nil {
			fail(http.StatusBadRequest, "IncompleteBody")
			return
		}
		until, _ := time.Parse(time.RFC3339, r.Header.Get("X-Amz-Object-Lock-Retain-Until-Date"))
		o.all[key] = &object{content, until}
	case there == nil:
		fail(http.StatusNotFound, "NoSuchKey")
	case r.Method == http.MethodDelete && (o.refuse || there.locked.After(time.Now())):
		fail(http.StatusForbidden, "AccessDenied")
	case r.Method == http.MethodDelete:
		delete(o.all, key)
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("X-Amz-Version-Id", "v1")
		w.Header().Set("Last-Modified", "Wed, 25 Nov 2026 00:00:00 GMT")
		if !there.locked.IsZero() {
			w.Header().Set("X-Amz-Object-Lock-Mode", "COMPLIANCE")
			w.Header().Set("X-Amz-Object-Lock-Retain-Until-Date", there.locked.Format(time.RFC3339))
		}
		w.Write(there.content)
	}
}

// unchunked is a request's body, which comes in signed chunks where there is no TLS.
func unchunked(r *http.Request) io.Reader {
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING") {
		return r.Body
	}
	var whole bytes.Buffer
	for body := bufio.NewReader(r.Body); ; {
		line, err := body.ReadString('\n')
		var n int64
		if _, scanned := fmt.Sscanf(line, "%x;", &n); err != nil || scanned != nil || n == 0 {
			return &whole
		}
		if _, err := io.CopyN(&whole, body, n); err != nil {
			return iotest.ErrReader(err)
		}
		if _, err := body.Discard(2); err != nil {
			return iotest.ErrReader(err)
		}
	}
}

func (o *objects) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

// of are the keys of a session's objects.
func (o *objects) of(session string) (keys []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key := range o.all {
		if path.Base(key) == session+".srec" {
			keys = append(keys, key)
		}
	}
	return keys
}

type gateway struct {
	*recorder.Recorder
	archive *archive.Archive
}

func start(t *testing.T, o *objects, lock configs.ArchiveLock) *gateway {
	t.Helper()
	server := httptest.NewServer(o)
	t.Cleanup(server.Close)
	dir, log := t.TempDir(), slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := storetest.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	signer, key, err := ledger.LoadKey(filepath.Join(dir, "keys"), "gateway.example/log")
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), ledger.Options{Dir: dir, Signer: signer, Key: key, Interval: 5 * time.Millisecond, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.New(t.Context(), archive.Options{
		Dir: dir, Store: s, Ledger: l, Log: log,
		Secret: func(context.Context, configs.SecretRef) (string, error) { return "secret", nil },
		Config: configs.Archive{Endpoint: server.URL, Bucket: "evidence", Prefix: "gateways/one", Region: "us-east-1", AccessKey: "env:A", SecretKey: "env:B", Lock: lock,
			Every: configs.Duration(5 * time.Millisecond), Checkpoints: configs.Duration(time.Hour), MaxBehind: configs.Duration(time.Millisecond)},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := recorder.Open(t.Context(), recorder.Options{
		Dir: dir, Config: configs.Recording{Durability: configs.Written, AllowVolatile: true}, Store: s, Ledger: l, Log: log, Archived: a.Kept,
	})
	if err != nil {
		t.Fatal(err)
	}
	a.Start(t.Context(), r)
	t.Cleanup(func() {
		a.Close()
		for _, err := range []error{r.Close(context.Background()), l.Close(context.Background()), s.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	return &gateway{r, a}
}

func (g *gateway) record(t *testing.T, session string) {
	t.Helper()
	rec, err := g.Begin(t.Context(), format.Header{Session: session, Protocol: "test", Target: "orders"}, "")
	if err == nil {
		err = rec.Record(t.Context(), recorder.Event{Type: format.TypeSaid, Data: []byte("something")})
	}
	if err == nil {
		err = rec.End(format.End{Reason: "done"})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (g *gateway) shred(t *testing.T, session string) {
	t.Helper()
	if err := g.Shred(t.Context(), session, store.AuditEvent{Actor: "idp carol", Reason: "erasure 113"}); err != nil {
		t.Fatal(err)
	}
}

// status waits until it is as it should be.
func (g *gateway) status(t *testing.T, what string, good func(*archive.Status) bool) *archive.Status {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { // between two looks
		s, err := g.archive.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if good(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute: %+v", what, s)
		}
	}
}

// kinds are the archive's events about a session, in order.
func (g *gateway) kinds(t *testing.T, session string) (kinds []string) {
	t.Helper()
	for e, err := range g.Audit(t.Context(), recorder.AuditFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Session == session && strings.HasPrefix(e.Kind, "archive.") {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

func (g *gateway) told(t *testing.T, session string, want ...string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { // between two looks
		got := g.kinds(t, session)
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("audited %q, want %q", got, want)
		}
	}
}

// What is destroyed here is deleted there, and nothing else; the totals follow. Credentials that may not delete are told, tried again,
// and do once they may.
func TestShreddedIsDeletedThere(t *testing.T) {
	t.Parallel()
	o := &objects{all: map[string]*object{}}
	g := start(t, o, configs.ArchiveLock{})
	g.record(t, "s1")
	g.record(t, "s2")
	before := g.status(t, "both are there", func(s *archive.Status) bool { return s.Archived == 2 && s.Waiting == 0 })
	o.set(func() { o.refuse = true })
	g.shred(t, "s1")
	g.status(t, "it is said that it can't be deleted", func(s *archive.Status) bool {
		return s.Shredding == 1 && s.Shreds[0].Session == "s1" && s.Shreds[0].Object != "" && s.Shreds[0].Stuck && strings.Contains(s.Shreds[0].Error, "s3:DeleteObject")
	})
	if len(o.of("s1")) != 1 {
		t.Error("it is not there any more")
	}
	g.told(t, "s1", "archive.shred_stuck")
	o.set(func() { o.refuse = false })
	after := g.status(t, "it is deleted", func(s *archive.Status) bool { return s.Shredding == 0 })
	if len(o.of("s1")) != 0 || len(o.of("s2")) != 1 {
		t.Errorf("there are %q and %q", o.of("s1"), o.of("s2"))
	}
	if after.Archived != 1 || after.Bytes >= before.Bytes || after.Bytes == 0 || after.Checkpoint <= before.Checkpoint {
		t.Errorf("%+v after %+v: want one object less, and a checkpoint that says why", after, before)
	}
	g.told(t, "s1", "archive.shred_stuck", "archive.shredded")
}

// What is locked stays, which is said with the time, and goes when the lock is over.
func TestShreddedIsLockedThere(t *testing.T) {
	t.Parallel()
	o := &objects{all: map[string]*object{}}
	g := start(t, o, configs.ArchiveLock{Mode: configs.LockCompliance, For: configs.Duration(24 * time.Hour)})
	g.record(t, "s1")
	g.status(t, "it is there", func(s *archive.Status) bool { return s.Archived == 1 })
	o.set(func() { // as if it had been put there a day ago
		for _, object := range o.all {
			object.locked = time.Now().Add(3 * time.Second).Truncate(time.Second)
		}
	})
	g.shred(t, "s1")
	g.status(t, "it is said until when it is locked", func(s *archive.Status) bool {
		return s.Shredding == 1 && time.Until(s.Shreds[0].Locked) < time.Hour && !s.Shreds[0].Locked.IsZero() && s.Shreds[0].Error == "" && !s.Shreds[0].Stuck
	})
	g.status(t, "it is deleted", func(s *archive.Status) bool { return s.Shredding == 0 })
	if keys := o.of("s1"); len(keys) != 0 {
		t.Errorf("there is %q", keys)
	}
	g.told(t, "s1", "archive.shred_locked", "archive.shredded")
}
