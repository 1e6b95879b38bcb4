package verify

import (
	"io"
	"strings"
	"testing"
	"unicode"
)

// TestNamesWriteNoReport: whoever may choose a name, a path or a login begins no line of what the auditor reads, and commands no terminal.
func TestNamesWriteNoReport(t *testing.T) {
	const forged = "alice\nproven\x1b[2J\x1b[1;1Hproven\r\u009b2J\u202enevorp\u2028proven"
	finding := []Finding{{Kind: Changed, What: forged}}
	ledger := &Ledger{Origin: forged, Problems: finding, NotProven: []string{forged}}
	for name, report := range map[string]io.WriterTo{
		"a directory": &Report{Recordings: []File{{Path: forged, State: Open}}, Log: ledger},
		"a bundle": &Bundle{Origin: forged, Problems: finding, NotProven: []string{forged}, Sessions: []BundledSession{
			{File: File{Session: forged, Ending: forged}, Person: forged, Account: forged, Target: forged, Grant: forged, Reason: forged, Approvers: []string{forged}},
		}},
		"a target's log": &Reconciliation{Foreign: []Login{{Account: forged, From: forged, Method: forged, Note: forged}}},
	} {
		var out strings.Builder
		if _, err := report.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), "alice") {
			t.Errorf("of %s it says nothing:\n%s", name, &out)
		}
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasPrefix(line, "proven") || strings.ContainsFunc(line, func(r rune) bool { return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl) }) {
				t.Errorf("of %s it says %q", name, line)
			}
		}
	}
}
