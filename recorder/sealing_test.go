package recorder

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"sallyport/configs"
	"sallyport/recorder/format"
	"sallyport/recorder/verify"
)

// TestStricterRecipients states that what is typed opens for stricter recipients alone, who can read all else too; that others see in its
// place for whom it is, those who watch included; that it stands in the clear nowhere; and that verifying needs no key.
func TestStricterRecipients(t *testing.T) {
	levels(t, func(t *testing.T, level configs.Durability) {
		auditor, officer := newIdentity(t, false), newIdentity(t, false)
		dir := t.TempDir()
		r, err := Open(t.Context(), Options{
			Dir: dir, Version: "test", Log: testLog(t), Config: configs.Recording{Durability: level, AllowVolatile: true}, Index: filepath.Join(dir, "index.db"),
			Recipients: func(string) []string { return []string{auditor.recipient()} }, InputRecipients: func(string) []string { return []string{officer.recipient()} },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(context.Background()) })
		rec := begin(t, r, "s1")
		strict, key := rec.strict, rec.key
		for n := range 3 {
			if err := rec.Record(t.Context(), said(fmt.Sprint(canary, n)), Event{Type: format.TypeAnswered, Data: fmt.Appendf(nil, "%s shown %d", canary, n)}); err != nil {
				t.Fatal(err)
			}
		}
		items, err := r.FollowItems(t.Context(), "s1")
		if err != nil {
			t.Fatal(err)
		}
		watched := 0
		for it, err := range items {
			if err != nil {
				t.Fatal(err)
			}
			if it.Kind == ItemInput {
				if !strings.HasPrefix(it.Text, "[sealed for: age1") {
					t.Errorf("who watches sees %q", it.Text)
				}
				if watched++; watched == 3 {
					break
				}
			}
		}
		expectNoPlaintext(t, dir)
		if err := rec.End(format.End{Reason: "over"}); err != nil {
			t.Fatal(err)
		}
		if strict.Hold() {
			t.Error("the stricter key outlives the session")
		}
		key.Wipe()
		path := pathOf(r, "s1")
		want := []string{canary + "0", canary + "1", canary + "2"}
		if got, end := openedTexts(t, path, officer); !slices.Equal(got, want) || end != "over" {
			t.Errorf("the stricter identity reads %q, %s", got, end)
		}
		stood := []string{placeholder([]string{officer.recipient()})}
		stood = append(stood, stood[0], stood[0])
		if got, end := openedTexts(t, path, auditor); !slices.Equal(got, stood) || end != "over" {
			t.Errorf("the ordinary identity reads %q, %s", got, end)
		}
		for who, shows := range map[age.Identity]bool{auditor: false, officer: true} {
			c, err := OpenCopy(path, nil, who)
			if err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			if err := c.Export(t.Context(), "text", &text, ExportOptions{}); err != nil {
				t.Fatal(err)
			}
			c.Close()
			if strings.Contains(text.String(), canary+"1") != shows || strings.Contains(text.String(), "sealed for") == shows || !strings.Contains(text.String(), canary+" shown 1") {
				t.Errorf("an export: %s", text.String())
			}
		}
		if report, err := verify.Check(dir, verify.Options{}); err != nil || len(report.Recordings) != 1 || report.Recordings[0].State != verify.Sealed {
			t.Errorf("%+v, %v", report, err)
		}
	})
}

func TestPlaceholderIsShort(t *testing.T) {
	long := "age1pq1" + strings.Repeat("q", 1900)
	if got := placeholder([]string{long, long, long, long, long}); len(got) > 120 || !strings.HasSuffix(got, ", …]") {
		t.Errorf("%q", got)
	}
}
