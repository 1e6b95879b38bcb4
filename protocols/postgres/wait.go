package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgproto3/v2"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/protocols/postgres/wire"
)

// This file holds what a client waits for before its session: a sign-in at the prompt, and an approval.

// promptWait is how long those wait for an approval who signed in at the prompt: there is a person in front of it.
const promptWait = 5 * time.Minute

// lease finds a lease for the client. It waits for one where the client's start-up settings say that it can, and tells it
// so by notices; everybody else is told at once what is missing.
func (h *Handler) lease(ctx context.Context, c *client, who authn.Identity, target string, s startup, atPrompt bool) (*grant.Lease, error) {
	within := s.own.wait
	if atPrompt && !s.own.waits {
		within = promptWait
	}
	ctx = grant.WithSource(ctx, c.raw.RemoteAddr())
	if within <= 0 {
		return h.grants.Lease(ctx, who, target, s.user)
	}
	ctx, listen := h.patient(ctx, c)
	defer c.wake()
	ask := grant.Ask{Reason: s.own.reason, Duration: s.own.duration, Ticket: s.own.ticket}
	lease, err := h.grants.LeaseOrWait(ctx, who, target, s.user, within, ask, func(w grant.Waiting) error {
		if err := c.welcome(s); err != nil {
			return err
		}
		detail := fmt.Sprintf("The reason given is: %s", w.Grant.Reason)
		if w.Grant.ID == "" {
			detail = "Ask here: " + strings.TrimSuffix(h.url, "/") + "/console/ask?" + url.Values{"target": {w.Target}, "account": {w.Account}}.Encode()
		}
		hint := fmt.Sprintf("The prompt appears when it is there; Ctrl-C stops waiting, which ends by itself at %s.", w.Until.Local().Format("15:04:05 MST"))
		if err := c.notice(w.Text(), detail, hint); err != nil {
			return err
		}
		return listen()
	})
	if errors.Is(err, errClientGone) {
		return nil, refusal.New(refusal.NoGrant, "the client went away while it waited for a grant").Because(err)
	}
	return lease, err
}

// promptID stands behind the plus sign where somebody wants to sign in while the connection waits: app+sso. No password's
// id is that short.
const promptID = "sso"

// noticeTime is how long a client may take to read a notice.
const noticeTime = 10 * time.Second

// identifyAtPrompt is who it is by a sign-in in the browser while the connection waits, for which the client must be let in
// first: a notice before AuthenticationOk breaks libpq. So the client is told that it is authenticated before it is; all
// that it gets for it is words.
func (h *Handler) identifyAtPrompt(ctx context.Context, c *client, s startup, where address, account string) (authn.Identity, error) {
	// An unknown target sounds as one that does not allow it.
	target, ok := h.grants.Target(where.target)
	if !ok || target.Kind != configs.KindPostgres || !target.SSO {
		return authn.Identity{}, strange(strangerPrompt, refusal.New(refusal.NotAuthenticated, "signing in at the prompt is not possible here").
			WithDetail("No target of that name allows it (sso: true).").
			WithHint("sign in with: sallyport login --gateway %s, and connect with: psql service=TARGET; or see %s/connect", h.url, h.url))
	}
	if _, ok := authn.PurposeScope(account, target.Name); !ok {
		return authn.Identity{}, strange(strangerPrompt, refusal.New(refusal.NotAuthenticated, "the user's name is not ACCOUNT+sso"))
	}
	hold, err := h.authn.Hold(authn.Purpose{Protocol: "PostgreSQL", Account: account, Target: target.Name, Client: s.application}, c.raw.RemoteAddr())
	if err != nil {
		return authn.Identity{}, asPromptStranger(err)
	}
	authn.Proven(c.raw) // it waits in a room of its own (authn.Hold), not among strangers
	ctx, listen := h.patient(ctx, c)
	if err := errors.Join(c.welcome(s), c.notice(
		fmt.Sprintf("sign in to go on: %s", hold.Link()),
		fmt.Sprintf("Type this code there: %s. The page says who asks, from where, for what: go on only if that is you.", hold.Code()),
		fmt.Sprintf("The prompt appears once you have signed in; until %s.", hold.Until().Local().Format("15:04:05 MST")),
	), listen()); err != nil {
		over, cancel := context.WithCancelCause(ctx)
		cancel(err)
		ctx = over
	}
	who, err := hold.Wait(ctx)
	c.wake()
	if err == nil {
		err = c.raw.SetDeadline(time.Now().Add(h.timeout))
	}
	return who, asPromptStranger(err)
}

