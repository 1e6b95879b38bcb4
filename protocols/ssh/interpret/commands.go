package interpret

import (
	"path"
	"slices"
	"strings"
)

// What the text of a command says about its streams. It decides how much of them is kept word for word and what they are
// taken to mean, never whether they are recorded: all are, by length and hash at least.

// SFTP says that a request starts an sftp server: the subsystem, or the program by its name, which is what `sftp -s PROGRAM`
// asks for.
func SFTP(request, line string) bool {
	switch request {
	case "subsystem":
		return line == "sftp"
	case "exec":
		words := strings.Fields(line)
		return len(words) > 0 && path.Base(words[0]) == "sftp-server" && !compound(line)
	}
	return false
}

// compound says that a shell could do more for a line than run one program. What else it runs says what it likes on the same
// streams, so they are not taken for the program's.
func compound(line string) bool { return strings.ContainsAny(line, ";&|`$()<>\n\r") }

// SCP says that a command is the far end of the old scp protocol, and whether files come to it (upload) or from it. at is
// the path that it was given.
func SCP(request, line string) (upload bool, at string, ok bool) {
	words := strings.Fields(line)
	if request != "exec" || len(words) < 3 || path.Base(words[0]) != "scp" || compound(line) {
		return false, "", false
	}
	for i, w := range words[1:] {
		if !strings.HasPrefix(w, "-") || w == "--" {
			break
		}
		switch {
		case strings.Contains(w, "t"):
			upload, ok = true, true
		case strings.Contains(w, "f"):
			upload, ok = false, true
		default:
			continue
		}
		at = strings.TrimPrefix(strings.Join(words[i+2:], " "), "-- ")
	}
	return upload, at, ok
}

// Rsync says that a command is the far end of rsync, in which direction files go, and the path it was given.
func Rsync(request, line string) (upload bool, at string, ok bool) {
	words := strings.Fields(line)
	if request != "exec" || len(words) < 3 || path.Base(words[0]) != "rsync" || words[1] != "--server" {
		return false, "", false
	}
	return words[2] != "--sender", words[len(words)-1], true
}

// interpreters are programs that do what their input says.
var interpreters = []string{
	"sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "csh", "tcsh", "perl", "ruby", "node", "php", "lua", "psql", "mysql", "mariadb", "sqlite3",
	"redis-cli", "mongosh", "su", "pwsh", "ed", "ex", "bc", "xargs", "parallel", "at", "batch", "crontab",
}

// Interprets says that a request starts something that takes its input for commands: a shell, or a command with an
// interpreter in it. Such input is kept word for word up to a bound. Who wants to can hide it from this; then its length and
// hash are there.
func Interprets(request, line string) bool {
	if request == "shell" {
		return true
	}
	if request != "exec" {
		return false
	}
	words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\n|;&()`$'\"<>", r) })
	return slices.ContainsFunc(words, func(w string) bool {
		name := path.Base(w)
		return slices.Contains(interpreters, name) || strings.HasPrefix(name, "python")
	})
}
