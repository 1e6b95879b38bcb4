// Package workload verifies the tokens by which jobs of CI systems and pods of clusters say who they are.
//
// It promises that what Verify returns was signed by the very issuer that a workload of the configuration names, for this
// gateway and for nobody else, lately and still good, and that every claim the workload is bound to has one of the values
// that stand there, to the letter. No token says which keys or which algorithm it is verified with. A token that no key
// fits costs an issuer at most one question in thirty seconds, however many such tokens come.
package workload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coreos/go-oidc/v3/oidc"

	"sallyport/authn/federation"
	"sallyport/configs"
)

const (
	// MaxToken bounds a token before anything of it is read.
	MaxToken = 16 << 10
	// skew is how far the issuer's clock may be from ours.
	skew = time.Minute
	// maxSubject is OpenID Connect Core's, section 2; maxLabel is ours.
	maxSubject = 255
	maxLabel   = 256
)

// Job is who a token proves.
type Job struct {
	Workload configs.Workload
	Issuer   string
	Subject  string // the workload's name and the claims of Workload.Subject
	Name     string // for people
	Token    string // what tells this token from the issuer's others: its jti, else a hash of it
	Expires  time.Time
	Starter  Starter
	// Claims are those of Workload.Claims that the token has.
	Claims map[string]string
	// Handle are the claims by which the provider's API knows the job; nil where it is not asked.
	Handle map[string]string
}

// Starter is the person who started a job, as the job's provider says. The zero value is nobody that is known.
type Starter struct {
	ID     string // never given again; of the provider's, not of ours
	Name   string // for people
	Email  string
	Person string // who that is here, by the configuration: e-mail address or subject at people's provider
}

// Refused is the error for a token that its issuer did sign, and that is not accepted all the same. Why is for those who
// run the gateway: it may tell what a workload is bound to.
type Refused struct {
	Issuer, Subject string // as the token has them; the subject is cut to what can be shown
	Why             string
	Expired         bool // it would have been accepted once
}

func (r *Refused) Error() string {
	return fmt.Sprintf("a token of %s for %q: %s", r.Issuer, r.Subject, r.Why)
}

// Issuers verifies tokens of the configured workloads. Safe for concurrent use.
type Issuers struct {
	workloads []configs.Workload
	keys      map[string]*federation.Keys // by issuer
	now       func() time.Time
}

// New prepares the issuers; it opens no connection.
func New(workloads []configs.Workload, now func() time.Time) *Issuers {
	i := &Issuers{workloads: workloads, keys: map[string]*federation.Keys{}, now: now}
	for _, w := range workloads {
		if i.keys[w.Issuer] == nil {
			i.keys[w.Issuer] = federation.NewKeys(w.Issuer, w.CA, "workloads.ca", now)
		}
	}
	return i
}

// Renewed are the issuers of changed workloads; keys that are known are kept, so that a reload asks nobody anything.
func (i *Issuers) Renewed(workloads []configs.Workload) *Issuers {
	renewed := New(workloads, i.now)
	for issuer, keys := range renewed.keys {
		if old := i.keys[issuer]; old != nil && old.Like(keys) {
			renewed.keys[issuer] = old
		}
	}
	return renewed
}

// Gone are the workloads that are not in these: removed, or changed in any way.
func (i *Issuers) Gone(workloads []configs.Workload) (gone []configs.Workload) {
	for _, old := range i.workloads {
		if !slices.ContainsFunc(workloads, func(w configs.Workload) bool { return reflect.DeepEqual(old, w) }) {
			gone = append(gone, old)
		}
	}
	return gone
}

// Any tells whether there are workloads at all.
func (i *Issuers) Any() bool { return len(i.workloads) > 0 }

// Verify is who a token proves. The error is a *Refused where the token is its issuer's, wraps federation.ErrUnavailable
// where the issuer could not be asked for its keys, and else says that the token proves nothing.
func (i *Issuers) Verify(ctx context.Context, raw string) (Job, error) {
	if raw == "" || len(raw) > MaxToken {
		return Job{}, fmt.Errorf("the token is empty or longer than %d bytes", MaxToken)
	}
	header, claims, err := peek(raw)
	if err != nil {
		return Job{}, err
	}
	// Which issuer's keys to use is looked up by what the token says, in our list: it can only choose from that.
	keys := i.keys[text(claims["iss"])]
	if keys == nil {
		return Job{}, errors.New("the token's issuer is none of those configured")
	}
	if err := keys.Ready(ctx); err != nil { // go-oidc hides what its key set fails with
		return Job{}, err
	}
	proven, err := oidc.NewVerifier(keys.Issuer(), keys, &oidc.Config{
		SupportedSigningAlgs: federation.Algorithms(),
		SkipClientIDCheck:    true, // one issuer may have workloads of several audiences
		SkipExpiryCheck:      true, // go-oidc allows no skew for exp and five minutes for nbf
	}).Verify(ctx, raw)
	if err != nil {
		return Job{}, fmt.Errorf("verify the token: %w", err)
	}
	refused := func(format string, args ...any) error {
		return &Refused{Issuer: keys.Issuer(), Subject: printable(proven.Subject, 128), Why: fmt.Sprintf(format, args...)}
	}
	if typ := text(header["typ"]); typ != "" && !strings.EqualFold(typ, "JWT") {
		return Job{}, refused("it is of type %q, not a JWT", printable(typ, 32)) // RFC 9068's access tokens, for example
	}
	return i.fit(raw, keys.Issuer(), proven, claims, refused)
}

