package verify

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Purged is a recording that was deleted when its time was over, as the audit log has it.
type Purged struct {
	Session string    `json:"session"`
	Time    time.Time `json:"time"` // when
	Path    string    `json:"path,omitempty"`
	SHA256  string    `json:"sha256,omitempty"` // of the file
	Leaf    int64     `json:"leaf"`             // of the log, which says so too; -1: none
}

// Shredded is a recording that somebody had destroyed before its time, as the audit log has it.
type Shredded struct {
	Session string    `json:"session"`
	Time    time.Time `json:"time,omitzero"`
	By      string    `json:"by,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	SHA256  string    `json:"sha256,omitempty"` // of the file
	Leaf    int64     `json:"leaf"`             // of the log, which says so too; -1: none
}

func (s Shredded) String() string {
	if s.Time.IsZero() {
		return fmt.Sprintf("the recording of session %s was destroyed, as leaf %d says; the audit log does not say by whom", s.Session, s.Leaf)
	}
	return fmt.Sprintf("the recording of session %s was destroyed by %s at %s: %s", s.Session, s.By, s.Time.UTC().Format(time.RFC3339), s.Reason)
}

// Missing is a recording that there should be.
type Missing struct {
	Session string    `json:"session"`
	Begun   time.Time `json:"begun"`
}

// told is what the audit log says of recordings.
type told struct {
	begun    map[string]time.Time
	purged   map[string]Purged
	shredded map[string]Shredded
}

func newTold() *told {
	return &told{begun: map[string]time.Time{}, purged: map[string]Purged{}, shredded: map[string]Shredded{}}
}

// take reads one audit event. What is no JSON was noted as a problem before.
func (t *told) take(data []byte) {
	var e struct {
		Kind      string            `json:"kind"`
		Time      time.Time         `json:"time"`
		Actor     string            `json:"actor"`
		ActorName string            `json:"actor_name"`
		Reason    string            `json:"reason"`
		Session   string            `json:"session"`
		Fields    map[string]string `json:"fields"`
	}
	if json.Unmarshal(data, &e) != nil || e.Session == "" {
		return
	}
	switch e.Kind {
	case "session.started": // its recording is durable before
		t.begun[e.Session] = e.Time
	case "recording.purged": // written before the file goes
		t.purged[e.Session] = Purged{Session: e.Session, Time: e.Time, Path: e.Fields["file"], SHA256: e.Fields["sha256"], Leaf: none}
	case "recording.shredded": // so is this
		t.shredded[e.Session] = Shredded{
			Session: e.Session, Time: e.Time, By: cmp.Or(e.ActorName, e.Actor), Reason: e.Reason, SHA256: e.Fields["sha256"], Leaf: none,
		}
	}
}

// compare fills in what the audit log knows of recordings that are not there.
func (r *Report) compare(dir string, t *told) error {
	for _, f := range r.Recordings {
		session := name(f.Path)
		delete(t.begun, session)
		delete(t.purged, session) // announced, and not yet done
		delete(t.shredded, session)
	}
	r.Shredded = slices.SortedFunc(maps.Values(t.shredded), func(a, b Shredded) int {
		return cmp.Or(a.Time.Compare(b.Time), strings.Compare(a.Session, b.Session))
	})
	for session := range t.shredded {
		delete(t.begun, session)
	}
	r.Purged = slices.SortedFunc(maps.Values(t.purged), func(a, b Purged) int {
		return cmp.Or(a.Time.Compare(b.Time), strings.Compare(a.Session, b.Session))
	})
	for session := range t.purged {
		delete(t.begun, session)
	}
	if len(t.begun) == 0 {
		return nil
	}
	// The audit log was read after the recordings: sessions may have begun between.
	err := filepath.WalkDir(filepath.Join(dir, "recordings"), func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		delete(t.begun, name(path))
		return err
	})
	for session, begun := range t.begun {
		r.Missing = append(r.Missing, Missing{session, begun})
	}
	slices.SortFunc(r.Missing, func(a, b Missing) int { return cmp.Or(a.Begun.Compare(b.Begun), strings.Compare(a.Session, b.Session)) })
	return err
}

// name is the session of a recording's file.
func name(path string) string {
	return strings.TrimSuffix(filepath.Base(filepath.FromSlash(path)), ".srec")
}
