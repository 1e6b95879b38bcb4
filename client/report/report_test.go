package report

import (
	"encoding/csv"
	"strings"
	"testing"

	"sallyport/web/api"
)

// What people wrote is text in a report, whatever it looks like.
func TestReportsRunNothing(t *testing.T) {
	evil := []string{"=cmd|' /C calc'!A0", "a|b\n| c", "<script>alert(1)</script>", "[x](https://evil.example)", "+1", "@SUM(A1)", "\u202etxt"}
	r := api.AuditReport{Title: "T", Tables: []api.ReportTable{{Title: "Things", Columns: []string{"a", "b", "c", "d", "e", "f", "g"}, Rows: [][]string{evil}}}}
	var out strings.Builder
	if err := Write(&out, r, false); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<script", "\n| c", "x](https", "\u202e"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("%q stands in the Markdown:\n%s", bad, out.String())
		}
	}
	out.Reset()
	if err := Write(&out, r, true); err != nil {
		t.Fatal(err)
	}
	reader := csv.NewReader(strings.NewReader(out.String()))
	reader.FieldsPerRecord = -1
	rows, err := reader.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, row := range rows {
		for _, text := range row {
			if strings.HasPrefix(text, "=") || strings.HasPrefix(text, "+") || strings.HasPrefix(text, "@") {
				t.Errorf("%q is a formula", text)
			}
			found = found || strings.Contains(text, "<script>")
		}
	}
	if !found {
		t.Error("the text is not there")
	}
}
