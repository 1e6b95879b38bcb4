package rig

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// startedIn are the processes in whose environment the directory for temporary files is that one or is in it.
func startedIn(dir string) (pids []int) {
	environments, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is good
	for _, path := range environments {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		environment, err := os.ReadFile(path)
		if err != nil {
			continue // another user's, or gone
		}
		for variable := range strings.SplitSeq(string(environment), "\x00") {
			if value, found := strings.CutPrefix(variable, "TMPDIR="); found && (value == dir || strings.HasPrefix(value, dir+"/")) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// unmountIn unmounts what is mounted in the directory, the last first.
func unmountIn(dir string) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		// The fifth field is where (proc(5)).
		if fields := strings.Fields(lines[i]); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			_ = syscall.Unmount(fields[4], syscall.MNT_DETACH)
		}
	}
}
