//go:build unix

package main

import (
	"context"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/approval"
	"sallyport/grant/approval/jira"
	"sallyport/grant/approval/slack"
	"sallyport/grant/approval/webhook"
)

// approvals are the gateway's channels to those who decide.
type approvals struct {
	notifier *approval.Notifier
	webhooks map[string]*webhook.Webhook
	slack    []*slack.Slack
}

func openApprovals(ctx context.Context, g *gateway, config *configs.Config) (*approvals, error) {
	a := &approvals{webhooks: map[string]*webhook.Webhook{}}
	voter := &approval.Voter{Store: g.store, Grants: g.grants, SignedIn: g.authn.SignedIn}
	var channels []approval.Channel
	for _, c := range config.Approvals.Webhooks {
		w, err := webhook.Open(ctx, webhook.Options{Config: c, URL: config.URL, Store: g.store, Voter: voter})
		if err != nil {
			return nil, err
		}
		a.webhooks[c.Name] = w
		channels = append(channels, w)
	}
	for _, c := range config.Approvals.Jira {
		if !c.Comment {
			continue
		}
		j, err := jira.Open(c, config.URL)
		if err != nil {
			return nil, err
		}
		channels = append(channels, j)
	}
	for _, c := range config.Approvals.Slack {
		s, err := slack.Open(ctx, slack.Options{Config: c, URL: config.URL, Store: g.store, Voter: voter, Target: g.grants.Target, Log: g.log})
		if err != nil {
			a.close()
			return nil, err
		}
		a.slack = append(a.slack, s)
		channels = append(channels, s)
	}
	var err error
	a.notifier, err = approval.Open(ctx, approval.Options{Store: g.store, Channels: channels, Log: g.log})
	return a, err
}

// decide takes a decision that a webhook has signed. A stranger is not told which there are.
func (a *approvals) decide(ctx context.Context, name, id, timestamp, signature string, body []byte) (grant.Grant, error) {
	w, ok := a.webhooks[name]
	if !ok {
		return grant.Grant{}, webhook.Unsigned()
	}
	return w.Receive(ctx, webhook.Headers{ID: id, Timestamp: timestamp, Signature: signature}, body)
}

func (a *approvals) close() {
	if a.notifier != nil {
		a.notifier.Close()
	}
	for _, s := range a.slack {
		s.Close()
	}
}
