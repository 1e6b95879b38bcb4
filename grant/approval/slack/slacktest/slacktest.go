// Package slacktest is a Slack for tests: a real HTTP and WebSocket server with the payloads that Slack documents, for one
// workspace, its members and channels. It can be down, slow, forgetful and insistent, as Slack is.
//
// Sources: docs.slack.dev, apis/events-api/using-socket-mode, reference/methods (chat.postMessage, chat.update,
// chat.postEphemeral, views.open, users.info, auth.test, apps.connections.open), reference/interaction-payloads.
package slacktest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// What the workspace has.
const (
	Workspace = "T012AB3C4"
	AppID     = "A0APP1234"
	AppToken  = "xapp-1-A0APP1234-test"
	BotToken  = "xoxb-012-test"
)

// Message is one in a channel.
type Message struct {
	Channel, TS, Text string
	Blocks            string // JSON
	Edits             int
}

// Button finds what a button of the message carries; empty: there is none.
func (m Message) Button(action string) (value string) {
	var blocks []struct {
		Elements []struct {
			ActionID string `json:"action_id"`
			Value    string `json:"value"`
		} `json:"elements"`
	}
	if json.Unmarshal([]byte(m.Blocks), &blocks) != nil {
		return ""
	}
	for _, b := range blocks {
		for _, e := range b.Elements {
			if e.ActionID == action {
				return e.Value
			}
		}
	}
	return ""
}

// Member is somebody in the workspace, as users.info says it.
type Member struct {
	ID         string `json:"id"`
	TeamID     string `json:"team_id"`
	Name       string `json:"name"`
	Deleted    bool   `json:"deleted"`
	Restricted bool   `json:"is_restricted"`
}

// View is a form that the app has opened.
type View struct {
	CallbackID      string          `json:"callback_id"`
	PrivateMetadata string          `json:"private_metadata"`
	Raw             json.RawMessage `json:"-"`
	Trigger         string          `json:"-"`
}

// Server is it.
type Server struct {
	*httptest.Server

	mu         sync.Mutex
	down       bool
	limited    int // so many calls are answered with 429
	retryAfter int
	deaf       int // so many acknowledgements are lost
	messages   []*Message
	ephemeral  []string
	views      []View
	members    map[string]Member
	sockets    map[*websocket.Conn]bool
	opened     int
	waiting    map[string]chan json.RawMessage // by envelope
	triggers   map[string]time.Time
	count      int
	changed    chan struct{} // closed and made anew at every change
}

// New starts one.
func New(members ...Member) *Server {
	s := &Server{members: map[string]Member{}, sockets: map[*websocket.Conn]bool{}, waiting: map[string]chan json.RawMessage{}, triggers: map[string]time.Time{}, changed: make(chan struct{})}
	for _, m := range members {
		if m.TeamID == "" {
			m.TeamID = Workspace
		}
		s.members[m.ID] = m
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/{method}", s.call)
	mux.HandleFunc("/link", s.socket)
	s.Server = httptest.NewServer(mux)
	return s
}

// API is what configuration calls api.
func (s *Server) API() string { return s.URL + "/api/" }

// Close ends it and its connections.
func (s *Server) Close() {
	s.SetDown(true)
	s.Server.CloseClientConnections()
	s.Server.Close()
}

func (s *Server) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// SetDown makes it answer 503 and drops every connection, or puts an end to that.
func (s *Server) SetDown(down bool) {
	var open []*websocket.Conn
	s.change(func() {
		s.down = down
		if down {
			for c := range s.sockets {
				open = append(open, c)
			}
		}
	})
	for _, c := range open {
		_ = c.CloseNow()
	}
}

// Limit makes it answer the next n calls with 429.
func (s *Server) Limit(n, retryAfter int) {
	s.change(func() { s.limited, s.retryAfter = n, retryAfter })
}

// LoseAcknowledgements makes it not hear the next n, so that it sends again what it had sent.
func (s *Server) LoseAcknowledgements(n int) { s.change(func() { s.deaf = n }) }

// SetMember changes what it says of somebody.
func (s *Server) SetMember(m Member) {
	if m.TeamID == "" {
		m.TeamID = Workspace
	}
	s.change(func() { s.members[m.ID] = m })
}

// Messages are all that are there, in order.
func (s *Server) Messages() (all []Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages {
		all = append(all, *m)
	}
	return all
}

// Whispers are what only one member could see, as "MEMBER text".
func (s *Server) Whispers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.ephemeral...)
}

