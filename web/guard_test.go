package web

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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
