//go:build unix

package main

import (
	"context"
	"time"

	"sallyport/authn/secrets"
	"sallyport/configs"
	"sallyport/recorder/archive"
)

// openArchive opens the way to the archive, if there is one; it starts when there are recordings.
func (g *gateway) openArchive(ctx context.Context, config *configs.Config) (err error) {
	if !config.Archive.Used() {
		return nil
	}
	g.archive, err = archive.New(ctx, archive.Options{
		Config: config.Archive, Dir: config.State, Secret: secrets.Resolve, Store: g.store, Ledger: g.ledger, Log: g.log,
	})
	return err
}

// archived is what the recorder asks before it deletes a recording; nil without an archive.
func (g *gateway) archived() func(context.Context, string) (string, map[string]string, error) {
	if g.archive == nil {
		return nil
	}
	return g.archive.Kept
}

// auditAge is how old the audit log's files grow.
func auditAge(config *configs.Config) time.Duration {
	if !config.Archive.Used() {
		return 0
	}
	return config.Archive.AuditLog.D()
}

// archiveMetrics tells how much has ended and is not in the archive yet, how much was destroyed here and is still there, and how long
// ago it had everything; nil without one.
func (g *gateway) archiveMetrics() func(context.Context) (waiting, shredding int, since time.Duration, err error) {
	if g.archive == nil {
		return nil
	}
	return func(ctx context.Context) (waiting, shredding int, since time.Duration, err error) {
		s, err := g.archive.Status(ctx)
		if err != nil {
			return 0, 0, 0, err
		}
		return s.Waiting, s.Shredding, time.Since(s.Since()), nil
	}
}
