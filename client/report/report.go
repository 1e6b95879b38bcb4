// Package report writes the auditors' reports for people: as Markdown or CSV. What people once wrote, in a reason or a name, is text in them,
// whatever it looks like: no markup, no link, no formula.
package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"sallyport/web/api"
)

// Write writes a report as Markdown, which becomes HTML or PDF by any tool, or as CSV: one table after another, each with its
// title in the first column.
func Write(w io.Writer, r api.AuditReport, csv bool) error {
	if csv {
		return writeCSV(w, r)
	}
	_, err := io.WriteString(w, markdown(r))
	return err
}

func markdown(r api.AuditReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s, from %s up to %s. Made %s by %s.\n\n", cell(r.Title), cell(r.Gateway), r.From.Format(time.RFC3339), r.To.Format(time.RFC3339),
		r.Made.Format(time.RFC3339), cell(r.By))
	b.WriteString("| figure | number | table | records |\n|---|---|---|---|\n")
	for _, f := range r.Figures {
		records := strings.Join(f.Records, " ")
		const most = 20
		if len(f.Records) > most {
			records = strings.Join(f.Records[:most], " ") + " … (all in the JSON form)"
		}
		fmt.Fprintf(&b, "| %s | %d | %s | %s |\n", cell(f.Name), f.Value, cell(f.Table), cell(records))
	}
	for _, t := range r.Tables {
		fmt.Fprintf(&b, "\n## %s\n\n", cell(t.Title))
		if len(t.Rows) == 0 {
			b.WriteString("None.\n")
			continue
		}
		writeRow(&b, t.Columns)
		b.WriteString("|" + strings.Repeat("---|", len(t.Columns)) + "\n")
		for _, row := range t.Rows {
			writeRow(&b, row)
		}
	}
	b.WriteString("\n## What it helps to answer\n\nThe words are ours; what the standards ask stands in their texts.\n\n| standard | clause | asks for |\n|---|---|---|\n")
	for _, c := range r.Clauses {
		writeRow(&b, []string{c.Standard, c.Clause, c.Asks})
	}
	if r.Checkpoint != "" {
		state := "signed by the gateway; no witness has cosigned it"
		if r.Witnessed {
			state = "signed by the gateway and cosigned by a witness"
		}
		fmt.Fprintf(&b, "\n## What stands behind it\n\nSessions are proven by their recordings, which this checkpoint of the log binds (%s); sallyport-verify checks them.\n\n```\n%s```\n", state, r.Checkpoint)
	}
	return b.String()
}

func writeRow(b *strings.Builder, cells []string) {
	for _, text := range cells {
		b.WriteString("| " + cell(text) + " ")
	}
	b.WriteString("|\n")
}

// cell makes text harmless in a table of Markdown: what people wrote in a reason is no markup, no link and no new row.
func cell(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || !unicode.IsPrint(r) && r != ' ' {
			return ' '
		}
		return r
	}, text)
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "<", "&lt;", ">", "&gt;", "[", `\[`, "]", `\]`, "`", "\\`", "*", `\*`, "_", `\_`, "&", "&amp;").Replace(text)
}

func writeCSV(w io.Writer, r api.AuditReport) error {
	out := csv.NewWriter(w)
	write := func(cells ...string) {
		for i := range cells {
			cells[i] = noFormula(cells[i])
		}
		_ = out.Write(cells) // Error below says so
	}
	write("figures", "figure", "number", "table", "records")
	for _, f := range r.Figures {
		write("figures", f.Name, strconv.Itoa(f.Value), f.Table, strings.Join(f.Records, " "))
	}
	for _, t := range r.Tables {
		write(append([]string{t.Title}, t.Columns...)...)
		for _, row := range t.Rows {
			write(append([]string{t.Title}, row...)...)
		}
	}
	write("clauses", "standard", "clause", "asks for")
	for _, c := range r.Clauses {
		write("clauses", c.Standard, c.Clause, c.Asks)
	}
	out.Flush()
	return out.Error()
}

// noFormula keeps a spreadsheet from running what somebody wrote.
func noFormula(text string) string {
	if strings.ContainsAny(text[:min(1, len(text))], "=+-@\t\r") {
		return "'" + text
	}
	return text
}
