package web

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/recorder"
	"sallyport/recorder/replay"
	"sallyport/recorder/verify"
	"sallyport/web/api"
)

type exporting struct {
	Format  string `query:"format" enum:"jsonl,asciicast,asciicast-v2,text,srec" default:"jsonl" doc:"asciicast is version 3; either holds one session, as does srec, the recording as it is stored."`
	Session string `query:"session" maxLength:"64" doc:"The session to export."`
	All     bool   `query:"all" doc:"Every recording the permission covers."`
	Unmasking
}

type searching struct {
	Text     string `query:"text" required:"true" minLength:"1" maxLength:"1000" doc:"What to look for; upper and lower case are the same."`
	Target   string `query:"target" maxLength:"253"`
	Person   string `query:"person" maxLength:"320" doc:"Part of a name, an e-mail address or a subject."`
	Account  string `query:"account" maxLength:"128"`
	Protocol string `query:"protocol" enum:"postgres,ssh"`
	Grant    string `query:"grant" maxLength:"64"`
	Errors   bool   `query:"errors" doc:"Only statements, commands and operations on files that failed."`
	Limit    int    `query:"limit" minimum:"1" maximum:"10000" default:"1000"`
	Period
}

type auditing struct {
	Kind    string `query:"kind" maxLength:"100" doc:"A whole kind, or its beginning up to a dot."`
	Actor   string `query:"actor" maxLength:"320" doc:"Part of the actor's name, issuer or subject."`
	Target  string `query:"target" maxLength:"253"`
	Grant   string `query:"grant" maxLength:"64"`
	Session string `query:"session" maxLength:"64"`
	Outcome string `query:"outcome" maxLength:"64"`
	Last    int    `query:"last" minimum:"0" maximum:"100000" doc:"Only so many, the newest; 0: all."`
	After   uint64 `query:"after" doc:"Only events with higher numbers."`
	Before  uint64 `query:"before" doc:"Only events with lower numbers: with last, the page before the one that begins with it."`
	Period
}

// Period bounds when something happened.
type Period struct {
	Since time.Time `query:"since" doc:"At or after."`
	Until time.Time `query:"until" doc:"Before."`
}

func (s *server) registerRecordings() {
	type content = map[string]*huma.MediaType
	text := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	bytesOf := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}
	handleStream(s, operation("read-items", http.MethodGet, "/v1/sessions/{id}/items", "What happened in a session, one thing a line; from the middle on, what terminals showed comes first"),
		content{jsonLines: s.media(api.Item{})}, s.items)
	handleStream(s, operation("export", http.MethodGet, "/v1/export", "Recordings in a form of other programs"),
		content{jsonLines: s.media(api.Item{}), asciicast: text, plainText: text, srecFile: bytesOf}, s.export)
	handleStream(s, operation("search", http.MethodGet, "/v1/search", "Find statements, commands and terminal lines"),
		content{jsonLines: s.media(api.Match{})}, s.search)
	handleStream(s, operation("read-audit", http.MethodGet, "/v1/audit", "The control plane's own log, oldest first"),
		content{jsonLines: s.media(api.AuditEvent{})}, s.audit)
	handleStream(s, operation("verify", http.MethodGet, "/v1/verify", "Check the whole log"),
		content{oneJSON: s.media(verify.Report{})}, s.verify)
	handleStream(s, operation("session-evidence", http.MethodGet, "/v1/sessions/{id}/evidence", "A session in one file that proves itself"),
		content{zipFile: bytesOf}, s.sessionEvidence)
	handleStream(s, operation("grant-evidence", http.MethodGet, "/v1/grants/{id}/evidence", "All sessions under a grant in one file that proves itself"),
		content{zipFile: bytesOf}, s.grantEvidence)
	handleStream(s, operation("report", http.MethodGet, "/v1/reports/{kind}", "A report for auditors"),
		content{oneJSON: s.media(api.AuditReport{})}, s.report)
	handle(s, operation("list-holds", http.MethodGet, "/v1/holds", "Recordings on hold, which are not deleted when their time is over"), s.holds)
	handle(s, operation("hold", http.MethodPost, "/v1/sessions/{id}/hold", "Keep a recording from being deleted when its time is over"), s.hold)
	handle(s, operation("release-hold", http.MethodPost, "/v1/sessions/{id}/unhold", "End a hold"), s.unhold)
	handle(s, operation("shred-recording", http.MethodPost, "/v1/sessions/{id}/shred", "Destroy the recording of a session for good, before its time"), s.shred)
	handle(s, operation("session-integrity", http.MethodGet, "/v1/sessions/{id}/integrity", "Read a recording that has ended to its end and compare it with the log"), s.sessionIntegrity)
	handle(s, operation("get-status", http.MethodGet, "/v1/status", "How the gateway stands: recorder, disk, index, audit log"), s.status)
	handle(s, operation("rebuild-index", http.MethodPost, "/v1/index/rebuild", "Make the search index anew, from the recordings"), s.rebuildIndex)
}

