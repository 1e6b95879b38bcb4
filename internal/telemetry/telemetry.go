// Package telemetry tells an OpenTelemetry collector what the gateway does: metrics, one trace a grant, and the audit log.
//
// It is configured by OpenTelemetry's standard variables alone and does nothing unless OTEL_EXPORTER_OTLP_ENDPOINT, or that
// of one signal, is set (https://opentelemetry.io/docs/specs/otel/protocol/exporter/). It speaks OTLP over HTTP with
// protobuf. Nothing waits for it: what a collector does, or does not, delays no session and no decision.
//
// Metrics and traces are made from committed audit events, so they say what the audit log says; they begin with the process
// and are lost with it. Audit events themselves are sent as log records from a cursor of their own in the state directory:
// at least once each and in order, however long the collector was away.
package telemetry

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"sallyport/internal/store"
)

// farewell bounds what is sent when the gateway ends.
const farewell = 5 * time.Second

// Options are what telemetry looks at.
type Options struct {
	Version string
	Store   *store.Store
	// Audit gives the events of the audit log above a number, oldest first.
	Audit func(ctx context.Context, after uint64) iter.Seq2[store.AuditEvent, error]
	// Live is how many sessions are open, by protocol.
	Live func() map[string]int
	// Open is how many grants are not over, by state.
	Open func() map[string]int
	// Waiting is how many connections wait for a grant.
	Waiting func() int
	// Notifications are how many are on their way to channels or were given up, by the kind of channel and the state.
	Notifications func(ctx context.Context) (map[[2]string]int, error)
	// Outbox is how many audit events are on their way to the audit log.
	Outbox func(ctx context.Context) (int, error)
	// Archive is how much has ended and is not in the archive yet, how much was destroyed and is still there, and how long ago it last
	// had everything; nil: there is none.
	Archive func(ctx context.Context) (waiting, shredding int, since time.Duration, err error)
	// Cursor is the file that remembers which audit events the collector has taken.
	Cursor string
	Log    *slog.Logger
}

// Telemetry is what runs. A nil one does nothing. Safe for concurrent use.
type Telemetry struct {
	log    *slog.Logger
	meters *meters
	stop   []func(context.Context) error
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// signals are what may be sent, by the part of their variables' names.
var signals = []string{"TRACES", "METRICS", "LOGS"}

// wanted reports whether a signal has somewhere to go.
func wanted(signal string) bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || strings.EqualFold(os.Getenv("OTEL_"+signal+"_EXPORTER"), "none") {
		return false
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
}

// Start begins to send what the environment asks for; nil where it asks for nothing. It fails where what it asks for can't
// be understood, not where nobody answers.
func Start(ctx context.Context, o Options) (*Telemetry, error) {
	on := map[string]bool{}
	for _, signal := range signals {
		if wanted(signal) {
			on[signal] = true
		}
	}
	if len(on) == 0 {
		return nil, nil
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { o.Log.Warn("telemetry could not be sent", "error", err) }))
	what, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", "sallyport"), attribute.String("service.version", o.Version)),
		resource.WithFromEnv()) // last: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &Telemetry{log: o.Log, cancel: cancel}
	for signal, start := range map[string]func(context.Context, Options, *resource.Resource) error{
		"METRICS": t.startMetrics, "TRACES": t.startTraces, "LOGS": t.startLogs,
	} {
		if !on[signal] {
			continue
		}
		if err := start(ctx, o, what); err != nil {
			t.Close()
			return nil, fmt.Errorf("telemetry: %w", err)
		}
	}
	o.Log.Info("telemetry is on", "traces", on["TRACES"], "metrics", on["METRICS"], "audit log", on["LOGS"])
	return t, nil
}

// Close sends what is left, for some seconds, and ends.
func (t *Telemetry) Close() {
	if t == nil {
		return
	}
	t.cancel()
	t.done.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	for _, stop := range t.stop {
		if err := stop(ctx); err != nil {
			t.log.Warn("the last telemetry could not be sent", "error", err)
		}
	}
}

func (t *Telemetry) startMetrics(ctx context.Context, o Options, what *resource.Resource) error {
	exporter, err := otlpmetrichttp.New(ctx)
	if err != nil {
		return err
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithResource(what), sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter)))
	t.stop = append(t.stop, provider.Shutdown)
	if t.meters, err = newMeters(provider.Meter("sallyport"), o); err != nil {
		return err
	}
	t.follow(ctx, o.Store, t.meters.count)
	return nil
}

func (t *Telemetry) startTraces(ctx context.Context, o Options, what *resource.Resource) error {
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(what), sdktrace.WithBatcher(exporter), sdktrace.WithIDGenerator(chosen{}))
	t.stop = append(t.stop, provider.Shutdown)
	t.follow(ctx, o.Store, newTracer(provider.Tracer("sallyport")).tell)
	return nil
}

func (t *Telemetry) startLogs(ctx context.Context, o Options, what *resource.Resource) error {
	exporter, err := otlploghttp.New(ctx)
	if err != nil {
		return err
	}
	t.stop = append(t.stop, exporter.Shutdown)
	s := newShipper(exporter, what, o)
	t.done.Go(func() { s.run(ctx) })
	return nil
}

// follow hands every event that is committed from now on to each, in order and one at a time, until ctx ends. One that had to wait for so
// long that it is not in memory any more is left out: it is for numbers and pictures, not for the record.
func (t *Telemetry) follow(ctx context.Context, s *store.Store, each func(store.AuditEvent)) {
	last := s.Latest()
	t.done.Go(func() {
		for over := false; ; {
			committed := s.Committed()
			events, whole := s.Recent(last)
			if !whole {
				last = s.Latest()
			}
			for _, e := range events {
				each(e)
				last = e.Number
			}
			if over {
				return
			}
			select {
			case <-ctx.Done():
				over = true // once more, for what was committed before
			case <-committed:
			}
		}
	})
}
