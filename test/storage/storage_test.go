// Package storage tests the archive of recordings against a real S3-compatible store: versitygw, as a process, with files
// behind it that the tests can look at and do harm to. It is a module of its own for the sake of what versitygw needs.
package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"sallyport/authn/secrets"
	"sallyport/configs"
	"sallyport/internal/store"
	"sallyport/recorder"
	"sallyport/recorder/archive"
	"sallyport/recorder/format"
	"sallyport/recorder/transparency/ledger"
	"sallyport/test/rig"
)

const (
	accessKey = "sallyport-access"
	secretKey = "canary-e5b1f0-this-is-never-seen"
	bucket    = "evidence"
	prefix    = "gateways/one"
	patience  = 20 * time.Second
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "gateway" {
		os.Exit(child(os.Args[2], os.Args[3]))
	}
	rig.Main(m)
}

// s3 is a running store, reached through a proxy that the test may put something in.
type s3 struct {
	t       *testing.T
	address string // the proxy's
	files   string // of the bucket, below which objects are files
	client  *minio.Client
	forward http.Handler

	// between is asked about each request; true: it has answered. after is told of each request that the store answered.
	between atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	after   atomic.Pointer[func(*http.Request, *http.Response)]
}

func startStore(t *testing.T, lock bool) *s3 {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"root", "versions", "sidecar"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	server := exec.Command(rig.Program(t, "github.com/versity/versitygw/cmd/versitygw"), "--port", address, "--quiet", "posix",
		"--versioning-dir", filepath.Join(dir, "versions"), "--sidecar", filepath.Join(dir, "sidecar"), filepath.Join(dir, "root"))
	server.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+accessKey, "ROOT_SECRET_KEY="+secretKey)
	var said bytes.Buffer
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
		if t.Failed() {
			t.Logf("the store said: %s", said.String())
		}
	})
	s := &s3{t: t, files: filepath.Join(dir, "root", bucket)}
	back, err := url.Parse("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(back)
			r.Out.Host = r.In.Host // which the signature covers
		},
		ModifyResponse: func(r *http.Response) error {
			if after := s.after.Load(); after != nil {
				(*after)(r.Request, r)
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	s.forward = proxy
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if between := s.between.Load(); between != nil && (*between)(w, r) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { front.CloseClientConnections(); front.Close() })
	s.address = front.URL
	s.client, err = minio.New(strings.TrimPrefix(front.URL, "http://"), &minio.Options{Creds: credentials.NewStaticV4(accessKey, secretKey, ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the store runs", func() error {
		return s.client.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{ObjectLocking: lock})
	})
	return s
}

func until(t *testing.T, what string, try func() error) {
	t.Helper()
	rig.Until(t, patience, what, try)
}

// stored are the paths of the bucket's files, below the prefix.
func (s *s3) stored() (paths []string) {
	s.t.Helper()
	root := filepath.Join(s.files, filepath.FromSlash(prefix))
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !entry.IsDir() {
			relative, _ := filepath.Rel(root, path)
			paths = append(paths, filepath.ToSlash(relative))
		}
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
	return paths
}

// file is the path of a session's object.
func (s *s3) file(session string) string {
	s.t.Helper()
	for _, path := range s.stored() {
		if strings.HasSuffix(path, "/"+session+".srec") {
			return filepath.Join(s.files, filepath.FromSlash(prefix), filepath.FromSlash(path))
		}
	}
	s.t.Fatalf("session %s is not in the bucket: %q", session, s.stored())
	return ""
}