// replaying says which recording, and where to begin.
type replaying struct {
	ID   string `path:"id" maxLength:"64"`
	From int64  `query:"from_ns" minimum:"0" doc:"Nanoseconds since the session began: most of what came before may be left out."`
	Unmasking
}

func (s *server) items(ctx context.Context, who caller, in *replaying) (*stream, error) {
	if in.Unmasked {
		return linesOf(s.replayUnmasked(ctx, who, in))
	}
	return linesOf(s.replay(ctx, who, in.ID, time.Duration(in.From)))
}

// replay opens a recording for somebody who may read it, and audits that.
func (s *server) replay(ctx context.Context, who caller, id string, from time.Duration) (iter.Seq2[api.Item, error], error) {
	if err := s.read(ctx, who, grant.ReadRecordings, id, "recording.replayed", opened); err != nil {
		return nil, err
	}
	s.shows.shown(who.Key(), id)
	return s.Recorder.ItemsFrom(ctx, id, from)
}

// part is replay for the next piece of what somebody is looking at: that they look is audited once in a while, not once a
// piece.
func (s *server) part(ctx context.Context, who caller, id string, from time.Duration) (iter.Seq2[api.Item, error], error) {
	if !s.shows.lately(who.Key(), id) {
		return s.replay(ctx, who, id, from)
	}
	header, _, err := s.Recorder.Read(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := s.permit(ctx, who, grant.ReadRecordings, header.Target); err != nil {
		return nil, err
	}
	return s.Recorder.ItemsFrom(ctx, id, from)
}

// segments are the pieces in which a large recording is played; one of one that is small.
func (s *server) segments(ctx context.Context, who caller, id string) (replay.Segments, error) {
	info, err := s.session(ctx, who, id)
	if err != nil {
		return replay.Segments{}, err
	}
	if err := s.permit(ctx, who, grant.ReadRecordings, info.Target); err != nil {
		return replay.Segments{}, err
	}
	if info.Ended == nil {
		return replay.Divide(nil, time.Since(info.Started)), nil
	}
	keys, err := s.Recorder.Keys(id)
	return replay.Divide(keys, info.Ended.Sub(info.Started)), err
}

// showEvery is how often it is audited that somebody looks at one recording piece by piece.
const showEvery = 10 * time.Minute

// shows remember who was given which recording, and when. Safe for concurrent use.
type shows struct {
	mu    sync.Mutex
	since map[[2]string]time.Time
}

func (s *shows) shown(who, session string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.since) > 10_000 {
		clear(s.since) // the next pieces are audited again
	}
	s.since[[2]string{who, session}] = time.Now()
}

func (s *shows) lately(who, session string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.since[[2]string{who, session}]
	return ok && time.Since(at) < showEvery
}

