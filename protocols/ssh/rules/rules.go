// Package rules decides, by the limits of a role and by how things are written, what may be asked for: pure functions, which know no
// connection and no session. What they do not know they do not allow.
package rules

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"sallyport/configs"
)

// Runs is what the limits do not allow of a request, in words; empty: it may go on.
func Runs(limits configs.SSHLimits, request, line string) string {
	if len(limits.Commands) > 0 {
		switch {
		case request == "exec" && line != configs.NoCommand && slices.Contains(limits.Commands, line):
			return ""
		case request == "exec":
			return "not this command"
		default:
			return "nothing but certain commands"
		}
	}
	switch {
	case request == "shell":
		if !configs.On(limits.Shell, true) {
			return "no shell"
		}
	case request == "subsystem" && line == "sftp":
		if !configs.On(limits.SFTP, true) {
			return "no sftp, and no scp that uses it"
		}
	case request == "exec" && copies(line):
		if !configs.On(limits.SCP, true) {
			return "no scp and no rsync"
		}
		if !configs.On(limits.Exec, true) && !plainSCP.MatchString(line) {
			return "no commands"
		}
	default:
		if !configs.On(limits.Exec, true) {
			return "no commands"
		}
	}
	return ""
}

// copies says that the command is the far end of scp or rsync. Somebody who may run commands can copy in other ways too;
// the limit is a rail for them, not a wall.
func copies(line string) bool {
	words := strings.Fields(line)
	if len(words) < 2 {
		return false
	}
	switch path.Base(words[0]) {
	case "scp":
		return slices.ContainsFunc(words[1:], func(w string) bool {
			return strings.HasPrefix(w, "-") && strings.ContainsAny(w, "tf")
		})
	case "rsync":
		return slices.Contains(words[1:], "--server")
	}
	return false
}

// plainSCP is scp's far end and certainly nothing else: for roles that may copy and not run commands, so it knows no
// character in which a shell sees more than a name.
var plainSCP = regexp.MustCompile(`^scp( -[vrpdq]+)* -[tf]( --)? [A-Za-z0-9_./~@%+=:,][A-Za-z0-9_./~@%+=:,-]*$`)
