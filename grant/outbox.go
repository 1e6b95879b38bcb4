package grant

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"sallyport/internal/store"
)

// EventKind is what happened to a grant, for those who are told of it.
type EventKind string

// The kinds.
const (
	EventRequested EventKind = "requested" // it waits for approval, or its extension does
	EventDecided   EventKind = "decided"   // that was approved or denied
	EventActive    EventKind = "active"    // access began
	EventEnded     EventKind = "ended"     // the grant, or the request, is over
	EventAlarm     EventKind = "alarm"     // somebody broke the glass, or a review of that is overdue: told to everybody
	EventVoted     EventKind = "voted"     // somebody approved, and more have to; or took that back
	EventStage     EventKind = "stage"     // with that another stage of approval is open, whose people are to be asked
	EventAlert     EventKind = "alert"     // a rule of the configuration's alerts holds; it is about no grant
)

// kinds are the transitions that are told, by the kind of their audit event.
var kinds = map[string]EventKind{
	"grant.requested": EventRequested, "grant.extension_requested": EventRequested,
	"grant.approved": EventDecided, "grant.denied": EventDecided, "grant.extended": EventDecided, "grant.extension_denied": EventDecided,
	"grant.active": EventActive, "grant.voted": EventVoted, "grant.vote_withdrawn": EventVoted,
	"grant.break_glass": EventAlarm, "grant.review_overdue": EventAlarm, "grant.reviewed": EventDecided,
	"grant.ended": EventEnded, "grant.withdrawn": EventEnded, "grant.lapsed": EventEnded,
}

// Event is one thing that happened to a grant.
type Event struct {
	Number int64     `json:"number"` // given by the store, rising
	Kind   EventKind `json:"kind"`
	What   string    `json:"what"` // the audit event's kind: "grant.extension_requested"
	Time   time.Time `json:"time"`
	Actor  string    `json:"actor"` // a name, or "system"
	Reason string    `json:"reason,omitempty"`
	Grant  Grant     `json:"grant"` // as it was then
	Alert  *Alert    `json:"alert,omitempty"`
}

// Alert is what a rule of the configuration's alerts has found.
type Alert struct {
	Name  string           `json:"name"`
	Count int              `json:"count"` // of events, the last of which is Event
	Since time.Time        `json:"since"` // when the first of them was
	By    string           `json:"by"`    // by what they were counted, and
	Key   string           `json:"key"`   // for whom
	Event store.AuditEvent `json:"event"`
	// Quiet is until when no more of these are told, because there were so many; zero: they are.
	Quiet time.Time `json:"quiet,omitzero"`
	To    []string  `json:"to"` // the channels that are told
}

// Text says it in a sentence.
func (a Alert) Text() string {
	text := "Alert " + a.Name + ": " + a.Event.Kind
	if a.Count > 1 {
		text += " (" + strconv.Itoa(a.Count) + " since " + when(a.Since) + ")"
	}
	who := a.Event.ActorName
	if who == "" {
		who = a.Event.Actor
	}
	text += " by " + who
	if a.Event.Target != "" {
		text += " at " + a.Event.Account + "@" + a.Event.Target
	}
	if a.Event.Outcome != "ok" {
		text += ", " + a.Event.Outcome
	}
	if a.Event.Reason != "" {
		text += ": " + a.Event.Reason
	}
	if !a.Quiet.IsZero() {
		text += " (there were many; no more of these are told until " + when(a.Quiet) + ")"
	}
	return text
}

// Tell puts an alert into the outbox.
func Tell(ctx context.Context, tx *store.Tx, a Alert) error {
	body, err := json.Marshal(Event{Kind: EventAlert, What: "alert." + a.Name, Time: a.Event.Time, Actor: system, Reason: a.Text(), Alert: &a})
	if err == nil {
		_, err = tx.ExecContext(ctx, `INSERT INTO grant_events (grant_id, body) VALUES (?, ?)`, "alert:"+a.Name, string(body))
	}
	if err != nil {
		return fmt.Errorf("tell of alert %s: %w", a.Name, err)
	}
	return nil
}

// About is what the event is about, as deliveries are kept and ordered: a grant, or an alert.
func (e Event) About() string {
	if e.Alert != nil {
		return "alert:" + e.Alert.Name
	}
	return e.Grant.ID
}

// announce puts what an audit event tells of into the outbox, in the same transaction.
func announce(ctx context.Context, tx *store.Tx, audited store.AuditEvent, g Grant) error {
	kind, told := kinds[audited.Kind]
	if !told {
		return nil
	}
	if audited.Fields["opens"] != "" {
		kind = EventStage
	}
	e := Event{Kind: kind, What: audited.Kind, Time: audited.Time, Actor: audited.ActorName, Reason: audited.Reason, Grant: g}
	if e.Actor == "" {
		e.Actor = system
	}
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("tell of grant %s: %w", g.ID, err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO grant_events (grant_id, body) VALUES (?, ?)`, g.ID, string(body)); err != nil {
		return fmt.Errorf("tell of grant %s: %w", g.ID, err)
	}
	return nil
}

// TakeEvents takes up to limit events out of the outbox, oldest first. They are gone when the transaction commits, which
// is when whoever takes them has written down where they go; so are those that can't be read, for one of them must not keep
// all others. store.Store.Committed tells when there may be more.
func TakeEvents(ctx context.Context, tx *store.Tx, limit int) (events []Event, unread []error, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT number, grant_id, body FROM grant_events ORDER BY number LIMIT ?`, limit)
	if err != nil {
		return nil, nil, fmt.Errorf("read what happened to grants: %w", err)
	}
	defer rows.Close()
	last := int64(-1)
	for rows.Next() {
		var about string
		var body []byte
		if err := rows.Scan(&last, &about, &body); err != nil {
			return nil, nil, fmt.Errorf("read what happened to grants: %w", err)
		}
		var e Event
		if err := json.Unmarshal(body, &e); err != nil {
			unread = append(unread, fmt.Errorf("what happened to %s, number %d: %w", about, last, err))
			continue
		}
		e.Number = last
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("read what happened to grants: %w", err)
	}
	rows.Close()
	if last >= 0 {
		if _, err := tx.ExecContext(ctx, `DELETE FROM grant_events WHERE number <= ?`, last); err != nil {
			return nil, nil, fmt.Errorf("take what happened to grants: %w", err)
		}
	}
	return events, unread, nil
}
