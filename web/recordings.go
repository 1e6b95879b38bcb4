package web

import (
	"context"
	"iter"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/web/api"
)

type exporting struct {
	Format  string `query:"format" enum:"jsonl" default:"jsonl"`
	Session string `query:"session" maxLength:"64" doc:"The session to export."`
	All     bool   `query:"all" doc:"Every recording the permission covers."`
}

type searching struct {
	Text   string `query:"text" required:"true" minLength:"1" maxLength:"1000" doc:"What to look for; upper and lower case are the same."`
	Target string `query:"target" maxLength:"253"`
	Person string `query:"person" maxLength:"320" doc:"Part of a name, an e-mail address or a subject."`
	Grant  string `query:"grant" maxLength:"64"`
	Limit  int    `query:"limit" minimum:"1" maximum:"10000" default:"1000"`
	period
}

type auditing struct {
	Kind    string `query:"kind" maxLength:"100" doc:"A whole kind, or its beginning up to a dot."`
	Actor   string `query:"actor" maxLength:"320" doc:"Part of the actor's name, issuer or subject."`
	Target  string `query:"target" maxLength:"253"`
	Grant   string `query:"grant" maxLength:"64"`
	Session string `query:"session" maxLength:"64"`
	Outcome string `query:"outcome" maxLength:"64"`
	Last    int    `query:"last" minimum:"0" maximum:"100000" doc:"Only so many, the newest; 0: all."`
	period
}

// period bounds when something happened.
type period struct {
	Since time.Time `query:"since" doc:"At or after."`
	Until time.Time `query:"until" doc:"Before."`
}

func (s *server) registerRecordings() {
	handleStream(s, operation("read-items", http.MethodGet, "/v1/sessions/{id}/items", "What happened in a session, one thing a line"), api.Item{}, s.items)
	handleStream(s, operation("export", http.MethodGet, "/v1/export", "Recordings in a form of other programs"), api.Item{}, s.export)
	handleStream(s, operation("read-audit", http.MethodGet, "/v1/audit", "The control plane's own log, oldest first"), api.AuditEvent{}, s.audit)
	handleStream(s, operation("search", http.MethodGet, "/v1/search", "Find statements, commands and terminal lines"), api.Match{}, s.search)
}

func (s *server) schema(v any) *huma.Schema {
	t := reflect.TypeOf(v)
	return s.api.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
}

