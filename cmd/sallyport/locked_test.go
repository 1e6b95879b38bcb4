package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"sallyport/configs"
	"sallyport/recorder"
	"sallyport/recorder/format"
)

// A locked recording is exported and replayed from its file with the identity it is locked to, and with no other.
func TestLockedRecordingFromItsFile(t *testing.T) {
	dir := t.TempDir()
	auditor, _ := age.GenerateX25519Identity()
	r, err := recorder.Open(t.Context(), recorder.Options{
		Dir: dir, Config: configs.Recording{Durability: configs.Written, AllowVolatile: true},
		Recipients: func(string) []string { return []string{auditor.Recipient().String()} },
	})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := r.Begin(t.Context(), format.Header{Session: "s1", Protocol: "test"}, "")
	if err == nil {
		err = rec.Record(t.Context(), format.Event{Type: format.TypeSaid, Data: []byte("canary-7f3a91")})
	}
	if err == nil {
		err = rec.End(format.End{Reason: "client_closed"})
	}
	if err == nil {
		err = r.Close(context.Background())
	}
	files, _ := filepath.Glob(filepath.Join(dir, "recordings", "*", "*", "*", "s1.srec"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	identity := filepath.Join(dir, "identity")
	stranger := filepath.Join(dir, "stranger")
	other, _ := age.GenerateX25519Identity()
	for path, who := range map[string]*age.X25519Identity{identity: auditor, stranger: other} {
		if err := os.WriteFile(path, []byte(who.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, error) {
		root := newRootCommand()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	for _, args := range [][]string{{"export", files[0], "--format", "jsonl"}, {"replay", files[0], "--json"}} {
		if out, err := run(append(args, "--identity", identity)...); err != nil || !strings.Contains(out, "canary-7f3a91") {
			t.Errorf("%s: %v\n%s", args[0], err, out)
		}
		if out, err := run(append(args, "--identity", stranger)...); err == nil || strings.Contains(out, "canary") || !strings.Contains(err.Error(), "not locked to that identity") {
			t.Errorf("%s with a stranger's identity: %v\n%s", args[0], err, out)
		}
		if _, err := run(args...); err == nil || !strings.Contains(err.Error(), "--identity") {
			t.Errorf("%s without an identity: %v", args[0], err)
		}
	}
}
