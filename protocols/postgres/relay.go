package postgres

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/internal/refusal"
	"sallyport/protocols/postgres/interpret"
	"sallyport/protocols/postgres/server"
	"sallyport/protocols/postgres/wire"
	"sallyport/recorder/format"
	"sallyport/session"
)

// relay is one session between a client and a target. up.go passes on what the client says, down.go what the target
// answers; one goroutine each.
type relay struct {
	handler     *Handler
	session     *session.Session
	client      *client
	startup     startup
	database    string             // the real one
	credentials server.Credentials // written before the target is dialled

	target atomic.Pointer[server.Conn] // once it is logged in
	out    clientWriter
	last   atomic.Pointer[ending] // why it ended, if from inside

	terminated atomic.Bool  // the client said goodbye (Terminate), and the target is told
	targetGone atomic.Bool  // the target has closed its end by itself
	due        atomic.Int64 // ReadyForQuery messages that are to come
	asked      int64        // and how many were asked for altogether; of the direction that asks
	unsynced   atomic.Bool  // the client sent extended messages and no Sync yet
	fatal      atomic.Bool  // the last thing the target said ends its session
	told       atomic.Bool  // the client was told something that it should be given time to read

	limits limits
}

func newRelay(h *Handler, s *session.Session, c *client, start startup, where address) *relay {
	return &relay{
		handler: h, session: s, client: c, startup: start, database: where.realDatabase(s.Opening().Target),
		out: clientWriter{client: c}, limits: limitsOf(s.Opening()),
	}
}

// run is the session from the dial to its end.
func (r *relay) run(ctx context.Context) {
	var entry *cancelEntry
	var why *ending
	if !r.handler.apart("login", func() { entry, why = r.start(ctx) }) {
		why = r.failed(errors.New("panic"))
	}
	if entry != nil {
		defer r.handler.cancels.remove(entry)
	}
	if why != nil {
		r.end(why)
		return
	}
	var other sync.WaitGroup
	other.Go(func() { r.direction(ctx, "target to client", r.down) })
	defer other.Wait()
	defer r.lookAfterClient()()
	defer r.warnBefore()()
	r.direction(ctx, "client to target", r.up)
	<-r.session.Done() // where the client has said goodbye, the target has the last word
	r.end(ended)       // waits for the farewell, which frees the other direction wherever it waits
}

// start logs in to the target and greets the client, or says why the session ends before it began.
func (r *relay) start(ctx context.Context) (*cancelEntry, *ending) {
	if err := r.connect(ctx); err != nil {
		return nil, r.notConnected(err)
	}
	if err := r.limits.suits(r.target.Load().Params); err != nil {
		return nil, r.limited(err)
	}
	entry, greeting, err := r.greeting()
	if err != nil {
		return nil, r.failed(err)
	}
	if err := r.out.write(greeting, boundary{ready: true, status: 'I'}); err != nil {
		return entry, clientClosed
	}
	return entry, nil
}

// lookInterval is how often a session looks whether its client's connection was reset unnoticed.
const lookInterval = 15 * time.Second