func (s *server) items(ctx context.Context, who caller, in *identified) (*stream, error) {
	if err := s.read(ctx, who, grant.ReadRecordings, in.ID, "recording.replayed"); err != nil {
		return nil, err
	}
	items, err := s.Recorder.Items(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return lines(items)
}

// read asks for a permission on a session's target and audits the reading of its recording, before anything is read. What
// the recording itself says of its target counts: it outlives the store.
func (s *server) read(ctx context.Context, who caller, permission grant.Permission, id, kind string) error {
	header, _, err := s.Recorder.Read(ctx, id)
	if err != nil {
		return err
	}
	if err := s.permit(ctx, who, permission, header.Target); err != nil {
		return err
	}
	event := s.event(who, kind)
	event.Session, event.Target, event.Account, event.Grant = header.Session, header.Target, header.Account, header.Grant
	return s.Store.Audit(ctx, event)
}

func (s *server) export(ctx context.Context, who caller, in *exporting) (*stream, error) {
	if in.All == (in.Session != "") {
		return nil, refusal.New(refusal.Invalid, "say what to export").WithHint("session=ID for one recording, or all=true")
	}
	if in.Session != "" {
		if err := s.read(ctx, who, grant.Export, in.Session, "recording.exported"); err != nil {
			return nil, err
		}
		items, err := s.Recorder.Items(ctx, in.Session)
		if err != nil {
			return nil, err
		}
		return lines(items)
	}
	sessions, err := s.readable(ctx, who, grant.Export)
	if err != nil {
		return nil, err
	}
	event := s.event(who, "recording.exported")
	event.Fields = map[string]string{"recordings": strconv.Itoa(len(sessions)), "format": in.Format}
	if err := s.Store.Audit(ctx, event); err != nil {
		return nil, err
	}
	return lines(s.itemsOf(ctx, sessions))
}

// readable lists the recordings that the permission covers; with none covered whatever was recorded, it refuses.
func (s *server) readable(ctx context.Context, who caller, permission grant.Permission) ([]format.Header, error) {
	if err := s.permitSome(ctx, who, permission); err != nil {
		return nil, err
	}
	all, err := s.Recorder.Sessions(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(h format.Header) bool {
		return s.Grants.May(who.Identity, permission, h.Target) != nil
	}), nil
}

// permitSome returns nil if the caller has the permission for everything or for any target there is.
func (s *server) permitSome(ctx context.Context, who caller, permission grant.Permission) error {
	for _, target := range s.Config().Targets {
		if s.Grants.May(who.Identity, permission, target.Name) == nil {
			return nil
		}
	}
	return s.permit(ctx, who, permission, "")
}

// itemsOf chains the items of recordings.
func (s *server) itemsOf(ctx context.Context, sessions []format.Header) iter.Seq2[recorder.Item, error] {
	return func(yield func(recorder.Item, error) bool) {
		for _, h := range sessions {
			items, err := s.Recorder.Items(ctx, h.Session)
			if err != nil {
				yield(recorder.Item{}, err)
				return
			}
			for item, err := range items {
				if !yield(item, err) || err != nil {
					return
				}
			}
		}
	}
}

func (s *server) search(ctx context.Context, who caller, in *searching) (*stream, error) {
	if in.Target != "" {
		if err := s.permit(ctx, who, grant.ReadRecordings, in.Target); err != nil {
			return nil, err
		}
	} else if err := s.permitSome(ctx, who, grant.ReadRecordings); err != nil {
		return nil, err
	}
	event := s.event(who, "recording.searched")
	event.Target = in.Target
	event.Fields = map[string]string{"text": in.Text, "person": in.Person, "grant": in.Grant}
	if err := s.Store.Audit(ctx, event); err != nil {
		return nil, err
	}
	found := s.Recorder.Search(ctx, recorder.Query{
		Text: in.Text, Person: in.Person, Target: in.Target, Grant: in.Grant, Since: in.Since, Until: in.Until,
	})
	return lines(s.permitted(who, found, in.Limit))
}

// permitted keeps of what a search finds what the caller may read, up to a limit. A recording that can't be read does not
// end the search; that there was one is said at its end.
func (s *server) permitted(who caller, found iter.Seq2[recorder.Match, error], limit int) iter.Seq2[api.Match, error] {
	return func(yield func(api.Match, error) bool) {
		var failed error
		for match, err := range found {
			switch {
			case err != nil && match.Session == "": // of no recording: there is no more
				yield(api.Match{}, err)
				return
			case s.Grants.May(who.Identity, grant.ReadRecordings, match.Header.Target) != nil:
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
		if failed != nil {
			yield(api.Match{}, failed)
		}
	}
}

func (s *server) audit(ctx context.Context, who caller, in *auditing) (*stream, error) {
	if err := s.permit(ctx, who, grant.ReadRecordings, ""); err != nil {
		return nil, err
	}
	if err := s.Store.Audit(ctx, s.event(who, "audit.read")); err != nil {
		return nil, err
	}
	events := s.Recorder.Audit(ctx, recorder.AuditFilter{
		Kind: in.Kind, Actor: in.Actor, Target: in.Target, Grant: in.Grant, Session: in.Session, Outcome: in.Outcome,
		Since: in.Since, Until: in.Until, Last: in.Last,
	})
	return lines(func(yield func(api.AuditEvent, error) bool) {
		for e, err := range events {
			if !yield(api.AuditEvent(e), err) {
				return
			}
		}
	})
}
