package client

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"sallyport/internal/refusal"
)

// TestExchangeToken: a gateway that is busy is asked again, one that says no is not.
func TestExchangeToken(t *testing.T) {
	for name, test := range map[string]struct {
		answers []int // the last one stays
		asked   int32
		refused bool
	}{
		"at once":           {[]int{200}, 1, false},
		"too many just now": {[]int{429, 503, 200}, 3, false},
		"no":                {[]int{400}, 1, true},
		"failed":            {[]int{500}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			c := failing(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if strings.HasPrefix(r.URL.Path, "/.well-known/") {
					fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":"%[1]s/a","token_endpoint":"%[1]s/t"}`, "https://"+r.Host)
					return
				}
				status := test.answers[min(int(asked.Add(1)), len(test.answers))-1]
				w.WriteHeader(status)
				if status == http.StatusOK {
					fmt.Fprint(w, `{"access_token":"access","token_type":"Bearer"}`)
				} else {
					fmt.Fprint(w, `{"error":"invalid_grant","error_description":"because"}`)
				}
				if r.FormValue("subject_token") != "canary" || r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange" {
					t.Errorf("%v", r.Form)
				}
			})
			token, err := exchangeToken(t.Context(), c.http, c.gateway, "canary")
			if (err != nil) != test.refused || asked.Load() != test.asked || err == nil && token.AccessToken != "access" {
				t.Errorf("%+v, %v, asked %d times", token, err, asked.Load())
			}
			if err != nil && (!strings.Contains(err.Error(), "because") || strings.Contains(err.Error(), "canary")) {
				t.Errorf("%v", err)
			}
			if name == "no" && !refusal.Is(err, refusal.NotAuthenticated) {
				t.Errorf("no refusal: %v", err)
			}
		})
	}
}
