package archive

import (
	"context"
	"crypto/md5" //nolint:gosec // S3 speaks it; what counts is the SHA-256
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"sallyport/configs"
)

// bucket is the store, by requests that are made once and give up when nothing moves: trying again is the worker's.
type bucket struct {
	core     *minio.Core
	creds    *credentials.Credentials
	name     string
	prefix   string // ends with a slash, or is empty
	lock     configs.ArchiveLock
	patience time.Duration
}

func openBucket(o Options) (*bucket, error) {
	c := o.Config
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 0 // patience is for that, which long answers to the end of a large upload have more of
	transport.MaxIdleConnsPerHost = workers + 1
	transport.DisableCompression = true // or what is read back would not be what is there
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, err
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", c.CA)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	lookup := minio.BucketLookupDNS
	if c.PathStyle == nil || *c.PathStyle {
		lookup = minio.BucketLookupPath
	}
	creds := credentials.New(&secrets{o: o})
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds: creds, Secure: u.Scheme == "https", Transport: transport, Region: c.Region, BucketLookup: lookup, MaxRetries: 1,
	})
	if err != nil {
		return nil, err
	}
	prefix := strings.Trim(c.Prefix, "/")
	if prefix != "" {
		prefix += "/"
	}
	return &bucket{core: core, creds: creds, name: c.Bucket, prefix: prefix, lock: c.Lock, patience: o.Patience}, nil
}

// secretsLast is how long credentials are used before they are read again.
const secretsLast = 15 * time.Minute

// secrets reads the credentials. The client has a lock around it.
type secrets struct {
	o    Options
	read time.Time
}

// RetrieveWithCredContext implements credentials.Provider.
func (s *secrets) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	v := credentials.Value{SignerType: credentials.SignatureV4}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, part := range []struct {
		into *string
		ref  configs.SecretRef
	}{{&v.AccessKeyID, s.o.Config.AccessKey}, {&v.SecretAccessKey, s.o.Config.SecretKey}, {&v.SessionToken, s.o.Config.SessionToken}} {
		if part.ref == "" {
			continue
		}
		var err error
		if *part.into, err = s.o.Secret(ctx, part.ref); err != nil {
			return credentials.Value{}, fmt.Errorf("the archive's credentials: %w", err)
		}
	}
	s.read = time.Now()
	return v, nil
}

// Retrieve implements credentials.Provider.
func (s *secrets) Retrieve() (credentials.Value, error) { return s.RetrieveWithCredContext(nil) }

// IsExpired implements credentials.Provider.
func (s *secrets) IsExpired() bool { return time.Since(s.read) > secretsLast }

// patient is a context that ends when nothing has moved for a while; moved says that something did.
func (b *bucket) patient(ctx context.Context, most time.Duration) (patient context.Context, moved func(), done func()) {
	patient, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(most, func() {
		cancel(fmt.Errorf("the store did nothing for %v", most))
	})
	return patient, func() { timer.Reset(most) }, func() { timer.Stop(); cancel(nil) }
}

// why is the error of a request: what ended its context, where that did.
func why(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return fmt.Errorf("%s: %w", what, err)
}

// moving reads and says so.
type moving struct {
	io.Reader
	moved func()
}

func (m *moving) Read(b []byte) (int, error) {
	n, err := m.Reader.Read(b)
	m.moved()
	return n, err
}

// code is what the store answered, in its own word.
func code(err error) string {
	if answer, ok := errors.AsType[minio.ErrorResponse](err); ok {
		return answer.Code
	}
	return ""
}

// exists reports whether the store refused to write because the object is there.
func exists(err error) bool {
	if answer, ok := errors.AsType[minio.ErrorResponse](err); ok {
		return answer.StatusCode == http.StatusPreconditionFailed || answer.Code == minio.PreconditionFailed
	}
	return false
}

// absent reports whether there is no such object (or upload).
func absent(err error) bool {
	c := code(err)
	return c == minio.NoSuchKey || c == minio.NoSuchUpload || c == "NoSuchVersion" || c == "NotFound"
}

// content is what an object is to have.
type content struct {
	source io.ReaderAt
	size   int64
	sum    [sha256.Size]byte
}

