package archive

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"sallyport/internal/store"
)

// Shred is a recording that was destroyed here and of which something is still in the archive.
type Shred struct {
	Session string
	// Object is what it was archived as, without the place; empty where that is not known, and looked for.
	Object string
	Since  time.Time
	// Locked is until when the store deletes it for nobody (Object Lock); zero where it is not locked, or that is not known yet.
	Locked time.Time
	// Next is when it is tried again, Error why it did not go the last time.
	Next  time.Time
	Error string
	// Stuck says that it does not go, for longer than archive.max_behind.
	Stuck bool

	leaf  int64
	tries int
	ended time.Time // of the recording; zero where the database has lost it
}

const (
	// mostShreds is how many are told of in a Status, and deleted in one pass.
	mostShreds = 100
	// lastShredWait is the longest between two tries; locked ones are looked at again as often, for a lock may be taken away.
	lastShredWait = time.Hour
)

// foundShred notes that a recording was destroyed. What of it is at another place, where an earlier configuration had the archive, is out
// of reach, and told.
func (a *Archive) foundShred(ctx context.Context, tx *store.Tx, r row) error {
	result, err := tx.ExecContext(ctx, `INSERT INTO archive_shreds (place, session, leaf, since) VALUES (?, ?, ?, ?) ON CONFLICT (place, session) DO NOTHING`,
		a.place, r.session, r.leaf, r.ended.UnixMilli())
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return err
	}
	rows, err := tx.QueryContext(ctx, `SELECT o.place, o.object, o.version FROM archive_places p JOIN archive_objects o ON o.place = p.place AND o.session = ?
		WHERE p.place <> ? AND o.state = ?`, r.session, a.place, archived)
	if err != nil {
		return err
	}
	defer rows.Close()
	var elsewhere []store.AuditEvent
	for rows.Next() {
		var place, object, version string
		if err := rows.Scan(&place, &object, &version); err != nil {
			return err
		}
		elsewhere = append(elsewhere, store.AuditEvent{
			Kind: "archive.shred_elsewhere", Actor: "system", Session: r.session, Outcome: "failed",
			Reason: "the gateway's configuration names another archive now; whoever may must delete it there", Fields: map[string]string{"archive": place, "object": object, "version": version},
		})
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, e := range elsewhere {
		if err := tx.Audit(e); err != nil {
			return err
		}
	}
	return nil
}

// shreds are those of this place that a condition admits.
func (a *Archive) shreds(ctx context.Context, condition string, args ...any) ([]Shred, error) {
	const what = "read what is to be deleted in the archive"
	found, err := a.o.Store.Read().QueryContext(ctx, `SELECT s.session, coalesce(o.object, ''), coalesce(o.ended, 0), s.leaf, s.since, s.locked, s.tries, s.next, s.error, s.stuck
		FROM archive_shreds s LEFT JOIN archive_objects o ON o.place = s.place AND o.session = s.session WHERE s.place = ? AND `+condition+` ORDER BY s.leaf LIMIT ?`,
		append(append([]any{a.place}, args...), mostShreds)...)
	if err != nil {
		return nil, failing(what, err)
	}
	defer found.Close()
	var all []Shred
	for found.Next() {
		var s Shred
		var ended, since, locked, next, stuck int64
		if err := found.Scan(&s.Session, &s.Object, &ended, &s.leaf, &since, &locked, &s.tries, &next, &s.Error, &stuck); err != nil {
			return nil, failing(what, err)
		}
		s.ended, s.Since, s.Locked, s.Next, s.Stuck = moment(ended), moment(since), moment(locked), moment(next), stuck != 0
		all = append(all, s)
	}
	return all, failing(what, found.Err())
}

// shredsAfter reports whether a recording was destroyed of which the checkpoint over so many leaves does not know.
func (a *Archive) shredsAfter(ctx context.Context, leaves int64) (bool, error) {
	found, err := a.shreds(ctx, `s.leaf >= ?`, leaves)
	return len(found) > 0, err
}

func (a *Archive) countShreds(ctx context.Context, s *Status) (err error) {
	if s.Shreds, err = a.shreds(ctx, `s.leaf >= ?`, 0); err != nil || len(s.Shreds) < mostShreds {
		s.Shredding = len(s.Shreds)
		return err
	}
	err = a.o.Store.Read().QueryRowContext(ctx, `SELECT count(*) FROM archive_shreds WHERE place = ?`, a.place).Scan(&s.Shredding)
	return failing("count what is to be deleted in the archive", err)
}

