package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"

	"github.com/jackc/pgx/v5"
)

// A scenario's last step needs its account to lose its access under a working pool, and to get it back. How that is done is
// the one thing in which the two sides cannot be the same: straight, the role is forbidden to log in and its backends are
// terminated; through the gateway, its grant is revoked, and another is asked for and approved. So a scenario asks the
// harness, over HTTP, and sees the same from its server: 57P01 where it was connected, 28000 where it connects.

// access ends the ordinary account's access to one side and gives it back.
type access struct {
	*bench
	side  *side
	ended bool
}

// offer serves a scenario's two questions, POST /end and POST /renew, until close is called. close gives back what was not
// given back.
func (b *bench) offer(ctx context.Context, s *side) (url string, closing func() error, err error) {
	a := &access{bench: b, side: s}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	answer := func(do func(context.Context) error) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if err := do(ctx); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}
	}
	routes := http.NewServeMux()
	routes.HandleFunc("POST /end", answer(a.end))
	routes.HandleFunc("POST /renew", answer(a.renew))
	server := &http.Server{Handler: routes}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	closing = func() error {
		err := server.Close()
		if gone := <-served; !errors.Is(gone, http.ErrServerClosed) {
			err = errors.Join(err, gone)
		}
		if a.ended {
			err = errors.Join(err, a.renew(context.WithoutCancel(ctx)))
		}
		return err
	}
	return "http://" + listener.Addr().String(), closing, nil
}

func (a *access) end(ctx context.Context) error {
	a.ended = true
	if a.side.name == a.gateway.name {
		return a.revoke(ctx)
	}
	return a.asSuperuser(ctx, "alter role %I nologin", "select pg_terminate_backend(pid) from pg_stat_activity where usename = %L")
}

func (a *access) renew(ctx context.Context) error {
	if a.side.name == a.gateway.name {
		if err := a.request(ctx); err != nil {
			return err
		}
	} else if err := a.asSuperuser(ctx, "alter role %I login"); err != nil {
		return err
	}
	a.ended = false
	return nil
}

// asSuperuser runs statements on the account's role, whose name goes where the format says.
func (a *access) asSuperuser(ctx context.Context, formats ...string) error {
	conn, err := a.administer(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, format := range formats {
		rows, err := conn.Query(ctx, "select format($1, $2::text)", format, a.side.plain["user"])
		if err != nil {
			return err
		}
		statement, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// granted is the account's name at the gateway: the rig calls its one PostgreSQL so.
func (a *access) granted() string { return a.side.plain["user"] + "@orders" }

func (a *access) revoke(ctx context.Context) error {
	var grants []struct{ ID, Account, Target, State string }
	if err := a.sallyport(ctx, "ALICE", &grants, "grants"); err != nil {
		return err
	}
	revoked := 0
	for _, grant := range grants {
		if grant.Account+"@"+grant.Target != a.granted() {
			continue
		}
		if err := a.sallyport(ctx, "CAROL", nil, "revoke", grant.ID, "--reason", "the pool's step"); err != nil {
			return err
		}
		revoked++
	}
	if revoked == 0 {
		return fmt.Errorf("of %d grants none is for %s", len(grants), a.granted())
	}
	return nil
}

func (a *access) request(ctx context.Context) error {
	var grant struct{ ID string }
	if err := a.sallyport(ctx, "ALICE", &grant, "request", a.granted(), "--duration", "12h", "--reason", "the pool goes on"); err != nil {
		return err
	}
	return a.sallyport(ctx, "BOB", nil, "approve", grant.ID)
}

// sallyport runs a command as one of the rig's people and reads its JSON.
func (b *bench) sallyport(ctx context.Context, person string, into any, args ...string) error {
	run := exec.CommandContext(ctx, b.exports["SALLYPORT_BIN"], append(args, "--json")...)
	run.Env = append(os.Environ(), "SALLYPORT_HOME="+b.exports["SALLYPORT_HOME_"+person])
	out, err := run.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s%s", err, tail(string(out)), tail(string(exit.Stderr)))
		}
		return fmt.Errorf("sallyport %s: %w", args[0], err)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(out, into)
}
