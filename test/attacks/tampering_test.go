//go:build unix

package attacks

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/transparency"
	"sallyport/recorder/transparency/ledger"
	"sallyport/test/rig"
)

// evidence is a copy of a gateway's state directory, as an auditor gets it, and what the auditor trusts.
type evidence struct {
	*rig.Rig
	t          *testing.T
	verifier   string
	dir        string // the copy, which stays as it was
	logKey     string // file
	witnessKey string // file
	kept       string // a checkpoint that the witness gave
	sessions   []string
}

// newEvidence has people work, waits until the witness has seen it, and copies.
func newEvidence(t *testing.T) *evidence {
	r := rig.Start(t, rig.Binary(t, ""))
	e := &evidence{Rig: r, t: t, verifier: rig.Verifier(t), dir: t.TempDir()}
	earlier := t.TempDir()
	for i := range 3 {
		if out := r.PSQL("SALLYPORT_PG", "-c", fmt.Sprintf("SELECT 'payment %d'", i), "-c", "SELECT 'receipt'"); out.Code != 0 {
			t.Fatal(out.Text())
		}
		if out := r.SSH(fmt.Sprintf("echo deployed %d", i)); out.Code != 0 {
			t.Fatal(out.Text())
		}
		if i == 0 {
			e.settle(r, 2)
			copyState(t, r.Path(), earlier)
		}
	}
	e.settle(r, 6)
	copyState(t, r.Path(), e.dir)
	if err := os.Rename(earlier, filepath.Join(e.dir, "..", "earlier")); err != nil {
		t.Fatal(err)
	}
	trusted := t.TempDir()
	e.logKey, e.witnessKey, e.kept = filepath.Join(trusted, "log.pub"), filepath.Join(trusted, "witness.pub"), filepath.Join(trusted, "kept")
	copyFile(t, r.Path("keys", "log.pub"), e.logKey)
	copyFile(t, r.Path("witness", "key.pub"), e.witnessKey)
	e.askWitness(r)
	return e
}

// earlier is a copy from before most of the sessions.
func (e *evidence) earlier() string { return filepath.Join(e.dir, "..", "earlier") }

// settle waits until so many sessions have ended, and a witness has seen that.
func (e *evidence) settle(r *rig.Rig, count int) {
	e.t.Helper()
	r.Until(time.Minute, "the witness has seen everything", func() error {
		var sessions []struct {
			ID   string `json:"id"`
			Live bool   `json:"live"`
		}
		r.Ask(&sessions, "carol", "sessions", "--all")
		e.sessions = nil
		for _, s := range sessions {
			if s.Live {
				return errors.New("a session lives")
			}
			e.sessions = append(e.sessions, s.ID)
		}
		slices.Sort(e.sessions)
		if len(e.sessions) != count {
			return fmt.Errorf("%d sessions", len(e.sessions))
		}
		var status struct {
			Log struct{ Size, Witnessed int64 }
		}
		r.Ask(&status, "carol", "status")
		if status.Log.Size != status.Log.Witnessed {
			return fmt.Errorf("%d of %d leaves are witnessed", status.Log.Witnessed, status.Log.Size)
		}
		return nil
	})
}