// Opened is how many connections have been opened so far.
func (s *Server) Opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

// Until waits until the condition holds; it is looked at after each change.
func (s *Server) Until(ctx context.Context, condition func() bool) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if condition() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("slacktest: %w; messages: %+v; whispers: %q", ctx.Err(), s.Messages(), s.Whispers())
		}
	}
}

// call is the Web API.
func (s *Server) call(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	down, limited := s.down, s.limited > 0
	if limited {
		s.limited--
	}
	after := s.retryAfter
	s.mu.Unlock()
	switch {
	case down:
		http.Error(w, "upstream", http.StatusServiceUnavailable)
		return
	case limited:
		w.Header().Set("Retry-After", strconv.Itoa(after))
		http.Error(w, "ratelimited", http.StatusTooManyRequests)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	arguments := map[string]string{}
	var raw map[string]json.RawMessage
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		if json.Unmarshal(body, &raw) == nil {
			for k, v := range raw {
				var text string
				if json.Unmarshal(v, &text) == nil {
					arguments[k] = text
				}
			}
		}
	} else {
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		if err := r.ParseForm(); err == nil {
			for k := range r.Form {
				arguments[k] = r.Form.Get(k)
			}
		}
	}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if token == "" {
		token = arguments["token"]
	}
	answer := func(v map[string]any) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_ = json.NewEncoder(w).Encode(v)
	}
	refuse := func(code string) { answer(map[string]any{"ok": false, "error": code}) }
	method := r.PathValue("method")
	if want := map[bool]string{true: AppToken, false: BotToken}[method == "apps.connections.open"]; token != want {
		refuse("invalid_auth")
		return
	}
	switch method {
	case "apps.connections.open":
		answer(map[string]any{"ok": true, "url": "ws" + strings.TrimPrefix(s.URL, "http") + "/link?ticket=" + rand.Text()})
	case "auth.test":
		answer(map[string]any{"ok": true, "team_id": Workspace, "team": "Acme", "user_id": "U0BOT", "user": "sallyport", "bot_id": "B0BOT", "url": "https://acme.slack.com/"})
	case "users.info":
		s.mu.Lock()
		m, ok := s.members[arguments["user"]]
		s.mu.Unlock()
		if !ok {
			refuse("user_not_found")
			return
		}
		answer(map[string]any{"ok": true, "user": m})
	case "chat.postMessage":
		if !fits(arguments["text"], arguments["blocks"]) {
			refuse("invalid_blocks")
			return
		}
		var ts string
		s.change(func() {
			s.count++
			ts = fmt.Sprintf("%d.%06d", time.Now().Unix(), s.count)
			s.messages = append(s.messages, &Message{Channel: arguments["channel"], TS: ts, Text: arguments["text"], Blocks: arguments["blocks"]})
		})
		answer(map[string]any{"ok": true, "channel": arguments["channel"], "ts": ts, "message": map[string]any{"type": "message", "text": arguments["text"], "ts": ts}})
	case "chat.update":
		if !fits(arguments["text"], arguments["blocks"]) {
			refuse("invalid_blocks")
			return
		}
		found := false
		s.change(func() {
			for _, m := range s.messages {
				if m.Channel == arguments["channel"] && m.TS == arguments["ts"] {
					m.Text, m.Blocks, found = arguments["text"], arguments["blocks"], true
					m.Edits++
				}
			}
		})
		if !found {
			refuse("message_not_found")
			return
		}
		answer(map[string]any{"ok": true, "channel": arguments["channel"], "ts": arguments["ts"], "text": arguments["text"]})
	case "chat.postEphemeral":
		s.change(func() { s.ephemeral = append(s.ephemeral, arguments["user"]+" "+arguments["text"]) })
		answer(map[string]any{"ok": true, "message_ts": "1764000000.000001"})
	case "views.open":
		trigger := arguments["trigger_id"]
		s.mu.Lock()
		at, ok := s.triggers[trigger]
		delete(s.triggers, trigger)
		s.mu.Unlock()
		if !ok || time.Since(at) > 30*time.Second { // Slack gives 3 s; the machines that tests run on are slower
			refuse("expired_trigger_id")
			return
		}
		v := View{Trigger: trigger, Raw: raw["view"]}
		if v.Raw == nil {
			v.Raw = json.RawMessage(arguments["view"])
		}
		if err := json.Unmarshal(v.Raw, &v); err != nil {
			refuse("invalid_arguments")
			return
		}
		if !viewFits(v.Raw) {
			refuse("invalid_arguments")
			return
		}
		var id string
		s.change(func() {
			s.views = append(s.views, v)
			id = "V0" + strconv.Itoa(len(s.views))
		})
		answer(map[string]any{"ok": true, "view": map[string]any{"id": id, "type": "modal"}})
	default:
		refuse("unknown_method")
	}
}

