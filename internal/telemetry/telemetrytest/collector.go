// Package telemetrytest has a collector for tests: it takes OTLP over HTTP, as a collector does, and keeps what came.
package telemetrytest

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	logs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Event is as much of an audit event as tests look at.
type Event struct {
	Number uint64
	Kind   string
}

// Collector is a running one. Mu guards the fields below it.
type Collector struct {
	*httptest.Server
	Away atomic.Bool // it refuses

	Mu      sync.Mutex
	Refused int               // how often
	Events  []Event           // in the order in which they came, some twice
	Spans   []*trace.Span     // likewise
	Sums    map[string]int64  // the newest value of integer metrics, by name and attributes
	Counts  map[string]uint64 // of measurements, by the metric's name
	Most    map[string]int64  // the highest value or count that was ever told, by the metric's name
}

// New starts one that ends with the test. What is sent to it and can't be understood fails the test.
func New(t testing.TB) *Collector {
	c := &Collector{Sums: map[string]int64{}, Counts: map[string]uint64{}, Most: map[string]int64{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := read(r)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return // the sender was killed while it sent
		}
		c.Mu.Lock()
		defer c.Mu.Unlock()
		if c.Away.Load() {
			c.Refused++
			http.Error(w, "away", http.StatusForbidden) // which is not retried by the exporter itself
			return
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		if err == nil {
			err = c.take(r.URL.Path, data)
		}
		if err != nil {
			t.Errorf("sent to %s: %v", r.URL.Path, err)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func read(r *http.Request) ([]byte, error) {
	if r.Header.Get("Content-Encoding") != "gzip" {
		return io.ReadAll(r.Body)
	}
	unpacked, err := gzip.NewReader(r.Body)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(unpacked)
}

func (c *Collector) take(path string, data []byte) error {
	switch path {
	case "/v1/logs":
		return c.logs(data)
	case "/v1/traces":
		return c.traces(data)
	case "/v1/metrics":
		return c.metrics(data)
	}
	return errors.New("nothing is sent there")
}

func (c *Collector) logs(data []byte) error {
	var m logs.ExportLogsServiceRequest
	if err := proto.Unmarshal(data, &m); err != nil {
		return err
	}
	for _, resource := range m.ResourceLogs {
		for _, scope := range resource.ScopeLogs {
			for _, record := range scope.LogRecords {
				var e Event
				if err := json.Unmarshal([]byte(record.Body.GetStringValue()), &e); err != nil {
					return err
				}
				c.Events = append(c.Events, e)
			}
		}
	}
	return nil
}

func (c *Collector) traces(data []byte) error {
	var m traces.ExportTraceServiceRequest
	if err := proto.Unmarshal(data, &m); err != nil {
		return err
	}
	for _, resource := range m.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			c.Spans = append(c.Spans, scope.Spans...)
		}
	}
	return nil
}

func (c *Collector) metrics(data []byte) error {
	var m metrics.ExportMetricsServiceRequest
	if err := proto.Unmarshal(data, &m); err != nil {
		return err
	}
	for _, resource := range m.ResourceMetrics {
		for _, scope := range resource.ScopeMetrics {
			for _, metric := range scope.Metrics {
				for _, point := range metric.GetSum().GetDataPoints() {
					name := metric.Name
					for _, a := range point.Attributes {
						name += " " + a.Key + "=" + a.Value.GetStringValue()
					}
					c.Sums[name] = point.GetAsInt()
					c.Most[metric.Name] = max(c.Most[metric.Name], point.GetAsInt())
				}
				for _, point := range metric.GetHistogram().GetDataPoints() {
					c.Counts[metric.Name] = point.Count
					c.Most[metric.Name] = max(c.Most[metric.Name], int64(point.Count))
				}
			}
		}
	}
	return nil
}
