package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"sallyport/authn/secrets"
	"sallyport/configs"
	"sallyport/recorder/archive"
	"sallyport/web/api"
)

func newArchiveCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "archive",
		Short: "The store that recordings are copied to: how it stands, and a copy of it",
		Args:  noArguments,
		RunE:  func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(newArchiveStatusCommand(), newArchivePullCommand())
	return command
}

func newArchiveStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "How far the archive has come",
		Example: "  sallyport archive status",
		Long: `Show what is in the archive, what is still to go there, and what was destroyed here and is still to be deleted there. Exit 1 if
it is behind (archive.max_behind), something that was destroyed can't be deleted for that long, or there is none.`,
		Args: noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			s, err := get[api.Status](command, "/v1/status")
			if err != nil {
				return err
			}
			if s.Archive == nil {
				return errors.New("this gateway has no archive; its configuration names one under archive")
			}
			if err := show(command, s.Archive, func(t *table) { archiveRows(t, s.Archive) }); err != nil {
				return err
			}
			if s.Archive.Behind {
				return quiet{errors.New("the archive is behind")}
			}
			if slices.ContainsFunc(s.Archive.Shreds, func(s api.Shred) bool { return s.Stuck }) {
				return quiet{errors.New("the archive has what was destroyed")}
			}
			return nil
		},
	}
}

// archiveRows tell how it stands with the archive.
func archiveRows(t *table, a *api.Archive) {
	if a == nil {
		t.row("archive", "none: recordings are only on this gateway's disk")
		return
	}
	t.row("archive", a.Place)
	t.row("  there", fmt.Sprintf("%d files, %s, read back", a.Archived, size(a.Bytes)))
	if a.Lock != "" {
		t.row("  lock", a.Lock)
	}
	waits := fmt.Sprint(a.Waiting)
	if !a.Oldest.IsZero() {
		waits += ", the oldest ended " + local(a.Oldest)
	}
	t.row("  to go", waits)
	covers := "no checkpoint yet"
	if a.Checkpoint > 0 {
		covers = fmt.Sprintf("%d leaves, %s", a.Checkpoint, local(a.CheckpointAt))
	}
	t.row("  log", covers)
	if !a.Complete.IsZero() {
		t.row("  had everything", local(a.Complete))
	}
	if a.Error != "" {
		t.row("  warning", fmt.Sprintf("%s (%s)", visible(a.Error), local(a.FailedAt)))
	}
	shredRows(t, a)
	if a.Behind {
		t.row("", "the archive is behind; recordings stay on the gateway's disk until it is not")
	}
}

// shredRows tell what was destroyed here and is still there.
func shredRows(t *table, a *api.Archive) {
	if a.Shredding == 0 {
		return
	}
	t.row("  to delete", fmt.Sprintf("%d recordings that were destroyed here", a.Shredding))
	for _, s := range a.Shreds {
		what := "waits for the log to say so there"
		switch {
		case s.Stuck:
			what = "can't be deleted, and is tried again: " + visible(s.Error)
		case s.Error != "":
			what = "is tried again: " + visible(s.Error)
		case !s.Locked.IsZero():
			what = "is locked until " + local(s.Locked) + ", and deleted then"
		}
		t.row("", visible(s.Session)+" "+what)
	}
	if left := a.Shredding - len(a.Shreds); left > 0 {
		t.row("", fmt.Sprintf("and %d more", left))
	}
}

func newArchivePullCommand() *cobra.Command {
	var file string
	command := &cobra.Command{
		Use:   "pull DIRECTORY [SESSION]…",
		Short: "Fetch a copy of the archive, to verify or to read",
		Long: `Fetch the archive that a configuration names to DIRECTORY, with the log over all recordings; with SESSIONs only their
recordings. What is there already is not fetched again. It needs the bucket and no gateway: of the configuration only
archive is used, so an auditor's may have nothing else.

Exit 1 if an object is not what its name says.`,
		Example: `  sallyport archive pull -c archive.yaml copy
  sallyport-verify copy --archive --log-key log.pub --witness-key witness.pub
  sallyport replay copy/recordings/…/SESSION.srec`,
		Args: atLeast("DIRECTORY"),
		RunE: func(command *cobra.Command, args []string) error {
			config, err := configs.LoadArchive(file)
			if err != nil {
				return err
			}
			p, err := archive.Pull(command.Context(), archive.Options{Config: config, Secret: secrets.Resolve}, args[0], args[1:]...)
			if err != nil {
				return err
			}
			err = show(command, p, func(t *table) {
				t.row("fetched", fmt.Sprintf("%d files, %s", p.Fetched, size(p.Bytes)))
				t.row("were there", fmt.Sprint(p.Had))
				for _, name := range p.Hidden {
					t.row("deleted or written over since", visible(name))
				}
				for _, name := range p.Wrong {
					t.row("not what its name says", visible(name))
				}
			})
			if err == nil && len(p.Wrong) > 0 {
				err = quiet{errors.New("some objects are not what their names say")}
			}
			return err
		},
	}
	command.Flags().StringVarP(&file, "config", "c", "sallyport.yaml", "configuration `FILE`")
	return command
}
