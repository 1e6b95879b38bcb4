//go:build unix

// Package demo is all of Sallyport on one machine: an OpenID provider with three people and a CI issuer, the gateway, a
// throw-away PostgreSQL and a private sshd, everything on loopback and in one directory.
//
// It promises three things. What it starts is the real thing: the gateway is this same binary running `serve` with the
// sallyport.yaml that stands in the directory. It leaves nothing behind: children die with it (on Linux, however it
// dies), the throw-away data goes with it, and what a killed demo could not clean up the next one does. And nothing of it
// can be reached from another machine.
//
// Run is the demo for people, Check the whole story without one, Rig the demo for programs (docs/rig.md).
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"sallyport/configs"
	"sallyport/internal/demo/provider"
)

// Options configure a demo.
type Options struct {
	// Binary is the sallyport binary that is run as gateway and as command line.
	Binary string
	// Dir is the directory for everything. It must not exist, be empty, or be that of an earlier demo, of which the
	// gateway's state is kept. Empty: a new one below the system's temporary directory, removed at the end by Run and
	// Check and kept by Rig.
	Dir string
	// Durability of the recordings; empty: synced.
	Durability configs.Durability
	// NoTargetLog leaves the target's statement log off, for measurements.
	NoTargetLog bool
	// Out is where people and scripts read what happens.
	Out io.Writer
}

// Demo is a running demo.
type Demo struct {
	options   Options
	dir       string
	register  *register
	authority *authority
	provider  *provider.Provider
	postgres  *postgres
	sshd      *sshd
	gateway   *gateway
	witness   *http.Server

	witnessKey string
	people     map[string]*person
	steps      *steps
	log        *slog.Logger
	logFile    *os.File
	secret     string // the gateway's at the provider
}

// The targets.
const (
	pgTarget   = "orders"
	sshTarget  = "web-1"
	sshAccount = "deploy"
)

// The ports, by their place in the register.
const (
	portProvider = iota
	portPostgres
	portSSHD
	portHTTPS
	portGatewayPostgres
	portGatewayOrders
	portGatewaySSH
	portWitness
	ports
)

// start starts everything and signs the three people in. What it could start before an error is ended again.
func start(ctx context.Context, o Options, keep bool) (d *Demo, err error) {
	d = &Demo{options: o, steps: &steps{out: o.Out}}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.register, err = newRegister(ports); err != nil {
		return d, err
	}
	if err := d.prepare(keep); err != nil {
		return d, err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"the OpenID provider listens, with alice, bob and carol", d.startProvider},
		{"a throw-away PostgreSQL is up", func(ctx context.Context) (err error) {
			d.postgres, err = startPostgres(ctx, d, filepath.Join(d.dir, "postgres"), d.port(portPostgres))
			return err
		}},
		{"a private sshd is up", func(ctx context.Context) (err error) {
			dir, err := d.subdirectory("sshd")
			if err != nil {
				return err
			}
			d.sshd, err = startSSHD(ctx, d, dir, d.port(portSSHD))
			return err
		}},
		{"a witness cosigns the gateway's log", d.startWitness},
		{"the gateway is ready", d.startGateway},
		{"alice, bob and carol sign in at the provider, without a browser", d.signInAll},
		{"the sshd trusts the gateway's target authority", d.trustGateway},
	} {
		if err := d.steps.do(ctx, step.name, step.do); err != nil {
			return d, err
		}
	}
	return d, nil
}

// prepare makes the directory with what all parts need.
func (d *Demo) prepare(keep bool) error {
	if err := d.makeDirectory(keep); err != nil {
		return err
	}
	for _, name := range []string{"log", "homes", "secrets"} {
		if _, err := d.subdirectory(name); err != nil {
			return err
		}
	}
	var err error
	if d.logFile, err = os.OpenFile(filepath.Join(d.dir, "log", "demo.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return err
	}
	d.log = slog.New(slog.NewTextHandler(d.logFile, nil))
	d.authority, err = newAuthority(d.dir)
	return err
}

// remade are the parts of a directory that every demo makes anew; the rest is the gateway's state.
var remade = []string{"homes", "log", "postgres", "secrets", "sshd", "gateway.env", "gateway.pid", "sallyport.yaml"}

// makeDirectory makes the state directory. Others may pass through it, because the PostgreSQL server does when it runs as
// another user; what is in it is closed to them each by its own mode.
func (d *Demo) makeDirectory(keep bool) (err error) {
	if d.options.Dir == "" {
		if d.dir, err = os.MkdirTemp("", "sallyport-demo-*"); err != nil {
			return err
		}
		if !keep {
			if err := d.register.removeLater(d.dir); err != nil {
				return err
			}
		}
	} else {
		if d.dir, err = filepath.Abs(d.options.Dir); err != nil {
			return err
		}
		if err := os.MkdirAll(d.dir, 0o711); err != nil {
			return fmt.Errorf("make the state directory: %w", err)
		}
		there, err := os.ReadDir(d.dir)
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(d.dir, marker)); err != nil && len(there) > 0 {
			return fmt.Errorf("%s is neither empty nor a demo's directory; name another with --state", d.dir)
		}
		for _, name := range remade {
			if err := os.RemoveAll(filepath.Join(d.dir, name)); err != nil {
				return fmt.Errorf("clear the state directory: %w", err)
			}
		}
	}
	if err := mark(d.dir); err != nil {
		return err
	}
	mode := os.FileMode(0o700)
	if os.Getuid() == 0 {
		mode = 0o711
	}
	return os.Chmod(d.dir, mode)
}

// subdirectory makes a directory for this user alone in the state directory.
func (d *Demo) subdirectory(names ...string) (string, error) {
	dir := filepath.Join(append([]string{d.dir}, names...)...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a directory: %w", err)
	}
	return dir, nil
}

func (d *Demo) port(which int) int { return d.register.Ports[which] }

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// close ends everything, the gateway first, so that it still reaches its targets while it ends its sessions.
func (d *Demo) close() error {
	var errs []error
	if d.gateway != nil {
		d.gateway.end()
	}
	if d.witness != nil {
		errs = append(errs, d.witness.Close())
	}
	if d.sshd != nil {
		d.sshd.process.end(5 * time.Second)
	}
	if d.postgres != nil {
		d.postgres.process.end(10 * time.Second)
	}
	if d.provider != nil {
		errs = append(errs, d.provider.Close())
	}
	if d.logFile != nil {
		errs = append(errs, d.logFile.Close())
	}
	if d.register != nil {
		errs = append(errs, d.register.close())
	}
	return errors.Join(errs...)
}

// Run is the demo for people: it starts everything, prints lines to paste, and stays up until the context ends.
func Run(ctx context.Context, o Options) (err error) {
	d, err := start(ctx, o, o.Dir != "")
	if err != nil {
		return interrupted(ctx, err)
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.printLines(); err != nil {
		return err
	}
	<-ctx.Done()
	fmt.Fprintln(o.Out, "\nEnding everything …")
	return nil
}

// interrupted makes Ctrl-C during the start an ending like any other.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
