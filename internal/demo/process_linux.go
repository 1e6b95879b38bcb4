package demo

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent has the kernel send signal to the child when the demo dies.
func dieWithParent(attr *syscall.SysProcAttr, signal syscall.Signal) { attr.Pdeathsig = signal }

// startTime is when the process started, in clock ticks since boot (proc(5), field 22 of stat); empty if there is none,
// or only a zombie.
func startTime(pid int) string {
	fields := stat(pid)
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// stat are the fields of /proc/PID/stat from the third (state) on. The second, the command's name, may hold blanks and
// parentheses.
func stat(pid int) []string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
	return strings.Fields(rest)
}

// descendants are the children of a process and theirs, deepest last.
func descendants(pid int) []identity {
	children := make(map[int][]int)
	paths, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	for _, path := range paths {
		child, _ := strconv.Atoi(filepath.Base(path))
		if fields := stat(child); len(fields) > 1 {
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
