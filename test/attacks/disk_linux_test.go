package attacks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/test/rig"
)

// TestFullDisk fills the disk under the recordings. First the reserve is touched: nobody new is let in. Then there is
// no room at all: what is open is cut, with the reason, and not one more statement reaches the target. When there is room
// again, all is as before.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a tiny file system")
	}
	s := newScene(t)
	recordings := s.Path("recordings")
	if err := syscall.Mount("tmpfs", recordings, "tmpfs", 0, "size=96m,mode=0700"); err != nil {
		if errors.Is(err, syscall.EPERM) {
			t.Skip("this machine lets nobody mount: ", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(recordings, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	// The gateway that runs has its files elsewhere; the next one finds the tiny disk.
	s.EndGateway(syscall.SIGKILL)
	s.Ready()
	s.arrive()

	fill := func(leave uint64) {
		t.Helper()
		var disk syscall.Statfs_t
		if err := syscall.Statfs(recordings, &disk); err != nil {
			t.Fatal(err)
		}
		free := disk.Bavail * uint64(disk.Bsize)
		f, err := os.OpenFile(filepath.Join(recordings, "somebody-elses"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for piece := make([]byte, 4096); free > leave; free -= min(free, uint64(len(piece))) {
			if _, err := f.Write(piece); errors.Is(err, syscall.ENOSPC) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}

	fill(20 << 20) // of the configuration's reserve of 64 MiB
	var out rig.Outcome
	tries, late := 0, ""
	s.Until(time.Minute, "new sessions are refused", func() error { // the gateway looks at its disk every now and then
		tries++
		late = fmt.Sprintf("SELECT 'too late, the %dth'", tries)
		if out = s.PSQL("SALLYPORT_PG", "-c", late); out.Code == 0 {
			return errors.New("they are let in")
		}
		return nil
	})
	s.tells(out, "FATAL:", "disk is full", "make room")
	s.tells(s.SSH("true"), "sallyport: ", "disk is full", "make room")
	s.audited("session.refused", "recorder_failed", "Alice")
	if status, text := s.get("/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(text, "recorder_failed") {
		t.Errorf("/readyz answers %d: %s", status, text)
	}
	s.undisturbed() // who is in goes on

	fill(0)
	// Statements until one is refused. The recording's own room is used up first, so a few may still pass.
	refused := ""
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := 0; refused == ""; i++ {
		text := fmt.Sprintf("full disk %d %s", i, strings.Repeat("x", 8000))
		if _, err := s.database.Exec(ctx, "SELECT length('"+text+"')"); err != nil {
			refused = text
			if !strings.Contains(err.Error(), "FATAL") || !strings.Contains(err.Error(), "record") {
				t.Errorf("the statement failed without a reason: %v", err)
			}
		}
		if i > 20_000 {
			t.Fatal("statements pass although there is no room to record them")
		}
	}
	// The target's log is written in order: what is not there when the next statement is has not been received.
	direct := s.PSQL("SALLYPORT_PG_DIRECT", "-c", "SELECT 'after the refusal'")
	if direct.Code != 0 {
		t.Fatal(direct.Text())
	}
	var log string
	s.Until(time.Minute, "the target's log is written", func() error {
		log = string(read(t, s.Env["SALLYPORT_TARGET_LOG"]))
		if !strings.Contains(log, "after the refusal") {
			return errors.New("not yet")
		}
		return nil
	})
	if strings.Contains(log, refused) {
		t.Error("the target received a statement that could not be recorded")
	}
	if strings.Contains(log, late) {
		t.Error("the target received a statement of a session that was refused")
	}

	if err := os.Remove(filepath.Join(recordings, "somebody-elses")); err != nil {
		t.Fatal(err)
	}
	s.Until(time.Minute, "there is room again", func() error {
		if out := s.PSQL("SALLYPORT_PG", "-c", "SELECT 1"); out.Code != 0 {
			return errors.New(out.Text())
		}
		return nil
	})
	list := s.As("carol", "sessions", "--all", "--json")
	if !strings.Contains(list.Stdout, "recorder_failed") {
		t.Errorf("no session ended because it could not be recorded:\n%s", list.Stdout)
	}
}
