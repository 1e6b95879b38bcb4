package authn

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// The Methods of identities that a person proved in the browser while a connection waited.
const (
	promptSignIn = "sign-in at the prompt"
	sshKey       = "SSH key"
)

// What connections that wait for their person may take. Whoever waits has proven nothing yet, or only a key that is
// nobody's, so they are few and leave soon; they have a room of their own, beside that of strangers (proxy), so that
// people who are slow to sign in keep nobody else out.
const (
	holdLife       = 3 * time.Minute
	maxHolds       = 256
	maxSourceHolds = 16
	maxWaiters     = 64 // connections with the same key
	maxCodeTries   = 3

	// Connections, those that wait together too: they count among all that the gateway takes, which are thousands.
	maxHeld       = 512
	maxSourceHeld = 128
)

// Purpose is what a connection that waits says of itself, for the person to judge.
type Purpose struct {
	Protocol        string // "PostgreSQL", "SSH"
	Account, Target string
	Client          string // what the program calls itself, "" for nothing
	// Key is the SSH key whose signature was verified; nil for none. After the sign-in it stands for the person, from the
	// same source, for credentials.ssh_key.
	Key ssh.PublicKey
}

// Hold is one connection's place in a wait for its person. Connections with the same key from the same source wait
// together.
type Hold struct{ *held }

// held is a wait. Nothing of it is kept in the store: it is worth nothing once the connection is gone.
type held struct {
	service *Service
	purpose Purpose
	address string // of the client
	source  string
	link    string
	code    string
	asked   time.Time
	until   time.Time
	timer   *time.Timer

	mu      sync.Mutex
	waiters int
	tries   int
	taken   bool // by who is being signed in
	over    bool
	done    chan struct{} // closed when over
	who     Identity
	err     error
}

// holds are the waits of this process. The zero value is ready.
type holds struct {
	mu     sync.Mutex
	byID   map[string]*held
	byKey  map[string]*held
	source map[string]int
	held   int            // connections
	heldOf map[string]int // by source
}

// Hold begins a connection's wait for its person, or joins one. from is the other end. It refuses with TooMany. The caller
// shows Link and Code and then calls Wait, which ends its place.
func (s *Service) Hold(p Purpose, from net.Addr) (*Hold, error) {
	source := sourceOf(from)
	s.waits.mu.Lock()
	defer s.waits.mu.Unlock()
	if s.waits.byID == nil {
		s.waits.byID, s.waits.byKey, s.waits.source, s.waits.heldOf = map[string]*held{}, map[string]*held{}, map[string]int{}, map[string]int{}
	}
	tooMany := refusal.New(refusal.TooMany, "too many connections wait for a sign-in").WithHint("try again in a minute, or sign in first: sallyport login")
	if s.waits.held >= maxHeld || s.waits.heldOf[source] >= maxSourceHeld {
		return nil, tooMany
	}
	if p.Key != nil {
		if h := s.waits.byKey[keyOf(p.Key, source)]; h != nil && h.join() {
			s.waits.enter(source)
			return &Hold{h}, nil
		}
	}
	if len(s.waits.byID) >= maxHolds || s.waits.source[source] >= maxSourceHolds {
		return nil, tooMany
	}
	code, err := compareCode()
	if err != nil {
		return nil, err
	}
	now := s.now()
	h := &held{
		service: s, purpose: p, source: source, address: addressOf(from), link: strings.ToLower(rand.Text()), code: code,
		asked: now.UTC(), until: now.Add(holdLife).UTC(), waiters: 1, done: make(chan struct{}),
	}
	h.purpose.Client = printable(p.Client, 128)
	s.waits.byID[holdID(h.link)] = h
	s.waits.source[source]++
	s.waits.enter(source)
	if p.Key != nil {
		s.waits.byKey[keyOf(p.Key, source)] = h
	}
	h.timer = time.AfterFunc(holdLife, func() {
		h.finish(Identity{}, refusal.New(refusal.NotAuthenticated, "nobody signed in within %s", holdLife).WithHint("connect again, and open the link at once"))
	})
	return &Hold{h}, nil
}

// enter counts a connection in. The lock is held.
func (w *holds) enter(source string) {
	w.held++
	w.heldOf[source]++
}

// exit counts one out.
func (w *holds) exit(source string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held--
	if w.heldOf[source]--; w.heldOf[source] <= 0 {
		delete(w.heldOf, source)
	}
}

// compareCode is short enough to be typed: 26 bits, of which three guesses are taken.
func compareCode() (string, error) {
	var b strings.Builder
	for i := range 6 {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(op.CharSetBase20))))
		if err != nil {
			return "", err
		}
		if i == 3 {
			b.WriteByte('-')
		}
		b.WriteByte(op.CharSetBase20[n.Int64()])
	}
	return b.String(), nil
}

// holdID is how a wait is known to the tables.
func holdID(link string) string { return hex.EncodeToString(hashed(link)) }

