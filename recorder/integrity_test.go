package recorder

import (
	"errors"
	"os"
	"strings"
	"testing"

	"sallyport/internal/refusal"
	"sallyport/internal/store/storetest"
	"sallyport/recorder/format"
)

// What Integrity says holds against one checkpoint, and no change of a recording passes it.
func TestIntegrityOfOneRecording(t *testing.T) {
	dir := t.TempDir()
	s := storetest.New(t, dir)
	r := bound(t, dir, s)
	defer func() { unbind(t, r) }()
	if _, err := r.Integrity(t.Context(), "nothing"); !refusal.Is(err, refusal.NotFound) {
		t.Errorf("of no recording: %v", err)
	}
	for _, session := range []string{"one", "two", "three"} {
		rec := begin(t, r, session)
		if err := rec.Record(t.Context(), said("what "+session+" said")); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Integrity(t.Context(), session); !refusal.Is(err, refusal.Conflict) {
			t.Errorf("of one that lives: %v", err)
		}
		if err := rec.End(format.End{Reason: "done"}); err != nil {
			t.Fatal(err)
		}
	}
	good, err := r.Integrity(t.Context(), "two")
	if err != nil {
		t.Fatal(err)
	}
	c := good.Checkpoint
	if !good.Whole || !good.Bound || good.Leaf < 0 || good.Events == 0 || len(good.Chain) != 64 || c == nil || c.Size <= good.Leaf || c.Origin != "gateway.example/log" || len(c.Root) != 64 {
		t.Errorf("%+v %+v", good, c)
	}
	content, err := os.ReadFile(pathOf(r, "two"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(pathOf(r, "three"))
	if err != nil {
		t.Fatal(err)
	}
	changed := append([]byte{}, content...)
	changed[len(changed)-10] ^= 1
	for name, bad := range map[string][]byte{"a changed byte": changed, "another's recording": other, "cut short": content[:len(content)-40]} {
		if err := errors.Join(os.Chmod(pathOf(r, "two"), 0o600), os.WriteFile(pathOf(r, "two"), bad, 0o600)); err != nil {
			t.Fatal(err)
		}
		found, err := r.Integrity(t.Context(), "two")
		if err != nil {
			t.Fatal(err)
		}
		if found.Whole || found.Bound || len(found.Problems) == 0 {
			t.Errorf("%s passes: %+v", name, found)
		}
		if name == "another's recording" && !strings.Contains(strings.Join(found.Problems, " "), "the log has bound") {
			t.Errorf("%s: %v", name, found.Problems)
		}
	}
	if err := os.WriteFile(pathOf(r, "two"), content, 0o600); err != nil {
		t.Fatal(err)
	}
}
