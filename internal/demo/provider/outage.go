package provider

import (
	"net/http"
	"sync/atomic"
)

// outage has the provider fail as one that is down behind a proxy that is up: for trying what the gateway does then. Pipelines' tokens
// go on.
type outage struct {
	storage *storage
	down    atomic.Bool
}

// set takes name and password of somebody who has an account here, and then down=true; anything else ends it.
func (o *outage) set(w http.ResponseWriter, r *http.Request) {
	if err := o.storage.known(r.PostFormValue("name"), r.PostFormValue("password")); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	o.down.Store(r.PostFormValue("down") == "true")
	w.WriteHeader(http.StatusNoContent)
}

// around serves while there is none.
func (o *outage) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.down.Load() {
			http.Error(w, "the provider is down", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}
