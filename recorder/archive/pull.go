package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"

	"sallyport/recorder/transparency"
)

// Pulled is what Pull did.
type Pulled struct {
	// Fetched are the files that were written, Had those that were there, Bytes how much was fetched.
	Fetched int   `json:"fetched"`
	Had     int   `json:"had"`
	Bytes   int64 `json:"bytes"`
	// Wrong are objects that are not what their names say; they are left out.
	Wrong []string `json:"wrong,omitempty"`
	// Hidden are objects that somebody has deleted or written over since, as far as the bucket keeps versions: what was
	// there first was fetched.
	Hidden []string `json:"hidden,omitempty"`
}

const (
	// mostName bounds an object's name, mostObject what one may have.
	mostName   = 512
	mostObject = 1 << 40
)

// Pull brings an archive to a directory, as a copy that sallyport-verify, replay and index read; with sessions only their
// recordings, and the whole log. Files that are there already are not fetched again. It needs only Config and Secret of
// the options. Each recording is checked against the SHA-256 in its name.
func Pull(ctx context.Context, o Options, dir string, sessions ...string) (Pulled, error) {
	var p Pulled
	if o.Patience <= 0 {
		o.Patience = patience
	}
	b, err := openBucket(o)
	if err != nil {
		return p, fmt.Errorf("fetch the archive: %w", err)
	}
	// The log as it is listed first, and then the recordings: whatever goes there meanwhile, no checkpoint of the copy names one that
	// it lacks.
	objects, err := b.list(ctx, transparency.Folder+"/")
	if err != nil {
		return p, fmt.Errorf("fetch the archive: %w", err)
	}
	for _, room := range []string{"audit/", "recordings/"} {
		more, err := b.list(ctx, room)
		if err != nil {
			return p, fmt.Errorf("fetch the archive: %w", err)
		}
		objects = append(objects, more...)
	}
	for _, object := range objects {
		if !object.wanted(sessions) {
			continue
		}
		if object.hidden {
			p.Hidden = append(p.Hidden, object.name)
		}
		if err := b.fetch(ctx, dir, object, &p); err != nil {
			return p, fmt.Errorf("fetch the archive: %w", err)
		}
	}
	return p, nil
}

// listed is an object, with the versions that are there of it, oldest first.
type listed struct {
	name     string
	versions []string
	hidden   bool // the newest is not the first, or says that it was deleted
}

func (l listed) wanted(sessions []string) bool {
	if len(sessions) == 0 || strings.HasPrefix(l.name, transparency.Folder+"/") {
		return true
	}
	return slices.Contains(sessions, strings.TrimSuffix(path.Base(l.name), ".srec"))
}

// list lists the archive's objects in a folder, in order. Names that no gateway gives are passed over.
func (b *bucket) list(ctx context.Context, folder string) ([]listed, error) {
	ctx, moved, done := b.patient(ctx, b.patience)
	defer done()
	found := map[string]*listed{}
	var order []string
	collect := func(versions bool) error {
		for info := range b.core.ListObjectsIter(ctx, b.name, minio.ListObjectsOptions{Prefix: b.prefix + folder, Recursive: true, WithVersions: versions}) {
			if info.Err != nil {
				return why(ctx, "list the bucket", info.Err)
			}
			moved()
			name := strings.TrimPrefix(info.Key, b.prefix)
			if !ours(name) {
				continue
			}
			l := found[name]
			if l == nil {
				l = &listed{name: name}
				found[name] = l
				order = append(order, name)
			}
			if info.IsDeleteMarker { // versions come newest first
				l.hidden = true
				continue
			}
			if len(l.versions) > 0 {
				l.hidden = true
			}
			l.versions = append(l.versions, info.VersionID)
		}
		return nil
	}
	err := collect(true)
	if c := code(err); c == "NotImplemented" || c == "AccessDenied" || c == "MethodNotAllowed" { // versions are not for this store, or for whoever asks
		clear(found)
		order = nil
		err = collect(false)
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(order)
	var all []listed
	for _, name := range order {
		l := found[name]
		slices.Reverse(l.versions)
		if len(l.versions) > 0 {
			all = append(all, *l)
		}
	}
	return all, nil
}

// ours reports whether a gateway gives an object such a name, which then is a path that is safe below a directory.
func ours(name string) bool {
	if len(name) > mostName || !fs.ValidPath(name) {
		return false
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._-/", c) {
			return false
		}
	}
	room, rest, _ := strings.Cut(name, "/")
	switch room {
	case transparency.Folder:
		folder, file, _ := strings.Cut(rest, "/")
		if _, _, _, err := transparency.ParsePath(rest); err != nil {
			return folder == transparency.CheckpointsFolder && transparency.IsCheckpointName(file)
		}
		return true
	case "recordings", "audit":
		_, bound := digestOf(path.Base(path.Dir(name)))
		return bound && strings.HasSuffix(name, ".srec")
	}
	return false
}

// fetch brings one object to its file: the first of its versions that is what its name says. Where the name says nothing, the
// first there was.
func (b *bucket) fetch(ctx context.Context, dir string, l listed, p *Pulled) error {
	digest, bound := digestOf(path.Base(path.Dir(l.name)))
	full := filepath.Join(dir, filepath.FromSlash(l.name))
	if had, err := isThere(ctx, full, digest, bound); err != nil {
		return err
	} else if had {
		p.Had++
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
		return err
	}
	for _, version := range l.versions {
		n, sum, err := b.download(ctx, l.name, version, full+".part")
		if err != nil {
			return errors.Join(err, os.RemoveAll(full+".part"))
		}
		if bound && sum != digest {
			continue
		}
		p.Fetched++
		p.Bytes += n
		return os.Rename(full+".part", full)
	}
	p.Wrong = append(p.Wrong, l.name)
	return os.RemoveAll(full + ".part")
}

// isThere reports whether a file was fetched earlier.
func isThere(ctx context.Context, full string, digest [sha256.Size]byte, bound bool) (bool, error) {
	file, err := os.Open(full)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || !bound {
		return err == nil, err
	}
	defer file.Close()
	c, err := measure(ctx, file)
	return c.sum == digest, err
}

// download writes a version of an object to a file.
func (b *bucket) download(ctx context.Context, object, version, into string) (n int64, sum [sha256.Size]byte, err error) {
	ctx, moved, done := b.patient(ctx, b.patience)
	defer done()
	if version == "null" {
		version = "" // of an object that is older than the bucket's versions, or of a bucket without
	}
	reader, _, _, err := b.core.GetObject(ctx, b.name, b.prefix+object, minio.GetObjectOptions{VersionID: version})
	if err != nil {
		return 0, sum, why(ctx, "read "+object, err)
	}
	defer reader.Close()
	file, err := os.OpenFile(into, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, sum, err
	}
	defer file.Close()
	hash := sha256.New()
	n, err = io.Copy(io.MultiWriter(file, hash), &moving{io.LimitReader(reader, mostObject), moved})
	if err != nil {
		return n, sum, why(ctx, "read "+object, err)
	}
	return n, [sha256.Size]byte(hash.Sum(nil)), file.Close()
}