func asPromptStranger(err error) error {
	if r := refusal.Of(err); r != nil {
		return strange(strangerPrompt, r)
	}
	if errors.Is(err, errClientGone) {
		return clientGone(err)
	}
	return err
}

// welcome lets the client in. The session's greeting does so where nothing has before.
func (c *client) welcome(s startup) error {
	if c.welcomed {
		return nil
	}
	c.welcomed = true
	if _, err := c.conn.Write(appendWelcome(nil, s)); err != nil {
		return clientGone(err)
	}
	return nil
}

func appendWelcome(b []byte, s startup) []byte {
	if s.tell {
		b = wire.AppendNegotiate(b, s.version, s.unknown)
	}
	return append(b, 'R', 0, 0, 0, 8, 0, 0, 0, 0) // AuthenticationOk
}

// notice tells the client something before its session begins.
func (c *client) notice(message, detail, hint string) error {
	frame, err := (&pgproto3.NoticeResponse{Severity: "NOTICE", SeverityUnlocalized: "NOTICE", Code: "00000", Message: message, Detail: detail, Hint: hint}).Encode(nil)
	if err != nil {
		return err
	}
	if err := c.raw.SetWriteDeadline(time.Now().Add(noticeTime)); err != nil {
		return err
	}
	if _, err := c.conn.Write(frame); err != nil {
		return clientGone(err)
	}
	return c.raw.SetWriteDeadline(time.Time{})
}

// errClientGone is the cause of a wait's end that nobody waits for any more.
var errClientGone = errors.New("the client went away while it waited")

// patient is a context for something that a client waits for, before its session begins; it ends when the client hangs up
// after listen was called. The client may be silent from then on until wake is called, which must be.
func (h *Handler) patient(ctx context.Context, c *client) (waiting context.Context, listen func() error) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, func() error {
		if c.listening != nil {
			return nil
		}
		if err := c.raw.SetDeadline(time.Time{}); err != nil {
			return err
		}
		listening := make(chan struct{})
		c.listening = listening
		go func() {
			defer close(listening)
			defer h.recovered("waiting", func() { cancel(errClientGone) })
			var first [1]byte
			n, err := c.conn.Read(first[:])
			timeout, _ := errors.AsType[net.Error](err)
			switch {
			case n == 1 && first[0] != 'X': // it is ahead of us; Terminate is no way to be
				c.early = first[:]
			case n == 1 || timeout == nil || !timeout.Timeout():
				cancel(errClientGone)
			}
		}()
		return nil
	}
}

// wake ends the listening that patient's listen began, and puts back what the client said meanwhile.
func (c *client) wake() {
	if c.listening == nil {
		return
	}
	_ = c.raw.SetReadDeadline(time.Unix(1, 0)) // a connection without deadlines is closed already
	<-c.listening
	_ = c.raw.SetReadDeadline(time.Time{})
	c.listening = nil
	if c.early != nil {
		c.conn, c.early = &ahead{Conn: c.conn, early: c.early}, nil
	}
}

// ahead is a connection of which something was read already.
type ahead struct {
	net.Conn
	early []byte
}

func (a *ahead) Read(b []byte) (int, error) {
	if len(a.early) == 0 || len(b) == 0 {
		return a.Conn.Read(b)
	}
	n := copy(b, a.early)
	a.early = a.early[n:]
	return n, nil
}

func (a *ahead) CloseWrite() error {
	if half, ok := a.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