// options are those of every new object: nothing is written over.
func (b *bucket) options(until time.Time) minio.PutObjectOptions {
	o := minio.PutObjectOptions{}
	o.SetMatchETagExcept("*")
	if b.lock.Mode != "" && until.After(time.Now()) {
		o.Mode, o.RetainUntilDate = minio.RetentionMode(strings.ToUpper(b.lock.Mode)), until
	}
	return o
}

// put writes an object with one request, or finds that there is one of that name.
func (b *bucket) put(ctx context.Context, object string, c content, until time.Time) error {
	ctx, moved, done := b.patient(ctx, b.patience)
	defer done()
	hash := md5.New() //nolint:gosec // which the protocol asks for where Object Lock is, beside the signature's SHA-256
	if _, err := io.Copy(hash, io.NewSectionReader(c.source, 0, c.size)); err != nil {
		return fmt.Errorf("read what is to be archived: %w", err)
	}
	o := b.options(until)
	o.UserMetadata = map[string]string{"x-amz-checksum-sha256": base64.StdEncoding.EncodeToString(c.sum[:])}
	reader := &moving{io.NewSectionReader(c.source, 0, c.size), moved}
	_, err := b.core.PutObject(ctx, b.name, b.prefix+object, reader, c.size, base64.StdEncoding.EncodeToString(hash.Sum(nil)), hex.EncodeToString(c.sum[:]), o)
	if exists(err) {
		return nil // reading it back tells what it is
	}
	return why(ctx, "write "+object, err)
}

// errOther says that the store has something else under a name.
var errOther = errors.New("the store has something else there than was sent")

// errNotLocked says that an object could be deleted.
var errNotLocked = errors.New("it is not locked as archive.lock asks for")

// readBack reads a whole object, compares it, and, where a lock is asked for, looks whether the version cannot be deleted before
// a time. version may be empty: the newest. It returns the version that it read.
func (b *bucket) readBack(ctx context.Context, object, version string, c content, until time.Time) (string, error) {
	ctx, moved, done := b.patient(ctx, b.patience)
	defer done()
	reader, info, _, err := b.core.GetObject(ctx, b.name, b.prefix+object, minio.GetObjectOptions{VersionID: version})
	if err != nil {
		return "", why(ctx, "read "+object+" back", err)
	}
	defer reader.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, &moving{io.LimitReader(reader, c.size+1), moved})
	if err != nil {
		return "", why(ctx, "read "+object+" back", err)
	}
	if n != c.size || [sha256.Size]byte(hash.Sum(nil)) != c.sum {
		return "", fmt.Errorf("read %s back: %w: %d bytes of %d, or other ones; the recording stays here. Look who writes to this bucket, "+
			"delete that object there, and it is written again", object, errOther, n, c.size)
	}
	return info.VersionID, b.locked(ctx, object, info.VersionID, until)
}

// locked checks that a version cannot be deleted before a time, where that is asked for.
func (b *bucket) locked(ctx context.Context, object, version string, until time.Time) error {
	if b.lock.Mode == "" || !until.After(time.Now()) {
		return nil
	}
	info, err := b.core.StatObject(ctx, b.name, b.prefix+object, minio.StatObjectOptions{VersionID: version})
	if err != nil {
		return why(ctx, "look at the lock of "+object, err)
	}
	mode := info.Metadata.Get("X-Amz-Object-Lock-Mode")
	kept, err := time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	asked := strings.EqualFold(mode, b.lock.Mode) || mode == string(minio.Compliance)
	if err != nil || !asked || kept.Before(until) {
		return fmt.Errorf("look at the lock of %s: %w, in mode %s until %s; the credentials must be allowed to read retention (s3:GetObjectRetention)",
			object, errNotLocked, b.lock.Mode, until.Format(time.RFC3339))
	}
	return nil
}

// canLock checks that the bucket has Object Lock, where that is asked for.
func (b *bucket) canLock(ctx context.Context) error {
	if b.lock.Mode == "" {
		return nil
	}
	ctx, _, done := b.patient(ctx, b.patience)
	defer done()
	enabled, _, _, _, err := b.core.GetObjectLockConfig(ctx, b.name)
	switch {
	case code(err) == "ObjectLockConfigurationNotFoundError" || err == nil && enabled != "Enabled":
		return fmt.Errorf("the bucket %s has no Object Lock, which archive.lock asks for; make one that has, or take archive.lock away", b.name)
	case code(err) == "AccessDenied": // to its configuration; each object's own lock is looked at
		return nil
	}
	return why(ctx, "look at the bucket's Object Lock", err)
}
