package scim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
)

// version is a resource's, as meta.version and the ETag have it (RFC 7644, section 3.14): another one as soon as anything of it is.
func version(resource any) string {
	text, _ := json.Marshal(resource) // of texts, times and truths it can't fail
	sum := sha256.Sum256(text)
	return `W/"` + hex.EncodeToString(sum[:16]) + `"`
}

// errVersion is what a request is answered with that is for another version than the one there is.
var errVersion = stale{}

type stale struct{}

func (stale) Error() string { return "it was changed since: read it again (If-Match)" }

// unchanged refuses a request that says which version it is for (If-Match, RFC 9110, section 13.1.1) where resource is another.
func unchanged(r *http.Request, resource any) error {
	if wanted := r.Header.Values("If-Match"); len(wanted) > 0 && !names(wanted, version(resource)) {
		return errVersion
	}
	return nil
}

// names tells whether a header that lists versions names one, or any (*). Weak ones are compared: what is the same to SCIM is the same.
func names(header []string, version string) bool {
	opaque := strings.TrimPrefix(version, "W/")
	for _, one := range strings.Split(strings.Join(header, ","), ",") { // no version here has a comma in it
		if one = strings.TrimSpace(one); one == "*" || strings.TrimPrefix(one, "W/") == opaque {
			return true
		}
	}
	return false
}

// show answers with a resource as it is shown, or only that whoever asks has it already (If-None-Match).
func show(w http.ResponseWriter, r *http.Request, status int, resource, shown any) {
	v := version(resource)
	w.Header().Set("ETag", v)
	if has := r.Header.Values("If-None-Match"); r.Method == http.MethodGet && len(has) > 0 && names(has, v) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	reply(w, status, shown)
}
