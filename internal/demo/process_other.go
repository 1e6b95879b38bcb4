//go:build unix && !linux

package demo

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent does nothing where the kernel has no such service; what a killed demo leaves, the next run ends.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}

// startTime is when the process started, as ps says it; empty if there is none, or only a zombie.
func startTime(pid int) string {
	out, err := exec.Command("ps", "-o", "state=,lstart=", "-p", strconv.Itoa(pid)).Output()
	state, started, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if err != nil || strings.HasPrefix(state, "Z") {
		return ""
	}
	return strings.TrimSpace(started)
}

// descendants are the children of a process and theirs, deepest last.
func descendants(pid int) []identity {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil
	}
	children := make(map[int][]int)
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) == 2 {
			child, _ := strconv.Atoi(fields[0])
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], child)
		}
	}
	var family []identity
	for queue := children[pid]; len(queue) > 0; queue = queue[1:] {
		family = append(family, identify("", queue[0]))
		queue = append(queue, children[queue[0]]...)
	}
	return family
}
