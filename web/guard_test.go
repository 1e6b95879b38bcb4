package web

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sallyport/authn/scim"
)

// A handler that panics answers with a problem, or, where the answer had begun, with one that is cut short.
func TestPanics(t *testing.T) {
	s := &server{Options: Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	mux := http.NewServeMux()
	mux.HandleFunc("/before", func(http.ResponseWriter, *http.Request) { panic("a mistake with a secret in it") })
	mux.HandleFunc("/after", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "half of it")
		panic("a mistake")
	})
	server := httptest.NewServer(s.guard(mux))
	defer server.Close()

	answer, err := http.Get(server.URL + "/before")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusInternalServerError || !strings.Contains(string(data), `"code":"internal"`) || strings.Contains(string(data), "secret") {
		t.Errorf("%s %s, %v", answer.Status, data, err)
	}
	if answer, err = http.Get(server.URL + "/after"); err != nil {
		return // cut before the first byte: as good
	}
	defer answer.Body.Close()
	if data, err := io.ReadAll(answer.Body); err == nil {
		t.Errorf("half an answer was taken for a whole one: %s", data)
	}
}

// Bodies are bounded, and those of SCIM by a bound of its own, for a group comes with all its members.
func TestBodiesAreBounded(t *testing.T) {
	s := &server{Options: Options{Log: slog.New(slog.DiscardHandler)}}
	server := httptest.NewServer(s.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		}
	})))
	defer server.Close()
	for _, tt := range []struct {
		path string
		size int
		want int
	}{
		{"/v1/grants", maxBody, 200}, {"/v1/grants", maxBody + 1, 413}, {"/scimitar", maxBody + 1, 413},
		{"/scim/v2/Groups", scim.MaxBody, 200}, {"/scim/v2/Groups", scim.MaxBody + 1, 413},
	} {
		answer, err := http.Post(server.URL+tt.path, "application/json", strings.NewReader(strings.Repeat("x", tt.size)))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != tt.want {
			t.Errorf("%s with %d bytes: %s", tt.path, tt.size, answer.Status)
		}
	}
}
