package web

import (
	"context"
	"iter"
	"net/http"
	"reflect"
	"slices"
	"strconv"

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
}

func (s *server) registerRecordings() {
	handleStream(s, operation("read-items", http.MethodGet, "/v1/sessions/{id}/items", "What happened in a session, one thing a line"), api.Item{}, s.items)
	handleStream(s, operation("export", http.MethodGet, "/v1/export", "Recordings in a form of other programs"), api.Item{}, s.export)
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
	return lines(ctx, items)
}

// read asks for a permission on a session's target and audits the reading of its recording, before anything is read.
func (s *server) read(ctx context.Context, who caller, permission grant.Permission, id, kind string) error {
	info, err := s.Sessions.Get(ctx, id)
	if err != nil {
		return err
	}
	if err := s.permit(ctx, who, permission, info.Target); err != nil {
		return err
	}
	event := s.event(who, kind)
	event.Session, event.Target, event.Account, event.Grant = info.ID, info.Target, info.Account, info.Grant
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
		return lines(ctx, items)
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
	return lines(ctx, s.itemsOf(ctx, sessions))
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
	found := s.Recorder.Search(ctx, recorder.Query{Text: in.Text, Person: in.Person, Target: in.Target, Grant: in.Grant})
	return lines(ctx, func(yield func(recorder.Match, error) bool) {
		left := in.Limit
		for match, err := range found {
			if err == nil && s.Grants.May(who.Identity, grant.ReadRecordings, match.Header.Target) != nil {
				continue
			}
			if !yield(match, err) || err != nil {
				return
			}
			if left--; left == 0 {
				return
			}
		}
	})
}

