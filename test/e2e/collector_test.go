//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	trace "go.opentelemetry.io/proto/otlp/trace/v1"

	"sallyport/internal/telemetry/telemetrytest"
	"sallyport/test/rig"
)

// toldOf states that a gateway that did all of that, and was killed once, has told every audit event, and each of the metrics and
// traces that there are to tell.
func toldOf(t *testing.T, c *telemetrytest.Collector, r *rig.Rig) {
	var log []telemetrytest.Event
	out := r.As("carol", "audit", "--json")
	decoder := json.NewDecoder(strings.NewReader(out.Stdout))
	for decoder.More() {
		var e telemetrytest.Event
		if err := decoder.Decode(&e); err != nil {
			t.Fatal(err)
		}
		log = append(log, e)
	}
	if len(log) < 50 {
		t.Fatalf("the audit log has %d events: %s", len(log), out.Stderr)
	}
	r.Until(time.Minute, "every audit event is told", func() error {
		c.Mu.Lock()
		defer c.Mu.Unlock()
		told := map[uint64]string{}
		for _, e := range c.Events {
			told[e.Number] = e.Kind
		}
		for _, e := range log {
			if told[e.Number] != e.Kind {
				return fmt.Errorf("event %d, %s, came as %q", e.Number, e.Kind, told[e.Number])
			}
		}
		return nil
	})
	r.Until(time.Minute, "the metrics and traces are told", func() error {
		c.Mu.Lock()
		defer c.Mu.Unlock()
		for _, name := range []string{
			"sallyport.sessions.ended", "sallyport.sessions.live", "sallyport.grants", "sallyport.grants.open", "sallyport.refusals", "sallyport.grants.approval_time",
			"sallyport.recording.wait", "sallyport.sessions.cut_time", "sallyport.sign_ins",
		} {
			if c.Most[name] == 0 {
				return fmt.Errorf("nothing of %s, of %v", name, c.Most)
			}
		}
		for _, name := range []string{"sallyport.audit.outbox", "sallyport.notifications.outbox", "sallyport.connections.waiting"} { // which are rightly 0, as a rule
			if _, told := c.Most[name]; !told {
				return fmt.Errorf("no %s, of %v", name, c.Most)
			}
		}
		for _, name := range []string{"grant app@orders", "approval", "session app@orders", "session deploy@web-1"} {
			if !slices.ContainsFunc(c.Spans, func(s *trace.Span) bool { return s.Name == name }) {
				return fmt.Errorf("no span %q among %d", name, len(c.Spans))
			}
		}
		return nil
	})
}
