package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
)

// promptAt tells whether people may sign in with a plain key while their connection to that target waits (sso). An unknown
// target is as one that does not allow it.
func (h *Handler) promptAt(a address) bool {
	if a.target == "" || a.account == "" {
		return false
	}
	target, ok := h.Grants.Target(a.target)
	return ok && target.Kind == configs.KindSSH && target.SSO
}

// plain is told that the client holds a plain key: whom it stands for, or who signs in now that it waits. A banner is the one
// thing that every client shows or at least takes before it is let in, also in batch mode.
func (p *proof) plain(meta xssh.ConnMetadata, key xssh.PublicKey) (*xssh.Permissions, error) {
	h, to := p.handler, parseAddress(meta.User())
	if !h.promptAt(to) || !authn.UsableKey(key) {
		return nil, errNotAccepted
	}
	identity, err := h.Authn.UserKey(p.ctx, key, meta.RemoteAddr())
	if errors.Is(err, authn.ErrUnboundKey) {
		identity, err = p.signIn(meta, key, to)
	}
	if err != nil {
		p.refusedSignIn = true
		if errors.Is(err, errClientGone) {
			return nil, errNotAccepted
		}
		p.told = false // about the link it was; this is why it led nowhere
		return nil, p.refuse(err)
	}
	p.identity = identity
	p.conn.known.Store(true)
	return &xssh.Permissions{}, nil
}

// signIn holds the connection until its person has signed in.
func (p *proof) signIn(meta xssh.ConnMetadata, key xssh.PublicKey, to address) (authn.Identity, error) {
	h := p.handler
	hold, err := h.Authn.Hold(authn.Purpose{
		Protocol: "SSH", Account: shown(to.account), Target: to.target, Client: string(meta.ClientVersion()), Key: key,
	}, meta.RemoteAddr())
	if err != nil {
		return authn.Identity{}, err
	}
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.conn.gone, func() { cancel(errClientGone) })()
	authn.Proven(p.conn.Conn) // it waits in a room of its own (authn.Hold), not among strangers
	err = errors.Join(
		p.conn.SetDeadline(hold.Until().Add(h.HandshakeTimeout)),
		p.banner.SendAuthBanner(fmt.Sprintf("sallyport: sign in to go on: %s\r\n  Type this code there: %s\r\n"+
			"  The page says who asks, from where, for what: go on only if that is you. This waits until %s.\r\n",
			hold.Link(), hold.Code(), hold.Until().Local().Format("15:04:05 MST"))),
	)
	if err != nil {
		cancel(errClientGone)
	}
	who, err := hold.Wait(ctx)
	return who, errors.Join(err, p.conn.SetDeadline(time.Now().Add(h.HandshakeTimeout)))
}

// errClientGone is why nobody waits any more.
var errClientGone = errors.New("the client went away while it waited")

// maxStrange is how much is read of a client that has proven nothing yet. Twenty keys with certificates, each offered and shown, are half
// of it. The library keeps what it has read and nobody takes, after a connection has failed too.
const maxStrange = 256 << 10

var errTooStrange = errors.New("the client sent too much before it proved anything")

// watched is a connection that tells when there is nothing more to read from it, and of which not much is read before it is known
// whose it is.
type watched struct {
	net.Conn
	gone context.Context // ends then
	end  context.CancelFunc
	once sync.Once

	known   atomic.Bool // whose it is
	strange int         // bytes read before; belongs to the reader
}

func watch(conn net.Conn) *watched {
	gone, end := context.WithCancel(context.Background())
	return &watched{Conn: conn, gone: gone, end: end}
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if !w.known.Load() {
		if w.strange += n; w.strange > maxStrange {
			n, err = 0, errTooStrange
		}
	}
	if err != nil {
		w.once.Do(w.end)
	}
	return n, err
}

// noPlainKeys is how a plain key is refused where none is taken.
func (p *proof) noPlainKeys() error {
	return p.refuse(refusal.New(refusal.NotAuthenticated, "sign in first: this gateway takes no plain keys").
		WithDetail("it needs a certificate, which a sign-in gives for some hours").
		WithHint("run: sallyport login --gateway %s", p.handler.URL))
}
