package slack

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	slackgo "github.com/slack-go/slack"
	"github.com/slack-go/slack/socketmode"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/approval"
	"sallyport/grant/policy"
	"sallyport/internal/refusal"
)

// listen keeps a connection to Slack until ctx ends.
func (s *Slack) listen(ctx context.Context) {
	for ctx.Err() == nil {
		client := s.socket()
		run, end := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-run.Done():
					return
				case e := <-client.Events:
					s.take(ctx, client, e)
				}
			}
		}()
		err := client.RunContext(run) // connects again by itself, unless Slack refuses the token
		end()
		<-done
		if ctx.Err() != nil {
			return
		}
		s.log.Error("slack does not let the gateway listen; it is tried again", "channel", s.Name(), "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(s.retry):
		}
	}
}

// take takes one event from the connection. What is not acknowledged, Slack sends again.
func (s *Slack) take(ctx context.Context, client *socketmode.Client, e socketmode.Event) {
	switch e.Type {
	case socketmode.EventTypeConnectionError:
		if failed, ok := e.Data.(*slackgo.ConnectionErrorEvent); ok {
			s.log.Warn("no connection to slack", "channel", s.Name(), "attempt", failed.Attempt, "again_in", failed.Backoff, "error", failed.ErrorObj)
		}
		return
	case socketmode.EventTypeConnected:
		s.log.Info("connected to slack", "channel", s.Name())
		return
	}
	if e.Request == nil || e.Request.EnvelopeID == "" {
		return
	}
	call, ok := e.Data.(slackgo.InteractionCallback)
	acknowledge := func(payload any) {
		limited, cancel := context.WithTimeout(ctx, clickTime)
		defer cancel()
		if err := client.AckCtx(limited, e.Request.EnvelopeID, payload); err != nil && ctx.Err() == nil {
			s.log.Warn("acknowledge to slack", "channel", s.Name(), "error", err)
		}
	}
	if !ok || call.Type != slackgo.InteractionTypeBlockActions && call.Type != slackgo.InteractionTypeViewSubmission {
		acknowledge(nil) // nothing of ours
		return
	}
	select {
	case s.working <- struct{}{}:
	default:
		return // too many at once: it comes again
	}
	s.stopped.Go(func() {
		defer func() { <-s.working }()
		defer func() {
			if cause := recover(); cause != nil { // what others send must not end the gateway; Slack sends it again
				s.log.Error("a click in slack panicked", "channel", s.Name(), "cause", cause, "stack", string(debug.Stack()))
			}
		}()
		if call.Type == slackgo.InteractionTypeBlockActions {
			acknowledge(nil)
			s.click(ctx, call)
			return
		}
		acknowledge(slackgo.NewUpdateViewSubmissionResponse(said(s.submit(ctx, call))))
	})
}

// click answers a button with a form, or with why not, which only the one who pressed it sees.
func (s *Slack) click(ctx context.Context, call slackgo.InteractionCallback) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, a := range call.ActionCallback.BlockActions {
		if a.ActionID != approveAction && a.ActionID != denyAction {
			continue // a link, which needs nothing
		}
		err := s.ask(ctx, call, a.Value)
		if err == nil {
			continue
		}
		if _, err := s.api.PostEphemeralContext(ctx, call.Container.ChannelID, call.User.ID, slackgo.MsgOptionText(s.words(err), true)); err != nil {
			s.log.Warn("answer a click in slack", "channel", s.Name(), "error", err)
		}
	}
}

