// Package job finds the token by which a pipeline's job proves itself, where its CI system puts it, or says what is missing.
package job

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

	"sallyport/internal/refusal"
)

// maxJobToken bounds a job's token, as the gateway does.
const maxJobToken = 16 << 10

// Secret are the variables that hold a token: they are for whoever signs in and nobody else.
var Secret = []string{envToken, envIDToken}

// The environment in which a job's token is found. The first two are ours: one for any CI system, one for GitLab's
// id_tokens, where a project chooses the name.
const (
	envToken       = "SALLYPORT_TOKEN"
	envIDToken     = "SALLYPORT_ID_TOKEN"
	envGitHubURL   = "ACTIONS_ID_TOKEN_REQUEST_URL"
	envGitHubToken = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
)

// Token is the token that this job's own issuer gave it, from the file, or as the environment says; empty if there is
// none. audience is whom GitHub is asked to make it for.
func Token(ctx context.Context, file, audience string) (string, error) {
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
	for _, name := range Secret {
		if token := strings.TrimSpace(os.Getenv(name)); token != "" {
			return token, nil
		}
	}
	if address := os.Getenv(envGitHubURL); address != "" {
		return gitHubToken(ctx, address, os.Getenv(envGitHubToken), audience)
	}
	return "", nil
}

// Missing says what is missing where a CI system is recognised; nil elsewhere.
func Missing() error {
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
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // the runner's own authorities, not the gateway's
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
