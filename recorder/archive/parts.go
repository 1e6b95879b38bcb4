package archive

import (
	"context"
	"crypto/md5" //nolint:gosec // S3 speaks it; what counts is the SHA-256
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	// mostParts is the protocol's bound.
	mostParts = 10_000
	// joining is how much more patience the end of an upload in parts takes, while the store puts them together.
	joining = 5
)

// putParts writes a large object in parts, and goes on where an earlier try of the same content got to: its id was kept
// before its first part went.
func (a *Archive) putParts(ctx context.Context, r *row, c content, until time.Time) error {
	size := int64(partSize)
	for (c.size+size-1)/size > mostParts {
		size *= 2
	}
	there := map[int]minio.ObjectPart{}
	var err error
	if r.upload != "" {
		if there, err = a.bucket.parts(ctx, r.object, r.upload); absent(err) {
			r.upload = ""
		} else if err != nil {
			return err
		}
	}
	if r.upload == "" {
		if r.upload, err = a.bucket.begin(ctx, r.object, until); err != nil {
			return err
		}
		if err := a.setUpload(ctx, r.session, r.object, r.upload); err != nil {
			return err
		}
	}
	var whole []minio.CompletePart
	for first, number := int64(0), 1; first < c.size; first, number = first+size, number+1 {
		part := io.NewSectionReader(c.source, first, min(size, c.size-first))
		etag, err := a.bucket.putPart(ctx, r.object, r.upload, number, part, there[number])
		if err != nil {
			return err
		}
		whole = append(whole, minio.CompletePart{PartNumber: number, ETag: etag})
		a.overdue(ctx)
	}
	return a.bucket.complete(ctx, r.object, r.upload, whole)
}

func (b *bucket) begin(ctx context.Context, object string, until time.Time) (string, error) {
	ctx, _, done := b.patient(ctx, b.patience)
	defer done()
	id, err := b.core.NewMultipartUpload(ctx, b.name, b.prefix+object, b.lockOnly(until))
	return id, why(ctx, "begin to write "+object, err)
}

// lockOnly is options without the condition, which belongs to the request that completes an upload.
func (b *bucket) lockOnly(until time.Time) minio.PutObjectOptions {
	with := b.options(until)
	return minio.PutObjectOptions{Mode: with.Mode, RetainUntilDate: with.RetainUntilDate}
}

// parts are those that are there of an upload.
func (b *bucket) parts(ctx context.Context, object, upload string) (map[int]minio.ObjectPart, error) {
	ctx, moved, done := b.patient(ctx, b.patience)
	defer done()
	all := map[int]minio.ObjectPart{}
	for marker := 0; ; {
		list, err := b.core.ListObjectParts(ctx, b.name, b.prefix+object, upload, marker, 1000)
		if err != nil {
			return nil, why(ctx, "ask how much is there of "+object, err)
		}
		moved()
		for _, p := range list.ObjectParts {
			all[p.PartNumber] = p
		}
		if !list.IsTruncated || list.NextPartNumberMarker <= marker || len(all) > mostParts {
			return all, nil
		}
		marker = list.NextPartNumberMarker
	}
}

// putPart writes one part, unless it is there: of that size, with the MD5 that is its ETag. A store whose ETag is something
// else gets it again, and whatever it has, the whole is read back.
func (b *bucket) putPart(ctx context.Context, object, upload string, number int, part *io.SectionReader, there minio.ObjectPart) (string, error) {
	ctx, moved, done := b.patient(ctx, b.patience)
	defer done()
	sum, short := sha256.New(), md5.New() //nolint:gosec // the parts' ETag
	if _, err := io.Copy(io.MultiWriter(sum, short), part); err != nil {
		return "", fmt.Errorf("read what is to be archived: %w", err)
	}
	if there.Size == part.Size() && strings.Trim(there.ETag, `"`) == hex.EncodeToString(short.Sum(nil)) {
		return there.ETag, nil
	}
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	written, err := b.core.PutObjectPart(ctx, b.name, b.prefix+object, upload, number, &moving{part, moved}, part.Size(), minio.PutObjectPartOptions{
		Md5Base64: base64.StdEncoding.EncodeToString(short.Sum(nil)), Sha256Hex: hex.EncodeToString(sum.Sum(nil)),
	})
	return written.ETag, why(ctx, fmt.Sprintf("write part %d of %s", number, object), err)
}

// complete puts the parts together, or finds that there is an object of that name.
func (b *bucket) complete(ctx context.Context, object, upload string, parts []minio.CompletePart) error {
	ctx, _, done := b.patient(ctx, joining*b.patience)
	defer done()
	_, err := b.core.CompleteMultipartUpload(ctx, b.name, b.prefix+object, upload, parts, b.options(time.Time{}))
	if exists(err) {
		return why(ctx, "take back the parts of "+object, b.core.AbortMultipartUpload(ctx, b.name, b.prefix+object, upload))
	}
	return why(ctx, "put "+object+" together", err)
}
