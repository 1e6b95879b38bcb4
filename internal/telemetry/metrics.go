package telemetry

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"sallyport/internal/store"
)

// meters are the gateway's metrics. No attribute names a person, a target or a text that somebody chose.
type meters struct {
	sessions  metric.Int64Counter
	grants    metric.Int64Counter
	refusals  metric.Int64Counter
	signIns   metric.Int64Counter
	approvals metric.Float64Histogram
	safe      metric.Float64Histogram
	cuts      metric.Float64Histogram
}

func newMeters(m metric.Meter, o Options) (*meters, error) {
	s := &meters{}
	var err error
	keep := func(e error) {
		if err == nil {
			err = e
		}
	}
	counter := func(name, description string) metric.Int64Counter {
		c, e := m.Int64Counter(name, metric.WithDescription(description))
		keep(e)
		return c
	}
	histogram := func(name, description string, bounds ...float64) metric.Float64Histogram {
		h, e := m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description), metric.WithExplicitBucketBoundaries(bounds...))
		keep(e)
		return h
	}
	s.sessions = counter("sallyport.sessions.ended", "Sessions that ended, by reason")
	s.grants = counter("sallyport.grants", "What happened to grants, by kind of event")
	s.refusals = counter("sallyport.refusals", "What was refused to people and jobs that proved who they are, by reason")
	s.signIns = counter("sallyport.sign_ins", "Events of signing in, by kind and outcome")
	s.approvals = histogram("sallyport.grants.approval_time", "From a request to its approval",
		1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 4*3600, 24*3600)
	s.safe = histogram("sallyport.recording.wait", "How long commands waited for their record to be safe",
		5e-6, 2e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.5, 1)
	s.cuts = histogram("sallyport.sessions.cut_time", "From the end of a session's right to the end of what ran on its target",
		1e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2, 5, 10)
	live, e := m.Int64ObservableUpDownCounter("sallyport.sessions.live", metric.WithDescription("Sessions that are open, by protocol"))
	keep(e)
	open, e := m.Int64ObservableUpDownCounter("sallyport.grants.open", metric.WithDescription("Grants and requests that are not over, by state"))
	keep(e)
	held, e := m.Int64ObservableUpDownCounter("sallyport.connections.waiting", metric.WithDescription("Connections that wait for a grant"))
	keep(e)
	untold, e := m.Int64ObservableUpDownCounter("sallyport.notifications.outbox", metric.WithDescription("What is on its way to channels (pending) or was given up (dead), by kind of channel and state"))
	keep(e)
	waiting, e := m.Int64ObservableUpDownCounter("sallyport.audit.outbox", metric.WithDescription("Audit events on their way to the audit log"))
	keep(e)
	archive, e := m.Int64ObservableUpDownCounter("sallyport.archive.waiting", metric.WithDescription("Recordings and audit files that have ended and are not in the archive yet"))
	keep(e)
	shredding, e := m.Int64ObservableUpDownCounter("sallyport.archive.shredding", metric.WithDescription("Recordings that were destroyed here and are still in the archive"))
	keep(e)
	behind, e := m.Float64ObservableGauge("sallyport.archive.behind", metric.WithUnit("s"), metric.WithDescription("How long ago the archive last had everything"))
	keep(e)
	if err != nil {
		return nil, err
	}
	_, err = m.RegisterCallback(func(ctx context.Context, observer metric.Observer) error {
		for protocol, n := range o.Live() {
			observer.ObserveInt64(live, int64(n), metric.WithAttributes(attribute.String("protocol", protocol)))
		}
		for state, n := range o.Open() {
			observer.ObserveInt64(open, int64(n), metric.WithAttributes(attribute.String("state", state)))
		}
		observer.ObserveInt64(held, int64(o.Waiting()))
		depth, err := o.Notifications(ctx)
		if err != nil {
			return err
		}
		for of, n := range depth {
			observer.ObserveInt64(untold, int64(n), metric.WithAttributes(attribute.String("channel", of[0]), attribute.String("state", of[1])))
		}
		n, err := o.Outbox(ctx)
		if err != nil {
			return err
		}
		observer.ObserveInt64(waiting, int64(n))
		if o.Archive == nil {
			return nil
		}
		n, destroyed, since, err := o.Archive(ctx)
		if err != nil {
			return err
		}
		observer.ObserveInt64(archive, int64(n))
		observer.ObserveInt64(shredding, int64(destroyed))
		observer.ObserveFloat64(behind, since.Seconds())
		return nil
	}, live, open, held, untold, waiting, archive, shredding, behind)
	return s, err
}

// count counts one audit event.
func (s *meters) count(e store.AuditEvent) {
	ctx := context.Background()
	with := func(name, value string) metric.MeasurementOption {
		return metric.WithAttributes(attribute.String(name, value))
	}
	family, _, _ := strings.Cut(e.Kind, ".")
	if refused(e) {
		s.refusals.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", e.Kind), attribute.String("reason", e.Outcome)))
	}
	switch {
	case e.Kind == "session.ended":
		s.sessions.Add(ctx, 1, with("reason", e.Reason))
	case family == "login" || family == "workload":
		s.signIns.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", e.Kind), attribute.String("outcome", e.Outcome)))
	case family == "grant" && e.Outcome == "ok":
		s.grants.Add(ctx, 1, with("kind", e.Kind))
	}
	if e.Kind == "grant.approved" && e.Outcome == "ok" {
		if waited, err := time.ParseDuration(e.Fields["waited"]); err == nil {
			s.approvals.Record(ctx, waited.Seconds())
		}
	}
}

// refused reports whether an event tells of a refusal: its outcome is a refusal's code.
func refused(e store.AuditEvent) bool {
	return e.Outcome != "ok" && e.Outcome != "begun" && e.Outcome != "failed" && e.Actor != "system"
}

// Waited says how long a command waited for its record to be safe.
func (t *Telemetry) Waited(d time.Duration) {
	t.meters.safe.Record(context.Background(), d.Seconds())
}

// Cut says how long it took to end what ran under a session when its right to run had ended.
func (t *Telemetry) Cut(d time.Duration) {
	t.meters.cuts.Record(context.Background(), d.Seconds())
}

// Measures reports whether Waited and Cut are of use.
func (t *Telemetry) Measures() bool { return t != nil && t.meters != nil }
