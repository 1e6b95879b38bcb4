// Package authn is who is it: it turns what a connection presents (client certificate, user certificate, access token)
// into an Identity, or refuses.
//
// It promises that an Identity it returns was proven at the company's provider, in a sign-in that has neither run out nor
// been ended since, by a credential that this gateway issued for exactly that key and has not revoked. The one exception says so
// itself (Identity.Emergency): while the provider can't be asked, a key that the person enrolled before proves them, and such an
// identity is good for what is taken in an emergency alone. Certificates and
// tokens carry no name that anything is decided by: they carry an id, and everything else is looked up at the moment of
// use. So taking something away works at once, everywhere, and no clock or cache stands in between.
//
// The gateway is an OpenID provider of its own (Handler) for the command line, for devices and for stock clients, and a
// client of the company's provider. Its keys are kept apart by who trusts them: see keyring.
//
// Its inner rooms know nothing of each other's business: federation asks a provider of people, workload verifies jobs' tokens, scim
// speaks to a provider that provisions, passkey to browsers about enrolled keys, keyring keeps the gateway's keys, throttle bounds
// strangers, secrets fetches what the configuration refers to, pages are what people see. What is here ties them to the tables.
package authn

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"sallyport/authn/federation"
	"sallyport/authn/keyring"
	"sallyport/authn/passkey"
	"sallyport/authn/throttle"
	"sallyport/authn/workload"
	"sallyport/configs"
	"sallyport/internal/store"
)

// Kind is what sort of identity it is.
type Kind string

// The kinds.
const (
	Human    Kind = "human"
	Workload Kind = "workload"
)

// Identity is a proven person or workload. Issuer and Subject together are its key; everything else is a label or what
// policies look at.
type Identity struct {
	Issuer  string   `json:"issuer"` // the company's provider, not the gateway
	Subject string   `json:"subject"`
	Kind    Kind     `json:"kind"`
	Name    string   `json:"name"`
	Email   string   `json:"email,omitempty"`
	Groups  []string `json:"groups"`
	// Claims are what its issuer says besides, of the claims that the configuration names; as at the sign-in.
	Claims map[string]string `json:"claims,omitempty"`
	// SignedIn is when the person last signed in at the provider; Expires when this proof ends.
	SignedIn time.Time `json:"signed_in"`
	Expires  time.Time `json:"expires"`
	// AuthTime, ACR and AMR are what the provider says of how the person proved themselves (auth_time, acr and amr of
	// OpenID Connect Core, section 2): when, to which class, by what ("pwd", "otp", "hwk"; RFC 8176). Zero where it does
	// not say.
	AuthTime time.Time `json:"auth_time,omitzero"`
	ACR      string    `json:"acr,omitempty"`
	AMR      []string  `json:"amr,omitempty"`
	// Method is how this connection proved it ("client certificate", "user certificate", "access token"), Credential the
	// id of what it presented, for the audit log and for revocation.
	Method     string `json:"method,omitempty"`
	Credential string `json:"credential,omitempty"`
	// Emergency is the id of the enrolled key with which the person signed in while their provider could not be asked; "" where the
	// provider proved them. Such a sign-in is good for what is taken in an emergency, and for nothing else. Known is when the
	// provider last did: name, e-mail, groups and claims are as of then.
	Emergency string    `json:"emergency,omitempty"`
	Known     time.Time `json:"known,omitzero"`
	// StartedBy is the person behind a workload: whoever started the job.
	StartedBy Starter `json:"started_by,omitzero"`

	// The provider's name for its session (sid), its refresh token and where it named the groups; only until the sign-in is
	// recorded.
	session, refresh string
	groupsIn         federation.Place
	match            string // by what the provider's directory knows the person, see matchOf
}

// Starter is the person who started a job, as the job's provider says; the zero value is nobody that is known. Nothing is
// given by it: it only takes from that person what nobody may do for themselves.
type Starter struct {
	ID    string `json:"id,omitempty"` // at the job's provider, never given again
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
	// Person is who that is here, by workloads.people: an e-mail address or a subject at people's provider.
	Person string `json:"person,omitempty"`
}

// Is tells whether a person is the one who started the job, as far as that can be known: by what the configuration says
// who it is, else by the e-mail address that the job's provider gives.
func (s Starter) Is(person Identity) bool {
	if person.Kind == Workload {
		return false
	}
	if s.Person != "" && (s.Person == person.Subject || strings.EqualFold(s.Person, person.Email)) {
		return true
	}
	return s.Email != "" && strings.EqualFold(s.Email, person.Email)
}

// Key is issuer and subject as one string; equal keys are the same identity.
func (i Identity) Key() string { return i.Issuer + " " + i.Subject }