// read asks for a permission on a session's target and audits the reading of its recording, before anything is read. What
// the recording itself says of its target counts: it outlives the store.
func (s *server) read(ctx context.Context, who caller, permission grant.Permission, id, kind string, as form) error {
	header, _, err := s.Recorder.Read(ctx, id)
	if err != nil {
		return err
	}
	if err := s.permit(ctx, who, permission, header.Target); err != nil {
		return err
	}
	event := s.event(who, kind)
	event.Session, event.Target, event.Account, event.Grant = header.Session, header.Target, header.Account, header.Grant
	if as == opened && header.Lock != nil {
		event.Outcome = string(refusal.Locked)
		if err := s.Store.Audit(ctx, event); err != nil {
			return err
		}
		return recorder.RefuseLocked(id)
	}
	return s.Store.Audit(ctx, event)
}

// form is how a recording is handed out.
type form bool

const (
	opened form = true  // which takes its key, if it is locked
	stored form = false // as the gateway has it, locked or not
)

// srecFile is the type of a recording as it is stored.
const srecFile = "application/octet-stream"

func (s *server) export(ctx context.Context, who caller, in *exporting) (*stream, error) {
	if in.All == (in.Session != "") {
		return nil, refusal.New(refusal.Invalid, "say what to export").WithHint("session=ID for one recording, or all=true")
	}
	if in.All && in.Unmasked {
		return nil, refusal.New(refusal.Invalid, "what is masked is shown of one session at a time").WithHint("session=ID")
	}
	sessions := []string{in.Session}
	if in.Session != "" {
		var err error
		switch {
		case in.Format == recorder.Stored:
			err = s.unmaskStored(ctx, who, in.Session, in.Reason)
		case in.Unmasked:
			err = s.unmask(ctx, who, in.Session, in.Reason)
		}
		if err != nil {
			return nil, err
		}
		if err := s.read(ctx, who, grant.Export, in.Session, "recording.exported", form(in.Format != recorder.Stored)); err != nil {
			return nil, err
		}
	} else {
		if strings.HasPrefix(in.Format, "asciicast") || in.Format == recorder.Stored {
			return nil, refusal.New(refusal.Invalid, "%s holds one session", in.Format).WithHint("session=ID")
		}
		all, err := s.readable(ctx, who, grant.Export)
		if err != nil {
			return nil, err
		}
		event := s.event(who, "recording.exported")
		event.Fields = map[string]string{"recordings": strconv.Itoa(len(all)), "format": in.Format}
		if err := s.Store.Audit(ctx, event); err != nil {
			return nil, err
		}
		sessions = all
	}
	contentType := map[string]string{"jsonl": jsonLines, "text": plainText, "asciicast": asciicast, "asciicast-v2": asciicast, recorder.Stored: srecFile}[in.Format]
	return &stream{contentType: contentType, write: func(ctx context.Context, w io.Writer) error {
		locked := 0
		for _, id := range sessions {
			err := s.Recorder.Export(ctx, id, in.Format, w, recorder.ExportOptions{Unmasked: in.Unmasked})
			if in.All && refusal.Is(err, refusal.Locked) { // the others are whole
				locked++
				continue
			}
			if err != nil {
				return err
			}
		}
		if locked == 0 {
			return nil
		}
		no := someLocked(locked, "exported", "sallyport export ID --identity FILE")
		if in.Format == "text" { // which has no other place to say so
			_, err := fmt.Fprintln(w, no.Error())
			return err
		}
		return no
	}}, nil
}

// someLocked says of how many recordings a search or export has nothing, and what to do instead.
func someLocked(count int, done, instead string) *refusal.Refusal {
	return refusal.New(refusal.Locked, "locked recordings were not %s: %d", done, count).
		WithDetail("the gateway has no key that opens them; what there is of others is whole").
		WithHint("where an identity of their recipients is: %s", instead)
}

