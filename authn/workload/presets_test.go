package workload

import (
	"maps"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sallyport/configs"
)

// presetCase is a workload of a preset and a good token's claims for it.
type presetCase struct {
	bind    string
	more    string
	claims  map[string]any
	subject string
	starter Starter
}

var presetCases = map[string]presetCase{
	configs.PresetGitHub: {
		bind: `{repository_id: "260064828", repository_owner_id: "1342004"}`, more: "    people: {\"42\": alice@example.com}\n",
		claims: map[string]any{"repository_id": "260064828", "repository_owner_id": "1342004", "event_name": "push", "run_id": "77", "run_attempt": "1",
			"check_run_id": 9001, "actor_id": "42", "actor": "alice-at-work"},
		subject: "repository_id=260064828,run_id=77,run_attempt=1,check_run_id=9001",
		starter: Starter{ID: "42", Name: "alice-at-work", Person: "alice@example.com"},
	},
	configs.PresetGitLab: {
		bind:    `{project_id: "20", namespace_id: "72"}`,
		claims:  map[string]any{"project_id": "20", "namespace_id": "72", "ref_protected": "true", "job_id": "5", "user_id": "3", "user_login": "bob", "user_email": "bob@example.com"},
		subject: "project_id=20,job_id=5",
		starter: Starter{ID: "3", Name: "bob", Email: "bob@example.com"},
	},
	configs.PresetCircleCI: {
		bind: `{oidc.circleci.com/project-id: 2c0b, oidc.circleci.com/vcs-origin: github.com/acme/shop, oidc.circleci.com/context-ids: a745}`,
		more: "    subject: [oidc.circleci.com/project-id, oidc.circleci.com/workflow-id]\n    people: {u-1: sub-of-carol}\n",
		claims: map[string]any{"sub": "org/6f1e/project/2c0b/user/u-1", "oidc.circleci.com/project-id": "2c0b", "oidc.circleci.com/vcs-origin": "github.com/acme/shop",
			"oidc.circleci.com/vcs-ref": "refs/heads/main", "oidc.circleci.com/ssh-rerun": false, "oidc.circleci.com/context-ids": []string{"other", "a745"}, "oidc.circleci.com/workflow-id": "w1"},
		subject: "oidc.circleci.com/project-id=2c0b,oidc.circleci.com/workflow-id=w1",
		starter: Starter{ID: "u-1", Person: "sub-of-carol"},
	},
	configs.PresetBuildkite: {
		bind: `{organization_id: "0184", pipeline_id: "0185", build_branch: main}`,
		claims: map[string]any{"organization_id": "0184", "pipeline_id": "0185", "build_branch": "main", "build_source": "webhook", "job_id": "0186",
			"organization_slug": "acme", "pipeline_slug": "shop"},
		subject: "pipeline_id=0185,job_id=0186",
	},
}

// TestPresets: each provider's own token fits, its person is known, and the same token with one thing changed does not fit.
func TestPresets(t *testing.T) {
	misfits := map[string][]map[string]any{
		configs.PresetGitHub: {{"event_name": "issue_comment"}, {"repository_id": 260064829}},
		configs.PresetGitLab: {{"ref_protected": "false"}, {"namespace_id": "73"}, {"project_id": nil}},
		// A fork's build, a machine that a person is on, a trigger by a custom webhook, another context, a context in a text.
		configs.PresetCircleCI: {{"oidc.circleci.com/vcs-origin": "github.com/mallory/shop"}, {"oidc.circleci.com/ssh-rerun": true}, {"oidc.circleci.com/vcs-origin": nil},
			{"oidc.circleci.com/context-ids": []string{"other"}}, {"oidc.circleci.com/context-ids": "a745"}, {"oidc.circleci.com/context-ids": nil}},
		// The same slugs in another organization, whose issuer is the same; a token that was not asked for with the ids.
		configs.PresetBuildkite: {{"organization_id": "0999"}, {"organization_id": nil}, {"build_branch": "mallory:main"}, {"build_source": "other"}},
	}
	for preset, c := range presetCases {
		t.Run(preset, func(t *testing.T) {
			key := newKey(t, "k1", jose.ES256)
			i := newIssuer(t, key)
			issuers := New(load(t, "  - name: deploy\n    preset: "+preset+"\n    issuer: "+i.server.URL+"\n    ca: "+i.ca+"\n    audience: "+audience+"\n    bind: "+c.bind+"\n    groups: [ci]\n"+c.more), time.Now)
			token := func(change map[string]any) string {
				claims := github(i.server.URL)
				for name := range claims {
					if _, standard := map[string]bool{"iss": true, "aud": true, "iat": true, "exp": true, "jti": true}[name]; !standard {
						delete(claims, name)
					}
				}
				maps.Copy(claims, c.claims)
				maps.Copy(claims, change)
				maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
				return sign(t, key, claims, nil)
			}
			job, err := issuers.Verify(t.Context(), token(nil))
			if err != nil {
				t.Fatal(err)
			}
			if job.Subject != "deploy:"+c.subject || job.Starter != c.starter {
				t.Errorf("%q started by %+v", job.Subject, job.Starter)
			}
			for _, change := range misfits[preset] {
				if _, err := issuers.Verify(t.Context(), token(change)); err == nil {
					t.Errorf("let in with %v", change)
				}
			}
		})
	}
}