// lookAfterClient looks from time to time until stop is called.
func (r *relay) lookAfterClient() (stop func()) {
	var mu sync.Mutex
	var over bool
	var timer *time.Timer
	look := func() {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case over:
		case r.client.ahead.Broken():
			_ = r.client.raw.SetReadDeadline(time.Unix(1, 0)) // the reader finds the rest
		default:
			timer.Reset(lookInterval)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(lookInterval, look)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}

// ending is why a session ended from inside, and the last message for a client that does not know yet.
type ending struct {
	session.Ending
	last []byte
}

var (
	// undecided is what a direction returns that leaves the ending to the other one.
	undecided *ending
	// ended is the ending of a session that somebody else has ended.
	ended        = &ending{}
	clientClosed = &ending{Ending: session.Ending{Reason: session.EndClientClosed, Sentence: "the client closed the connection"}}
)

// end ends the session from inside, unless it has ended already, and waits for the farewell.
func (r *relay) end(why *ending) {
	r.last.CompareAndSwap(nil, why)
	r.session.End(why.Ending)
}

// direction runs one direction, ends the session with what it says unless it leaves that to the other one, and keeps a panic
// in it to this session.
func (r *relay) direction(ctx context.Context, name string, f func(context.Context) *ending) {
	defer r.handler.recovered(name, func() { r.end(r.failed(errors.New("panic"))) })
	if why := f(ctx); why != undecided {
		r.end(why)
	}
}

// connect logs in to the target.
func (r *relay) connect(ctx context.Context) error {
	opening := r.session.Opening()
	var err error
	if r.credentials, err = server.CredentialsOf(ctx, opening.Target, opening.Account); err != nil {
		return err
	}
	// The parameters a later confirmation of the end logs in with are the gateway's own; see cut.go.
	login := r.credentials
	if opening.Account.Ephemeral {
		var done func()
		if login, done, err = r.roleFor(ctx, login); err != nil {
			return err
		}
		defer done()
		r.credentials.User = login.User // its password is good for this one login
	}
	login.Params = r.parameters(opening.Target.Address)
	return r.session.Dial(ctx, func(conn net.Conn) error {
		b, err := server.Login(conn, login)
		if err != nil {
			return err
		}
		r.handler.versions.Store(opening.Target.Address, b.Version())
		r.target.Store(b)
		return nil
	})
}

// parameters are what the target's StartupMessage has beside the user.
func (r *relay) parameters(targetAddress string) []wire.Param {
	params := []wire.Param{{Name: "database", Value: r.database}}
	if r.startup.replication != "" {
		params = append(params, wire.Param{Name: "replication", Value: r.startup.replication})
	}
	params = append(params, r.startup.settings...)
	if r.limits.readOnly { // the last one counts
		params = append(params, wire.Param{Name: readOnlySetting, Value: "on"})
	}
	// A server of 14 and later then finds out by itself, while a statement runs, that the gateway is gone. An older one
	// would refuse the whole login, so it is asked for only where the version was seen before.
	if version, ok := r.handler.versions.Load(targetAddress); ok && version.(int) >= 14 {
		params = append(params, wire.Param{Name: "client_connection_check_interval", Value: "1000"})
	}
	return params
}

// notConnected is the ending of a session that never reached its target.
func (r *relay) notConnected(err error) *ending {
	select {
	case <-r.session.Done():
		return ended
	default:
	}
	t := r.session.Opening().Target
	if refused, ok := errors.AsType[*server.Error](err); ok && !strings.HasPrefix(refused.Response.Code, "28") {
		// A database that does not exist, too many connections, a server that is starting: the client knows these.
		return &ending{session.Ending{Reason: session.EndRefused, Sentence: refused.Error()}, refused.Frame}
	}
	r.handler.log.Warn("target failed", "target", t.Name, "session", r.session.ID(), "error", err)
	answer := refusal.Of(err)
	if answer == nil {
		answer = refusal.New(refusal.TargetFailed, "target %s could not be used", t.Name)
	}
	return &ending{session.Ending{Reason: session.EndTargetFailed, Sentence: answer.Error()}, appendRefusal(nil, answer)}
}

// failed is the ending where the gateway itself could not go on.
func (r *relay) failed(err error) *ending {
	r.handler.log.Error("a session failed", "session", r.session.ID(), "error", err)
	last := appendFatal(nil, stateInternal, "the gateway failed", "The reason is in the gateway's own log.", "")
	return &ending{session.Ending{Reason: session.EndTargetFailed, Sentence: "the gateway failed"}, last}
}

// greeting records what connection stands and makes the client's answer: what the target said, but with a key of the
// gateway's own in place of the secret that cancels. The process id is the real one, as clients compare it.
func (r *relay) greeting() (*cancelEntry, []byte, error) {
	b := r.target.Load()
	err := r.session.Connected(format.Connected{
		Local: b.LocalAddr().String(), Remote: b.RemoteAddr().String(), BackendPID: b.Key.PID,
		Server: b.Params["server_version"],
	})
	if err != nil {
		return nil, nil, err
	}
	fields := map[string]string{"database": r.database, "user": r.credentials.User}
	for _, p := range r.startup.settings {
		fields["setting "+p.Name] = p.Value
	}
	if r.startup.replication != "" {
		fields["replication"] = r.startup.replication
	}
	note := format.JSON(format.TypeNote, 0, format.Note{Kind: noteStartup, Text: "connected to database " + r.database, Fields: fields})
	said := format.Event{Type: interpret.TypeServer, Data: append(append([]byte{}, b.Greeted...), b.Ready...)}
	if err := r.session.Observe(note, said); err != nil {
		return nil, nil, err
	}
	// A server before 18 speaks 3.0 alone and has clients know so: what stands between does not promise more, unless it
	// had to speak before it knew.
	welcome := r.startup
	if v := b.Version(); v > 0 && v < 18 && welcome.version > wire.Version30 && !r.client.welcomed {
		welcome.version, welcome.tell = wire.Version30, true
	}
	entry, err := r.handler.cancels.add(r, b.Key, welcome.version)
	if err != nil {
		return nil, nil, err
	}
	var message []byte
	if !r.client.welcomed {
		message = appendWelcome(message, welcome)
	}
	message = append(message, b.Greeted...)
	message = wire.AppendKeyData(message, entry.given)
	return entry, append(message, b.Ready...), nil
}

// noteStartup is the kind of the note that says what was asked of the target at the start.
const noteStartup = "postgres.startup"

// close ends what is left of the client's connection.
func (r *relay) close() {
	r.tell(r.lastWords(r.session.Ending())) // in case it was cut before it had a farewell
	if r.told.Load() {
		r.client.linger()
	}
	_ = r.client.raw.SetWriteDeadline(time.Now().Add(lingerTime))
	_ = r.client.conn.Close()
}
