package recorder

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/recorder/format"
	"sallyport/recorder/verify"
	"sallyport/recorder/wal"
)

// TestMain is also the child of the kill storm.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SALLYPORT_TEST_CHILD"); dir != "" {
		recordAndAcknowledge(dir, configs.Durability(os.Getenv("SALLYPORT_TEST_LEVEL")))
	}
	if dir := os.Getenv("SALLYPORT_TEST_PACK_CHILD"); dir != "" {
		packUntilKilled(dir)
	}
	if dir := os.Getenv("SALLYPORT_TEST_INDEX_CHILD"); dir != "" {
		recordAndIndex(dir)
	}
	os.Exit(m.Run())
}

// childSessions share the log, whose segments are small, so that they are used again within a round.
const (
	childSessions = 8
	childSegment  = 64 << 10
)

// recordAndAcknowledge records numbered events in some sessions, and says each number on standard output once it is
// safe, until it is killed.
func recordAndAcknowledge(dir string, level configs.Durability) {
	on := system()
	on.Segment = childSegment
	r, err := open(context.Background(), Options{Dir: dir, Config: configs.Recording{Durability: level, AllowVolatile: true}, Recipients: func(string) []string {
		return strings.Fields(os.Getenv("SALLYPORT_TEST_RECIPIENT"))
	}}, on)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var recs []*Recording
	for i := range childSessions {
		session := fmt.Sprintf("%s-%d", os.Getenv("SALLYPORT_TEST_ROUND"), i)
		rec, err := r.Begin(context.Background(), format.Header{Session: session, Protocol: "test"}, "")
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		recs = append(recs, rec)
	}
	var print sync.Mutex
	var all sync.WaitGroup
	for _, rec := range recs {
		for caller := range 2 {
			all.Go(func() {
				for n := caller; ; n += 2 {
					e := Event{Type: format.TypeSaid, Data: fmt.Appendf(nil, "%d %s", n, strings.Repeat("x", n%997))}
					rec.Note(Event{Type: format.TypeAnswered, Data: []byte("seen")})
					if err := rec.Record(context.Background(), e); err != nil {
						fmt.Println("error", err)
						os.Exit(1)
					}
					print.Lock()
					fmt.Println(rec.Header().Session, n)
					print.Unlock()
				}
			})
		}
	}
	all.Wait()
}

// Whatever was acknowledged is there after a kill -9, at any instant and at each place of the write path, and every
// recording is whole after the next start.
func TestKillStorm(t *testing.T) {
	levels(t, func(t *testing.T, level configs.Durability) {
		dir := t.TempDir()
		acknowledged := map[string]map[int]bool{}
		rounds := []string{beforeWrite, halfWritten, afterWrite, "", "", "", ""}
		if level == configs.Synced {
			rounds = append(rounds, afterSync, wal.BeforeWrite, wal.HalfWritten, wal.AfterWrite, wal.AfterSync,
				wal.HalfWritten, wal.BeforeCheckpoint, wal.AfterCheckpoint, wal.BeforeCheckpoint, wal.AfterCheckpoint)
		}
		for round, place := range rounds {
			storm(t, dir, level, round, place, acknowledged)
		}
		r := openRecorder(t, dir, level)
		if want := len(rounds) * childSessions; len(acknowledged) == 0 || len(r.paths) != want {
			t.Fatalf("%d sessions of %d, %d with acknowledged events", len(r.paths), want, len(acknowledged))
		}
		total := 0
		for session, numbers := range acknowledged {
			found := map[int]bool{}
			for _, text := range texts(t, r, session) {
				number, _, _ := strings.Cut(text, " ")
				if n, err := strconv.Atoi(number); err == nil {
					if found[n] {
						t.Errorf("%s: event %d is there twice", session, n)
					}
					found[n] = true
				}
			}
			for n := range numbers {
				if !found[n] {
					t.Errorf("%s: event %d was acknowledged and is gone", session, n)
				}
			}
			total += len(numbers)
			if reason := ending(t, r, session); reason != "crashed" {
				t.Errorf("%s ended %q", session, reason)
			}
		}
		t.Logf("%d events acknowledged in %d sessions", total, len(acknowledged))
		report, err := verify.Check(dir, verify.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range report.Recordings {
			if f.State != verify.Sealed {
				t.Errorf("%s is %s: %v", f.Path, f.State, f.Problems)
			}
		}
	})
}

// storm runs one child until it dies, by itself at a place, or killed at random.
func storm(t *testing.T, dir string, level configs.Durability, round int, place string, acknowledged map[string]map[int]bool) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "SALLYPORT_TEST_CHILD="+dir, "SALLYPORT_TEST_LEVEL="+string(level),
		fmt.Sprintf("SALLYPORT_TEST_ROUND=%d", round), "SALLYPORT_FAULTS=1")
	if place != "" {
		n := 50 + rand.IntN(200)
		if strings.HasPrefix(place, "checkpoint-") {
			n = 1 + rand.IntN(6)
		}
		child.Env = append(child.Env, fmt.Sprintf("SALLYPORT_CRASH_AT=%s:%d", place, n))
	}
	child.Stderr = t.Output()
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(2*time.Minute, func() { child.Process.Kill() })
	defer stuck.Stop()
	lines, killAfter := 0, 100+rand.IntN(400)
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		session, number, _ := strings.Cut(scanner.Text(), " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("the child says %q", scanner.Text())
		}
		if acknowledged[session] == nil {
			acknowledged[session] = map[int]bool{}
		}
		acknowledged[session][n] = true
		if lines++; place == "" && lines == killAfter {
			child.Process.Kill()
		}
	}
	child.Wait()
	if state := child.ProcessState.String(); state != "signal: killed" {
		t.Fatalf("the child ended by itself: %s", state)
	}
	if place != "" && !stuck.Stop() {
		t.Fatalf("the child never came to %s", place)
	}
}

func TestFaultsNeedTheirSwitch(t *testing.T) {
	t.Setenv("SALLYPORT_CRASH_AT", "record-before-write")
	t.Setenv("SALLYPORT_FAULTS", "")
	if f, err := faultsFromEnvironment(testLog(t)); f != nil || err != nil {
		t.Errorf("without SALLYPORT_FAULTS=1: %v, %v", f, err)
	}
	t.Setenv("SALLYPORT_FAULTS", "1")
	for text, good := range map[string]bool{"record-before-write": true, "record-after-sync:3": true, "checkpoint-before-sync": true, "nowhere": false, "record-after-sync:x": false, "record-after-sync:0": false} {
		t.Setenv("SALLYPORT_CRASH_AT", text)
		if f, err := faultsFromEnvironment(testLog(t)); (f != nil) != good || (err == nil) != good {
			t.Errorf("%s: %v, %v", text, f, err)
		}
	}
}