// ask opens the form.
func (s *Slack) ask(ctx context.Context, call slackgo.InteractionCallback, value string) error {
	c, ok := s.unseal(value)
	if !ok {
		return refusal.New(refusal.Conflict, "that button is none of this gateway's, or too old").WithHint("decide in the gateway's console: %s/console/inbox", s.url)
	}
	ref, err := approval.Ref(ctx, s.store, s.Name(), c.Grant)
	if err != nil {
		return err
	}
	if latest(ref) != call.Container.ChannelID+" "+call.Container.MessageTs {
		s.retire(ctx, call, c.Grant)
		return refusal.New(refusal.Conflict, "that is not the latest message on grant %s", c.Grant).WithHint("use that one, or the gateway's console: %s/console/requests/%s", s.url, c.Grant)
	}
	person, err := s.person(ctx, call, c, "")
	if err != nil {
		return err
	}
	who, err := s.voter.SignedIn(ctx, person.Issuer, person.Subject, s.Name())
	if r := refusal.Of(err); r != nil {
		return refusal.New(r.Code, "you can't decide while you are not signed in at the gateway").WithDetail("%s", r.Message).
			WithHint("sign in with: sallyport login, or at %s/console/", s.url)
	} else if err != nil {
		return err
	}
	g, err := s.voter.Grants.Get(ctx, who, c.Grant)
	if err != nil {
		return err
	}
	switch {
	case g.Round() != c.Round:
		return refusal.New(refusal.Conflict, "that is decided already").WithDetail("grant %s is %s", g.ID, g.State)
	case c.Approve && c.Stage > 0 && g.Stage() != c.Stage:
		return refusal.New(refusal.Conflict, "that stage is not the one that waits").WithDetail("grant %s is at stage %d now", g.ID, g.Stage())
	}
	_, err = s.api.OpenViewContext(ctx, call.TriggerID, s.form(g, c))
	return err
}

// retire takes the buttons off a message of which nobody keeps a note: one that was sent twice, because the gateway died before it
// had noted the first. What is said on it is true of any message that is not noted, whoever has pressed its button.
func (s *Slack) retire(ctx context.Context, call slackgo.InteractionCallback, grantID string) {
	seconds, err := strconv.ParseFloat(call.Container.MessageTs, 64)
	if err != nil || s.now().Sub(time.Unix(int64(seconds), 0)) < settle {
		return // it may be about to be noted
	}
	noted, err := approval.Noted(ctx, s.store, s.Name(), call.Container.ChannelID+" "+call.Container.MessageTs)
	if err == nil && noted {
		return // about something else, or of an earlier stage: it is kept up to date
	}
	text := "This message is out of date. The latest on grant " + grantID + " stands below, or in the console."
	if err == nil {
		open := slackgo.NewButtonBlockElement(openAction, grantID, plain("Open in the console")).WithURL(s.url + "/console/requests/" + grantID)
		err = s.update(ctx, call.Container.ChannelID+" "+call.Container.MessageTs, slackgo.MsgOptionText(text, true),
			[]slackgo.Block{slackgo.NewSectionBlock(plain(text), nil, nil), slackgo.NewActionBlock("open", open)})
	}
	if err != nil {
		s.log.Warn("take the buttons off a message in slack that is out of date", "channel", s.Name(), "error", err)
	}
}

// submit casts the vote of who filled in the form, and says what came of it.
func (s *Slack) submit(ctx context.Context, call slackgo.InteractionCallback) string {
	ctx, cancel := context.WithTimeout(ctx, clickTime)
	defer cancel()
	c, ok := s.unseal(call.View.PrivateMetadata)
	if !ok || call.View.CallbackID != voteForm {
		return "That form is none of this gateway's, or too old. Decide in its console."
	}
	comment := ""
	if call.View.State != nil {
		comment = call.View.State.Values[commentBlock][commentBlock].Value
	}
	person, err := s.person(ctx, call, c, comment)
	if err != nil {
		return s.words(err)
	}
	g, err := s.voter.Vote(ctx, person, s.word(call, c, comment))
	if err != nil {
		return s.words(err)
	}
	switch {
	case !c.Approve:
		return fmt.Sprintf("You have denied it. Grant %s is %s.", g.ID, g.State)
	case g.State == grant.Pending || g.Extension != nil:
		text := fmt.Sprintf("Your approval of grant %s counts; others have to approve it too", g.ID)
		if asked := g.Asked(); g.Stage() != c.Stage {
			return text + ", of " + policy.Or(asked) + "."
		}
		return text + "."
	}
	return fmt.Sprintf("You have approved it. Grant %s is %s.", g.ID, g.State)
}