// Label is the best name for people: name, else e-mail, else subject.
func (i Identity) Label() string {
	for _, s := range []string{i.Name, i.Email} {
		if s != "" {
			return s
		}
	}
	return i.Subject
}

// Service proves identities and issues credentials. Safe for concurrent use.
type Service struct {
	config *configs.Config
	store  *store.Store
	log    *slog.Logger
	now    func() time.Time

	authorities atomic.Pointer[authorities] // replaced by Rotate
	rotating    sync.Mutex

	issuer    issuer
	providers []*federation.Provider           // of people; the first is config.Provider's
	jobs      atomic.Pointer[workload.Issuers] // replaced by Reload
	file      groupFile
	passkeys  *passkey.Party // nil: no keys are enrolled here
	vouching  flights
	changes   changes
	handler   http.Handler

	consoleSecret string // see consoleClient

	hosts      hostCertificates
	rates      throttle.Rates    // of all requests to the issuer
	logouts    throttle.Rates    // of the company's provider's logout tokens
	provisions throttle.Rates    // of providers' directories
	begins     throttle.Rates    // of those that begin a sign-in
	told       *rate.Limiter     // audit events of what no configured workload is
	logged     *rate.Limiter     // log lines of strangers, who must not use up what the audit log has
	failures   throttle.Failures // wrong passwords
	strange    counts
	waits      holds // connections that wait for their person
	stop       context.CancelFunc
	stopped    sync.WaitGroup
	closing    sync.Once
	closeErr   error
}

//go:embed migrations/*.sql
var migrationFiles embed.FS

// Open loads or makes the keys in config.State/keys (mode 0600) and prepares sign-in at config.Provider, which need not
// be up yet: it is asked when somebody signs in, and asked again after it failed.
func Open(ctx context.Context, config *configs.Config, s *store.Store, log *slog.Logger) (*Service, error) {
	return open(ctx, config, s, log, time.Now)
}

// open is Open with a clock, so that tests can let a certificate run out.
func open(ctx context.Context, config *configs.Config, st *store.Store, log *slog.Logger, now func() time.Time) (*Service, error) {
	if config.Credentials.SignIn <= 0 || config.Credentials.Certificate <= 0 {
		return nil, errors.New("credentials.sign_in and credentials.certificate must be longer than nothing, such as 12h")
	}
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	if err := st.Migrate(ctx, "authn", migrations); err != nil {
		return nil, err
	}
	if err := endRestored(ctx, st, now()); err != nil {
		return nil, err
	}
	keys, err := keyring.Open(filepath.Join(config.State, "keys"), log)
	if err != nil {
		return nil, err
	}
	s := &Service{config: config, store: st, log: log, now: now,
		rates: throttle.Rates{Rate: sourceRate, Burst: sourceBurst}, begins: throttle.Rates{Rate: beginRate, Burst: beginBurst},
		logouts: throttle.Rates{Rate: logoutRate, Burst: logoutBurst}, provisions: throttle.Rates{Rate: directoryRate, Burst: directoryBurst},
		told:   rate.NewLimiter(rate.Every(10*time.Second), 30),
		logged: rate.NewLimiter(rate.Every(10*time.Second), 30),
	}
	s.jobs.Store(workload.New(config.Workloads, now))
	if config.Credentials.EnrolledKeys != nil {
		if s.passkeys, err = passkey.New(config.URL); err != nil {
			return nil, fmt.Errorf("credentials.enrolled_keys with url %s: %w", config.URL, err)
		}
	}
	used, err := newAuthorities(keys)
	if err != nil {
		return nil, err
	}
	s.authorities.Store(used)
	if err := s.newIssuer(); err != nil {
		return nil, err
	}
	if err := s.openDirectories(ctx); err != nil {
		return nil, err
	}
	if err := s.readGroups(ctx); err != nil {
		return nil, err
	}
	if config.GroupFile != "" && s.file.of.Load() == nil { // there are none that could go on counting
		return nil, errors.New(s.file.problem)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.every(background, time.Minute, s.flushCounts)
	s.every(background, time.Minute, s.purge)
	s.every(background, askJobs, s.askAboutJobs)
	s.every(background, readGroupsEvery, s.readGroups)
	return s, nil
}

// every runs f again and again until Close; f's errors are logged and do not end it.
func (s *Service) every(ctx context.Context, interval time.Duration, f func(context.Context) error) {
	s.stopped.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if err := f(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("authn: background work failed, and is tried again", "err", err)
			}
		}
	})
}

// Close stops background work, waits for what providers were asked, and writes the last counts. Only the first call does anything; what
// it returned is returned again.
func (s *Service) Close(ctx context.Context) error {
	s.closing.Do(func() {
		s.stop()
		s.stopped.Wait()
		s.closeErr = errors.Join(s.vouching.close(ctx), s.flushCounts(ctx))
	})
	return s.closeErr
}
