// Package secrets fetches what the configuration only refers to: passwords, tokens and keys.
//
// It promises that none of it stands in an error or a log, that a file which others may write is not believed, and that a command
// which fetches one secret is given no other.
package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/configs"
)

const (
	maxSecret     = 64 << 10
	secretTimeout = 10 * time.Second
)

// Resolve fetches what a reference names (env:NAME, file:PATH or command:PROGRAM ARGS), without the trailing newline. A file that
// others may write is refused; one that everybody may read is used with a warning. A command runs without a shell: its
// words are split at blanks, and quotes ('…', "…") and backslashes keep blanks in a word; it has ten seconds, and the environment
// without what Withhold keeps back. A secret has
// 64 KiB at the most and is never empty. No error holds any of it, nor of a reference that is not one, for that may be
// a password somebody wrote in the wrong place.
func Resolve(ctx context.Context, ref configs.SecretRef) (string, error) {
	kind, rest, ok := strings.Cut(string(ref), ":")
	if !ok {
		kind = ""
	}
	var value []byte
	var err error
	switch kind {
	case "env":
		v, found := os.LookupEnv(rest)
		if value = []byte(v); !found {
			err = errors.New("is not set")
		}
	case "file":
		value, err = readSecret(ctx, rest)
	case "command":
		value, err = runSecret(ctx, rest)
	default:
		return "", errors.New("a secret is written as env:NAME, file:PATH or command:PROGRAM ARGS, never as itself")
	}
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", ref, err)
	}
	value = bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r"))
	switch {
	case len(value) == 0:
		return "", fmt.Errorf("secret %s: is empty", ref)
	case len(value) > maxSecret:
		return "", fmt.Errorf("secret %s: is longer than %d bytes", ref, maxSecret)
	case bytes.IndexByte(value, 0) >= 0:
		return "", fmt.Errorf("secret %s: holds a NUL byte, which no protocol can carry", ref)
	}
	return string(value), nil
}

func readSecret(ctx context.Context, path string) ([]byte, error) {
	info, err := os.Stat(path) // before opening, which would wait on a pipe
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a plain file")
	}
	if runtime.GOOS != "windows" {
		switch mode := info.Mode().Perm(); {
		case mode&0o022 != 0:
			return nil, fmt.Errorf("others than its owner may write it (mode %#o): run chmod go-w on it", mode)
		case mode&0o004 != 0:
			slog.WarnContext(ctx, "everybody on this machine may read a file with a secret; run chmod o-r on it", "file", path)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSecret+2)) // with its newline
}

func runSecret(ctx context.Context, line string) ([]byte, error) {
	words, err := splitWords(line)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return nil, errors.New("names no program")
	}
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, words[0], words[1:]...)
	command.Env = commandEnvironment()
	command.WaitDelay = time.Second // children that keep its output open
	out := &limited{left: maxSecret + 2}
	command.Stdout = out
	// What it says on stderr may quote the secret, so it goes nowhere.
	if err := command.Run(); err != nil {
		switch {
		case out.left < 0: // whichever way the program then ended
			return nil, fmt.Errorf("wrote more than %d bytes", maxSecret)
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return nil, fmt.Errorf("did not end within %s", secretTimeout)
		}
		return nil, err
	}
	return out.got.Bytes(), nil
}

// withheld are the names of environment variables that no command of Resolve is given. Like the environment there is one a process.
var withheld atomic.Pointer[[]string]

// Withhold keeps those environment variables, and the headers of OpenTelemetry's exporters, from the commands that Resolve runs: each
// is to know the secret that it fetches, and no other. What a later call leaves out stays withheld.
func Withhold(names []string) {
	for {
		old := withheld.Load()
		all := slices.Clone(names)
		if old != nil {
			all = append(all, *old...)
		}
		slices.Sort(all)
		all = slices.Compact(all)
		if withheld.CompareAndSwap(old, &all) {
			return
		}
	}
}

// commandEnvironment is what the commands of Resolve are given.
func commandEnvironment() []string {
	var names []string
	if all := withheld.Load(); all != nil {
		names = *all
	}
	return slices.DeleteFunc(os.Environ(), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.Contains(names, name) || strings.HasPrefix(name, "OTEL_EXPORTER_OTLP") && strings.HasSuffix(name, "HEADERS")
	})
}

var errTooLong = errors.New("too long")

// limited is a buffer that fails when it is full. It is no bytes.Buffer by embedding, for that would also be an
// io.ReaderFrom, which takes everything.
type limited struct {
	got  bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errTooLong
	}
	return l.got.Write(p)
}

// splitWords splits a command line as a shell would, but expands nothing.
func splitWords(line string) (words []string, err error) {
	var word strings.Builder
	var quote rune
	inWord, escaped := false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote or backslash in it is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
