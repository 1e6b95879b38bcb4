package web_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/web/api"
)

// TestCredentials: a password is answered once with all that a client needs, listed without it, ended by its owner and
// nobody else.
func TestCredentials(t *testing.T) {
	r := newRig(t)
	var made api.IssuedCredential
	r.must("alice", "POST", "/v1/credentials", api.CredentialRequest{Target: "orders", Account: "app", Duration: "2h"}, &made)
	if made.User != "app+"+made.ID || len(made.Password) < 26 || made.Connection.Database != "shop" || made.Connection.Host == "" || made.Gateway.CA == "" {
		t.Errorf("%+v", made)
	}
	if life := made.Expires.Sub(made.Issued); life != 2*time.Hour {
		t.Errorf("it lasts %s", life)
	}
	status, list := r.call("alice", "GET", "/v1/credentials", nil)
	if status != http.StatusOK || !strings.Contains(string(list), made.ID) || strings.Contains(string(list), made.Password) {
		t.Errorf("%d %s", status, list)
	}
	if _, others := r.call("carol", "GET", "/v1/credentials", nil); strings.Contains(string(others), made.ID) {
		t.Errorf("carol sees alice's: %s", others)
	}
	if status, _ := r.call("carol", "DELETE", "/v1/credentials/"+made.ID, nil); status != http.StatusNotFound {
		t.Errorf("carol ends alice's: %d", status)
	}
	if status, answer := r.call("alice", "DELETE", "/v1/credentials/"+made.ID, nil); status != http.StatusNoContent {
		t.Errorf("alice ends her own: %d %s", status, answer)
	}
	if _, list := r.call("alice", "GET", "/v1/credentials", nil); strings.Contains(string(list), made.ID) {
		t.Errorf("it is still listed: %s", list)
	}
}
