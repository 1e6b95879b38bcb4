package session

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// replaceDescriptor puts a copy of f in the place of the descriptor with that number.
func replaceDescriptor(t *testing.T, number string, f *os.File) {
	t.Helper()
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(int(f.Fd()), n, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
}
