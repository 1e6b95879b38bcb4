package configs

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// validateWitnesses checks what the log over all recordings is told.
func validateWitnesses(at reporter, r Recording) {
	if d := r.Progress.D(); d < time.Second || d > 5*time.Minute {
		at("recording.progress", "progress is %s; it is between 1s and 5m: what a session did since is not bound yet", r.Progress)
	}
	switch d := r.RequireWitness.D(); {
	case d == 0:
	case d < 10*time.Second || d > 24*time.Hour:
		at("recording.require_witness", "require_witness is %s; it is between 10s and 24h: a witness is asked about once a second", r.RequireWitness)
	case len(r.Witnesses) == 0:
		at("recording.require_witness", "require_witness is set, and there are no witnesses: no session could begin")
	}
	seen := map[string]bool{}
	for i, w := range r.Witnesses {
		path := fmt.Sprintf("recording.witnesses[%d]", i)
		u, err := url.Parse(w.URL)
		if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.User != nil {
			at(path+".url", "url is %q; write the witness's address, like https://witness.example", w.URL)
		}
		if !isWitnessKey(w.Key) {
			at(path+".key", "key is no witness's public key; write the line that `sallyport witness` prints, NAME+HASH+KEY")
		} else if seen[w.Key] {
			at(path+".key", "this witness stands here twice")
		}
		seen[w.Key] = true
		checkFile(at, path+".ca", w.CA)
	}
}

// isWitnessKey reports whether a text has the form of a public key of golang.org/x/mod/sumdb/note.
func isWitnessKey(text string) bool {
	name, rest, _ := strings.Cut(text, "+")
	hash, key, _ := strings.Cut(rest, "+")
	_, err := strconv.ParseUint(hash, 16, 32)
	raw, notBase64 := base64.StdEncoding.DecodeString(key)
	return name != "" && !strings.ContainsAny(name, " \n") && len(hash) == 8 && err == nil && notBase64 == nil && len(raw) > 32
}