func keyOf(key ssh.PublicKey, source string) string { return string(key.Marshal()) + "\x00" + source }

func addressOf(from net.Addr) string {
	if from == nil {
		return ""
	}
	if host, _, err := net.SplitHostPort(from.String()); err == nil {
		return host
	}
	return from.String()
}

// Link is the page where the person signs in. It lets nobody in by itself.
func (h *held) Link() string {
	return strings.TrimSuffix(h.service.config.URL, "/") + pathHold + "?id=" + h.link
}

// Code is what the person has to type there. It is for the terminal of whoever connected, and stands on no page.
func (h *held) Code() string { return h.code }

// Until is when the wait is over.
func (h *held) Until() time.Time { return h.until }

func (h *held) join() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over || h.waiters == 0 || h.waiters >= maxWaiters { // of nobody: the last one is just leaving, and ends it
		return false
	}
	h.waiters++
	return true
}

// Wait returns the person once they have signed in, typed the code and said yes; else why not. When the last connection
// stops waiting, the link is dead.
func (h *Hold) Wait(ctx context.Context) (Identity, error) {
	defer h.leave()
	select {
	case <-h.done:
		return h.who, h.err
	case <-ctx.Done():
		return Identity{}, fmt.Errorf("wait for a sign-in: %w", context.Cause(ctx))
	}
}

func (h *held) leave() {
	h.service.waits.exit(h.source)
	h.mu.Lock()
	h.waiters--
	last := h.waiters == 0
	h.mu.Unlock()
	if last {
		h.finish(Identity{}, refusal.New(refusal.NotAuthenticated, "the connection that waited is gone").WithHint("connect again"))
	}
}

// finish ends the wait; only the first call counts.
func (h *held) finish(who Identity, err error) {
	h.mu.Lock()
	if h.over {
		h.mu.Unlock()
		return
	}
	h.over, h.who, h.err = true, who, err
	close(h.done)
	h.mu.Unlock()
	h.timer.Stop()
	w := &h.service.waits
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.byID, holdID(h.link))
	if w.source[h.source]--; w.source[h.source] <= 0 {
		delete(w.source, h.source)
	}
	if h.purpose.Key != nil && w.byKey[keyOf(h.purpose.Key, h.source)] == h {
		delete(w.byKey, keyOf(h.purpose.Key, h.source))
	}
}

// guess compares a code that somebody typed. After the last try the wait is over; tries that come at the same time count
// before any is looked at.
func (h *held) guess(typed string) (right bool, left int) {
	h.mu.Lock()
	h.tries++
	left = maxCodeTries - h.tries
	h.mu.Unlock()
	if left >= 0 && len(typed) <= 32 {
		letters := strings.Map(func(r rune) rune {
			if strings.ContainsRune(op.CharSetBase20, r) {
				return r
			}
			return -1
		}, strings.ToUpper(typed))
		if subtle.ConstantTimeCompare([]byte(letters), []byte(strings.ReplaceAll(h.code, "-", ""))) == 1 {
			return true, maxCodeTries
		}
	}
	if left <= 0 {
		h.finish(Identity{}, refusal.New(refusal.NotAuthenticated, "the wrong code was typed three times").WithHint("connect again"))
	}
	return false, left
}

// waitsFor finds a wait that goes on by its id.
func (s *Service) waitsFor(id string) (*held, error) {
	s.waits.mu.Lock()
	h := s.waits.byID[id]
	s.waits.mu.Unlock()
	if h == nil {
		return nil, refusal.New(refusal.NotFound, "no connection waits here any more").
			WithDetail("It waits for some minutes, and only as long as the program in the terminal does").WithHint("connect again")
	}
	return h, nil
}

// take makes a wait one person's, once: whoever comes later is not signed in with it, and no key comes to stand for them.
func (h *held) take() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over || h.taken {
		return false
	}
	h.taken = true
	return true
}

// complete records the sign-in for which a connection waited, and lets the connection go on.
func (s *Service) complete(ctx context.Context, tx *store.Tx, h *held, who Identity) error {
	p := h.purpose
	more := map[string]string{"way": promptSignIn, "protocol": p.Protocol, "client": h.address, "for": p.Account + "@" + p.Target}
	if p.Key != nil {
		more["ssh_key"] = ssh.FingerprintSHA256(p.Key)
	}
	who, signIn, err := s.signInAs(ctx, tx, who, visitorOf(ctx).address, kinds{"login.succeeded", "login.refused"}, s.config.Credentials.SignIn.D(), more)
	if err != nil {
		return err
	}
	who.Method, who.Credential = promptSignIn, signIn
	if p.Key != nil {
		if who, err = s.bindKey(ctx, tx, h, who, signIn); err != nil {
			return err
		}
	}
	tx.AfterCommit(func() { h.finish(who, nil) })
	return nil
}
