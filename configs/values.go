package configs

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Duration is a time.Duration written as 90s, 30m, 8h or 7d; parts may follow each other (1d12h).
type Duration time.Duration

// D is the plain duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// ParseDuration reads a Duration. It is never negative.
func ParseDuration(text string) (Duration, error) {
	wrong := fmt.Errorf("%q is not a duration; write it like 90s, 30m, 8h or 7d", text)
	days, rest, found := strings.Cut(text, "d")
	if !found {
		days, rest = "", text
	}
	var total time.Duration
	if found {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 10_000 {
			return 0, wrong
		}
		total = time.Duration(n) * 24 * time.Hour
	}
	if rest != "" || !found {
		part, err := time.ParseDuration(rest)
		if err != nil || part < 0 || part > 10_000*24*time.Hour {
			return 0, wrong
		}
		total += part
	}
	return Duration(total), nil
}

// String writes it as ParseDuration reads it.
func (d Duration) String() string {
	text := time.Duration(d).String()
	if whole, found := strings.CutSuffix(text, "m0s"); found {
		text = whole + "m"
	}
	if whole, found := strings.CutSuffix(text, "h0m"); found {
		text = whole + "h"
	}
	return text
}

// ByteSize is a number of bytes written as 512MiB or 2GiB.
type ByteSize int64

// ParseByteSize reads a ByteSize.
func ParseByteSize(text string) (ByteSize, error) {
	n, err := humanize.ParseBytes(text)
	if err != nil || n > 1<<62 {
		return 0, fmt.Errorf("%q is not a size; write it like 512MiB or 2GiB", text)
	}
	return ByteSize(n), nil
}

// SecretRef names a secret without being one: env:NAME, file:PATH or command:PROGRAM ARGS.
type SecretRef string

// Parse splits the reference into its kind and the rest.
func (r SecretRef) Parse() (kind, rest string, err error) {
	kind, rest, found := strings.Cut(string(r), ":")
	switch {
	case !found || rest == "":
	case kind == "env", kind == "file", kind == "command":
		return kind, rest, nil
	}
	// What stands there may be the secret itself: it is not repeated.
	return "", "", fmt.Errorf("not a reference to a secret; write env:NAME, file:PATH or command:PROGRAM ARGS")
}