// fit finds the workload that a verified token is one of.
func (i *Issuers) fit(raw, issuer string, proven *oidc.IDToken, claims map[string]json.RawMessage, refused func(string, ...any) error) (Job, error) {
	issued, expires, err := i.times(claims)
	if err != nil {
		if errors.Is(err, errExpired) {
			return Job{}, &Refused{Issuer: issuer, Subject: printable(proven.Subject, 128), Why: err.Error(), Expired: true}
		}
		return Job{}, refused("%s", err)
	}
	if len(proven.Audience) != 1 {
		return Job{}, refused("it is made for %d audiences, of which any could use it here", len(proven.Audience))
	}
	why := "its audience is no workload's"
	for _, w := range i.workloads {
		if w.Issuer != issuer || w.Audience != proven.Audience[0] {
			continue
		}
		if miss := misfit(w, claims); miss != "" {
			why = fmt.Sprintf("workload %s: %s", w.Name, miss)
			continue
		}
		if age := i.now().Sub(issued); age > w.MaxAge.D()+skew {
			return Job{}, &Refused{Issuer: issuer, Subject: printable(proven.Subject, 128), Expired: true,
				Why: fmt.Sprintf("workload %s: it is %s old, max_age is %s", w.Name, age.Round(time.Second), w.MaxAge)}
		}
		subject, err := compose(w, claims)
		if err != nil {
			return Job{}, refused("workload %s: %s", w.Name, err)
		}
		return Job{Workload: w, Issuer: issuer, Subject: subject, Name: label(w, claims), Token: tokenID(raw, claims), Expires: expires,
			Starter: starter(w, claims), Claims: others(w, claims), Handle: handle(w, claims)}, nil
	}
	return Job{}, refused("%s", why)
}

var errExpired = errors.New("it has expired")

// times checks exp and iat, which must be there, and nbf, which may.
func (i *Issuers) times(claims map[string]json.RawMessage) (issued, expires time.Time, err error) {
	now := i.now()
	if issued, err = moment(claims["iat"]); err != nil {
		return issued, expires, fmt.Errorf("iat: %w", err)
	}
	if expires, err = moment(claims["exp"]); err != nil {
		return issued, expires, fmt.Errorf("exp: %w", err)
	}
	if claims["nbf"] != nil {
		from, err := moment(claims["nbf"])
		if err != nil {
			return issued, expires, fmt.Errorf("nbf: %w", err)
		}
		if now.Add(skew).Before(from) {
			return issued, expires, fmt.Errorf("it is not good before %s", from.UTC().Format(time.RFC3339))
		}
	}
	switch {
	case now.Add(skew).Before(issued):
		return issued, expires, fmt.Errorf("it was issued in the future, at %s", issued.UTC().Format(time.RFC3339))
	case !now.Before(expires.Add(skew)):
		return issued, expires, fmt.Errorf("%w, at %s", errExpired, expires.UTC().Format(time.RFC3339))
	}
	return issued, expires, nil
}

// moment reads a NumericDate (RFC 7519, section 2) within the years that can be counted with.
func moment(raw json.RawMessage) (time.Time, error) {
	var seconds float64
	if raw == nil || json.Unmarshal(raw, &seconds) != nil {
		return time.Time{}, errors.New("it is missing or no number")
	}
	if seconds < 0 || seconds > 1<<40 {
		return time.Time{}, errors.New("it is no time of our days")
	}
	return time.Unix(int64(seconds), 0), nil
}

// misfit says which claim a token lacks or has another value in; empty if all fit.
func misfit(w configs.Workload, claims map[string]json.RawMessage) string {
	for _, name := range slices.Sorted(maps.Keys(w.Bind)) {
		raw := find(claims, name)
		value, ok := scalar(raw)
		if w.IsList(name) {
			var list []string
			if json.Unmarshal(raw, &list) == nil && slices.ContainsFunc(list, func(s string) bool { return slices.Contains(w.Bind[name], s) }) {
				continue
			}
			return fmt.Sprintf("claim %s holds none of what it is bound to", name)
		}
		switch {
		case raw == nil:
			return fmt.Sprintf("claim %s is missing", name)
		case !ok:
			return fmt.Sprintf("claim %s is neither text nor number nor Boolean", name)
		case !slices.Contains(w.Bind[name], value):
			return fmt.Sprintf("claim %s is %q, which is not what it is bound to", name, printable(value, 128))
		}
	}
	return ""
}

