package web

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/recorder"
	"sallyport/session"
	"sallyport/web/api"
	"sallyport/web/said"
)

const zipFile = "application/zip"

// maxEvidence bounds the sessions of one bundle.
const maxEvidence = 1000

// evidencing says of what evidence is wanted.
type evidencing struct {
	ID     string `path:"id" maxLength:"64"`
	Reason string `query:"reason" maxLength:"500" doc:"Why; needed where recordings in it are not locked and masking hides something in them, which takes the permission recordings.unmask: a bundle has them whole."`
}

// sessionEvidence is a bundle of one session.
func (s *server) sessionEvidence(ctx context.Context, who caller, in *evidencing) (*stream, error) {
	return s.evidence(ctx, who, in, []string{in.ID}, nil)
}

// grantEvidence is a bundle of all sessions under one grant, with the grant.
func (s *server) grantEvidence(ctx context.Context, who caller, in *evidencing) (*stream, error) {
	g, err := s.Grants.Get(ctx, who.Identity, in.ID)
	if err != nil {
		return nil, err
	}
	sessions, err := s.Sessions.Find(ctx, session.Filter{Grant: g.ID, Limit: maxEvidence + 1})
	if err != nil {
		return nil, err
	}
	switch {
	case len(sessions) == 0:
		return nil, refusal.New(refusal.NotFound, "there is no session under grant %s", g.ID)
	case len(sessions) > maxEvidence:
		return nil, refusal.New(refusal.TooMany, "there are more than %d sessions under grant %s", maxEvidence, g.ID).WithHint("ask for them one by one")
	}
	var ids []string
	for _, info := range sessions {
		ids = append(ids, info.ID)
	}
	in.ID = g.ID
	return s.evidence(ctx, who, in, ids, &g)
}

// evidence bundles sessions for somebody who may export the recording of each, and audits that.
func (s *server) evidence(ctx context.Context, who caller, in *evidencing, sessions []string, g *grant.Grant) (*stream, error) {
	for _, id := range sessions {
		if err := s.unmaskStored(ctx, who, id, in.Reason); err != nil {
			return nil, err
		}
		if err := s.read(ctx, who, grant.Export, id, "evidence.exported", stored); err != nil {
			return nil, err
		}
	}
	bundle, err := s.Recorder.PrepareEvidence(ctx, sessions)
	if err != nil {
		return nil, err
	}
	documents, err := s.evidenceDocuments(ctx, who, sessions, g)
	if err != nil {
		return nil, err
	}
	return &stream{contentType: zipFile, write: func(_ context.Context, w io.Writer) error {
		return bundle.Write(w, in.ID+".evidence.zip", documents)
	}}, nil
}

// evidenceDocuments are the gateway's own word on sessions: their grant, and what the audit log tells.
func (s *server) evidenceDocuments(ctx context.Context, who caller, sessions []string, g *grant.Grant) (map[string][]byte, error) {
	documents := map[string][]byte{}
	if g == nil { // as far as the caller may see it
		if info, err := s.Sessions.Get(ctx, sessions[0]); err == nil {
			if found, err := s.Grants.Get(ctx, who.Identity, info.Grant); err == nil {
				g = &found
			}
		}
	}
	of := ""
	if g != nil {
		of = g.ID
		content, err := json.MarshalIndent(said.Grant(*g), "", "  ")
		if err != nil {
			return nil, err
		}
		documents["grant.json"] = append(content, '\n')
	}
	wanted := "\n" + strings.Join(sessions, "\n") + "\n"
	var events bytes.Buffer
	encoder := json.NewEncoder(&events)
	encoder.SetEscapeHTML(false)
	for event, err := range s.Recorder.Audit(ctx, recorder.AuditFilter{}) {
		if err != nil {
			return nil, err
		}
		if of != "" && event.Grant == of || event.Session != "" && strings.Contains(wanted, "\n"+event.Session+"\n") {
			if err := encoder.Encode(api.AuditEvent(event)); err != nil {
				return nil, err
			}
		}
	}
	documents["audit.jsonl"] = events.Bytes()
	return documents, nil
}
