package postgres

import (
	"time"

	"sallyport/configs"
	"sallyport/internal/refusal"
)

// ownPrefix begins the start-up settings that are for the gateway and never reach a target: as a parameter, or in options
// as -c sallyport.NAME=VALUE.
const ownPrefix = "sallyport."

// maxWait is how long a connection may wait for an approval at the most.
const maxWait = 30 * time.Minute

// ownSettings are what a client says to the gateway itself.
type ownSettings struct {
	tokens bool          // auth=oauth: it can sign in by OAUTHBEARER
	waits  bool          // it said how long it waits for an approval
	wait   time.Duration // so long; 0: not at all

	// What a request is filed with when there is none yet.
	reason, ticket string
	duration       time.Duration
}

// set takes one of them in.
func (o *ownSettings) set(name, value string) error {
	wrong := func(what string) error {
		return refusal.New(refusal.Invalid, "start-up setting sallyport.%s is not understood", name).WithHint("%s", what)
	}
	span := func(to *time.Duration, most time.Duration) error {
		d, err := configs.ParseDuration(value)
		if err != nil || d.D() > most {
			return wrong("write a time such as 5m, at most " + configs.Duration(most).String())
		}
		*to = d.D()
		return nil
	}
	switch name {
	case "auth":
		if value != "oauth" {
			return wrong("it can only be oauth")
		}
		o.tokens = true
		return nil
	case "wait":
		o.waits = true
		return span(&o.wait, maxWait)
	case "duration":
		return span(&o.duration, 30*24*time.Hour)
	case "reason":
		o.reason = value
		return nil
	case "ticket":
		o.ticket = value
		return nil
	}
	return refusal.New(refusal.Invalid, "there is no start-up setting %.64q", ownPrefix+name).
		WithHint("those for the gateway are sallyport.wait, reason, duration, ticket and auth")
}
