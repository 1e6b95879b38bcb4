package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"sallyport/internal/refusal"
)

// maxJobToken bounds a job's token, as the gateway does.
const maxJobToken = 16 << 10

// The environment in which a job's token is found. The first two are ours: one for any CI system, one for GitLab's
// id_tokens, where a project chooses the name.
const (
	envToken       = "SALLYPORT_TOKEN"
	envIDToken     = "SALLYPORT_ID_TOKEN"
	envGitHubURL   = "ACTIONS_ID_TOKEN_REQUEST_URL"
	envGitHubToken = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
)

// jobToken is the token that this job's own issuer gave it, from the file, or as the environment says; empty if there is
// none. audience is whom GitHub is asked to make it for.
func jobToken(ctx context.Context, file, audience string) (string, error) {
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read the job's token: %w", err)
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxJobToken+1))
		if err != nil {
			return "", fmt.Errorf("read the job's token: %w", err)
		}
		token := strings.TrimSpace(string(data))
		if token == "" || len(data) > maxJobToken {
			return "", refusal.New(refusal.Invalid, "%s holds no token", file).WithDetail("it is empty or longer than %d bytes", maxJobToken)
		}
		return token, nil
	}
	for _, name := range []string{envToken, envIDToken} {
		if token := strings.TrimSpace(os.Getenv(name)); token != "" {
			return token, nil
		}
	}
	if address := os.Getenv(envGitHubURL); address != "" {
		return gitHubToken(ctx, address, os.Getenv(envGitHubToken), audience)
	}
	return "", nil
}

// noJobToken says what is missing where a CI system is recognised; nil elsewhere.
func noJobToken() error {
	no := refusal.New(refusal.NotAuthenticated, "this job has no token to prove itself with")
	switch {
	case os.Getenv("GITHUB_ACTIONS") == "true":
		return no.WithHint("give the job in the workflow: permissions: {id-token: write}")
	case os.Getenv("GITLAB_CI") == "true":
		return no.WithHint("give the job in .gitlab-ci.yml: id_tokens: {%s: {aud: GATEWAY}}", envIDToken)
	case os.Getenv("CIRCLECI") == "true":
		return no.WithHint("give the step: export %s=$(circleci run oidc get --claims '{\"aud\":\"GATEWAY\"}')", envToken)
	case os.Getenv("BUILDKITE") == "true":
		return no.WithHint("give the step: export %s=$(buildkite-agent oidc request-token --audience GATEWAY --claim organization_id,pipeline_id)", envToken)
	}
	return nil
}

// gitHubToken asks GitHub's runner for a token (GitHub's documentation, "OpenID Connect reference").
func gitHubToken(ctx context.Context, address, bearer, audience string) (string, error) {
	failed := func(err error) error { return fmt.Errorf("ask GitHub for this job's token: %w", err) }
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" {
		return "", failed(fmt.Errorf("%s is no https:// address", envGitHubURL))
	}
	q := u.Query()
	q.Set("audience", audience)
	u.RawQuery = q.Encode()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", failed(err)
	}
	request.Header.Set("Authorization", "Bearer "+bearer)
	client, err := httpClient(nil) // the runner's own authorities, not the gateway's
	if err != nil {
		return "", failed(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", failed(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", failed(fmt.Errorf("it answers %s", answer.Status))
	}
	var token struct {
		Value string `json:"value"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, 2*maxJobToken)).Decode(&token); err != nil || token.Value == "" {
		return "", failed(fmt.Errorf("its answer holds no token"))
	}
	return token.Value, nil
}

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
