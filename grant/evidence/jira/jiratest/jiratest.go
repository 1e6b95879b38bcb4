// Package jiratest is a Jira for tests: a real HTTP server with the payloads of REST v3 for issues, changelogs and comments. It
// can be down, ask for patience and lose answers.
//
// Source: developer.atlassian.com, Jira Cloud platform REST API v3.
package jiratest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"time"
)

// What signs in.
const (
	User  = "sallyport@example.com"
	Token = "ATATT-test"
)

// Server is it.
type Server struct {
	*httptest.Server
	mu       sync.Mutex
	down     bool
	limited  int
	lose     int
	issues   map[string]*issue
	reads    int
	comments map[string][]comment
}

type issue struct {
	status, category, assignee string
	moves                      []move
}

type move struct {
	author, to string
	at         time.Time
}

type comment struct {
	Body       json.RawMessage `json:"body"`
	Properties json.RawMessage `json:"properties"`
}

// New starts one.
func New() *Server {
	s := &Server{issues: map[string]*issue{}, comments: map[string][]comment{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /rest/api/3/issue/{key}", s.issue)
	mux.HandleFunc("GET /rest/api/3/issue/{key}/changelog", s.changelog)
	mux.HandleFunc("GET /rest/api/3/issue/{key}/comment", s.listComments)
	mux.HandleFunc("POST /rest/api/3/issue/{key}/comment", s.addComment)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		down, limited := s.down, s.limited > 0
		if limited {
			s.limited--
		}
		s.mu.Unlock()
		user, token, ok := r.BasicAuth()
		switch {
		case down:
			http.Error(w, "maintenance", http.StatusBadGateway)
		case limited:
			w.Header().Set("Retry-After", "7")
			http.Error(w, "rate limit", http.StatusTooManyRequests)
		case !ok || user != User || token != Token:
			http.Error(w, `{"errorMessages":["Client must be authenticated to access this resource."]}`, http.StatusUnauthorized)
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	return s
}

// Move puts an issue into a state, as somebody did at that time. Categories are new, indeterminate and done.
func (s *Server) Move(key, status, category, author string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.issues[key]
	if i == nil {
		i = &issue{}
		s.issues[key] = i
	}
	i.status, i.category = status, category
	i.moves = append(i.moves, move{author, status, at})
}

// Assign gives an issue to somebody.
func (s *Server) Assign(key, account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issues[key].assignee = account
}

// SetDown makes it answer 502, or puts an end to that.
func (s *Server) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// Limit makes it answer the next n requests with 429.
func (s *Server) Limit(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limited = n
}

// LoseAnswers makes it take the next n comments, and break the connection instead of saying so.
func (s *Server) LoseAnswers(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = n
}

// Reads is how often an issue was asked for.
func (s *Server) Reads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

// Comments are the texts on an issue, in order.
func (s *Server) Comments(key string) (texts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.comments[key] {
		var doc struct {
			Type    string `json:"type"`
			Version int    `json:"version"`
			Content []struct {
				Content []struct {
					Text string `json:"text"`
				} `json:"content"`
			} `json:"content"`
		}
		if json.Unmarshal(c.Body, &doc) != nil || doc.Type != "doc" || doc.Version != 1 || len(doc.Content) == 0 || len(doc.Content[0].Content) == 0 {
			texts = append(texts, "not a document: "+string(c.Body))
			continue
		}
		texts = append(texts, doc.Content[0].Content[0].Text)
	}
	return texts
}

// StatusID is the id of a status.
func StatusID(name string) string {
	id := 10000
	for _, c := range name {
		id = id*31%89989 + int(c)
	}
	return strconv.Itoa(id)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (s *Server) find(w http.ResponseWriter, r *http.Request) (string, *issue) {
	key := r.PathValue("key")
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.issues[key]
	if i == nil {
		answer(w, http.StatusNotFound, map[string]any{"errorMessages": []string{"Issue does not exist or you do not have permission to see it."}, "errors": map[string]any{}})
	}
	return key, i
}

func (i *issue) histories(from, most int) []any {
	list := []any{}
	for n := from; n < len(i.moves) && len(list) < most; n++ {
		m, before := i.moves[n], "To Do"
		if n > 0 {
			before = i.moves[n-1].to
		}
		list = append(list, map[string]any{
			"id": strconv.Itoa(10000 + n), "author": map[string]any{"accountId": m.author, "displayName": m.author, "active": true},
			"created": m.at.Format("2006-01-02T15:04:05.000-0700"),
			"items":   []any{map[string]any{"field": "status", "fieldtype": "jira", "fieldId": "status", "from": StatusID(before), "fromString": before, "to": StatusID(m.to), "toString": m.to}},
		})
	}
	return list
}

func (s *Server) issue(w http.ResponseWriter, r *http.Request) {
	key, i := s.find(w, r)
	if i == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	project := key
	for n, c := range key {
		if c == '-' {
			project = key[:n]
		}
	}
	fields := map[string]any{
		"summary": "Slow checkout", "labels": []string{"prod"}, "assignee": nil,
		"project": map[string]any{"key": project, "id": "10000", "name": project},
		"status":  map[string]any{"name": i.status, "id": StatusID(i.status), "statusCategory": map[string]any{"id": 4, "key": i.category, "name": i.category}},
	}
	if i.assignee != "" {
		fields["assignee"] = map[string]any{"accountId": i.assignee, "displayName": i.assignee, "active": true}
	}
	out := map[string]any{"id": "10002", "key": key, "self": s.URL + "/rest/api/3/issue/10002", "fields": fields}
	if r.URL.Query().Get("expand") == "changelog" { // at most the first hundred, as Jira does
		out["changelog"] = map[string]any{"startAt": 0, "maxResults": 100, "total": len(i.moves), "histories": i.histories(0, 100)}
	}
	answer(w, http.StatusOK, out)
}

func (s *Server) changelog(w http.ResponseWriter, r *http.Request) {
	_, i := s.find(w, r)
	if i == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	from, _ := strconv.Atoi(r.URL.Query().Get("startAt"))
	answer(w, http.StatusOK, map[string]any{"startAt": from, "maxResults": 100, "total": len(i.moves), "isLast": true, "values": i.histories(from, 100)})
}

func (s *Server) listComments(w http.ResponseWriter, r *http.Request) {
	key, i := s.find(w, r)
	if i == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []comment{}
	for n := len(s.comments[key]) - 1; n >= 0; n-- { // orderBy=-created
		c := s.comments[key][n]
		if r.URL.Query().Get("expand") != "properties" {
			c.Properties = nil
		}
		list = append(list, c)
	}
	answer(w, http.StatusOK, map[string]any{"startAt": 0, "maxResults": 50, "total": len(list), "comments": list})
}

func (s *Server) addComment(w http.ResponseWriter, r *http.Request) {
	key, i := s.find(w, r)
	if i == nil {
		return
	}
	var c comment
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&c); err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"errorMessages": []string{fmt.Sprint(err)}})
		return
	}
	s.mu.Lock()
	s.comments[key] = append(s.comments[key], c)
	lost := s.lose > 0
	if lost {
		s.lose--
	}
	s.mu.Unlock()
	if lost {
		panic(http.ErrAbortHandler)
	}
	answer(w, http.StatusCreated, map[string]any{"id": "10100", "body": c.Body})
}
