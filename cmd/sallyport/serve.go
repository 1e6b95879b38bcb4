//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sallyport/authn"
	"sallyport/authn/secrets"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/alert"
	"sallyport/internal/store"
	"sallyport/internal/telemetry"
	"sallyport/protocols/postgres"
	"sallyport/protocols/postgres/ephemeral"
	"sallyport/protocols/ssh"
	"sallyport/proxy"
	"sallyport/recorder"
	"sallyport/recorder/archive"
	"sallyport/recorder/format"
	"sallyport/recorder/lock"
	"sallyport/recorder/transparency/ledger"
	"sallyport/session"
	"sallyport/web"
	"sallyport/web/console"
	"sallyport/web/idempotency"
)

// farewell is how long the parts may take to close after the last session has ended.
const farewell = 20 * time.Second

func newServeCommand() *cobra.Command {
	var file string
	command := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway until SIGTERM or Ctrl-C, which drain it: no new sessions, up to limits.drain for the open ones.
SIGHUP reads the configuration and the certificate again.`,
		Example: "  sallyport serve -c /etc/sallyport/sallyport.yaml",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(command.ErrOrStderr(), nil))
			slog.SetDefault(slog.New(authn.LibraryLog(log.Handler()))) // the issuer's library has no other logger
			return serve(command.Context(), file, log)
		},
	}
	command.Flags().StringVarP(&file, "config", "c", "sallyport.yaml", "configuration `FILE`")
	return command
}

// gateway is the rooms of a running gateway.
type gateway struct {
	config      atomic.Pointer[configs.Config]
	log         *slog.Logger
	store       *store.Store
	ledger      *ledger.Log
	smith       *lock.Smith
	archive     *archive.Archive // nil without one
	recorder    *recorder.Recorder
	authn       *authn.Service
	grants      *grant.Service
	sessions    *session.Manager
	approvals   *approvals
	alerts      *alert.Watcher
	console     *console.Sessions
	telemetry   *telemetry.Telemetry
	keys        *idempotency.Keys
	certificate *proxy.Certificate
	front       *proxy.Proxy
	postgres    *postgres.Handler
	roles       *ephemeral.Roles
	ssh         *ssh.Handler
	again       chan struct{} // has room for one: read the configuration again
	bound       sync.Map      // listener name → address, for ports that the system chose
}

// serve runs a gateway until the context ends or a signal comes.
func serve(ctx context.Context, file string, log *slog.Logger) (err error) {
	forbidCoreDumps(log)
	config, err := configs.Load(file)
	if err != nil {
		return err
	}
	secrets.Withhold(config.EnvironmentSecrets())
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	g := &gateway{log: log, again: make(chan struct{}, 1)}
	g.config.Store(config)
	defer func() { err = errors.Join(err, g.close()) }()
	if err := g.open(ctx, config); err != nil {
		return err
	}
	// Connections outlive the signal that begins the drain.
	connections, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	served, err := g.listen(connections, config)
	if err != nil {
		return err
	}
	go g.sweep(connections)
	log.Info("the gateway is ready", "url", config.URL, "version", version, "state", config.State)
	for {
		select {
		case err := <-served:
			return fmt.Errorf("the HTTPS server ended: %w", err)
		case <-hangup:
			g.reload(ctx, file)
		case <-g.again:
			g.reload(ctx, file)
		case <-ctx.Done(): // SIGTERM or Ctrl-C
			log.Info("shutting down; a second signal does not wait", "sessions", g.sessions.Live())
			go exitOnSignal()
			g.drain(cut)
			return nil
		}
	}
}

// exitOnSignal ends the process at the next signal; recovery seals what that leaves open.
func exitOnSignal() {
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGTERM, syscall.SIGINT)
	<-again
	os.Exit(1)
}

// openStore opens the database in the state directory, or the one that the configuration names.
func openStore(ctx context.Context, config *configs.Config) (*store.Store, error) {
	if config.Store == "" {
		return store.Open(ctx, config.State)
	}
	connection, err := secrets.Resolve(ctx, config.Store)
	if err != nil {
		return nil, fmt.Errorf("the store's connection string: %w", err)
	}
	return store.OpenPostgres(ctx, config.State, connection)
}

// open opens the rooms, each standing on those before it.
func (g *gateway) open(ctx context.Context, config *configs.Config) (err error) {
	if g.certificate, err = g.loadCertificate(config); err != nil {
		return err
	}
	if g.store, err = openStore(ctx, config); err != nil {
		return err
	}
	if g.ledger, err = openLedger(ctx, config, g.log); err != nil {
		return err
	}
	if err := g.openArchive(ctx, config); err != nil {
		return err
	}
	g.smith = newSmith(config)
	g.recorder, err = recorder.Open(ctx, recorder.Options{
		NewKey: g.smith.New,
		Ledger: g.ledger, Progress: config.Recording.Progress.D(),
		Dir: config.State, Config: config.Recording, Store: g.store, Version: version, Log: g.log,
		Interpreters: interpreters, Index: filepath.Join(config.State, "index.db"),
		Keep:            func(target string) time.Duration { return g.config.Load().KeepFor(target).D() },
		Recipients:      func(target string) []string { return g.config.Load().RecipientsFor(target) },
		InputRecipients: func(target string) []string { return g.config.Load().InputRecipientsFor(target) },
		Sealers:         map[string]func(string) recorder.Sealer{configs.KindPostgres: postgres.Sealer},
		Mask:            func(target string) *format.Mask { return masksOf(g.config.Load(), target) },
		Archived:        g.archived(), EndAudit: auditAge(config),
	})
	if err != nil {
		return err
	}
	if g.archive != nil {
		g.archive.Start(ctx, g.recorder)
	}
	if g.authn, err = authn.Open(ctx, config, g.store, g.log); err != nil {
		return err
	}
	if g.grants, err = grant.OpenWith(ctx, grant.Options{Config: config, Store: g.store, Log: g.log, Standing: g.authn.Standing, Members: g.authn.Members, Current: g.authn.Current, Groups: g.authn.GroupsNow}); err != nil {
		return err
	}
	g.authn.OnChange(g.grants.IdentityChanged)
	if g.approvals, err = openApprovals(ctx, g, config); err != nil {
		return err
	}
	g.alerts, err = alert.Open(ctx, alert.Options{Config: config, Store: g.store, Log: g.log, Audit: g.auditAfter})
	if err != nil {
		return err
	}
	g.sessions, err = session.Open(ctx, session.Options{
		Store: g.store, Recorder: g.recorder, Authn: g.authn, Config: config, Log: g.log,
	})
	if err != nil {
		return err
	}
	if g.keys, err = idempotency.Open(ctx, g.store); err != nil {
		return err
	}
	if g.console, err = console.OpenSessions(ctx, g.store); err != nil {
		return err
	}
	return g.tell(ctx, config)
}

// auditAfter are the events of the audit log above a number.
func (g *gateway) auditAfter(ctx context.Context, after uint64) iter.Seq2[store.AuditEvent, error] {
	return g.recorder.Audit(ctx, recorder.AuditFilter{After: after})
}

// tell starts to tell a collector what happens, where the environment names one.
func (g *gateway) tell(ctx context.Context, config *configs.Config) (err error) {
	g.telemetry, err = telemetry.Start(ctx, telemetry.Options{
		Version: version, Store: g.store, Live: g.sessions.LiveByProtocol, Outbox: g.recorder.OutboxDepth, Archive: g.archiveMetrics(),
		Open: g.grants.OpenByState, Waiting: g.grants.Waiting, Notifications: g.approvals.notifier.Depth,
		Cursor: filepath.Join(config.State, "telemetry.cursor"), Log: g.log,
		Audit: g.auditAfter,
	})
	if err == nil && g.telemetry.Measures() {
		g.sessions.Measure(g.telemetry)
	}
	return err
}

// listen opens the front door. The returned channel gets the HTTPS server's error if it ends by itself.
func (g *gateway) listen(ctx context.Context, config *configs.Config) (<-chan error, error) {
	g.front = proxy.New(config.Limits, g.authn.Unauthenticated, g.log)
	if slices.ContainsFunc(config.Roles, func(r configs.Role) bool { return len(r.Limits.Guardrails) > 0 }) {
		go postgres.ReadyGuardrails()
	}
	g.postgres = postgres.New(postgres.Options{
		Authn: g.authn, Grants: g.grants, Sessions: g.sessions, TLS: g.certificate.TLS(), URL: config.URL,
		HandshakeTimeout: config.Limits.Handshake.D(), Log: g.log,
	})
	var err error
	if g.roles, err = g.postgres.KeepRoles(ctx, g.store, func() []configs.Target { return g.config.Load().Targets }); err != nil {
		return nil, err
	}
	g.ssh = ssh.New(ssh.Options{
		Authn: g.authn, Grants: g.grants, Sessions: g.sessions, Host: config.SSH.Host, Version: config.SSH.Version,
		URL: config.URL, HandshakeTimeout: config.Limits.Handshake.D(), Log: g.log,
	})
	type listener struct {
		name, address string
		handler       proxy.Handler
	}
	listeners := []listener{{"postgres", config.Listen.Postgres, g.postgres}, {"ssh", config.Listen.SSH, g.ssh}}
	for _, t := range config.Targets {
		listeners = append(listeners, listener{"postgres/" + t.Name, t.Listen, g.postgres.ForTarget(t.Name)})
	}
	for _, l := range listeners {
		if l.address == "" {
			continue
		}
		bound, err := g.front.Listen(ctx, l.name, l.address, l.handler)
		if err != nil {
			return nil, err
		}
		g.bound.Store(l.name, bound.String())
		g.log.Info("listening", "for", l.name, "address", bound.String())
	}
	return g.listenHTTPS(config)
}

func (g *gateway) listenHTTPS(config *configs.Config) (<-chan error, error) {
	l, err := g.front.Listener("https", config.Listen.HTTPS)
	if err != nil {
		return nil, err
	}
	g.bound.Store("https", l.Addr().String())
	g.log.Info("listening", "for", "https", "address", l.Addr().String())
	server := &http.Server{
		Handler: web.New(web.Options{
			URL: config.URL, Version: version, Authn: g.authn, Grants: g.grants, Sessions: g.sessions,
			Recorder: g.recorder, Store: g.store, Console: g.console, Keys: g.keys, Config: g.config.Load, Bound: g.boundTo,
			Cleanups: g.cleanups, Setup: g.setUpTarget, Check: g.checkTarget, Trust: g.trustTarget, Log: g.log,
			Archive: g.archive.Status, Reload: g.readAgain, Decide: g.approvals.decide, Notifications: g.approvals.notifier.List, Retry: g.approvals.notifier.Retry,
		}),
		TLSConfig:         g.certificate.TLS(),
		ReadHeaderTimeout: config.Limits.Handshake.D(),
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnContext:       web.WithConnection,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug), // strangers' broken handshakes
	}
	if err := g.listenChallenges(config); err != nil {
		return nil, err
	}
	served := make(chan error, 1)
	go func() {
		if err := server.ServeTLS(l, "", ""); !errors.Is(err, net.ErrClosed) {
			served <- err
		}
	}()
	return served, nil
}

// boundTo is the address that a listener really has.
func (g *gateway) boundTo(listener string) string {
	address, _ := g.bound.Load(listener)
	text, _ := address.(string)
	return text
}

// reload takes a changed configuration in; one with mistakes changes nothing.
func (g *gateway) reload(ctx context.Context, file string) {
	config, err := configs.Load(file)
	if err == nil {
		secrets.Withhold(config.EnvironmentSecrets())
		_, err = alert.Compile(config)
	}
	if err == nil {
		err = g.grants.Hold(ctx, config)
	}
	if err == nil {
		err = g.certificate.Reload()
	}
	if err == nil {
		err = g.authn.Reload(ctx, config)
	}
	if err == nil {
		err = g.grants.Reload(ctx, config)
	}
	if err == nil {
		err = g.alerts.Reload(config)
	}
	outcome := store.AuditEvent{Kind: "config.reloaded", Actor: "system"}
	if err != nil {
		g.log.Error("the configuration was not reloaded; the old one stays", "error", err)
		outcome.Outcome, outcome.Reason = "failed", err.Error()
	} else {
		if old := g.config.Swap(config); !sameMasks(old, config) {
			g.recorder.Remask()
		}
		g.log.Info("the configuration was reloaded; changed listeners, limits, provider and state directory need a restart")
	}
	if err := g.store.Audit(ctx, outcome); err != nil {
		g.log.Error("a reload could not be audited", "error", err)
	}
}

// masksOf is what the configuration hides of a target, as recordings say it.
func masksOf(config *configs.Config, target string) *format.Mask {
	cards, patterns := config.MasksFor(target)
	if !cards && len(patterns) == 0 {
		return nil
	}
	mask := &format.Mask{Cards: cards}
	for _, p := range patterns {
		mask.Patterns = append(mask.Patterns, format.MaskPattern{Name: p.Name, Regexp: p.Regexp})
	}
	return mask
}

// sameMasks reports whether two configurations hide the same.
func sameMasks(a, b *configs.Config) bool {
	same := func(target string) bool { return reflect.DeepEqual(masksOf(a, target), masksOf(b, target)) }
	for _, t := range slices.Concat(a.Targets, b.Targets) {
		if !same(t.Name) {
			return false
		}
	}
	return same("") // of targets that are not configured any more
}

// readAgain has the configuration read again, soon.
func (g *gateway) readAgain() {
	select {
	case g.again <- struct{}{}:
	default: // it is about to be
	}
}

// drain lets the open sessions end, for a while.
func (g *gateway) drain(cut context.CancelFunc) {
	g.front.Close()
	ctx, cancel := context.WithTimeout(context.Background(), g.config.Load().Limits.Drain.D())
	defer cancel()
	g.sessions.Drain(ctx)
	cut()
	last, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if err := g.front.Wait(last); err != nil {
		g.log.Warn("some connections did not end")
	}
}

// close closes what was opened, in reverse.
func (g *gateway) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	var errs []error
	if g.front != nil {
		g.front.Close()
	}
	g.telemetry.Close()
	if g.roles != nil {
		g.roles.Close()
	}
	if g.approvals != nil {
		g.approvals.close()
	}
	if g.alerts != nil {
		g.alerts.Close()
	}
	if g.grants != nil {
		errs = append(errs, g.grants.Close())
	}
	if g.authn != nil {
		errs = append(errs, g.authn.Close(ctx))
	}
	g.archive.Close()
	if g.recorder != nil {
		errs = append(errs, g.recorder.Close(ctx))
	}
	if g.smith != nil {
		g.smith.Close()
	}
	if g.ledger != nil {
		errs = append(errs, g.ledger.Close(ctx))
	}
	if g.store != nil {
		errs = append(errs, g.store.Close())
	}
	return errors.Join(errs...)
}
