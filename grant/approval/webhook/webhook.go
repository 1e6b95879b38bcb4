// Package webhook tells another system what happens to grants, by signed messages, and takes signed decisions from it.
//
// Both ways a message is signed as Standard Webhooks says: the header webhook-signature holds "v1," and the base64 of
// HMAC-SHA256 over the message's id, its time and its body with dots between, keyed with a secret that only the two know;
// each way has a secret of its own. webhook-id is the key by which the receiver knows a message that comes again,
// webhook-timestamp the time in seconds since 1970, webhook-key-id says which secret it was. The signature of what comes in
// is good for five minutes.
//
// A system is never an approver: a decision names the person it speaks for by an e-mail address that the configuration
// links to an identity, and counts as that person's vote.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/authn/secrets"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/approval"
	"sallyport/grant/evidence"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

const (
	timeout   = 10 * time.Second
	tolerance = 5 * time.Minute // between the clocks, and for how long a signature is good
	maxBody   = 64 << 10
	maxID     = 200
)

// Webhook is one. Safe for concurrent use.
type Webhook struct {
	config    configs.Webhook
	url       string // the gateway's
	secret    []byte
	decisions []byte // nil: none are taken
	client    *http.Client
	store     *store.Store
	voter     *approval.Voter
	now       func() time.Time
}

// Options configure Open.
type Options struct {
	Config configs.Webhook
	URL    string // the gateway's public address
	Store  *store.Store
	Voter  *approval.Voter
	Now    func() time.Time // there for tests; default: the system's
}

// Open reads the secrets.
func Open(ctx context.Context, o Options) (*Webhook, error) {
	w := &Webhook{config: o.Config, url: o.URL, store: o.Store, voter: o.Voter, now: o.Now}
	if w.now == nil {
		w.now = time.Now
	}
	fail := func(err error) (*Webhook, error) { return nil, fmt.Errorf("webhook %s: %w", o.Config.Name, err) }
	secret, err := secrets.Resolve(ctx, o.Config.Secret)
	if err != nil {
		return fail(err)
	}
	w.secret = []byte(secret)
	if o.Config.DecisionSecret != "" {
		if secret, err = secrets.Resolve(ctx, o.Config.DecisionSecret); err != nil {
			return fail(err)
		}
		w.decisions = []byte(secret)
		if hmac.Equal(w.decisions, w.secret) {
			return fail(errors.New("decision_secret holds the same as secret; whoever receives messages could send them back as decisions"))
		}
	}
	if w.client, err = evidence.Client(o.Config.CA); err != nil {
		return fail(err)
	}
	w.client.Timeout = timeout
	return w, nil
}

// Name implements approval.Channel.
func (w *Webhook) Name() string { return "webhook/" + w.config.Name }

// Wants implements approval.Channel.
func (w *Webhook) Wants(kind grant.EventKind) bool {
	return slices.Contains(w.config.Events, string(kind))
}

// version is that of the form of what is sent: 1 had no stages, and did not say which it is.
const version = 2

// message is what is sent. Fields are added, never renamed.
type message struct {
	Version  int             `json:"version"`
	ID       string          `json:"id"`
	Kind     grant.EventKind `json:"kind"`
	Type     string          `json:"type"`
	Time     time.Time       `json:"time"`
	Sequence int             `json:"sequence"` // rises with the grant's changes; what comes out of order is sorted by it
	Actor    string          `json:"actor"`
	Reason   string          `json:"reason,omitempty"`
	Gateway  string          `json:"gateway"`
	Grant    *grant.Grant    `json:"grant,omitempty"` // what it is about, or
	Alert    *grant.Alert    `json:"alert,omitempty"`
	// Stages are the approvals that what it is about needs one after the other, and how each stands.
	Stages []grant.Standing `json:"stages,omitempty"`
	// Round is what waits for a decision, for the decision to say: 0 is the request itself, n its n-th extension; nil: nothing does.
	// Stage is the stage of it that is open, from 1.
	Round *int `json:"round,omitempty"`
	Stage int  `json:"stage,omitempty"`
}

