package configs

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Archive is an S3-compatible store to which recordings that have ended, the audit log and the log over all recordings are
// copied. Changes of it need a restart.
type Archive struct {
	// Endpoint is the store's address without a path, such as https://s3.eu-central-1.amazonaws.com; empty: there is no archive.
	Endpoint string `yaml:"endpoint"`
	Bucket   string `yaml:"bucket"`
	// Prefix stands before the names of all objects; a gateway has one of its own.
	Prefix string `yaml:"prefix"`
	// Region is the bucket's. Default: us-east-1.
	Region string `yaml:"region"`
	// AccessKey and SecretKey are the credentials, SessionToken what temporary ones have beside. They are read again every 15
	// minutes.
	AccessKey    SecretRef `yaml:"access_key"`
	SecretKey    SecretRef `yaml:"secret_key"`
	SessionToken SecretRef `yaml:"session_token"`
	// CA is a PEM file to trust beside the system's authorities.
	CA string `yaml:"ca"`
	// PathStyle has the bucket's name in the path and not in the host, which stores other than AWS mostly want. Default: true
	// unless the endpoint is AWS's.
	PathStyle *bool `yaml:"path_style"`
	// Lock keeps objects from being deleted or replaced, by the bucket's Object Lock.
	Lock ArchiveLock `yaml:"lock"`
	// Every is how often what has ended is looked for. Default: 1m. Checkpoints is how often a checkpoint of the log goes there
	// at the most; default: 10m. AuditLog is how old the audit log's file grows before it is ended and goes there; default: 1h.
	Every       Duration `yaml:"every"`
	Checkpoints Duration `yaml:"checkpoints"`
	AuditLog    Duration `yaml:"audit_log"`
	// MaxBehind is how long the archive may not have had everything before that is an alarm (archive.behind). Default: 1h.
	MaxBehind Duration `yaml:"max_behind"`
}

// ArchiveLock is Object Lock's retention of what is archived; the zero value asks for none.
type ArchiveLock struct {
	// Mode is LockGovernance or LockCompliance.
	Mode string `yaml:"mode"`
	// For is how long after a recording's ending, and after any other object's writing.
	For Duration `yaml:"for"`
}

// The modes of Object Lock: who has the permission for it can end governance; compliance nobody.
const (
	LockGovernance = "governance"
	LockCompliance = "compliance"
)

// Used tells whether there is an archive.
func (a Archive) Used() bool { return a.Endpoint != "" }

func (a *Archive) setDefaults() {
	if !a.Used() {
		return
	}
	set(&a.Region, "us-east-1")
	set(&a.Every, Duration(time.Minute))
	set(&a.Checkpoints, Duration(10*time.Minute))
	set(&a.AuditLog, Duration(time.Hour))
	set(&a.MaxBehind, Duration(time.Hour))
	if a.PathStyle == nil {
		u, err := url.Parse(a.Endpoint)
		path := err != nil || !strings.HasSuffix(u.Hostname(), ".amazonaws.com")
		a.PathStyle = &path
	}
}

var (
	bucketName    = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	archivePrefix = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*/?$`)
)

func validateArchive(at reporter, a Archive) {
	if !a.Used() {
		if a != (Archive{}) {
			at("archive.endpoint", "endpoint is missing; write the store's address, like https://s3.eu-central-1.amazonaws.com")
		}
		return
	}
	u, err := url.Parse(a.Endpoint)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		at("archive.endpoint", "endpoint is not an https:// address with nothing behind the host; write it like https://s3.eu-central-1.amazonaws.com")
	}
	if !bucketName.MatchString(a.Bucket) {
		at("archive.bucket", "bucket is %q; write a bucket's name: 3 to 63 lower-case letters, digits, dots and dashes", a.Bucket)
	}
	if a.Prefix != "" && (!archivePrefix.MatchString(a.Prefix) || len(a.Prefix) > 200 || slices.ContainsFunc(strings.Split(a.Prefix, "/"), dots)) {
		at("archive.prefix", "prefix is %q; write letters, digits, dots, dashes and underscores, with slashes between, like gateways/one", a.Prefix)
	}
	for key, ref := range map[string]SecretRef{"archive.access_key": a.AccessKey, "archive.secret_key": a.SecretKey} {
		if ref == "" {
			at(key, "%s is missing; write env:NAME, file:PATH or command:PROGRAM ARGS", key)
		}
		checkSecret(at, key, ref)
	}
	checkSecret(at, "archive.session_token", a.SessionToken)
	checkFile(at, "archive.ca", a.CA)
	switch {
	case a.Lock.Mode == "" && a.Lock.For > 0:
		at("archive.lock.mode", "mode is missing; it is %s or %s", LockGovernance, LockCompliance)
	case a.Lock.Mode == "":
	case a.Lock.Mode != LockGovernance && a.Lock.Mode != LockCompliance:
		at("archive.lock.mode", "mode is %q; it is %s or %s", a.Lock.Mode, LockGovernance, LockCompliance)
	case a.Lock.For.D() < 24*time.Hour:
		at("archive.lock.for", "for is %s; at least 1d", a.Lock.For)
	}
	for _, d := range []struct {
		key         string
		value       Duration
		least, most time.Duration
	}{
		{"every", a.Every, time.Second, time.Hour}, {"checkpoints", a.Checkpoints, time.Second, 24 * time.Hour},
		{"audit_log", a.AuditLog, time.Second, 24 * time.Hour}, {"max_behind", a.MaxBehind, time.Minute, 7 * 24 * time.Hour},
	} {
		if d.value.D() < d.least || d.value.D() > d.most {
			at("archive."+d.key, "%s is %s; between %s and %s", d.key, d.value, Duration(d.least), Duration(d.most))
		}
	}
}

func dots(part string) bool { return part == "." || part == ".." }

// LoadArchive reads only the archive of a configuration file, for whoever fetches it without a gateway. Other keys are passed over.
func LoadArchive(path string) (Archive, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Archive{}, err
	}
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxFile {
		err = errors.New("is larger than 16 MiB")
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return Archive{}, Problems{{File: path, Message: "can't be read: " + reason(err)}}
	}
	config := &Config{File: path}
	var only struct {
		Archive Archive `yaml:"archive"`
	}
	if err := yaml.UnmarshalWithOptions(text, &only, customTypes...); err != nil {
		return Archive{}, Problems{{File: path, Message: "can't be read: " + yaml.FormatError(err, false, false)}}
	}
	config.Archive = only.Archive
	config.Archive.setDefaults()
	config.resolvePaths()
	var problems Problems
	validateArchive(func(_, format string, args ...any) {
		problems = append(problems, Problem{File: path, Message: fmt.Sprintf(format, args...)})
	}, config.Archive)
	if len(problems) > 0 {
		return Archive{}, problems
	}
	if !config.Archive.Used() {
		return Archive{}, Problems{{File: path, Message: "names no archive; write archive.endpoint, bucket, access_key and secret_key"}}
	}
	return config.Archive, nil
}