// askWitness gets the last checkpoint that the witness has cosigned, from the witness.
func (e *evidence) askWitness(r *rig.Rig) {
	e.t.Helper()
	config, err := os.ReadFile(r.Path("sallyport.yaml"))
	if err != nil {
		e.t.Fatal(err)
	}
	address := regexp.MustCompile(`url: "?(http://127\.0\.0\.1:\d+)`).FindSubmatch(config)
	if address == nil {
		e.t.Fatal("the configuration has no witness")
	}
	get := func(path string) []byte {
		response, err := http.Get(string(address[1]) + path)
		if err != nil {
			e.t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			e.t.Fatalf("%s: %d %v", path, response.StatusCode, err)
		}
		return body
	}
	var list struct{ Logs []struct{ Checkpoint string } }
	if err := json.Unmarshal(get("/"), &list); err != nil || len(list.Logs) != 1 {
		e.t.Fatalf("%+v %v", list, err)
	}
	if err := os.WriteFile(e.kept, get(list.Logs[0].Checkpoint), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// copyState copies what an auditor needs, and the keys of the gateway for the one who tampers; the log first.
func copyState(t *testing.T, from, to string) {
	t.Helper()
	for _, part := range []string{transparency.Folder, "recordings", "audit", "keys"} {
		if err := os.CopyFS(filepath.Join(to, part), os.DirFS(filepath.Join(from, part))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(to, "keys", ledger.KeyFile), 0o600); err != nil { // which the copy widened
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// verdict is what the auditor's binary says.
type verdict struct {
	code   int
	report struct {
		Whole  bool
		Proven bool
		Log    struct {
			Problems []struct {
				Kind, Session, What string
			}
		}
		Reconciliation struct {
			Matched, Unseen int
			Foreign         []struct{ Account, From string }
		}
	}
	text string
}

func (v verdict) has(kind string) bool {
	for _, p := range v.report.Log.Problems {
		if p.Kind == kind {
			return true
		}
	}
	return false
}

func (e *evidence) verify(dir string, args ...string) (v verdict) {
	e.t.Helper()
	cmd := exec.Command(e.verifier, append([]string{dir, "--json"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // its exit code is looked at
	v.code, v.text = cmd.ProcessState.ExitCode(), stdout.String()+stderr.String()
	if err := json.Unmarshal(stdout.Bytes(), &v.report); err != nil && v.code != 2 {
		e.t.Fatalf("%v\n%s", err, v.text)
	}
	return v
}

// forger holds a copy of everything the gateway has, every key included.
type forger struct {
	*testing.T
	dir string
}

// leaves are all leaves of the log.
func (f *forger) leaves() []transparency.Leaf {
	f.Helper()
	l := f.open()
	defer l.Close(context.Background())
	var all []transparency.Leaf
	if err := l.Recent(func(_ int64, leaf transparency.Leaf) bool { all = append(all, leaf); return true }); err != nil {
		f.Fatal(err)
	}
	slices.Reverse(all)
	return all
}

func (f *forger) open() *ledger.Log {
	f.Helper()
	signer, key, err := ledger.LoadKey(filepath.Join(f.dir, "keys"), "unused")
	if err != nil {
		f.Fatal(err)
	}
	l, err := ledger.Open(f.Context(), ledger.Options{Dir: f.dir, Signer: signer, Key: key})
	if err != nil {
		f.Fatal(err)
	}
	return l
}

// rewrite makes the log anew with other leaves, signed by the log's own key. What the witness cosigned stays beside it.
func (f *forger) rewrite(leaves []transparency.Leaf) {
	f.Helper()
	log := filepath.Join(f.dir, transparency.Folder)
	witnessed, err := os.ReadFile(filepath.Join(log, transparency.WitnessedFile))
	if err != nil {
		f.Fatal(err)
	}
	if err := os.RemoveAll(log); err != nil {
		f.Fatal(err)
	}
	l := f.open()
	if _, err := l.Append(f.Context(), leaves...); err != nil {
		f.Fatal(err)
	}
	if err := l.Close(context.Background()); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(log, transparency.WitnessedFile), witnessed, 0o600); err != nil {
		f.Fatal(err)
	}
}

// file is the recording of a session, or the first audit file.
func (f *forger) file(session string) string {
	f.Helper()
	found := ""
	room := "recordings"
	if session == "" {
		room = "audit"
	}
	err := filepath.WalkDir(filepath.Join(f.dir, room), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && found == "" && strings.Contains(filepath.Base(path), session) {
			found = path
		}
		return err
	})
	if err != nil || found == "" {
		f.Fatalf("no file of %q: %v", session, err)
	}
	return found
}

// rerecord writes a recording anew, with what change makes of its header and events, whole and ended in itself. It returns
// how it begins and ends now.
func (f *forger) rerecord(path string, change func(*format.Header, []format.Event) []format.Event) (first, last transparency.Recording) {
	f.Helper()
	file, err := os.Open(path)
	if err != nil {
		f.Fatal(err)
	}
	reader, err := format.NewReader(file)
	if err != nil {
		f.Fatal(err)
	}
	var events []format.Event
	for {
		event, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			f.Fatal(err)
		}
		events = append(events, event)
	}
	file.Close()
	header := reader.Header()
	events = change(&header, events)
	content, builder, err := format.Create(header)
	if err != nil {
		f.Fatal(err)
	}
	first = transparency.Of(header.Session, builder.State())
	for _, event := range events {
		if event.Type == format.TypeEnd {
			end, err := format.EndOf(event)
			if err == nil {
				err = builder.Seal(end, event.At)
			}
			if err != nil {
				f.Fatal(err)
			}
			continue
		}
		if err := builder.Add(event); err != nil {
			f.Fatal(err)
		}
		builder.Finish()
	}
	if err := os.WriteFile(path, append(content, builder.Bytes()...), 0o600); err != nil {
		f.Fatal(err)
	}
	return first, transparency.Of(header.Session, builder.State())
}

// rebind gives a session other leaves. A leaf that bound the progress of this recording alone
// goes, so that the log is shorter where the recording went on for a while.
func rebind(leaves []transparency.Leaf, session string, first, last transparency.Recording) []transparency.Leaf {
	var out []transparency.Leaf
	for _, leaf := range leaves {
		leaf.Live = slices.DeleteFunc(slices.Clone(leaf.Live), func(r transparency.Recording) bool { return r.Session == session })
		switch {
		case leaf.Kind == transparency.Progress && len(leaf.Live) == 0:
			continue
		case leaf.Session != session:
		case leaf.Kind == transparency.Open:
			leaf.Recording = first
		case leaf.Kind == transparency.Close:
			leaf.Recording = last
		}
		out = append(out, leaf)
	}
	return out
}

func without(leaves []transparency.Leaf, session string) []transparency.Leaf {
	return slices.DeleteFunc(rebind(leaves, session, transparency.Recording{}, transparency.Recording{}), func(l transparency.Leaf) bool {
		return l.Kind == transparency.Open && l.Chain == (transparency.Chain{}) || l.Session == session || l.Kind == transparency.Close && l.Chain == (transparency.Chain{})
	})
}

// altered replaces text of the same length in events.
func altered(from, to string) func(*format.Header, []format.Event) []format.Event {
	return func(_ *format.Header, events []format.Event) []format.Event {
		for i := range events {
			events[i].Data = bytes.ReplaceAll(events[i].Data, []byte(from), []byte(to))
		}
		return events
	}
}

// TestTampering is P4: whoever holds every key of the gateway and signs again what was changed is found by an auditor who
// has nothing but public keys, or kept a checkpoint. Each forgery is as good as it gets: unless it is a clumsy one, the
// gateway's keys alone do not tell it from the truth.
func TestTampering(t *testing.T) {
	e := newEvidence(t)
	for name, args := range map[string][]string{
		"with the witness's key":       {"--log-key", e.logKey, "--witness-key", e.witnessKey},
		"with a checkpoint":            {"--log-key", e.logKey, "--checkpoint", e.kept},
		"with both":                    {"--log-key", e.logKey, "--witness-key", e.witnessKey, "--checkpoint", e.kept},
		"with the keys' text as given": {"--log-key", text(t, e.logKey), "--witness-key", text(t, e.witnessKey)},
	} {
		if v := e.verify(e.dir, args...); v.code != 0 || !v.report.Proven {
			t.Fatalf("what nobody changed is not proven, %s: exit %d\n%s", name, v.code, v.text)
		}
	}
	if v := e.verify(e.dir); v.code != 3 || !v.report.Whole || v.report.Proven {
		t.Fatalf("nobody vouches for the log, and it is proven: exit %d\n%s", v.code, v.text)
	}
	bare := filepath.Join(t.TempDir(), "bare")
	copyState(t, e.dir, bare)
	if err := os.RemoveAll(filepath.Join(bare, "keys")); err != nil {
		t.Fatal(err)
	}
	if v := e.verify(bare); v.code != 3 || !v.report.Whole {
		t.Fatalf("without any key: exit %d\n%s", v.code, v.text)
	}
	t.Run("logins that did not come through the gateway", e.reconcile)
	t.Run("a bundle handed over", e.handOver)
	t.Run("a bundle that unpacks to far more", e.bombs)
	victim, other := e.sessions[2], e.sessions[4] // two of psql, or of ssh
	for _, c := range []struct {
		name   string
		do     func(f *forger)
		clumsy bool     // found without anybody's help
		kinds  []string // one of which must be told
		// unwitnessed: the witness's signature in the copy does not tell, its newest checkpoint does
		unwitnessed bool
	}{
		{name: "a byte edited, nothing signed again", clumsy: true, do: func(f *forger) {
			path := f.file(victim)
			content, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			content[len(content)/2] ^= 1
			if err := os.WriteFile(path, content, 0o600); err != nil {
				f.Fatal(err)
			}
		}},
		{name: "a recording edited and chained again", clumsy: true, kinds: []string{"changed"}, do: func(f *forger) {
			f.rerecord(f.file(victim), altered("receipt", "nothing"))
		}},
		{name: "a recording edited, its leaves too, all signed again", kinds: []string{"rewritten", "rolled_back"}, do: func(f *forger) {
			leaves := f.leaves()
			first, last := f.rerecord(f.file(victim), altered("receipt", "nothing"))
			f.rewrite(rebind(leaves, victim, first, last))
		}},
		{name: "a session deleted", clumsy: true, kinds: []string{"gone"}, do: func(f *forger) { f.remove(victim) }},
		{name: "a session deleted with its leaves, all signed again", kinds: []string{"rewritten", "rolled_back"}, do: func(f *forger) {
			leaves := f.leaves()
			f.remove(victim)
			first, last := f.rerecord(f.file(""), func(_ *format.Header, events []format.Event) []format.Event { return forget(f, events, victim) })
			f.rewrite(rebind(without(leaves, victim), first.Session, first, last))
		}},
		{name: "a session said to be purged, all signed again", kinds: []string{"rewritten", "rolled_back"}, do: func(f *forger) {
			leaves := f.leaves()
			f.remove(victim)
			first, last := f.rerecord(f.file(""), func(_ *format.Header, events []format.Event) []format.Event {
				for i := range events {
					if bytes.Contains(events[i].Data, []byte(victim)) && bytes.Contains(events[i].Data, []byte("session.ended")) {
						events[i].Data = bytes.Replace(events[i].Data, []byte("session.ended"), []byte("recording.purged"), 1)
					}
				}
				return events
			})
			leaves = rebind(leaves, first.Session, first, last)
			for i, leaf := range leaves {
				if leaf.Kind == transparency.Close && leaf.Session == victim {
					leaf.Kind = transparency.Purge
					leaves = slices.Insert(leaves, i+1, leaf)
					break
				}
			}
			f.rewrite(leaves)
		}},
		{name: "a tail cut at a block", clumsy: true, kinds: []string{"cut"}, do: func(f *forger) { f.cut(victim) }},
		{name: "a tail cut at a block and ended again, all signed again", kinds: []string{"rewritten", "rolled_back"}, do: func(f *forger) {
			leaves := f.leaves()
			first, last := f.rerecord(f.file(victim), func(_ *format.Header, events []format.Event) []format.Event {
				return append(events[:len(events)-3:len(events)-3], events[len(events)-1])
			})
			f.rewrite(rebind(leaves, victim, first, last))
		}},
		{name: "a recording planted", clumsy: true, kinds: []string{"planted"}, do: func(f *forger) { f.plant(victim, time.Hour) }},
		{name: "a recording planted with leaves at its time, all signed again", kinds: []string{"rewritten"}, do: func(f *forger) {
			leaves := f.leaves()
			first, last := f.plant(victim, 0)
			at := slices.IndexFunc(leaves, func(l transparency.Leaf) bool { return l.Session == victim })
			opened, ended := leaves[at], leaves[at]
			opened.Recording, ended.Recording, ended.Kind, ended.Reason = first, last, transparency.Close, "client_closed"
			f.rewrite(slices.Insert(leaves, at, opened, ended))
		}},
		{name: "a recording planted with leaves at the end of the log", clumsy: true, kinds: []string{"backdated"}, do: func(f *forger) {
			leaves := f.leaves()
			first, last := f.plant(victim, time.Hour)
			f.rewrite(append(leaves, transparency.Leaf{Kind: transparency.Open, Time: time.Now(), Recording: first},
				transparency.Leaf{Kind: transparency.Close, Time: time.Now(), Recording: last}))
		}},
		{name: "two recordings swapped", clumsy: true, kinds: []string{"changed"}, do: func(f *forger) {
			a, b := f.file(victim), f.file(other)
			for _, step := range [][2]string{{a, a + ".x"}, {b, a}, {a + ".x", b}} {
				if err := os.Rename(step[0], step[1]); err != nil {
					f.Fatal(err)
				}
			}
		}},
		{name: "the log rolled back with everything", kinds: []string{"rolled_back"}, unwitnessed: true, do: func(f *forger) {
			if err := os.RemoveAll(f.dir); err != nil {
				f.Fatal(err)
			}
			copyState(f.T, e.earlier(), f.dir)
		}},
		{name: "the log cut, and what it bound removed, signed again", kinds: []string{"rolled_back"}, do: func(f *forger) {
			leaves := f.leaves()
			for _, session := range e.sessions[2:] {
				f.remove(session)
				leaves = without(leaves, session)
			}
			first, last := f.rerecord(f.file(""), func(_ *format.Header, events []format.Event) []format.Event {
				return forget(f, events, e.sessions[2:]...)
			})
			f.rewrite(rebind(leaves, first.Session, first, last))
		}},
		{name: "the audit log edited", clumsy: true, kinds: []string{"changed"}, do: func(f *forger) {
			f.rerecord(f.file(""), altered("grant.approved", "grant.disliked"))
		}},
		{name: "the audit log edited, its leaves too, all signed again", kinds: []string{"rewritten", "rolled_back"}, do: func(f *forger) {
			leaves := f.leaves()
			first, last := f.rerecord(f.file(""), altered("grant.approved", "grant.disliked"))
			f.rewrite(rebind(leaves, first.Session, first, last))
		}},
		{name: "a leaf edited in its file", clumsy: true, kinds: []string{"rewritten"}, do: func(f *forger) {
			path := filepath.Join(f.dir, transparency.Folder, "tail", "0")
			content, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			if err := os.WriteFile(path, bytes.Replace(content, []byte("client_closed"), []byte("client_floated"[:13]), 1), 0o600); err != nil {
				f.Fatal(err)
			}
		}},
		{name: "the log's key exchanged, and everything signed by the new one", kinds: []string{"not_signed"}, do: func(f *forger) {
			leaves := f.leaves()
			for _, name := range []string{"log", "log.pub"} {
				if err := os.Remove(filepath.Join(f.dir, "keys", name)); err != nil {
					f.Fatal(err)
				}
			}
			if _, _, err := ledger.LoadKey(filepath.Join(f.dir, "keys"), strings.SplitN(text(t, e.logKey), "+", 2)[0]); err != nil {
				f.Fatal(err)
			}
			f.rewrite(leaves)
			os.Remove(filepath.Join(f.dir, transparency.Folder, transparency.WitnessedFile))
		}},
		{name: "the whole log removed", clumsy: true, kinds: []string{"log_missing"}, do: func(f *forger) {
			if err := os.RemoveAll(filepath.Join(f.dir, transparency.Folder)); err != nil {
				f.Fatal(err)
			}
		}},
		{name: "all audit files removed", clumsy: true, kinds: []string{"gone"}, do: func(f *forger) {
			if err := os.RemoveAll(filepath.Join(f.dir, "audit")); err != nil {
				f.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &forger{T: t, dir: filepath.Join(t.TempDir(), "state")}
			copyState(t, e.dir, f.dir)
			c.do(f)
			told := func(v verdict) bool { return len(c.kinds) == 0 || slices.ContainsFunc(c.kinds, v.has) }
			if !c.clumsy {
				witnessed := filepath.Join(f.dir, transparency.Folder, transparency.WitnessedFile)
				_ = os.Rename(witnessed, witnessed+".away") // one of these forgeries has none
				if v := e.verify(f.dir); v.code != 3 {
					t.Fatalf("the forgery is not good enough to prove anything: exit %d\n%s", v.code, v.text)
				}
				_ = os.Rename(witnessed+".away", witnessed)
			}
			if v := e.verify(f.dir, "--log-key", e.logKey, "--checkpoint", e.kept); v.code != 1 || !told(v) {
				t.Errorf("not found with a checkpoint that was kept: exit %d\n%s", v.code, v.text)
			}
			v := e.verify(f.dir, "--log-key", e.logKey, "--witness-key", e.witnessKey)
			switch {
			case c.unwitnessed && (v.code != 0 || !strings.Contains(v.text, "set back to that time looks the same")):
				t.Errorf("what the witness's signature alone can't tell is not said: exit %d\n%s", v.code, v.text)
			case !c.unwitnessed && (v.code != 1 || !told(v)):
				t.Errorf("not found with the witness's key: exit %d\n%s", v.code, v.text)
			}
			// Without what the witness signed there is nothing that it vouches for.
			if os.Remove(filepath.Join(f.dir, transparency.Folder, transparency.WitnessedFile)) == nil {
				if v := e.verify(f.dir, "--log-key", e.logKey, "--witness-key", e.witnessKey); v.code != 1 || !v.has("not_witnessed") && !v.has("not_signed") {
					t.Errorf("not found once the cosignature was removed: exit %d\n%s", v.code, v.text)
				}
			}
		})
	}
}

// reconcile goes past the gateway, with a target's own secret, and compares the targets' own logs with the recordings.
func (e *evidence) reconcile(t *testing.T) {
	if out := e.PSQL("SALLYPORT_PG_DIRECT", "-c", "SELECT 'nobody saw this'"); out.Code != 0 {
		t.Fatal(out.Text())
	}
	if out := e.Run(nil, "ssh", "-F", e.Env["SALLYPORT_SSH_DIRECT_CONFIG"], "-o", "BatchMode=yes", "web-1", "true"); out.Code != 0 {
		t.Fatal(out.Text())
	}
	for _, c := range []struct{ log, target, account string }{
		{e.Env["SALLYPORT_TARGET_LOG"], "orders", "app"}, {e.Path("log", "sshd.log"), "web-1", ""},
	} {
		e.Until(30*time.Second, "the login stands in "+c.log, func() error {
			v := e.verify(e.dir, "--log-key", e.logKey, "--witness-key", e.witnessKey, "--reconcile", c.log, "--target", c.target)
			foreign := 0
			for _, l := range v.report.Reconciliation.Foreign {
				if c.account == "" || l.Account == c.account {
					foreign++
				}
			}
			if r := v.report.Reconciliation; v.code != 1 || r.Matched != 3 || r.Unseen != 0 || foreign != 1 {
				return fmt.Errorf("exit %d, %+v", v.code, r)
			}
			return nil
		})
	}
}

// handOver checks bundles as somebody else, who has the binary, two public keys and nothing more.
func (e *evidence) handOver(t *testing.T) {
	dir, err := os.MkdirTemp("", "sallyport-bundle-*") // not t.TempDir: another user must be able to pass through
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	place := func(from, name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		copyFile(t, from, path)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	verifier, logKey, witnessKey := place(e.verifier, "verify", 0o755), place(e.logKey, "log.pub", 0o644), place(e.witnessKey, "witness.pub", 0o644)
	var all []struct{ ID, Grant string }
	e.Ask(&all, "carol", "sessions", "--all")
	grant := ""
	for _, s := range all {
		if s.ID == e.sessions[2] {
			grant = s.Grant
		}
	}
	check := func(bundle string) (int, string) {
		cmd := exec.Command(verifier, bundle, "--log-key", logKey, "--witness-key", witnessKey)
		cmd.Dir = dir
		cmd.Env = []string{}
		asNobody(cmd)
		out, _ := cmd.CombinedOutput() // its exit code is looked at
		return cmd.ProcessState.ExitCode(), string(out)
	}
	for _, id := range []string{e.sessions[2], grant} {
		made := filepath.Join(t.TempDir(), "bundle.zip")
		if out := e.As("carol", "evidence", id, "--output", made); out.Code != 0 {
			t.Fatal(out.Text())
		}
		bundle := place(made, "bundle.zip", 0o644)
		if code, out := check(bundle); code != 0 || !strings.Contains(out, "alice") && !strings.Contains(out, "Alice") {
			t.Fatalf("the bundle of %s: exit %d\n%s", id, code, out)
		}
		forged := filepath.Join(dir, "forged.zip")
		rezip(t, bundle, forged, "recordings/", func(content []byte) []byte {
			path := filepath.Join(t.TempDir(), "x.srec")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			(&forger{T: t, dir: dir}).rerecord(path, altered("receipt", "nothing"))
			changed, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return changed
		})
		if code, out := check(forged); code != 1 || !strings.Contains(out, "changed:") {
			t.Errorf("a recording in the bundle was made anew: exit %d\n%s", code, out)
		}
		rezip(t, bundle, forged, "checkpoint", func(content []byte) []byte { return bytes.Replace(content, []byte("\n\n"), []byte("\n\n\n"), 1) })
		if code, out := check(forged); code == 0 {
			t.Errorf("the checkpoint of the bundle was changed: exit %d\n%s", code, out)
		}
		rezip(t, bundle, forged, "proofs/", func(content []byte) []byte { return bytes.Replace(content, []byte("index "), []byte("index 1"), 1) })
		if code, out := check(forged); code == 0 {
			t.Errorf("a proof of the bundle was changed: exit %d\n%s", code, out)
		}
	}
	if out := e.As("bob", "evidence", e.sessions[2], "--output", filepath.Join(t.TempDir(), "b.zip")); out.Code != 3 {
		t.Errorf("bob may not export, and got evidence: %d %s", out.Code, out.Text())
	}
}

// asNobody has a command run as another user, where that can be done.
func asNobody(cmd *exec.Cmd) {
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
}

// rezip copies a ZIP file with what change makes of the files whose names begin so.
func rezip(t *testing.T, from, to, prefix string, change func([]byte) []byte) {
	t.Helper()
	archive, err := zip.OpenReader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	var out bytes.Buffer
	writer := zip.NewWriter(&out)
	for _, f := range archive.File {
		content, err := fs.ReadFile(archive, f.Name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(f.Name, prefix) {
			content = change(content)
		}
		into, err := writer.Create(f.Name)
		if err == nil {
			_, err = into.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
}

func (f *forger) remove(session string) {
	f.Helper()
	if err := os.Remove(f.file(session)); err != nil {
		f.Fatal(err)
	}
}

// cut takes the last two blocks off a recording, exactly.
func (f *forger) cut(session string) {
	f.Helper()
	path := f.file(session)
	file, err := os.Open(path)
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	reader, err := format.NewReader(file)
	if err != nil {
		f.Fatal(err)
	}
	ends := []int64{reader.State().Offset}
	reader.Follow(func(s format.State) { ends = append(ends, s.Offset) })
	for err == nil {
		_, err = reader.Next()
	}
	if !errors.Is(err, io.EOF) || len(ends) < 4 {
		f.Fatalf("%d blocks, %v", len(ends), err)
	}
	if err := os.Truncate(path, ends[len(ends)-3]); err != nil {
		f.Fatal(err)
	}
}

// plant makes a recording of a session that never was, so long before it is made, out of another.
func (f *forger) plant(of string, before time.Duration) (first, last transparency.Recording) {
	f.Helper()
	planted := "s-planted00000000"
	from := f.file(of)
	to := filepath.Join(filepath.Dir(from), planted+".srec")
	copyFile(f.T, from, to)
	return f.rerecord(to, func(h *format.Header, events []format.Event) []format.Event {
		h.Session, h.Started = planted, h.Started.Add(-before)
		return events
	})
}

// forget takes what the audit log says of sessions out of it, and numbers the rest anew.
func forget(f *forger, events []format.Event, sessions ...string) []format.Event {
	f.Helper()
	var kept []format.Event
	number := 0
	for _, event := range events {
		if event.Type == format.TypeAudit {
			var fields map[string]any
			if err := json.Unmarshal(event.Data, &fields); err != nil {
				f.Fatal(err)
			}
			if session, _ := fields["session"].(string); slices.Contains(sessions, session) {
				continue
			}
			number++
			fields["number"] = number
			changed, err := json.Marshal(fields)
			if err != nil {
				f.Fatal(err)
			}
			event.Data = changed
		}
		kept = append(kept, event)
	}
	return kept
}
