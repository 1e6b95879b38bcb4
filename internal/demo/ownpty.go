//go:build unix

package demo

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/creack/pty"
)

// ownGroups is a command that runs another with a group file of its own, in name spaces that need no privilege.
const ownGroups = `mount --bind "$1" /etc/group && shift && exec "$@"`

// sshdCommand is sshd in the foreground. It hands a new terminal to the group tty, which a user who is neither root nor in
// that group may not do; it needs not to where the terminal belongs to that group from the start (devpts mounted with
// gid=5), which it does on most machines, and where there is no such group. So where it has to be, sshd is shown a
// group file without it.
func sshdCommand(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	if terminalsWork() {
		return exec.Command(program, args...)
	}
	groups, err := os.ReadFile("/etc/group")
	if err != nil {
		return exec.Command(program, args...)
	}
	lines := slices.DeleteFunc(strings.SplitAfter(string(groups), "\n"), func(line string) bool { return strings.HasPrefix(line, "tty:") })
	file := filepath.Join(dir, "group")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o644); err != nil {
		return exec.Command(program, args...)
	}
	apart := []string{"--user", "--map-current-user", "--keep-caps", "--mount", "--", "sh", "-c", ownGroups, "sh", file}
	if exec.CommandContext(ctx, "unshare", append(slices.Clone(apart), "true")...).Run() != nil {
		return exec.Command(program, args...) // then a shell with a terminal fails, and sshd's log says why
	}
	return exec.Command("unshare", append(append(apart, program), args...)...)
}

// terminalsWork tells whether sshd can hand out terminals when this user runs it.
func terminalsWork() bool {
	if os.Getuid() == 0 {
		return true
	}
	group, err := user.LookupGroup("tty")
	if err != nil {
		return true
	}
	number, err := strconv.Atoi(group.Gid)
	if err != nil {
		return true
	}
	if mine, err := os.Getgroups(); err == nil && slices.Contains(mine, number) {
		return true
	}
	ours, theirs, err := pty.Open()
	if err != nil {
		return true
	}
	defer ours.Close()
	defer theirs.Close()
	info, err := theirs.Stat()
	if err != nil {
		return true
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return !ok || int(stat.Gid) == number
}
