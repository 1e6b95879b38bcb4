package web

import (
	"context"
	"io"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/authn"
	"sallyport/grant"
	"sallyport/internal/store"
	"sallyport/recorder"
	"sallyport/web/api"
	"sallyport/web/sse"
)

// The topics of /v1/events.
const (
	topicGrants   = "grants"
	topicSessions = "sessions"
	topicAudit    = "audit"
)

// eventsIn are which events somebody wants, and after which.
type eventsIn struct {
	Topics      []string `query:"topics" enum:"grants,sessions,audit" doc:"Of what; empty: grants and sessions."`
	LastEventID string   `header:"Last-Event-ID" maxLength:"20"`
	After       uint64   `query:"after" doc:"Events with higher numbers, from the audit log where they are long past; 0: from now."`
}

func (s *server) registerEvents() {
	op := operation("follow-events", http.MethodGet, "/v1/events", "What happens to grants and sessions, and all else in the audit log, as server-sent events resumable by id")
	handleStream(s, op, map[string]*huma.MediaType{sse.ContentType: s.media(api.Event{})},
		func(ctx context.Context, who caller, in *eventsIn) (*stream, error) {
			after, err := resumed{in.LastEventID, in.After}.from()
			if err != nil {
				return nil, err
			}
			events, err := s.events(ctx, who, in.Topics, after)
			if err != nil {
				return nil, err
			}
			return &stream{contentType: sse.ContentType, write: func(ctx context.Context, w io.Writer) error {
				for e, err := range events {
					if err != nil {
						return err
					}
					var data any
					if e.Kind != "" {
						data = e
					}
					if err := sse.Write(w, "", strconv.FormatUint(e.Number, 10), data); err != nil {
						return err
					}
				}
				return nil
			}}, nil
		})
}

// events follows what the caller may see of grants, sessions and the audit log, after the event of a number or from now. It
// goes on until ctx or the caller's sign-in ends. One without a kind says only how far it came, and that it is there.
func (s *server) events(ctx context.Context, who caller, topics []string, after uint64) (iter.Seq2[api.Event, error], error) {
	if len(topics) == 0 {
		topics = []string{topicGrants, topicSessions}
	}
	audit := slices.Contains(topics, topicAudit)
	if audit {
		if err := s.permit(ctx, who, grant.ReadRecordings, ""); err != nil {
			return nil, err
		}
		if err := s.Store.Audit(ctx, s.event(who, "audit.read")); err != nil {
			return nil, err
		}
	}
	if after == 0 {
		after = s.Store.Latest()
	}
	return func(yield func(api.Event, error) bool) {
		err := s.whileGood(ctx, who, func(ctx context.Context, now func() caller) error {
			if !yield(api.Event{Number: after}, nil) {
				return nil
			}
			for {
				committed := s.Store.Committed()
				var stopped bool
				for e, err := range s.eventsAfter(ctx, after) {
					if err != nil {
						return err
					}
					after = e.Number
					shown, ok := s.shown(ctx, now(), topics, e)
					if ok && !yield(shown, nil) {
						stopped = true
						break
					}
				}
				if stopped {
					return nil
				}
				idle := time.NewTimer(sse.Heartbeat)
				select {
				case <-committed:
				case <-idle.C:
					if !yield(api.Event{Number: after}, nil) {
						return nil
					}
				case <-ctx.Done():
					idle.Stop()
					return context.Cause(ctx)
				}
				idle.Stop()
			}
		})
		if err != nil && ctx.Err() == nil {
			yield(api.Event{}, err)
		}
	}, nil
}

// eventsAfter are the committed events above a number, from memory or, where they are long past, from the audit log.
func (s *server) eventsAfter(ctx context.Context, after uint64) iter.Seq2[store.AuditEvent, error] {
	recent, whole := s.Store.Recent(after)
	if !whole {
		return s.Recorder.Audit(ctx, recorder.AuditFilter{After: after})
	}
	return func(yield func(store.AuditEvent, error) bool) {
		for _, e := range recent {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// shown is an event as the caller may see it; false where they may not, now.
func (s *server) shown(ctx context.Context, who caller, topics []string, e store.AuditEvent) (api.Event, bool) {
	out := api.Event{
		Number: e.Number, Time: e.Time, Kind: e.Kind, Target: e.Target, Account: e.Account, Grant: e.Grant, Session: e.Session, Outcome: e.Outcome,
	}
	if slices.Contains(topics, topicAudit) && s.Grants.May(who.Identity, grant.ReadRecordings, "") == nil {
		audit := api.AuditEvent(e)
		out.Audit = &audit
		return out, true
	}
	switch {
	case e.Session != "" && slices.Contains(topics, topicSessions):
		return out, s.seesSession(who.Identity, e)
	case e.Grant != "" && slices.Contains(topics, topicGrants):
		_, err := s.Grants.Get(ctx, who.Identity, e.Grant)
		return out, err == nil
	}
	return out, false
}

// seesSession says whether somebody may see that something happened to a session: it is theirs, or on a target of which they
// may list the sessions.
func (s *server) seesSession(who authn.Identity, e store.AuditEvent) bool {
	return e.Actor == who.Key() || s.Grants.May(who, grant.ListSessions, e.Target) == nil
}
