//go:build unix

package main

import (
	"log/slog"
	"runtime"
	"syscall"
)

// forbidCoreDumps keeps the gateway's memory, which holds keys and what passes through it, out of files when it crashes, however it
// was started and whatever GOTRACEBACK says. On Linux a limit of one byte also keeps it from a program that collects dumps
// (kernel.core_pattern with a pipe), which a limit of zero does not: fs/coredump.c, do_coredump.
func forbidCoreDumps(log *slog.Logger) {
	limit := syscall.Rlimit{}
	if runtime.GOOS == "linux" {
		limit = syscall.Rlimit{Cur: 1, Max: 1}
	}
	err := syscall.Setrlimit(syscall.RLIMIT_CORE, &limit)
	if err != nil { // whoever started it allows none at all, and a limit can only be lowered
		err = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	}
	if err != nil {
		log.Warn("core dumps could not be forbidden: a crash may leave the gateway's memory on disk", "error", err)
	}
}