// Deliver implements approval.Channel.
func (w *Webhook) Deliver(ctx context.Context, n approval.Notice) (string, error) {
	about := message{
		Version: version, Stages: n.Grant.Standing(),
		ID: n.ID, Kind: n.Kind, Type: n.What, Time: n.Time, Sequence: n.Grant.Version, Actor: n.Actor, Reason: n.Reason, Gateway: w.url, Grant: &n.Grant,
	}
	if n.Grant.Extension != nil {
		about.Stages = n.Grant.Extension.Standing()
	}
	if round := n.Grant.Round(); n.Alert == nil && round >= 0 {
		about.Round, about.Stage = &round, n.Grant.Stage()
	}
	if n.Alert != nil {
		about.Grant, about.Alert = nil, n.Alert
	}
	body, err := json.Marshal(about)
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.config.URL, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	at := strconv.FormatInt(w.now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "sallyport")
	r.Header.Set("Webhook-Id", n.ID)
	r.Header.Set("Webhook-Timestamp", at)
	r.Header.Set("Webhook-Key-Id", w.config.KeyID)
	r.Header.Set("Webhook-Signature", Sign(w.secret, n.ID, at, body))
	answer, err := w.client.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxBody)) // so that the connection can be used again
	if answer.StatusCode/100 == 2 {
		return "", nil
	}
	err = fmt.Errorf("the receiver answered %s", http.StatusText(answer.StatusCode))
	if http.StatusText(answer.StatusCode) == "" {
		err = fmt.Errorf("the receiver answered with status %d", answer.StatusCode)
	}
	switch answer.StatusCode {
	case http.StatusGone:
		return "", approval.Permanent{Err: err}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if after, ok := evidence.Patience(answer, w.now()); ok {
			return "", approval.RetryAfter{Err: err, After: after}
		}
	}
	return "", err
}

// Sign is the value of webhook-signature.
func Sign(secret []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Headers are those of a decision that comes in.
type Headers struct{ ID, Timestamp, Signature string }

// decision is the body of one that comes in.
type decision struct {
	Grant    string `json:"grant"`
	Decision string `json:"decision"` // approve or deny
	Email    string `json:"email"`    // of the person it speaks for
	Comment  string `json:"comment"`
	// Round and Stage are what it is about, as the message said. Without a round it is about the request itself, so that a word on that
	// which comes late is not taken for one on an extension.
	Round int `json:"round"`
	Stage int `json:"stage"`
}

// Unsigned is the refusal of what is not signed as it should be; nothing more is said to strangers, and nothing audited
// one by one.
func Unsigned() *refusal.Refusal {
	return refusal.New(refusal.NotAuthenticated, "that is not signed as a decision of a webhook of this gateway").
		WithHint("docs/approvals.md says how decisions are signed; the clocks may differ by %s", tolerance)
}

// Receive takes a decision. One that comes again under the same id counts once and has the same answer: the grant as it
// is.
func (w *Webhook) Receive(ctx context.Context, h Headers, body []byte) (grant.Grant, error) {
	if w.decisions == nil || h.ID == "" || len(h.ID) > maxID || strings.ContainsRune(h.ID, '.') || !w.signed(h, body) {
		return grant.Grant{}, Unsigned()
	}
	var d decision
	reader := json.NewDecoder(bytes.NewReader(body))
	reader.DisallowUnknownFields()
	if err := reader.Decode(&d); err != nil || d.Decision != "approve" && d.Decision != "deny" || d.Grant == "" || d.Email == "" {
		return grant.Grant{}, refusal.New(refusal.Invalid, "that is not a decision").
			WithHint(`write {"grant": "g-…", "decision": "approve" or "deny", "email": "…", "comment": "…"}`).Because(err)
	}
	word := approval.Decision{Grant: d.Grant, Round: &d.Round, Stage: d.Stage, Approve: d.Decision == "approve", Comment: d.Comment, Through: w.Name(), Account: d.Email}
	person, ok := w.voter.ByEmail(d.Email)
	if !ok {
		return grant.Grant{}, w.voter.Stranger(ctx, word)
	}
	digest := sha256.Sum256(body)
	word.ID, word.Digest = h.ID, digest[:]
	again := func() (g grant.Grant, before bool, err error) {
		known, before, err := approval.Received(ctx, w.store, w.Name(), h.ID, digest[:])
		if err != nil || !before {
			return grant.Grant{}, before, err
		}
		who, err := w.voter.SignedIn(ctx, person.Issuer, person.Subject, w.Name())
		if err != nil {
			return grant.Grant{}, true, err
		}
		g, err = w.voter.Grants.Get(ctx, who, known)
		return g, true, err
	}
	if g, before, err := again(); err != nil || before {
		return g, err
	}
	g, err := w.voter.Vote(ctx, person, word)
	if refusal.Is(err, refusal.Conflict) { // it may have come twice at once, and counted
		if g, before, known := again(); known == nil && before {
			return g, nil
		}
	}
	return g, err
}

// signed checks the time and the signatures, of which a sender may give several while its secret changes.
func (w *Webhook) signed(h Headers, body []byte) bool {
	seconds, err := strconv.ParseInt(h.Timestamp, 10, 64)
	if err != nil || strconv.FormatInt(seconds, 10) != h.Timestamp || w.now().Sub(time.Unix(seconds, 0)).Abs() > tolerance {
		return false
	}
	want := []byte(Sign(w.decisions, h.ID, h.Timestamp, body))
	good := false
	for i, given := range strings.Fields(h.Signature) {
		if i >= 5 {
			break
		}
		good = hmac.Equal([]byte(given), want) || good
	}
	return good
}
