package web

import (
	"context"
	"slices"
	"time"

	"sallyport/authn"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/recorder"
	"sallyport/session"
	"sallyport/web/report"
)

type reporting struct {
	Kind string    `path:"kind" enum:"access,sessions,integrity,review"`
	From time.Time `query:"from" required:"true" doc:"At or after."`
	To   time.Time `query:"to" required:"true" doc:"Before."`
}

// report makes one of the auditors' reports. It is about everything, so it takes the permissions for everything.
func (s *server) report(ctx context.Context, who caller, in *reporting) (*stream, error) {
	for _, permission := range []grant.Permission{grant.VerifyLog, grant.ListGrants, grant.ListSessions} {
		if err := s.permit(ctx, who, permission, ""); err != nil {
			return nil, err
		}
	}
	if !in.From.Before(in.To) {
		return nil, refusal.New(refusal.Invalid, "the period ends before it begins")
	}
	event := s.event(who, "report.made")
	event.Fields = map[string]string{"report": in.Kind, "from": in.From.UTC().Format(time.RFC3339), "to": in.To.UTC().Format(time.RFC3339)}
	if err := s.Store.Audit(ctx, event); err != nil {
		return nil, err
	}
	facts, err := s.facts(ctx, who, in)
	if err != nil {
		return nil, err
	}
	made, err := report.Make(in.Kind, facts)
	if err != nil {
		return nil, err
	}
	made.Made, made.By, made.Gateway = time.Now().UTC().Truncate(time.Second), who.Label(), s.URL
	if l := s.Recorder.Ledger; l != nil {
		c := l.Witnessed()
		if made.Witnessed = c.Note != nil; !made.Witnessed {
			c = l.Checkpoint()
		}
		made.Checkpoint = string(c.Note)
	}
	return oneOf(made), nil
}

// facts are what there was in a period.
func (s *server) facts(ctx context.Context, who caller, in *reporting) (report.Facts, error) {
	f := report.Facts{From: in.From, To: in.To, Offers: func(who authn.Identity) ([]grant.Offer, error) { return s.Grants.Offers(ctx, who) }}
	fail := func(err error) (report.Facts, error) { return report.Facts{}, err }
	inPeriod := func(from, until time.Time) bool {
		return from.Before(in.To) && (until.IsZero() || !until.Before(in.From))
	}
	var err error
	f.Grants, _, err = s.Grants.Find(ctx, who.Identity, grant.Filter{All: true, Keep: func(g grant.Grant) bool { return inPeriod(g.Requested, g.EndedAt) }})
	if err != nil {
		return fail(err)
	}
	all, err := s.Sessions.Find(ctx, session.Filter{Until: in.To})
	if err != nil {
		return fail(err)
	}
	for _, info := range all {
		if inPeriod(info.Started, info.Ended) {
			f.Sessions = append(f.Sessions, info)
		}
	}
	slices.Reverse(f.Grants) // oldest first, as one reads
	slices.Reverse(f.Sessions)
	for event, err := range s.Recorder.Audit(ctx, recorder.AuditFilter{Since: in.From, Until: in.To}) {
		if err != nil {
			return fail(err)
		}
		f.Events = append(f.Events, event)
	}
	if in.Kind == report.Access && s.Grants.May(who.Identity, grant.ReadRecordings, "") == nil {
		if f.Done, err = s.done(ctx, who, in); err != nil {
			return fail(err)
		}
	}
	if in.Kind == report.Integrity {
		if f.Check, err = s.Recorder.Verify(ctx); err != nil {
			return fail(err)
		}
	}
	return f, nil
}

// done is what every session did in a period, for somebody who may read all recordings, which is audited.
func (s *server) done(ctx context.Context, who caller, in *reporting) (map[string]report.Done, error) {
	event := s.event(who, "recording.searched")
	event.Fields = map[string]string{"report": in.Kind}
	if err := s.Store.Audit(ctx, event); err != nil {
		return nil, err
	}
	all := map[string]report.Done{}
	for match, err := range s.Recorder.Search(ctx, recorder.Query{Since: in.From, Until: in.To}) {
		done := all[match.Session]
		switch {
		case err != nil && match.Session == "": // of no recording: there is no more
			return nil, err
		case refusal.Is(err, refusal.Locked):
			done.Unread = "the recording is locked"
		case err != nil:
			s.Log.Error("a recording can't be searched", "session", match.Session, "error", err)
			done.Unread = "the recording could not be read"
		default:
			done.Add(match.Item.Kind, match.Line)
		}
		all[match.Session] = done
	}
	return all, nil
}

// oneOf is a stream of one JSON value.
func oneOf(v any) *stream {
	out := lines(func(yield func(any, error) bool) { yield(v, nil) })
	out.contentType = oneJSON
	return out
}
