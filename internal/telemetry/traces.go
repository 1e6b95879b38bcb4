package telemetry

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"sallyport/internal/store"
)

// mostOpen bounds the grants and sessions that have begun and not ended, of which a span is owed.
const mostOpen = 100_000

// tracer makes one trace of each grant: the grant from its request to its end, in it the waiting for approval and each session.
// The trace's id comes from the grant's, so that what is found in one place can be found in the other.
type tracer struct {
	tracer trace.Tracer
	begun  map[string]store.AuditEvent // what has begun, by grant or session
}

func newTracer(t trace.Tracer) *tracer {
	return &tracer{tracer: t, begun: map[string]store.AuditEvent{}}
}

// tell takes one audit event in. It is called from one goroutine.
func (t *tracer) tell(e store.AuditEvent) {
	if e.Outcome != "ok" {
		return
	}
	switch e.Kind {
	case "grant.requested":
		t.begin(e.Grant, e)
	case "grant.approved":
		if asked, ok := t.begun[e.Grant]; ok {
			t.span(inside(e.Grant), "approval", asked.Time, e)
		}
	case "grant.denied", "grant.withdrawn", "grant.lapsed", "grant.ended":
		if asked, ok := t.begun[e.Grant]; ok {
			delete(t.begun, e.Grant)
			t.span(context.WithValue(context.Background(), rootOf{}, e.Grant), "grant "+e.Account+"@"+e.Target, asked.Time, e)
		}
	case "session.started":
		t.begin(e.Session, e)
	case "session.ended":
		if started, ok := t.begun[e.Session]; ok {
			delete(t.begun, e.Session)
			t.span(inside(e.Grant), "session "+e.Account+"@"+e.Target, started.Time, e)
		}
	}
}

func (t *tracer) begin(id string, e store.AuditEvent) {
	if len(t.begun) < mostOpen {
		t.begun[id] = e
	}
}

// span sends one that has ended with the event.
func (t *tracer) span(ctx context.Context, name string, begun time.Time, end store.AuditEvent) {
	attributes := []attribute.KeyValue{
		attribute.String("sallyport.target", end.Target), attribute.String("sallyport.account", end.Account),
		attribute.String("sallyport.grant", end.Grant), attribute.String("sallyport.end", strings.TrimPrefix(end.Kind, "grant.")),
	}
	if end.Session != "" {
		attributes = append(attributes, attribute.String("sallyport.session", end.Session))
	}
	if end.Actor != "" {
		attributes = append(attributes, attribute.String("enduser.id", end.Actor))
	}
	if reason := end.Fields["end_reason"]; reason != "" {
		attributes = append(attributes, attribute.String("sallyport.end_reason", reason))
	} else if end.Kind == "session.ended" {
		attributes = append(attributes, attribute.String("sallyport.end_reason", end.Reason))
	}
	_, span := t.tracer.Start(ctx, name, trace.WithTimestamp(begun), trace.WithAttributes(attributes...))
	switch end.Reason {
	case "crashed", "recorder_failed", "target_failed":
		span.SetStatus(codes.Error, end.Reason)
	}
	span.End(trace.WithTimestamp(end.Time))
}

// rootOf is the context's key for the grant whose root span is made.
type rootOf struct{}

// chosen gives a grant's root span the ids that its children already name.
type chosen struct{}

// NewIDs implements trace.IDGenerator.
func (chosen) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if grant, ok := ctx.Value(rootOf{}).(string); ok {
		return idsOf(grant)
	}
	var t trace.TraceID
	var s trace.SpanID
	rand.Read(t[:])
	rand.Read(s[:])
	return t, s
}

// NewSpanID implements trace.IDGenerator.
func (chosen) NewSpanID(context.Context, trace.TraceID) (s trace.SpanID) {
	rand.Read(s[:])
	return s
}

// idsOf are the ids of a grant's trace and of its root span.
func idsOf(grant string) (t trace.TraceID, s trace.SpanID) {
	hash := sha256.Sum256([]byte("sallyport grant " + grant))
	copy(t[:], hash[:])
	copy(s[:], hash[len(t):])
	return t, s
}

// inside is a context for the spans below a grant's.
func inside(grant string) context.Context {
	t, s := idsOf(grant)
	return trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: t, SpanID: s, TraceFlags: trace.FlagsSampled,
	}))
}