// readable lists the recordings that the permission covers, oldest first; with none whatever was recorded, it refuses.
func (s *server) readable(ctx context.Context, who caller, permission grant.Permission) ([]string, error) {
	if err := s.permitSome(ctx, who, permission); err != nil {
		return nil, err
	}
	all, err := s.Recorder.Sessions(ctx)
	if err != nil {
		return nil, err
	}
	var covered []string
	for _, h := range all {
		if s.Grants.May(who.Identity, permission, h.Target) == nil {
			covered = append(covered, h.Session)
		}
	}
	return covered, nil
}

// permitSome returns nil if the caller has the permission for everything or for any target there is. What is done to many
// targets takes as fresh a proof as the one that is guarded most.
func (s *server) permitSome(ctx context.Context, who caller, permission grant.Permission) error {
	for _, target := range s.Config().Targets {
		if s.Grants.May(who.Identity, permission, target.Name) == nil {
			return s.fresh(ctx, who, string(permission), "")
		}
	}
	return s.permit(ctx, who, permission, "")
}

func (s *server) search(ctx context.Context, who caller, in *searching) (*stream, error) {
	return linesOf(s.find(ctx, who, recorder.Query{
		Text: in.Text, Person: in.Person, Target: in.Target, Account: in.Account, Protocol: in.Protocol, Grant: in.Grant,
		Errors: in.Errors, Since: in.Since, Until: in.Until, Limit: in.Limit,
	}))
}

// find searches what the caller may read, and audits that.
func (s *server) find(ctx context.Context, who caller, in recorder.Query) (iter.Seq2[api.Match, error], error) {
	if in.Target != "" {
		if err := s.permit(ctx, who, grant.ReadRecordings, in.Target); err != nil {
			return nil, err
		}
	} else if err := s.permitSome(ctx, who, grant.ReadRecordings); err != nil {
		return nil, err
	}
	event := s.event(who, "recording.searched")
	event.Target = in.Target
	event.Account, event.Grant = in.Account, in.Grant
	event.Fields = map[string]string{"text": in.Text, "person": in.Person, "grant": in.Grant}
	if in.Errors {
		event.Fields["errors"] = "true"
	}
	if err := s.Store.Audit(ctx, event); err != nil {
		return nil, err
	}
	limit := in.Limit
	in.Limit = 0 // of all that is found, only what is permitted counts
	return s.permitted(who, s.Recorder.Search(ctx, in), limit), nil
}

// permitted keeps of what a search finds what the caller may read, up to a limit. A recording that can't be read does not
// end the search; that there was one is said at its end.
func (s *server) permitted(who caller, found iter.Seq2[recorder.Match, error], limit int) iter.Seq2[api.Match, error] {
	return func(yield func(api.Match, error) bool) {
		var failed error
		locked := 0
		for match, err := range found {
			switch {
			case err != nil && match.Session == "": // of no recording: there is no more
				yield(api.Match{}, err)
				return
			case s.Grants.May(who.Identity, grant.ReadRecordings, match.Header.Target) != nil:
				continue
			case refusal.Is(err, refusal.Locked):
				locked++
				continue
			case err != nil:
				s.Log.Error("a recording can't be searched", "session", match.Session, "error", err)
				failed = refusal.New(refusal.RecorderFailed, "not every recording could be searched").
					WithDetail("what was found is not all there may be").WithHint("sallyport verify").Because(err)
				continue
			}
			if !yield(api.Match(match), nil) {
				return
			}
			if limit--; limit == 0 {
				return
			}
		}
		if failed == nil && locked > 0 {
			failed = someLocked(locked, "searched", "sallyport index DIR --identity FILE --output INDEX, then sallyport search TEXT --index INDEX")
		}
		if failed != nil {
			yield(api.Match{}, failed)
		}
	}
}

func (s *server) audit(ctx context.Context, who caller, in *auditing) (*stream, error) {
	return linesOf(s.readAudit(ctx, who, recorder.AuditFilter{
		Kind: in.Kind, Actor: in.Actor, Target: in.Target, Grant: in.Grant, Session: in.Session, Outcome: in.Outcome,
		Since: in.Since, Until: in.Until, Last: in.Last, After: in.After, Before: in.Before,
	}))
}

