package api

import (
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

// Item is one thing that happened in a session; a line of /v1/sessions/{id}/items.
type Item = item.Item

// Match is one place where a search found its text; a line of /v1/search.
type Match struct {
	Session string        `json:"session"`
	Header  format.Header `json:"header"`
	Item    Item          `json:"item"`
	Line    string        `json:"line"`
}

// Index is how the search index stands.
type Index struct {
	Kept     bool   `json:"kept" doc:"There is an index; without one every search reads the recordings."`
	Sessions int    `json:"sessions" doc:"Recordings that are wholly in it."`
	Live     int    `json:"live" doc:"Live recordings, which are brought in as they go."`
	Behind   int    `json:"behind" doc:"Recordings that wait to be brought in; searches read them meanwhile."`
	Error    string `json:"error,omitempty" doc:"Why there is no index just now."`
}

// Hold keeps a recording from being deleted when its time is over.
type Hold struct {
	Session string    `json:"session"`
	Target  string    `json:"target"`
	Account string    `json:"account"`
	Person  string    `json:"person" doc:"Whose session it was."`
	Started time.Time `json:"started"`
	Since   time.Time `json:"since"`
	By      string    `json:"by" doc:"Who put it on hold."`
	Reason  string    `json:"reason"`
}

// Status is how a gateway stands.
type Status struct {
	Version  string         `json:"version"`
	Ready    bool           `json:"ready" doc:"Sessions can begin, as far as their recordings go."`
	Why      string         `json:"why,omitempty" doc:"Why not."`
	Draining bool           `json:"draining"`
	Sessions int            `json:"sessions" doc:"Live ones."`
	Recorder RecorderStatus `json:"recorder"`
	Log      LogStatus      `json:"log"`
	Index    Index          `json:"index"`
	Archive  *Archive       `json:"archive,omitempty" doc:"How it stands with the store that recordings are copied to; left out where there is none."`
	Outbox   int            `json:"outbox" doc:"Audit events that wait to be moved to the audit log."`
	Cleanups []Cleanup      `json:"cleanups" doc:"Roles made for grants that are over, and still there."`
}

// Archive is how it stands with the archive.
type Archive struct {
	Place        string    `json:"place" doc:"Endpoint, bucket and prefix."`
	Lock         string    `json:"lock,omitempty" doc:"The Object Lock that is asked for, such as: compliance for 400d."`
	Waiting      int       `json:"waiting" doc:"Recordings and audit files that have ended and are not there yet."`
	Oldest       time.Time `json:"oldest,omitzero" doc:"When the first of them ended."`
	Archived     int       `json:"archived" doc:"Those that are there, and were read back."`
	Bytes        int64     `json:"bytes" doc:"Of those."`
	Checkpoint   int64     `json:"checkpoint" doc:"Leaves that the newest checkpoint there covers."`
	CheckpointAt time.Time `json:"checkpoint_at,omitzero" doc:"When it went there."`
	Shredding    int       `json:"shredding" doc:"Recordings that were destroyed at the gateway and are still there."`
	Shreds       []Shred   `json:"shreds" doc:"The oldest of those, 100 at most."`
	Complete     time.Time `json:"complete,omitzero" doc:"When the archive last had everything."`
	Behind       bool      `json:"behind" doc:"That is longer ago than archive.max_behind."`
	Error        string    `json:"error,omitempty" doc:"Why it does not go on."`
	FailedAt     time.Time `json:"failed_at,omitzero" doc:"When that was last tried."`
}

// Shred is a recording that was destroyed at the gateway and is still in its archive, which deletes it as soon as it can.
type Shred struct {
	Session string    `json:"session"`
	Object  string    `json:"object,omitempty" doc:"Its name there, without the prefix; left out where it is not known."`
	Since   time.Time `json:"since" doc:"When it was destroyed."`
	Locked  time.Time `json:"locked,omitzero" doc:"Until when the store deletes it for nobody, by Object Lock."`
	Next    time.Time `json:"next,omitzero" doc:"When it is tried again."`
	Stuck   bool      `json:"stuck" doc:"For so long that somebody should look."`
	Error   string    `json:"error,omitempty" doc:"Why it did not go the last time."`
}

// Cleanup is a role on a target that was made for a grant and is still to be dropped. Access had ended with the grant.
type Cleanup struct {
	Role     string    `json:"role"`
	Grant    string    `json:"grant"`
	Target   string    `json:"target"`
	Account  string    `json:"account,omitempty"`
	Ended    time.Time `json:"ended" doc:"When the grant was found over."`
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next,omitzero" doc:"When it is tried again."`
	Stuck    bool      `json:"stuck" doc:"For so long that somebody should look."`
	Error    string    `json:"error,omitempty" doc:"Why it did not go the last time."`
}

// RecorderStatus is how the session log stands.
type RecorderStatus struct {
	Durability  string        `json:"durability" doc:"The default level."`
	SyncMedian  time.Duration `json:"sync_median_ns" doc:"How long the disk took to make a small write safe when the gateway was started; 0: not measured."`
	SyncSlowest time.Duration `json:"sync_slowest_ns"`
	Recordings  int           `json:"recordings"`
	Bytes       int64         `json:"bytes" doc:"Of recordings and audit log."`
	Days        []DayUsage    `json:"days" doc:"The last seven days by UTC, today last."`
	Free        int64         `json:"free" doc:"Bytes that can still be written to their disk."`
	Reserve     int64         `json:"reserve" doc:"Bytes that must be free for sessions to begin."`
	Warn        int64         `json:"warn" doc:"Below so many free bytes it is time to make room."`
	Left        time.Duration `json:"left_ns" doc:"How long until no session can begin, if it goes on like on the last six whole days; 0: not known."`
	Holds       int           `json:"holds" doc:"Recordings on hold."`
}

// LogStatus is how the log over all recordings stands, which binds them so that nobody can change them unnoticed.
type LogStatus struct {
	Origin      string    `json:"origin,omitempty" doc:"Its name; empty: there is no log."`
	Key         string    `json:"key,omitempty" doc:"Its public key, which sallyport-verify takes as --log-key."`
	Size        int64     `json:"size" doc:"Leaves."`
	Signed      int64     `json:"signed" doc:"Leaves that the newest signed checkpoint covers."`
	Witnessed   int64     `json:"witnessed" doc:"Leaves that the newest cosigned checkpoint covers; 0: no witness has seen any."`
	WitnessedAt time.Time `json:"witnessed_at,omitzero" doc:"When it was cosigned."`
	Witnesses   []Witness `json:"witnesses"`
	// Unwitnessed is in nanoseconds, like all durations here.
	Unwitnessed time.Duration `json:"unwitnessed_ns" doc:"For how long the oldest leaf has been waiting that no witness has seen."`
	Warning     string        `json:"warning,omitempty" doc:"What somebody should look after."`
}

// Witness is how it stands with one witness of the log.
type Witness struct {
	Name  string    `json:"name"`
	Size  int64     `json:"size" doc:"Of the newest checkpoint that it cosigned since the gateway started."`
	Time  time.Time `json:"time,omitzero" doc:"When it did."`
	Error string    `json:"error,omitempty" doc:"Why it did not when it was last asked."`
}

// DayUsage is what was recorded in sessions that began on a day.
type DayUsage struct {
	Day        string `json:"day" doc:"Such as 2026-01-31."`
	Recordings int    `json:"recordings"`
	Bytes      int64  `json:"bytes"`
}

// AuditEvent is one event of the control plane; a line of /v1/audit.
type AuditEvent struct {
	Number    uint64            `json:"number"`
	Time      time.Time         `json:"time"`
	Kind      string            `json:"kind"`
	Actor     string            `json:"actor"`
	ActorName string            `json:"actor_name,omitempty"`
	Client    string            `json:"client,omitempty"`
	Target    string            `json:"target,omitempty"`
	Account   string            `json:"account,omitempty"`
	Grant     string            `json:"grant,omitempty"`
	Session   string            `json:"session,omitempty"`
	Outcome   string            `json:"outcome"`
	Reason    string            `json:"reason,omitempty"`
	Fields    map[string]string `json:"fields,omitempty"`
}
