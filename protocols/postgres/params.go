package postgres

import (
	"strings"
	"time"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/protocols/postgres/wire"
)

// startup is what a StartupMessage asks for, after the gateway's rules.
type startup struct {
	user        string
	database    string // as the client named it; empty if it did not
	application string
	replication string       // "true" or "database"; empty for an ordinary connection
	settings    []wire.Param // allowed ones, in the client's order, each name once
	version     uint32
	unknown     []string // protocol options that were not understood
	tell        bool     // the client must be told of version and unknown
	own         ownSettings
}

// allowed are the settings a client may make in its StartupMessage, in lower case: those that drivers send and those
// whose only effect is on the client's own session. What may not stand here: role and session_authorization, which
// change who the session is; local_preload_libraries, which loads code and can only be set at the start; and whatever
// is not known here.
var allowed = map[string]bool{
	"application_name":                    true,
	"bytea_output":                        true,
	"client_encoding":                     true,
	"client_min_messages":                 true,
	"datestyle":                           true,
	"default_transaction_deferrable":      true,
	"default_transaction_isolation":       true,
	"default_transaction_read_only":       true,
	"extra_float_digits":                  true,
	"geqo":                                true,
	"idle_in_transaction_session_timeout": true,
	"idle_session_timeout":                true,
	"intervalstyle":                       true,
	"jit":                                 true,
	"lc_messages":                         true,
	"lc_monetary":                         true,
	"lc_numeric":                          true,
	"lc_time":                             true,
	"lock_timeout":                        true,
	"max_parallel_workers_per_gather":     true,
	"plan_cache_mode":                     true,
	"row_security":                        true,
	"search_path":                         true,
	"standard_conforming_strings":         true,
	"statement_timeout":                   true,
	"synchronous_commit":                  true,
	"timezone":                            true,
	"transaction_timeout":                 true,
	"work_mem":                            true,
	"xmlbinary":                           true,
	"xmloption":                           true,
}

// readStartup applies the rules to a StartupMessage. Of a name given twice the last one counts, and a parameter of its own counts
// over the same one in options: as on the server.
func readStartup(packet wire.Packet) (startup, error) {
	params, err := packet.Params()
	if err != nil {
		return startup{}, refusal.New(refusal.ProtocolViolation, "invalid startup packet layout").Because(err)
	}
	var s startup
	var ok bool
	s.version, s.unknown, s.tell, ok = wire.Negotiate(packet.Code, params)
	if !ok {
		return startup{}, refusal.New(refusal.Unsupported, "unsupported frontend protocol")
	}
	last := map[string]string{}
	for _, p := range params {
		last[p.Name] = p.Value
	}
	var fromOptions []wire.Param
	if options, given := last["options"]; given {
		if fromOptions, err = wire.Options(options); err != nil {
			return startup{}, refusal.New(refusal.Invalid, "the start-up options can't be passed on").WithDetail("%s", err).
				WithHint("send only -c NAME=VALUE in options (PGOPTIONS)")
		}
	}
	s.user, s.database = last["user"], last["database"]
	if s.user == "" {
		return startup{}, refusal.New(refusal.NotAuthenticated, "no PostgreSQL user name specified in startup packet")
	}
	if s.replication, err = replicationMode(last["replication"]); err != nil {
		return startup{}, err
	}
	settings := map[string]string{}
	var order []string
	set := func(name, value string) error {
		key := strings.ToLower(name)
		if own, ours := strings.CutPrefix(key, ownPrefix); ours {
			return s.own.set(own, value)
		}
		if !allowed[key] {
			return refusal.New(refusal.NotPermitted, "start-up parameter %q is not passed on by this gateway", name).
				WithHint("leave it out of the connection string, PGOPTIONS and the driver's options; what the account may set, it can SET after connecting")
		}
		if _, again := settings[key]; !again {
			order = append(order, name)
		}
		settings[key] = value
		return nil
	}
	for _, p := range fromOptions {
		if err := set(p.Name, p.Value); err != nil {
			return startup{}, err
		}
	}
	for _, p := range params {
		switch {
		case p.Name == "user" || p.Name == "database" || p.Name == "options" || p.Name == "replication":
		case strings.HasPrefix(p.Name, "_pq_."): // protocol options are between the client and the gateway
		default:
			if err := set(p.Name, p.Value); err != nil {
				return startup{}, err
			}
		}
	}
	for _, name := range order {
		s.settings = append(s.settings, wire.Param{Name: name, Value: settings[strings.ToLower(name)]})
	}
	s.application = settings["application_name"]
	return s, nil
}

// replicationMode reads the value of the parameter replication: a Boolean, or "database".
func replicationMode(value string) (string, error) {
	switch strings.ToLower(value) {
	case "", "0", "f", "fa", "fal", "fals", "false", "n", "no", "of", "off":
		return "", nil
	case "1", "t", "tr", "tru", "true", "y", "ye", "yes", "on":
		return "true", nil
	case "database":
		return "database", nil
	}
	return "", refusal.New(refusal.Invalid, `invalid value for parameter "replication"`).WithHint("valid values are true, false and database")
}

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