// readAudit opens the control plane's log for somebody who may read it, and audits that.
func (s *server) readAudit(ctx context.Context, who caller, in recorder.AuditFilter) (iter.Seq2[api.AuditEvent, error], error) {
	if err := s.permit(ctx, who, grant.ReadRecordings, ""); err != nil {
		return nil, err
	}
	if err := s.Store.Audit(ctx, s.event(who, "audit.read")); err != nil {
		return nil, err
	}
	events := s.Recorder.Audit(ctx, in)
	return func(yield func(api.AuditEvent, error) bool) {
		for e, err := range events {
			if !yield(api.AuditEvent(e), err) {
				return
			}
		}
	}, nil
}

func (s *server) verify(ctx context.Context, who caller, _ *struct{}) (*stream, error) {
	report, err := s.verifyLog(ctx, who)
	if err != nil {
		return nil, err
	}
	return &stream{contentType: oneJSON, write: func(_ context.Context, w io.Writer) error {
		return json.NewEncoder(w).Encode(report)
	}}, nil
}

// verifyLog checks the whole log for somebody who may, which takes as long as reading it, and audits that.
func (s *server) verifyLog(ctx context.Context, who caller) (*verify.Report, error) {
	if err := s.permit(ctx, who, grant.VerifyLog, ""); err != nil {
		return nil, err
	}
	report, err := s.Recorder.Verify(ctx)
	if err != nil {
		return nil, err
	}
	event := s.event(who, "log.verified")
	event.Fields = map[string]string{"whole": strconv.FormatBool(report.Whole)}
	if err := s.Store.Audit(ctx, event); err != nil {
		return nil, err
	}
	return report, nil
}

func (s *server) sessionIntegrity(ctx context.Context, who caller, in *identified) (*body[*recorder.Integrity], error) {
	found, err := s.integrity(ctx, who, in.ID, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	return &body[*recorder.Integrity]{found}, nil
}

// integrity checks one recording for somebody who may read it, and audits that; nil where it takes more room than most bytes.
func (s *server) integrity(ctx context.Context, who caller, id string, most int64) (*recorder.Integrity, error) {
	if size, err := s.Recorder.Size(id); err != nil || size > most {
		return nil, err
	}
	if err := s.read(ctx, who, grant.ReadRecordings, id, "recording.verified", stored); err != nil {
		return nil, err
	}
	return s.Recorder.Integrity(ctx, id)
}

// integrityAgain is integrity for somebody who is looking at the recording: that is audited once in a while.
func (s *server) integrityAgain(ctx context.Context, who caller, id string, most int64) (*recorder.Integrity, error) {
	if !s.shows.lately(who.Key(), id) {
		return s.integrity(ctx, who, id, most)
	}
	header, _, err := s.Recorder.Read(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := s.permit(ctx, who, grant.ReadRecordings, header.Target); err != nil {
		return nil, err
	}
	if size, err := s.Recorder.Size(id); err != nil || size > most {
		return nil, err
	}
	return s.Recorder.Integrity(ctx, id)
}

// rebuildIndex begins to; searches read what is not in the index yet.
func (s *server) rebuildIndex(ctx context.Context, who caller, _ *struct{}) (*body[api.Index], error) {
	if err := s.permit(ctx, who, grant.VerifyLog, ""); err != nil {
		return nil, err
	}
	if err := s.Store.Audit(ctx, s.event(who, "index.rebuilt")); err != nil {
		return nil, err
	}
	if err := s.Recorder.RebuildIndex(); err != nil {
		return nil, err
	}
	return &body[api.Index]{s.index()}, nil
}

// index is how the search index stands.
func (s *server) index() api.Index {
	status, kept := s.Recorder.IndexStatus()
	return api.Index{Kept: kept, Sessions: status.Sessions, Live: status.Live, Behind: status.Behind, Error: status.Error}
}
