package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"

	"sallyport/internal/store"
)

const (
	// mostAtOnce is how many audit events are sent in one message.
	mostAtOnce = 256
	// firstRetry and lastRetry bound the waits between tries while the collector does not take them.
	firstRetry, lastRetry = time.Second, time.Minute
)

// shipper sends the audit log. What was taken is remembered after it was taken, so that a death in between sends it again.
type shipper struct {
	Options
	exporter sdklog.Exporter
	provider *sdklog.LoggerProvider
	batch    []sdklog.Record
}

func newShipper(exporter sdklog.Exporter, what *resource.Resource, o Options) *shipper {
	s := &shipper{Options: o, exporter: exporter}
	s.provider = sdklog.NewLoggerProvider(sdklog.WithResource(what), sdklog.WithProcessor(s))
	return s
}

// Enabled implements sdklog.Processor.
func (s *shipper) Enabled(context.Context, sdklog.EnabledParameters) bool { return true }

// OnEmit implements sdklog.Processor: it puts a record into the batch.
func (s *shipper) OnEmit(_ context.Context, r *sdklog.Record) error {
	s.batch = append(s.batch, r.Clone())
	return nil
}

// Shutdown implements sdklog.Processor.
func (s *shipper) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdklog.Processor.
func (s *shipper) ForceFlush(context.Context) error { return nil }

// run sends what is committed, and then what comes, until ctx ends.
func (s *shipper) run(ctx context.Context) {
	retry := firstRetry
	for {
		committed := s.Store.Committed()
		wait, told := committed, (<-chan time.Time)(nil)
		if err := s.send(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			s.Log.Warn("audit events could not be sent to the collector; they will be", "error", err, "next try in", retry)
			wait, told = nil, time.After(retry)
			retry = min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-wait:
		case <-told:
		}
	}
}

// send sends all that the collector has not taken.
func (s *shipper) send(ctx context.Context) error {
	taken, err := s.taken()
	if err != nil {
		return err
	}
	if latest := s.Store.Latest(); taken > latest { // it is another gateway's, or of a later life of this one
		s.Log.Warn("the collector is said to have taken audit events that there are not; it is sent all again", "cursor", s.Cursor, "taken", taken, "latest", latest)
		taken = 0
	}
	logger := s.provider.Logger("sallyport/audit")
	s.batch = s.batch[:0]
	last := taken
	flush := func() error {
		if len(s.batch) == 0 {
			return nil
		}
		if err := s.exporter.Export(ctx, s.batch); err != nil {
			return err
		}
		s.batch = s.batch[:0]
		return s.take(last)
	}
	for e, err := range s.after(ctx, taken) {
		if err != nil {
			return err
		}
		logger.Emit(ctx, record(e))
		last = e.Number
		if len(s.batch) == mostAtOnce {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// after are the events above a number, from memory where they are there.
func (s *shipper) after(ctx context.Context, number uint64) func(func(store.AuditEvent, error) bool) {
	recent, whole := s.Store.Recent(number)
	if !whole {
		return s.Audit(ctx, number)
	}
	return func(yield func(store.AuditEvent, error) bool) {
		for _, e := range recent {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// record is an audit event as a log record: its JSON as the body, what one looks for as attributes.
func record(e store.AuditEvent) log.Record {
	var r log.Record
	r.SetTimestamp(e.Time)
	r.SetObservedTimestamp(time.Now())
	r.SetEventName(e.Kind)
	r.SetSeverity(log.SeverityInfo)
	if refused(e) || e.Outcome == "failed" {
		r.SetSeverity(log.SeverityWarn)
	}
	r.SetSeverityText(r.Severity().String())
	body, err := json.Marshal(e)
	if err != nil {
		body = []byte(e.Kind) // there is nothing in an event that JSON can't hold
	}
	r.SetBody(attribute.StringValue(string(body)))
	r.AddAttributes(attribute.Int64("sallyport.number", int64(e.Number)))
	for _, a := range []struct{ key, value string }{
		{"sallyport.kind", e.Kind}, {"sallyport.outcome", e.Outcome}, {"enduser.id", e.Actor}, {"client.address", e.Client},
		{"sallyport.target", e.Target}, {"sallyport.account", e.Account}, {"sallyport.grant", e.Grant}, {"sallyport.session", e.Session},
	} {
		if a.value != "" {
			r.AddAttributes(attribute.String(a.key, a.value))
		}
	}
	return r
}

// taken is the number of the last event that the collector has taken; 0 where none was.
func (s *shipper) taken() (uint64, error) {
	text, err := os.ReadFile(s.Cursor)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(text) == 0 { // what a loss of power can leave of a file; sent twice is better than not at all
		return 0, nil
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s does not hold a number; delete it to send the audit log from its beginning: %w", s.Cursor, err)
	}
	return n, nil
}

// take remembers that number, also over a loss of power. The file is replaced whole; a lost one sends events again.
func (s *shipper) take(number uint64) error {
	f, err := os.CreateTemp(filepath.Dir(s.Cursor), ".telemetry-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename it is not there
	_, err = fmt.Fprintln(f, number)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), s.Cursor)
}
