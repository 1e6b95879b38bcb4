package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sallyport/client"
	"sallyport/recorder/verify"
)

// open makes the API's client of the person signed in here.
func open() (*client.Client, error) {
	home, err := client.DefaultHome()
	if err != nil {
		return nil, err
	}
	c, err := client.Open(home)
	if err != nil {
		return nil, err
	}
	renewInPassing(c)
	return c, nil
}

// renewInPassing renews certificates that are about to end. What fails is said by whatever needs them.
func renewInPassing(c *client.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, _, _ = c.Renew(ctx, io.Discard, false)
}

// asJSON reports whether --json was given.
func asJSON(command *cobra.Command) bool {
	on, err := command.Flags().GetBool("json")
	return err == nil && on
}

// show prints v as JSON with --json, else as the table.
func show(command *cobra.Command, v any, table func(t *table)) error {
	out := command.OutOrStdout()
	if asJSON(command) {
		return printJSON(out, v)
	}
	t := newTable(out)
	table(t)
	if f, ok := out.(*os.File); ok && t.rows == 1 && t.head && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintln(command.ErrOrStderr(), "There is nothing to list.")
	}
	return t.flush()
}

func printJSON(w io.Writer, v any) error {
	encoder := newJSON(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// table prints aligned columns. What people wrote (a reason, a name) can't move the cursor in it.
type table struct {
	w    *tabwriter.Writer
	rows int
	head bool // the first row names columns
}

func newTable(w io.Writer) *table {
	return &table{w: tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
}

// row prints one line of cells. Where nothing is known a dash stands, but where a line goes on with what the one before began with.
func (t *table) row(cells ...string) {
	t.rows++
	if t.rows == 1 {
		t.head = len(cells) > 1 && strings.ToUpper(strings.Join(cells, "")) == strings.Join(cells, "")
	}
	goesOn := true
	for i, c := range cells {
		goesOn = goesOn && c == ""
		if cells[i] = visible(c); c == "" && !goesOn {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
}

func (t *table) flush() error { return t.w.Flush() }

// visible writes control characters and what reorders text as escapes, on one line.
func visible(s string) string { return verify.Visible(onOneLine.Replace(s)) }

var onOneLine = strings.NewReplacer("\n", " ", "\t", " ")

// local writes a time in the user's zone.
func local(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// left writes how long it is until t.
func left(t time.Time) string {
	if d := time.Until(t); !t.IsZero() && d > 0 {
		return span(d)
	}
	return ""
}

// span writes a duration as people do, to the second.
func span(d time.Duration) string {
	text := d.Round(time.Second).String()
	if whole, found := strings.CutSuffix(text, "m0s"); found {
		text = whole + "m"
	}
	if whole, found := strings.CutSuffix(text, "h0m"); found {
		text = whole + "h"
	}
	return text
}