func (s *Slack) word(call slackgo.InteractionCallback, c choice, comment string) approval.Decision {
	return approval.Decision{Grant: c.Grant, Round: &c.Round, Stage: c.Stage, Approve: c.Approve, Comment: comment, Through: s.Name(), Account: call.Team.ID + "/" + call.User.ID}
}

// words are a refusal for the one whose click it was; what else went wrong, the gateway's log says.
func (s *Slack) words(err error) string {
	r := refusal.Of(err)
	if r == nil {
		s.log.Error("a click in slack", "channel", s.Name(), "error", err)
		return "That did not work just now. Try again, or decide in the gateway's console: " + s.url + "/console/inbox"
	}
	text := r.Message
	for _, more := range []string{r.Detail, r.Hint} {
		if more != "" {
			text += ". " + more
		}
	}
	return text
}

// member is what Slack says of a member, and when it did.
type member struct {
	why string // they may not decide; empty: they may
	at  time.Time
}

// person is the identity that a click is linked to.
func (s *Slack) person(ctx context.Context, call slackgo.InteractionCallback, c choice, comment string) (configs.LinkedPerson, error) {
	workspace, err := s.home(ctx)
	if err != nil {
		return configs.LinkedPerson{}, err
	}
	if call.Team.ID != workspace || call.User.TeamID != "" && call.User.TeamID != workspace {
		return configs.LinkedPerson{}, s.voter.Stranger(ctx, s.word(call, c, comment))
	}
	person, linked := s.voter.BySlack(workspace, call.User.ID)
	if !linked {
		return configs.LinkedPerson{}, s.voter.Stranger(ctx, s.word(call, c, comment))
	}
	why, err := s.standing(ctx, workspace, call.User.ID)
	if err != nil {
		return configs.LinkedPerson{}, err
	}
	if why != "" {
		return configs.LinkedPerson{}, errors.Join(refusal.New(refusal.NotPermitted, "that account can't decide: it is %s", why), s.voter.Stranger(ctx, s.word(call, c, comment)))
	}
	return person, nil
}

// home is the workspace's id.
func (s *Slack) home(ctx context.Context) (string, error) {
	s.mu.Lock()
	known := s.workspace
	s.mu.Unlock()
	if known != "" {
		return known, nil
	}
	me, err := s.api.AuthTestContext(ctx)
	if err != nil {
		return "", fmt.Errorf("ask slack which workspace it is: %w", err)
	}
	if me.TeamID == "" {
		return "", errors.New("slack does not say which workspace it is")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workspace = me.TeamID
	return me.TeamID, nil
}

// standing asks Slack why a member may not decide; empty: they may.
func (s *Slack) standing(ctx context.Context, workspace, id string) (string, error) {
	s.mu.Lock()
	m, known := s.members[id]
	s.mu.Unlock()
	if age := s.now().Sub(m.at); known && age >= 0 && age < memberFor {
		return m.why, nil
	}
	u, err := s.api.GetUserInfoContext(ctx, id)
	if err != nil {
		return "", fmt.Errorf("ask slack about a member: %w", err)
	}
	m = member{at: s.now()}
	switch {
	case u.ID != id || u.TeamID != "" && u.TeamID != workspace || u.IsStranger:
		m.why = "of another workspace"
	case u.Deleted:
		m.why = "deactivated"
	case u.IsRestricted || u.IsUltraRestricted || u.IsInvitedUser:
		m.why = "a guest's"
	case u.IsBot || u.IsWorkflowBot || u.IsConnectorBot:
		m.why = "a bot's"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.members) > 10_000 {
		clear(s.members)
	}
	s.members[id] = m
	return m.why, nil
}

var _ approval.Channel = (*Slack)(nil)