// socket is one Socket Mode connection.
func (s *Server) socket(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	if down {
		http.Error(w, "upstream", http.StatusServiceUnavailable)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // Slack's own client says another origin
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	ctx := r.Context()
	if wsjson.Write(ctx, c, map[string]any{"type": "hello", "num_connections": 1, "connection_info": map[string]any{"app_id": AppID},
		"debug_info": map[string]any{"host": "applink-1", "approximate_connection_time": 18060}}) != nil {
		return
	}
	s.change(func() { s.sockets[c] = true; s.opened++ })
	defer s.change(func() { delete(s.sockets, c) })
	go func() {
		for ticker := time.NewTicker(200 * time.Millisecond); c.Ping(ctx) == nil; <-ticker.C {
			if ctx.Err() != nil {
				ticker.Stop()
				return
			}
		}
	}()
	for {
		var ack struct {
			EnvelopeID string          `json:"envelope_id"`
			Payload    json.RawMessage `json:"payload"`
		}
		if wsjson.Read(ctx, c, &ack) != nil {
			return
		}
		s.mu.Lock()
		waiting := s.waiting[ack.EnvelopeID]
		lost := s.deaf > 0
		if lost {
			s.deaf--
		} else {
			delete(s.waiting, ack.EnvelopeID)
		}
		s.mu.Unlock()
		if !lost && waiting != nil {
			waiting <- ack.Payload
		}
	}
}

// Disconnect tells every connection to be opened anew, as Slack does every few hours, and closes it.
func (s *Server) Disconnect(ctx context.Context, reason string) {
	s.mu.Lock()
	open := make([]*websocket.Conn, 0, len(s.sockets))
	for c := range s.sockets {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		_ = wsjson.Write(ctx, c, map[string]any{"type": "disconnect", "reason": reason, "debug_info": map[string]any{"host": "applink-1"}})
	}
}

// errLost is why something has to be sent again.
var errLost = errors.New("not acknowledged")

// send sends an interaction until it is acknowledged, and returns what the acknowledgement carried.
func (s *Server) send(ctx context.Context, payload map[string]any) (json.RawMessage, error) {
	envelope := map[string]any{"type": "interactive", "envelope_id": rand.Text(), "accepts_response_payload": true, "payload": payload}
	for attempt := 0; ; attempt++ {
		if attempt > 0 {
			envelope["retry_attempt"], envelope["retry_reason"] = attempt, "timeout"
		}
		answer, err := s.sendOnce(ctx, envelope)
		if !errors.Is(err, errLost) {
			return answer, err
		}
	}
}

func (s *Server) sendOnce(ctx context.Context, envelope map[string]any) (json.RawMessage, error) {
	id := envelope["envelope_id"].(string)
	answer := make(chan json.RawMessage, 2)
	var c *websocket.Conn
	err := s.Until(ctx, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c = range s.sockets {
			s.waiting[id] = answer
			return true
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	if err := wsjson.Write(ctx, c, envelope); err != nil {
		return nil, errLost
	}
	select {
	case payload := <-answer:
		return payload, nil
	case <-time.After(3 * time.Second):
		return nil, errLost
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// From is who acts, where that is not what the workspace says.
type From struct{ User, Team string }

func (f From) payload() (user, team map[string]any) {
	if f.Team == "" {
		f.Team = Workspace
	}
	return map[string]any{"id": f.User, "username": strings.ToLower(f.User), "name": strings.ToLower(f.User), "team_id": f.Team}, map[string]any{"id": f.Team, "domain": "acme"}
}

// Click presses a button of a message.
func (s *Server) Click(ctx context.Context, who From, m Message, action string) error {
	return s.ClickValue(ctx, who, m, action, m.Button(action))
}

// ClickValue presses a button that carries what the caller says.
func (s *Server) ClickValue(ctx context.Context, who From, m Message, action, value string) error {
	user, team := who.payload()
	trigger := "trigger." + rand.Text()
	s.mu.Lock()
	s.triggers[trigger] = time.Now()
	s.mu.Unlock()
	_, err := s.send(ctx, map[string]any{
		"type": "block_actions", "user": user, "team": team, "api_app_id": AppID, "token": "deprecated", "trigger_id": trigger,
		"container": map[string]any{"type": "message", "message_ts": m.TS, "channel_id": m.Channel, "is_ephemeral": false},
		"channel":   map[string]any{"id": m.Channel, "name": "approvals"},
		"message":   map[string]any{"type": "message", "ts": m.TS, "text": m.Text},
		"actions":   []any{map[string]any{"type": "button", "action_id": action, "block_id": "decide", "value": value, "action_ts": "1764000001.000002"}},
		"state":     map[string]any{"values": map[string]any{}}, "response_url": s.URL + "/response",
	})
	return err
}

// Views are the forms that were opened, in order.
func (s *Server) Views() []View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]View(nil), s.views...)
}

// Submit sends a form, and returns what it then says.
func (s *Server) Submit(ctx context.Context, who From, v View, comment string) (string, error) {
	user, team := who.payload()
	answer, err := s.send(ctx, map[string]any{
		"type": "view_submission", "user": user, "team": team, "api_app_id": AppID, "token": "deprecated", "trigger_id": "trigger." + rand.Text(),
		"view": map[string]any{
			"id": "V01", "team_id": Workspace, "type": "modal", "callback_id": v.CallbackID, "private_metadata": v.PrivateMetadata, "hash": "1",
			"state": map[string]any{"values": map[string]any{"comment": map[string]any{"comment": map[string]any{"type": "plain_text_input", "value": comment}}}},
		},
		"response_urls": []any{},
	})
	if err != nil {
		return "", err
	}
	var update struct {
		Action string `json:"response_action"`
		View   struct {
			Blocks []struct {
				Text struct {
					Text string `json:"text"`
				} `json:"text"`
			} `json:"blocks"`
		} `json:"view"`
	}
	if err := json.Unmarshal(answer, &update); err != nil || update.Action != "update" || len(update.View.Blocks) == 0 {
		return "", fmt.Errorf("slacktest: the form was answered with %s", answer)
	}
	return update.View.Blocks[0].Text.Text, nil
}
