package client

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/oauth2"

	"sallyport/internal/refusal"
)

// exchangeToken signs in with a job's token: token exchange (RFC 8693).
func exchangeToken(ctx context.Context, client *http.Client, gateway, token string) (*oauth2.Token, error) {
	config, err := discover(ctx, client, gateway)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, oauth2.HTTPClient, client), callTimeout)
	defer cancel()
	for try := 1; ; try++ {
		access, err := config.Exchange(ctx, "",
			oauth2.SetAuthURLParam("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
			oauth2.SetAuthURLParam("subject_token", token),
			oauth2.SetAuthURLParam("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"))
		if err == nil {
			return access, nil
		}
		no, is := retrieveError(err)
		switch {
		case !is || no.Response == nil:
			return nil, unreachable(gateway, err)
		case busy(no.Response.StatusCode) && try < exchangeTries:
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(exchangePause):
			}
		case busy(no.Response.StatusCode) || no.Response.StatusCode >= http.StatusInternalServerError:
			return nil, fmt.Errorf("exchange this job's token: the gateway answers %s %s", no.Response.Status, printable(no.ErrorDescription))
		default:
			return nil, refusal.New(refusal.NotAuthenticated, "the gateway refused this job's token").
				WithDetail("%s", printable(no.ErrorDescription)).
				WithHint("is it made for the audience that the gateway's configuration names, and is this job bound there?")
		}
	}
}

// Many jobs may start at once behind one address, and the token's issuer may be slow for a moment.
const (
	exchangeTries = 15
	exchangePause = 2 * time.Second
)

// busy tells the answers after which trying again may help.
func busy(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
}