// compose makes the subject. Values are escaped, so that no two jobs' claims can be put together to the same text.
func compose(w configs.Workload, claims map[string]json.RawMessage) (string, error) {
	parts := make([]string, len(w.Subject))
	for i, name := range w.Subject {
		value, ok := scalar(find(claims, name))
		if !ok || value == "" {
			return "", fmt.Errorf("claim %s, a part of its subject, is missing; name others with subject: […]", name)
		}
		parts[i] = name + "=" + url.QueryEscape(value)
	}
	subject := w.Name + ":" + strings.Join(parts, ",")
	if len(subject) > maxSubject {
		return "", fmt.Errorf("its subject would have %d bytes, more than %d; make it of fewer claims with subject: […]", len(subject), maxSubject)
	}
	return subject, nil
}

// starter is who started the job. Labels come from where the provider is known to put them.
func starter(w configs.Workload, claims map[string]json.RawMessage) (s Starter) {
	claim := w.StartedBy
	if claim == "" {
		return s
	}
	id, ok := scalar(find(claims, claim))
	if whole, inside, found := strings.Cut(claim, "/"); !ok && found { // CircleCI's sub: names and ids in turns
		id = segment(text(claims[whole]), inside)
	}
	if id == "" {
		return s
	}
	s = Starter{ID: printable(id, maxLabel), Person: w.People[id]}
	switch w.Preset {
	case configs.PresetGitHub:
		s.Name = printable(text(claims["actor"]), maxLabel)
	case configs.PresetGitLab:
		s.Name, s.Email = printable(text(claims["user_login"]), maxLabel), printable(text(claims["user_email"]), maxLabel)
	}
	return s
}

// others are the claims that conditions may look at. One that can't be kept whole is left out: cut, it might be another one.
func others(w configs.Workload, claims map[string]json.RawMessage) (kept map[string]string) {
	for _, name := range w.Claims {
		value, ok := scalar(find(claims, name))
		if !ok || value != printable(value, maxLabel) {
			continue
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[name] = value
	}
	return kept
}

// segment is what follows a name in a path of names and values.
func segment(path, name string) string {
	parts := strings.Split(path, "/")
	for i := 0; i+1 < len(parts); i += 2 {
		if parts[i] == name {
			return parts[i+1]
		}
	}
	return ""
}

func label(w configs.Workload, claims map[string]json.RawMessage) string {
	parts := []string{w.Name}
	for _, name := range w.Label {
		if value, ok := scalar(find(claims, name)); ok && value != "" {
			parts = append(parts, value)
		}
	}
	return printable(strings.Join(parts, " "), maxLabel)
}

// tokenID is the token's jti, else a hash of what was signed: a signature alone may be written in several ways.
func tokenID(raw string, claims map[string]json.RawMessage) string {
	if id := text(claims["jti"]); id != "" && len(id) <= maxLabel {
		return "jti:" + id
	}
	sum := sha256.Sum256([]byte(raw[:strings.LastIndexByte(raw, '.')]))
	return "hash:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// peek reads what a token says before anything of it is proven.
func peek(raw string) (header, claims map[string]json.RawMessage, err error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, nil, errors.New("the token is no JWT")
	}
	for i, into := range []*map[string]json.RawMessage{&header, &claims} {
		data, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		if err != nil {
			return nil, nil, errors.New("the token is no JWT")
		}
		if json.Unmarshal(data, into) != nil {
			return nil, nil, errors.New("the token is no JWT")
		}
	}
	return header, claims, nil
}

// find is a claim of that name, or one inside another where the name is a path. A claim that has the whole name, slashes
// and all, comes first.
func find(claims map[string]json.RawMessage, name string) json.RawMessage {
	if raw, ok := claims[name]; ok {
		return raw
	}
	for at := 0; ; {
		i := strings.IndexByte(name[at:], '/')
		if i < 0 {
			return nil
		}
		at += i
		var inside map[string]json.RawMessage
		if raw, ok := claims[name[:at]]; ok && json.Unmarshal(raw, &inside) == nil && inside != nil {
			return find(inside, name[at+1:])
		}
		at++
	}
}

// scalar is a claim's value as the configuration writes it.
func scalar(raw json.RawMessage) (string, bool) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || raw[0] == '{' || raw[0] == '[' || string(raw) == "null" {
		return "", false
	}
	if raw[0] == '"' {
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err == nil && utf8.ValidString(s)
	}
	return string(raw), true
}

// text is a claim that is a text, else nothing.
func text(raw json.RawMessage) (s string) {
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// printable is s for people, without what can't be printed, cut to limit bytes.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, s)
	for len(s) > limit {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