// remove deletes a session's object for good.
func (s *s3) remove(session string) {
	s.t.Helper()
	object := strings.TrimPrefix(s.file(session), s.files+"/")
	if err := s.client.RemoveObject(s.t.Context(), bucket, object, minio.RemoveObjectOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// gateway is as much of one as records and archives.
type gateway struct {
	*recorder.Recorder
	archive *archive.Archive
	store   *store.Store
	ledger  *ledger.Log
	log     *rig.Output
	later   atomic.Int64 // how much older recordings are taken to be
}

// config is an archive in a store.
func config(address string) configs.Archive {
	yes := true
	return configs.Archive{
		Endpoint: address, Bucket: bucket, Prefix: prefix, Region: "us-east-1", PathStyle: &yes,
		AccessKey: "env:TEST_ARCHIVE_ACCESS", SecretKey: "env:TEST_ARCHIVE_SECRET",
		Every: configs.Duration(20 * time.Millisecond), Checkpoints: configs.Duration(20 * time.Millisecond), MaxBehind: configs.Duration(time.Hour),
	}
}

func start(dir string, c configs.Archive, quiet time.Duration) (*gateway, error) {
	g := &gateway{log: &rig.Output{}}
	ctx := context.Background()
	to := slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if g.store, err = store.Open(ctx, dir); err != nil {
		return nil, err
	}
	signer, key, err := ledger.LoadKey(filepath.Join(dir, "keys"), "gateway.example/log")
	if err != nil {
		return nil, err
	}
	if g.ledger, err = ledger.Open(ctx, ledger.Options{Dir: dir, Signer: signer, Key: key, Interval: 10 * time.Millisecond, Log: to}); err != nil {
		return nil, err
	}
	if g.archive, err = archive.New(ctx, archive.Options{Config: c, Dir: dir, Secret: secrets.Resolve, Store: g.store, Ledger: g.ledger, Patience: quiet, Log: to}); err != nil {
		return nil, err
	}
	g.Recorder, err = recorder.Open(ctx, recorder.Options{
		Dir: dir, Config: configs.Recording{Durability: configs.Written, AllowVolatile: true}, Store: g.store, Ledger: g.ledger, Version: "test", Log: to,
		Keep:     func(string) time.Duration { return max(1, time.Duration(g.later.Load())) },
		Archived: g.archive.Kept, EndAudit: 50 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	g.later.Store(int64(time.Hour))
	g.archive.Start(ctx, g.Recorder)
	return g, nil
}

func startGateway(t *testing.T, dir string, c configs.Archive, quiet time.Duration) *gateway {
	t.Helper()
	t.Setenv("TEST_ARCHIVE_ACCESS", accessKey)
	t.Setenv("TEST_ARCHIVE_SECRET", secretKey)
	g, err := start(dir, c, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.close(t)
		if strings.Contains(g.log.String(), secretKey) {
			t.Error("the secret key stands in the log")
		}
		if t.Failed() {
			t.Logf("the gateway said:\n%s", g.log)
		}
	})
	return g
}

func (g *gateway) close(t *testing.T) {
	t.Helper()
	if g.store == nil {
		return
	}
	g.archive.Close()
	if err := errors.Join(g.Close(context.Background()), g.ledger.Close(context.Background()), g.store.Close()); err != nil {
		t.Error(err)
	}
	g.store = nil
}

// record makes a recording of so many bytes that do not compress; end says whether it ends.
func (g *gateway) record(session string, size int, end bool) error {
	ctx := context.Background()
	rec, err := g.Begin(ctx, format.Header{Session: session, Protocol: "test", Target: "orders"}, "")
	if err != nil {
		return err
	}
	for left := size; left > 0 && err == nil; left -= 1 << 20 {
		data := make([]byte, min(left, 1<<20))
		if _, err = rand.Read(data); err == nil {
			err = rec.Record(ctx, recorder.Event{Type: format.TypeSaid, Data: data})
		}
	}
	if err == nil && end {
		err = rec.End(format.End{Reason: "done"})
	}
	return err
}

// status waits until it is as it should be.
func (g *gateway) status(t *testing.T, what string, good func(archive.Status) bool) archive.Status {
	t.Helper()
	var last *archive.Status
	until(t, what, func() error {
		s, err := g.archive.Status(t.Context())
		if last = s; err == nil && !good(*s) {
			err = fmt.Errorf("%+v", *s)
		}
		return err
	})
	return *last
}

// complete waits until so many sessions' recordings, and the log with their endings, are in the archive.
func (g *gateway) complete(t *testing.T, s *s3, sessions ...string) {
	t.Helper()
	var size int64
	until(t, "the recordings' endings are in the log", func() error {
		size = g.ledger.Checkpoint().Tree.N
		for _, session := range sessions {
			i, err := g.Integrity(t.Context(), session)
			if err != nil || !i.Bound || i.Leaf >= size {
				return fmt.Errorf("%s: %+v, %v", session, i, err)
			}
		}
		return nil
	})
	g.status(t, "all is archived", func(a archive.Status) bool { return a.Checkpoint >= size && a.Error == "" })
	for _, session := range sessions {
		s.file(session)
	}
}

func (g *gateway) audited(t *testing.T, kind string) (all []store.AuditEvent) {
	t.Helper()
	for e, err := range g.Audit(t.Context(), recorder.AuditFilter{Kind: kind}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// due lets a moment's age be enough for a recording to be deleted, and deletes.
func (g *gateway) due(t *testing.T) (string, error) {
	t.Helper()
	g.later.Store(1)
	purged, err := g.Purge(t.Context())
	slices.Sort(purged)
	return strings.Join(purged, " "), err
}

func (g *gateway) has(session string) bool {
	path, _ := g.Stored(session)
	return path != ""
}

// verify runs the auditor's binary on a directory.
func verify(t *testing.T, dir string, args ...string) (int, string) {
	t.Helper()
	out, err := exec.Command(rig.Verifier(t), append([]string{dir}, args...)...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), string(out)
	} else if err != nil {
		t.Fatal(err)
	}
	return 0, string(out)
}

// child is a gateway in a process of its own, to be killed. It makes one large recording.
func child(dir, address string) int {
	g, err := start(dir, config(address), time.Minute)
	if err == nil {
		err = g.record("large", 70<<20, true)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("recorded")
	select {}
}

func kill(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.Wait()
}
