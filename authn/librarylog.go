package authn

import (
	"context"
	"log/slog"
)

// LibraryLog is a handler for what libraries log by themselves, through slog's default: the issuer's logs each request that
// it refuses, with what a stranger wrote in it. That is for looking closely only, so all of it is at level debug; what goes
// wrong in the gateway itself is logged by the gateway.
func LibraryLog(next slog.Handler) slog.Handler { return libraryLog{next} }

type libraryLog struct{ next slog.Handler }

func (l libraryLog) Enabled(ctx context.Context, _ slog.Level) bool {
	return l.next.Enabled(ctx, slog.LevelDebug)
}

func (l libraryLog) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return l.next.Handle(ctx, r)
}

func (l libraryLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return libraryLog{l.next.WithAttrs(attrs)}
}
func (l libraryLog) WithGroup(name string) slog.Handler { return libraryLog{l.next.WithGroup(name)} }
