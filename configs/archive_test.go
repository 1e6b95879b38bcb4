package configs

import (
	"strings"
	"testing"
	"time"
)

const goodArchive = `archive:
  endpoint: https://s3.example
  bucket: evidence
  access_key: env:A
  secret_key: file:secret
  lock: {mode: compliance, for: 400d}
`

func TestArchiveIsRead(t *testing.T) {
	path := write(t, with(good+goodArchive))
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	a := c.Archive
	if !a.Used() || !*a.PathStyle || a.Region != "us-east-1" || a.Every.D() != time.Minute || a.Lock.For.D() != 400*24*time.Hour {
		t.Errorf("%+v", a)
	}
	alone, err := LoadArchive(write(t, with("other: 1\n"+goodArchive+"targets: 7\n")))
	if err != nil || alone.Bucket != "evidence" || !strings.HasPrefix(string(alone.SecretKey), "file:/") {
		t.Errorf("%+v, %v", alone, err)
	}
	if _, err := LoadArchive(write(t, with(good))); err == nil || !strings.Contains(err.Error(), "names no archive") {
		t.Errorf("%v", err)
	}
	if c, err := Load(write(t, with(good))); err != nil || c.Archive.Used() {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestArchiveMistakesAreNamed(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"https://s3.example", "http://s3.example", "endpoint is not an https:// address"},
		{"https://s3.example", "https://key:canary@s3.example", "endpoint is not an https:// address"},
		{"https://s3.example", "https://s3.example/path", "endpoint is not an https:// address"},
		{"bucket: evidence", "bucket: Evidence/../x", "bucket is"},
		{"bucket: evidence", "bucket: evidence\n  prefix: a/../b", "prefix is"},
		{"env:A", "AKIACANARY", "not a reference to a secret"},
		{"  secret_key: file:secret\n", "", "archive.secret_key is missing"},
		{"compliance, for: 400d", "legal, for: 400d", "mode is"},
		{"compliance, for: 400d", "compliance", "for is 0s; at least 1d"},
		{"mode: compliance, ", "", "mode is missing"},
		{"bucket: evidence", "bucket: evidence\n  every: 1ms", "every is 1ms"},
		{"endpoint: https://s3.example", "region: x", "endpoint is missing"},
	} {
		_, err := Load(write(t, with(good+strings.Replace(goodArchive, c.old, c.new, 1))))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.new, err, c.want)
		} else if strings.Contains(strings.ToLower(err.Error()), "canary") {
			t.Errorf("%s: the error repeats what may be a secret: %v", c.new, err)
		}
	}
}
