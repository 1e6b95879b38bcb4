// Package slack asks people in a Slack workspace to decide, and takes their clicks as votes.
//
// What it promises beside what package approval does:
//
//   - Nobody has to reach the gateway: clicks come over a WebSocket that the gateway opens (Socket Mode), which is opened
//     again, ever more slowly, however long Slack is away.
//   - A click is a wish of one member of one workspace. It becomes a vote only if the configuration links that member to an
//     identity, the member is no guest, bot or stranger and not deactivated, and the person is signed in at the gateway.
//   - What is decided on is what the gateway says it is: buttons carry an authenticated name of the grant and of what was
//     asked (the request, or its n-th extension), must stand in the message that the gateway itself last sent on it, and lead
//     to a form that is filled from the gateway's own record. So clicks that are late, double, copied or reordered are harmless.
//   - Text that people wrote is never markup: nothing in a reason mentions a channel or looks like a link of ours.
package slack

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	slackgo "github.com/slack-go/slack"
	"github.com/slack-go/slack/socketmode"

	"sallyport/authn/secrets"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/approval"
	"sallyport/grant/policy"
	"sallyport/internal/store"
)

const (
	timeout   = 10 * time.Second // of one call to Slack
	clickTime = 2500 * time.Millisecond
	memberFor = time.Minute // how long what Slack says of a member is believed
	atOnce    = 16          // clicks that are worked on at a time; Slack sends again those that are not acknowledged
	readLimit = 1 << 20     // bytes of a message that comes in
	mostText  = 1000        // characters of what phones show of a message
	settle    = time.Minute // until a message that was sent is noted, at the latest
)