// shredAll deletes in the store what was destroyed here before a leaf. What does not go is noted, and tried again for ever; an error is
// one of the database.
func (a *Archive) shredAll(ctx context.Context, before int64) error {
	due, err := a.shreds(ctx, `s.leaf < ? AND s.next <= ?`, before, time.Now().UnixMilli())
	if err != nil || len(due) == 0 {
		return err
	}
	folders := map[string][]Shred{}
	for _, s := range due {
		folder := "recordings" // of one that the database has lost, which may be anywhere
		if s.Object != "" {
			folder = path.Dir(path.Dir(s.Object))
		}
		folders[folder] = append(folders[folder], s)
	}
	for folder, some := range folders {
		files := map[string]bool{}
		for _, s := range some {
			files[s.file()] = true
		}
		there, err := a.bucket.everything(ctx, folder+"/", files)
		tried := make([]try, len(some))
		for i, s := range some {
			if tried[i].failed = err; err == nil {
				tried[i] = a.delete(ctx, s, there[s.file()])
			}
		}
		if there, err = a.bucket.everything(ctx, folder+"/", files); ctx.Err() != nil {
			return ctx.Err() // a gateway that stops, which is no failure
		}
		for i, s := range some {
			if one := &tried[i]; one.failed == nil && err != nil {
				one.failed = err
			} else if one.failed == nil && one.locked.IsZero() && len(there[s.file()]) > 0 {
				one.failed = errStays
			}
			if err := a.noteShred(ctx, s, tried[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// errStays says that a store did not do what it was told.
var errStays = errors.New("the store says that it has deleted it, and has it still")

// try is how it went with one recording: what failed, or until when something is locked, or that all is gone.
type try struct {
	deleted int
	locked  time.Time
	failed  error
}

func (s Shred) file() string { return s.Session + ".srec" }

// delete deletes all that is there of one recording.
func (a *Archive) delete(ctx context.Context, s Shred, there []version) (t try) {
	var asked time.Time // until when the gateway itself has locked it
	if a.o.Config.Lock.Mode != "" && !s.ended.IsZero() {
		asked = a.until(s.ended)
	}
	for _, v := range there {
		if v.mark && !t.locked.IsZero() {
			continue // it hides what is there still
		}
		until, err := a.bucket.delete(ctx, v, asked)
		switch {
		case err != nil:
			t.failed = err
			return t
		case until.IsZero():
			t.deleted++
		case until.After(t.locked):
			t.locked = until
		}
	}
	return t
}

// noteShred keeps how it went with one recording.
func (a *Archive) noteShred(ctx context.Context, s Shred, t try) error {
	now, locked, failed := time.Now(), t.locked, t.failed
	if failed == nil && locked.IsZero() {
		return failing("keep what was deleted in the archive", a.o.Store.Do(ctx, func(tx *store.Tx) error {
			if _, err := tx.ExecContext(ctx, `DELETE FROM archive_shreds WHERE place = ? AND session = ?`, a.place, s.Session); err != nil {
				return err
			}
			return tx.Audit(a.ofShred("archive.shredded", s, map[string]string{"deleted": strconv.Itoa(t.deleted)}))
		}))
	}
	wait := min(firstWait<<min(s.tries, 20), lastShredWait)
	if failed == nil {
		wait = min(max(locked.Sub(now), firstWait), lastShredWait)
	}
	var events []store.AuditEvent
	if !locked.IsZero() && !locked.Equal(s.Locked) {
		events = append(events, a.ofShred("archive.shred_locked", s, map[string]string{"until": locked.Format(time.RFC3339)}))
	}
	stuck := failed != nil && now.Sub(s.Since) > a.o.Config.MaxBehind.D()
	if stuck && !s.Stuck {
		e := a.ofShred("archive.shred_stuck", s, nil)
		e.Outcome, e.Reason = "failed", reasonOf(failed)
		events = append(events, e)
		a.o.Log.Error("a recording that was destroyed here can't be deleted in the archive; it is tried for ever", "session", s.Session, "object", s.Object, "error", failed)
	}
	return failing("keep what could not be deleted in the archive", a.o.Store.Do(ctx, func(tx *store.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE archive_shreds SET locked = ?, tries = tries + 1, next = ?, error = ?, stuck = ? WHERE place = ? AND session = ?`,
			milliseconds(locked), now.Add(wait).UnixMilli(), reasonOf(failed), flag(stuck), a.place, s.Session); err != nil {
			return err
		}
		for _, e := range events {
			if err := tx.Audit(e); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (a *Archive) ofShred(kind string, s Shred, fields map[string]string) store.AuditEvent {
	all := map[string]string{"archive": a.place}
	if s.Object != "" {
		all["object"] = s.Object
	}
	for name, value := range fields {
		all[name] = value
	}
	return store.AuditEvent{Kind: kind, Actor: "system", Session: s.Session, Fields: all}
}

func milliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}

// version is one of an object, a mark that one was deleted, or an upload in parts that was not finished.
type version struct {
	object, id string
	mark       bool
	upload     bool
}

// everything is what is in a folder of files of some names: all versions, marks, and unfinished uploads.
func (b *bucket) everything(ctx context.Context, folder string, files map[string]bool) (map[string][]version, error) {
	ctx, moved, done := b.patient(ctx, b.patience)
	defer done()
	found := map[string][]version{}
	collect := func(versions bool) error {
		for info := range b.core.ListObjectsIter(ctx, b.name, minio.ListObjectsOptions{Prefix: b.prefix + folder, Recursive: true, WithVersions: versions}) {
			if info.Err != nil {
				return why(ctx, "list the versions of what is to be deleted (s3:ListBucket, s3:ListBucketVersions)", info.Err)
			}
			moved()
			if file := path.Base(info.Key); files[file] {
				found[file] = append(found[file], version{object: strings.TrimPrefix(info.Key, b.prefix), id: info.VersionID, mark: info.IsDeleteMarker})
			}
		}
		return nil
	}
	err := collect(true)
	if c := code(err); c == "NotImplemented" || c == "MethodNotAllowed" { // a store without versions
		clear(found)
		err = collect(false)
	}
	if err != nil {
		return nil, err
	}
	for key, upload := "", ""; ; {
		list, err := b.core.ListMultipartUploads(ctx, b.name, b.prefix+folder, key, upload, "", 1000)
		if c := code(err); c == "NotImplemented" || c == "MethodNotAllowed" {
			return found, nil
		}
		if err != nil {
			return nil, why(ctx, "list the unfinished uploads of what is to be deleted (s3:ListBucketMultipartUploads)", err)
		}
		moved()
		for _, u := range list.Uploads {
			if file := path.Base(u.Key); files[file] {
				found[file] = append(found[file], version{object: strings.TrimPrefix(u.Key, b.prefix), id: u.UploadID, upload: true})
			}
		}
		if !list.IsTruncated || list.NextKeyMarker == key && list.NextUploadIDMarker == upload {
			break
		}
		key, upload = list.NextKeyMarker, list.NextUploadIDMarker
	}
	for _, some := range found { // marks last: a failure leaves hidden what was hidden
		slices.SortStableFunc(some, func(a, b version) int { return flag(a.mark) - flag(b.mark) })
	}
	return found, nil
}

// errLegalHold says that somebody put a legal hold on an object in the store, which has no end.
var errLegalHold = errors.New("it is under a legal hold in the store, which whoever put it there must take away")

// delete deletes one version for good. Where the store keeps it until some time, that is returned, and it is still there. asked is until
// when it was locked as it was put there: not every store says that of every version, when it refuses to delete it.
func (b *bucket) delete(ctx context.Context, v version, asked time.Time) (locked time.Time, err error) {
	ctx, _, done := b.patient(ctx, b.patience)
	defer done()
	if v.upload {
		if err := b.core.AbortMultipartUpload(ctx, b.name, b.prefix+v.object, v.id); !absent(err) {
			return locked, why(ctx, "take back an unfinished upload of "+v.object, err)
		}
		return locked, nil
	}
	if !v.mark {
		info, err := b.core.StatObject(ctx, b.name, b.prefix+v.object, minio.StatObjectOptions{VersionID: v.id})
		if absent(err) && v.id == "null" { // which a bucket without versions calls it, and some stores know only in a list
			info, err = b.core.StatObject(ctx, b.name, b.prefix+v.object, minio.StatObjectOptions{})
		}
		if err != nil && !absent(err) {
			return locked, why(ctx, "look at the lock of "+v.object, err)
		}
		if strings.EqualFold(info.Metadata.Get("X-Amz-Object-Lock-Legal-Hold"), "on") {
			return locked, fmt.Errorf("delete %s: %w", v.object, errLegalHold)
		}
		if until, err := time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date")); err == nil && until.After(time.Now()) {
			return until.UTC(), nil
		}
	}
	err = b.core.RemoveObject(ctx, b.name, b.prefix+v.object, minio.RemoveObjectOptions{VersionID: v.id})
	if absent(err) {
		return locked, nil
	}
	if code(err) == minio.AccessDenied && asked.After(time.Now()) {
		return asked, nil
	}
	return locked, why(ctx, "delete "+v.object+" (s3:DeleteObject, s3:DeleteObjectVersion; or let somebody delete it who may)", err)
}
