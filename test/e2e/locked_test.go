package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"

	"sallyport/test/rig"
)

// TestLockedRecordings: with recipients, what was done stands nowhere in what the gateway keeps, the gateway can't show it, and
// who holds the identity can, also from a file alone. The log is verified without any key.
func TestLockedRecordings(t *testing.T) {
	r := rig.Start(t, rig.Binary(t, ""))
	identity, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(key, []byte(identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lockTo(t, r, identity.Recipient().String())

	const inSQL, inSSH = "canary-zebra-42", "canary-giraffe-43"
	workBoth(t, r, inSQL, inSSH)
	for _, c := range []struct{ protocol, canary string }{{"postgres", inSQL}, {"ssh", inSSH}} {
		id := endedSession(r, c.protocol)
		if out := r.As("carol", "replay", id); out.Code == 0 || !strings.Contains(out.Stderr, "--identity") {
			t.Errorf("replay by the gateway: %+v", out)
		}
		if out := r.As("carol", "replay", id, "--identity", key); out.Code != 0 || !strings.Contains(out.Stdout, c.canary) {
			t.Errorf("replay by its recipient: %+v", out)
		}
		file := filepath.Join(t.TempDir(), "kept.srec")
		if out := r.As("carol", "export", id, "--format", "srec", "-o", file); out.Code != 0 {
			t.Fatalf("%+v", out)
		}
		if out := r.As("carol", "replay", file, "--identity", key); out.Code != 0 || !strings.Contains(out.Stdout, c.canary) {
			t.Errorf("replay of a file: %+v", out)
		}
		if out := r.As("alice", "replay", id, "--identity", key); out.Code == 0 {
			t.Error("somebody without the permission was given the recording")
		}
	}
	if out := r.As("carol", "search", "canary"); out.Code == 0 || strings.Contains(out.Stdout, "canary-") {
		t.Errorf("search by the gateway: %+v", out)
	}
	searchLocked(t, r, key, inSQL, inSSH)
	if out := r.As("carol", "verify"); out.Code != 0 {
		t.Errorf("verify: %+v", out)
	}
	nowhere(t, r, inSQL, inSSH)
}

// workBoth does something by each protocol in which a word stands.
func workBoth(t *testing.T, r *rig.Rig, inSQL, inSSH string) {
	t.Helper()
	if out := r.PSQL("SALLYPORT_PG", "-c", "SELECT '"+inSQL+"'"); out.Stdout != inSQL+"\n" {
		t.Fatalf("%+v", out)
	}
	if out := r.SSH("echo " + inSSH); out.Stdout != inSSH+"\n" {
		t.Fatalf("%+v", out)
	}
}

// searchLocked: who has the identity and a copy of the recordings searches in an index of his own, which is kept up to date
// and can't be made without the identity.
func searchLocked(t *testing.T, r *rig.Rig, key string, canaries ...string) {
	t.Helper()
	recordings, index := filepath.Join(t.TempDir(), "copy"), filepath.Join(t.TempDir(), "audit.db")
	if err := os.CopyFS(recordings, os.DirFS(r.Path("recordings"))); err != nil {
		t.Fatal(err)
	}
	if out := r.As("carol", "search", "canary"); !strings.Contains(out.Stderr, "sallyport index") {
		t.Errorf("a search does not say how: %+v", out)
	}
	if out := r.As("carol", "index", recordings, "-o", index); out.Code == 0 || !strings.Contains(out.Stderr, "--identity") {
		t.Errorf("without the identity: %+v", out)
	}
	if out := r.As("carol", "search", "canary", "--index", index); out.Code != 0 || out.Stdout != "" {
		t.Errorf("the index without the identity: %+v", out)
	}
	if out := r.As("carol", "index", recordings, "-o", index, "--identity", key); out.Code != 0 {
		t.Fatalf("%+v", out)
	}
	for _, canary := range canaries {
		if out := r.As("carol", "search", canary, "--index", index); out.Code != 0 || !strings.Contains(out.Stdout, canary) {
			t.Errorf("search for %s: %+v", canary, out)
		}
	}
	if out := r.As("carol", "search", "canary", "--index", index, "--until", "1d"); out.Code != 0 || out.Stdout != "" {
		t.Errorf("search before it happened: %+v", out)
	}
	if err := os.RemoveAll(recordings); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(recordings, 0o700); err != nil {
		t.Fatal(err)
	}
	if out := r.As("carol", "index", recordings, "-o", index); out.Code != 0 || !strings.Contains(out.Stdout, "has 0 recordings") {
		t.Errorf("the recordings are gone: %+v", out)
	}
	if out := r.As("carol", "search", "canary", "--index", index); out.Code != 0 || out.Stdout != "" {
		t.Errorf("what is gone is found: %+v", out)
	}
}

// strictParameters: what a driver binds and copies is for the stricter recipient alone, where there is one; the rest is for both.
func strictParameters(t *testing.T, r *rig.Rig, identity, stricter string) {
	t.Helper()
	keys := map[string]string{}
	for name, identity := range map[string]string{"all": identity, "stricter": stricter} {
		keys[name] = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(keys[name], []byte(identity+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const bound, number, copied = "canary-lynx-91", 4_711_081_591, "canary-otter-92"
	before := endedSession(r, "postgres")
	conn, err := r.Connect(t.Context(), "SALLYPORT_PG")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "CREATE TEMP TABLE strict (what text, n bigint)"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time the statement is prepared
		if _, err := conn.Exec(t.Context(), "INSERT INTO strict VALUES ($1, $2)", bound, int64(number)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.CopyFrom(t.Context(), pgx.Identifier{"strict"}, []string{"what", "n"}, pgx.CopyFromRows([][]any{{copied, int64(1)}})); err != nil {
		t.Fatal(err)
	}
	var there int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM strict WHERE what = ANY ($1)", []string{bound, copied}).Scan(&there); err != nil || there != 3 {
		t.Fatalf("the target has %d rows, %v", there, err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := before
	r.Until(time.Minute, "the driver's session has ended", func() error {
		if id = endedSession(r, "postgres"); id == before {
			return errors.New("not yet")
		}
		return nil
	})
	jsonl := func(key string) string {
		out := r.As("carol", "export", id, "--identity", keys[key], "--format", "jsonl")
		if out.Code != 0 {
			t.Fatalf("%+v", out)
		}
		return out.Stdout
	}
	fewer, all := jsonl("all"), jsonl("stricter")
	for _, want := range []string{"INSERT INTO strict VALUES ($1, $2)", "INSERT 0 1", "COPY 1", "[sealed for: age1"} {
		if !strings.Contains(fewer, want) {
			t.Errorf("the recipient does not see %q:\n%s", want, fewer)
		}
	}
	encoded := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, number))
	for _, secret := range []string{bound, copied, fmt.Sprint(number), encoded, base64.StdEncoding.EncodeToString([]byte(bound)), base64.StdEncoding.EncodeToString([]byte(copied))} {
		if strings.Contains(fewer, secret) {
			t.Errorf("the recipient sees %q:\n%s", secret, fewer)
		}
	}
	if strings.Count(all, bound) < 2 || strings.Count(all, fmt.Sprint(number))+strings.Count(all, encoded) < 2 || strings.Contains(all, "[sealed for: age1") {
		t.Errorf("the stricter recipient does not see what was bound:\n%s", all)
	}
	if out := r.As("carol", "replay", id, "--identity", keys["all"]); out.Code != 0 || strings.Contains(out.Stdout, bound) || !strings.Contains(out.Stdout, "[sealed for: age1") {
		t.Errorf("replay by the recipient: %+v", out)
	}
	nowhere(t, r, bound, copied)
}

// lockTo has the gateway lock what it records from now on.
func lockTo(t *testing.T, r *rig.Rig, recipient string, input ...string) {
	t.Helper()
	config := r.Path("sallyport.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("\nrecording:\n"), []byte("\nrecording:\n  recipients: [\""+recipient+"\"]\n  recipients_input: ["+strings.Join(input, ", ")+"]\n"), 1)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	r.EndGateway(syscall.SIGKILL)
	r.Ready()
}

// endedSession is the newest session of a protocol, once it has ended.
func endedSession(r *rig.Rig, protocol string) (id string) {
	r.Until(time.Minute, "the session has ended", func() error {
		var sessions []struct {
			ID       string    `json:"id"`
			Protocol string    `json:"protocol"`
			Ended    time.Time `json:"ended"`
		}
		out := r.As("carol", "sessions", "--all", "--json")
		if err := json.Unmarshal([]byte(out.Stdout), &sessions); err != nil {
			return err
		}
		for _, s := range sessions { // the newest first
			if s.Protocol == protocol {
				if id = s.ID; s.Ended.IsZero() {
					return fmt.Errorf("session %s lives", id)
				}
				return nil
			}
		}
		return fmt.Errorf("%+v", sessions)
	})
	return id
}

// nowhere states that those words are in no file of the gateway's.
func nowhere(t *testing.T, r *rig.Rig, words ...string) {
	t.Helper()
	looked := 0
	err := filepath.WalkDir(r.Path(), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // gone since its folder was read
			return nil
		}
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if path == r.Path("postgres") { // the target's own, with its own log
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		looked++
		for _, word := range words {
			if bytes.Contains(data, []byte(word)) {
				t.Errorf("%q stands in %s", word, path)
			}
		}
		return err
	})
	if err != nil || looked < 20 {
		t.Errorf("%d files looked at, %v", looked, err)
	}
}
