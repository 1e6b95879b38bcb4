package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"sallyport/authn"
	"sallyport/grant"
	"sallyport/internal/refusal"
)

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
