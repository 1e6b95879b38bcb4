package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/recorder"
)

// exportFormats are the forms of an export.
var exportFormats = recorder.Formats

func newExportCommand() *cobra.Command {
	var all bool
	var format, output, identity string
	var u unmasking
	command := &cobra.Command{
		Use:   "export [ID|FILE.srec]",
		Short: "Write recordings in a form of other programs",
		Long: `Write one recording, or with --all every one you may export:

  jsonl        every event, one JSON object a line; a statement's text in "sql", a command's in "command"
  asciicast    a terminal session as asciicast v3, for asciinema; asciicast-v2 is its older form
  text         what happened, for reading
  srec         the recording as the gateway has it stored; locked, if it is

What masking hides is hidden in every form but srec, unless --unmasked asks for it.

A locked recording is fetched as it is stored and opened here, with --identity. A file that ends in .srec is read without a
gateway.`,
		Example: `  sallyport export --all --format jsonl --output events.jsonl
  sallyport export s-0abc --format text --identity ~/audit-key.txt`,
		Args: atMost(1),
		RunE: func(command *cobra.Command, args []string) error {
			if all == (len(args) == 1) {
				return usage(command, "say what to export: an ID, or --all")
			}
			if !slices.Contains(exportFormats, format) {
				return usage(command, "--format is one of %s", strings.Join(exportFormats, ", "))
			}
			if all && identity != "" {
				return usage(command, "--identity opens one recording; name its ID")
			}
			if all && (strings.HasPrefix(format, "asciicast") || format == recorder.Stored) {
				return usage(command, "%s holds one session; name its ID", format)
			}
			if !all && format != recorder.Stored && (identity != "" || isFile(args[0])) {
				return exportHere(command, args[0], identity, format, output, u)
			}
			q := url.Values{"format": {format}}
			if all {
				q.Set("all", "true")
			} else {
				q.Set("session", args[0])
			}
			u.add(q)
			c, err := open()
			if err != nil {
				return err
			}
			body, err := c.Stream(command.Context(), "/v1/export?"+q.Encode())
			if err != nil {
				return err
			}
			defer body.Close()
			if output == "" || output == "-" {
				return copyWhole(command.OutOrStdout(), body)
			}
			return writeWhole(output, body)
		},
	}
	flags := command.Flags()
	flags.BoolVar(&all, "all", false, "every recording you may export")
	flags.StringVar(&format, "format", "jsonl", "`FORM`: "+strings.Join(exportFormats, ", "))
	identityFlag(flags, &identity)
	u.flags(flags)
	flags.StringVarP(&output, "output", "o", "", "`FILE` to write; default: standard output")
	return command
}

func copyWhole(w io.Writer, r io.Reader) error {
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("the export was cut short, what was written is not the whole: %w", err)
	}
	return nil
}

// writeWhole writes the file only when all of it has come. It may hold secrets that were typed: only its owner reads it.
func writeWhole(path string, r io.Reader) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), ".sallyport-export-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(file.Name())
		}
	}()
	if err := copyWhole(file, r); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(file.Name(), path)
}
