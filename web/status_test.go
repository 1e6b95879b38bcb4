package web_test

import (
	"slices"
	"testing"

	"sallyport/web/api"
)

func TestStatus(t *testing.T) {
	r := newRig(t)
	r.finished("stock", "app", "SELECT 1")
	r.begin("stock", "app", "SELECT 2")
	var s api.Status
	r.must("carol", "GET", "/v1/status", nil, &s)
	today := s.Recorder.Days[len(s.Recorder.Days)-1]
	if !s.Ready || s.Why != "" || s.Sessions != 1 || s.Version != "test" || s.Recorder.Durability != "written" || s.Recorder.SyncMedian <= 0 ||
		s.Recorder.Recordings != 2 || s.Recorder.Bytes <= today.Bytes || today.Recordings != 2 || len(s.Recorder.Days) != 7 ||
		s.Recorder.Free <= s.Recorder.Reserve || s.Recorder.Reserve != 1<<20 || !s.Index.Kept {
		t.Errorf("%+v", s)
	}
	r.recorder.Close(t.Context())
	r.must("carol", "GET", "/v1/status", nil, &s)
	if s.Ready || s.Why == "" {
		t.Errorf("with a closed recorder: %+v", s)
	}
}

func TestHolds(t *testing.T) {
	r := newRig(t)
	id := r.finished("stock", "app", "SELECT 1")
	var h api.Hold
	r.must("carol", "POST", "/v1/sessions/"+id+"/hold", api.Decision{Comment: "case 7"}, &h)
	if h.Session != id || h.Target != "stock" || h.Person != "Alice Engineer" || h.By != "Carol Security" || h.Reason != "case 7" || h.Since.IsZero() {
		t.Errorf("%+v", h)
	}
	var all []api.Hold
	r.must("carol", "GET", "/v1/holds", nil, &all)
	if len(all) != 1 || all[0] != h {
		t.Errorf("%+v", all)
	}
	r.must("carol", "POST", "/v1/sessions/"+id+"/unhold", api.Decision{Comment: "case closed"}, nil)
	r.must("carol", "GET", "/v1/holds", nil, &all)
	if len(all) != 0 {
		t.Errorf("%+v", all)
	}
	kinds := r.audited("carol")
	if !slices.Contains(kinds, "recording.held ok") || !slices.Contains(kinds, "recording.released ok") {
		t.Errorf("%v", kinds)
	}
}
