package rules

import (
	"slices"
	"strings"
)

// MaxEnvironment bounds the environment of one channel, names and values together, in bytes.
const MaxEnvironment = 64 << 10

// Variable says whether a client may set the variable on a target. Only what describes the client's terminal
// and language passes, and what the role names: variables such as LD_PRELOAD, BASH_ENV or GIT_SSH_COMMAND run programs.
func Variable(name string, more []string) bool {
	switch name {
	case "LANG", "TERM", "COLORTERM":
		return true
	}
	if slices.Contains(more, name) {
		return true
	}
	category, ok := strings.CutPrefix(name, "LC_")
	if !ok || category == "" || len(category) > 64 {
		return false
	}
	for _, r := range category {
		if (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' {
			return false
		}
	}
	return true
}