// Slack is one workspace. Safe for concurrent use.
type Slack struct {
	config configs.Slack
	url    string // the gateway's
	key    []byte // of what buttons carry
	store  *store.Store
	voter  *approval.Voter
	target func(string) (configs.Target, bool)
	log    *slog.Logger
	now    func() time.Time

	api     *slackgo.Client
	socket  func() *socketmode.Client
	retry   time.Duration // before the connection is tried again after Slack refused it
	working chan struct{}

	mu        sync.Mutex
	workspace string            // its id, once it is known
	members   map[string]member // by id

	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// Options configure Open.
type Options struct {
	Config configs.Slack
	URL    string // the gateway's public address
	Store  *store.Store
	Voter  *approval.Voter
	// Target finds a target by name, for what is shown of it.
	Target func(name string) (configs.Target, bool)
	Log    *slog.Logger
	Now    func() time.Time // there for tests; default: the system's
	// Silence is how long the connection may be without a sign of life before it is opened anew; default: 30 s.
	Silence time.Duration
}

// Open reads the tokens and starts to listen. That Slack is away is no error.
func Open(ctx context.Context, o Options) (*Slack, error) {
	s := &Slack{config: o.Config, url: o.URL, store: o.Store, voter: o.Voter, target: o.Target, log: o.Log, now: o.Now,
		members: map[string]member{}, working: make(chan struct{}, atOnce), retry: time.Minute}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if o.Silence == 0 {
		o.Silence = 30 * time.Second
	}
	fail := func(err error) (*Slack, error) { return nil, fmt.Errorf("slack %s: %w", o.Config.Name, err) }
	app, err := secrets.Resolve(ctx, o.Config.AppToken)
	if err != nil {
		return fail(err)
	}
	bot, err := secrets.Resolve(ctx, o.Config.BotToken)
	if err != nil {
		return fail(err)
	}
	app, bot = strings.TrimSpace(app), strings.TrimSpace(bot)
	if !strings.HasPrefix(app, "xapp-") || !strings.HasPrefix(bot, "xoxb-") {
		return fail(errors.New("app_token begins with xapp- and bot_token with xoxb-; these do not"))
	}
	mac := hmac.New(sha256.New, []byte(app))
	mac.Write([]byte("sallyport: what buttons in Slack carry"))
	s.key = mac.Sum(nil)
	client := &http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	quiet := log.New(io.Discard, "", 0) // what it would say is told by events
	s.api = slackgo.New(bot, slackgo.OptionAppLevelToken(app), slackgo.OptionAPIURL(o.Config.API), slackgo.OptionHTTPClient(client), slackgo.OptionLog(quiet))
	s.socket = func() *socketmode.Client {
		return socketmode.New(s.api, socketmode.OptionReadLimit(readLimit), socketmode.OptionPingInterval(o.Silence), socketmode.OptionLog(quiet))
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.stopped.Go(func() { s.listen(background) })
	return s, nil
}

// Close stops listening.
func (s *Slack) Close() {
	s.stop()
	s.stopped.Wait()
}

// Name implements approval.Channel.
func (s *Slack) Name() string { return "slack/" + s.config.Name }

// Wants implements approval.Channel.
func (s *Slack) Wants(grant.EventKind) bool { return true }

// Deliver implements approval.Channel: a message for each thing that people are to decide, kept up to date until the end.
// What the policy approves by itself is not shown, for nobody has to do anything; but an emergency is, and loudly.
func (s *Slack) Deliver(ctx context.Context, n approval.Notice) (string, error) {
	if n.Alert != nil {
		alarm := slackgo.NewSectionBlock(plain("\U0001F6A8 "+n.Alert.Text()), nil, nil) // plain, for it quotes what strangers chose
		_, _, err := s.api.PostMessageContext(ctx, s.config.Channel, slackgo.MsgOptionText(clip(n.Alert.Text(), mostText), true), slackgo.MsgOptionBlocks(alarm), slackgo.MsgOptionDisableLinkUnfurl())
		if err != nil {
			return "", failed(err)
		}
		s.tellThem(ctx, n.Alert.Event)
		return "", nil
	}
	stage := n.Kind == grant.EventStage && n.Grant.Round() >= 0
	asked := n.Kind == grant.EventRequested && n.Grant.Round() >= 0 || n.Kind == grant.EventAlarm || stage
	if !asked && n.Ref == "" {
		return "", nil
	}
	text := slackgo.MsgOptionText(clip(s.headline(n.Event), mostText), true)
	quiet := slackgo.MsgOptionDisableLinkUnfurl()
	var before []string // messages to the people of earlier stages, which are kept up to date too, without buttons to decide
	if n.Ref != "" && (stage || !asked) {
		before = strings.Split(n.Ref, ";")
	}
	if !asked {
		latest, rest := before[0], before[1:]
		before = rest
		if err := s.update(ctx, latest, text, s.blocks(n.Event, true)); err != nil {
			return "", err
		}
	}
	for _, m := range before {
		err := s.update(ctx, m, text, s.blocks(n.Event, false))
		if _, gone := errors.AsType[approval.Permanent](err); err != nil && !gone { // those who decide have one of their own
			return "", err
		}
	}
	if !asked {
		return "", nil
	}
	channel, at, err := s.api.PostMessageContext(ctx, s.channelFor(n.Grant), text, slackgo.MsgOptionBlocks(s.blocks(n.Event, true)...), quiet)
	if err != nil {
		return "", failed(err)
	}
	return strings.Join(append([]string{channel + " " + at}, before[:min(len(before), mostMessages-1)]...), ";"), nil
}

// ownKeys are the events about somebody's enrolled keys, of which they are to know themselves: it may not have been them.
var ownKeys = map[string]string{
	"key.enrolled":    "A key was enrolled for you, with which one signs in as you in an emergency",
	"login.emergency": "Somebody signed in as you with an enrolled key, while the company's provider does not answer",
	"key.cloned":      "An enrolled key of yours was suspended, for there may be two of it",
}

// tellThem tells the person of such an event in a message to them alone, where the configuration links them to a member. The channel
// has been told; that this can't be is logged, and no reason to tell the channel again.
func (s *Slack) tellThem(ctx context.Context, e store.AuditEvent) {
	what := ownKeys[e.Kind]
	if what == "" {
		return
	}
	workspace, err := s.home(ctx)
	for _, p := range s.voter.Grants.People() {
		of, member, _ := strings.Cut(p.Slack, "/")
		if err != nil || member == "" || of != workspace || p.Issuer+" "+p.Subject != e.Actor {
			continue
		}
		text := plain(what + " (from " + e.Client + "). If that was not you, remove it in the console under Your keys, and tell those who run the gateway.")
		_, _, err = s.api.PostMessageContext(ctx, member, slackgo.MsgOptionText(text.Text, true), slackgo.MsgOptionBlocks(slackgo.NewSectionBlock(text, nil, nil)), slackgo.MsgOptionDisableLinkUnfurl())
	}
	if err != nil {
		s.log.Warn("somebody could not be told in Slack what happened to their keys", "identity", e.Actor, "event", e.Kind, "error", err)
	}
}

// mostMessages bounds the messages on one request that are kept up to date: each stage that opens has one.
const mostMessages = 10

// latest is the message that asks the people who are to decide now.
func latest(ref string) string {
	first, _, _ := strings.Cut(ref, ";")
	return first
}

// update writes a message anew.
func (s *Slack) update(ctx context.Context, message string, text slackgo.MsgOption, blocks []slackgo.Block) error {
	channel, at, _ := strings.Cut(message, " ")
	_, _, _, err := s.api.UpdateMessageContext(ctx, channel, at, text, slackgo.MsgOptionBlocks(blocks...))
	if e, ok := errors.AsType[slackgo.SlackErrorResponse](err); ok && slices.Contains([]string{"message_not_found", "channel_not_found", "cant_update_message"}, e.Err) {
		return approval.Permanent{Err: fmt.Errorf("slack: the message can't be updated: %s", e.Err)} // somebody has deleted it
	}
	if err != nil {
		return failed(err)
	}
	return nil
}

// failed says whether and when to try again.
func failed(err error) error {
	if limited, ok := errors.AsType[*slackgo.RateLimitedError](err); ok {
		return approval.RetryAfter{Err: err, After: limited.RetryAfter}
	}
	if e, ok := errors.AsType[slackgo.SlackErrorResponse](err); ok {
		// Everything else, such as a channel that the app was not invited to, somebody can put right meanwhile.
		if slices.Contains([]string{"invalid_blocks", "invalid_blocks_format", "msg_too_long", "msg_blocks_too_long", "no_text"}, e.Err) {
			return approval.Permanent{Err: fmt.Errorf("slack answered: %s", e.Err)}
		}
		return fmt.Errorf("slack answered: %s", e.Err)
	}
	return err
}

// channelFor is where those who decide are asked.
func (s *Slack) channelFor(g grant.Grant) string {
	groups := g.Asked()
	for _, c := range s.config.Channels {
		if policy.InAny(c.Groups, groups) {
			return c.Channel
		}
	}
	return s.config.Channel
}
