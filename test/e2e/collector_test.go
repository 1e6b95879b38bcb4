//go:build unix

package e2e

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	logs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"sallyport/test/rig"
)

// collector takes OTLP over HTTP, as a collector does.
type collector struct {
	*httptest.Server

	mu      sync.Mutex
	events  map[uint64]string // kinds of audit events, by number
	metrics map[string]bool   // with something else than nothing in them
	spans   map[string]bool
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{events: map[uint64]string{}, metrics: map[string]bool{}, spans: map[string]bool{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.take(r); err != nil {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) take(r *http.Request) error {
	in := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(r.Body)
		if err != nil {
			return err
		}
		in = unpacked
	}
	data, err := io.ReadAll(in)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // the gateway was killed while it sent
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.URL.Path {
	case "/v1/logs":
		var m logs.ExportLogsServiceRequest
		if err := proto.Unmarshal(data, &m); err != nil {
			return err
		}
		for _, resource := range m.ResourceLogs {
			for _, scope := range resource.ScopeLogs {
				for _, record := range scope.LogRecords {
					var e struct {
						Number uint64
						Kind   string
					}
					if err := json.Unmarshal([]byte(record.Body.GetStringValue()), &e); err != nil {
						return err
					}
					c.events[e.Number] = e.Kind
				}
			}
		}
	case "/v1/traces":
		var m traces.ExportTraceServiceRequest
		if err := proto.Unmarshal(data, &m); err != nil {
			return err
		}
		for _, resource := range m.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				for _, span := range scope.Spans {
					c.spans[span.Name] = true
				}
			}
		}
	case "/v1/metrics":
		var m metrics.ExportMetricsServiceRequest
		if err := proto.Unmarshal(data, &m); err != nil {
			return err
		}
		for _, resource := range m.ResourceMetrics {
			for _, scope := range resource.ScopeMetrics {
				for _, metric := range scope.Metrics {
					for _, point := range metric.GetSum().GetDataPoints() {
						c.metrics[metric.Name] = c.metrics[metric.Name] || point.GetAsInt() > 0
					}
					for _, point := range metric.GetHistogram().GetDataPoints() {
						c.metrics[metric.Name] = c.metrics[metric.Name] || point.Count > 0
					}
				}
			}
		}
	default:
		return errors.New("nothing is sent there")
	}
	return nil
}

// check states that a gateway that did all of that, and was killed once, has told every audit event, and each of the metrics and
// traces that there are to tell.
func (c *collector) check(t *testing.T, r *rig.Rig) {
	var log []struct {
		Number uint64
		Kind   string
	}
	out := r.As("carol", "audit", "--json")
	decoder := json.NewDecoder(strings.NewReader(out.Stdout))
	for decoder.More() {
		var e struct {
			Number uint64
			Kind   string
		}
		if err := decoder.Decode(&e); err != nil {
			t.Fatal(err)
		}
		log = append(log, e)
	}
	if len(log) < 50 {
		t.Fatalf("the audit log has %d events: %s", len(log), out.Stderr)
	}
	r.Until(time.Minute, "every audit event is told", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, e := range log {
			if kind, told := c.events[e.Number]; !told || kind != e.Kind {
				return fmt.Errorf("event %d, %s, came as %q", e.Number, e.Kind, kind)
			}
		}
		return nil
	})
	r.Until(time.Minute, "the metrics and traces are told", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, name := range []string{
			"sallyport.sessions.ended", "sallyport.sessions.live", "sallyport.grants", "sallyport.grants.open", "sallyport.refusals", "sallyport.grants.approval_time",
			"sallyport.recording.wait", "sallyport.sessions.cut_time", "sallyport.sign_ins",
		} {
			if !c.metrics[name] {
				return fmt.Errorf("nothing of %s, of %v", name, c.metrics)
			}
		}
		for _, name := range []string{"sallyport.audit.outbox", "sallyport.notifications.outbox", "sallyport.connections.waiting"} { // which are rightly 0, as a rule
			if _, told := c.metrics[name]; !told {
				return fmt.Errorf("no %s, of %v", name, c.metrics)
			}
		}
		for _, name := range []string{"grant app@orders", "approval", "session app@orders", "session deploy@web-1"} {
			if !c.spans[name] {
				return fmt.Errorf("no span %q, of %v", name, c.spans)
			}
		}
		return nil
	})
}
