package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "How the gateway stands: recorder, disk, index, audit log",
		Example: "  sallyport status\n  sallyport status --json | jq .log",
		Long: `Show whether sessions can begin, what recordings take of the disk and how long it lasts, and which roles made for grants are
still to be dropped. Exit 1 if no session can begin.`,
		Args: noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			s, err := get[api.Status](command, "/v1/status")
			if err != nil {
				return err
			}
			if err := show(command, s, func(t *table) { statusTable(t, s) }); err != nil {
				return err
			}
			if !s.Ready {
				return quiet{errors.New("no session can begin")}
			}
			return nil
		},
	}
}

func statusTable(t *table, s api.Status) {
	r := s.Recorder
	ready := "yes"
	if !s.Ready {
		ready = "no: " + s.Why
	}
	if s.Draining {
		ready += ", and the gateway is shutting down"
	}
	t.row("ready", ready)
	t.row("version", s.Version)
	t.row("live sessions", fmt.Sprint(s.Sessions))
	t.row("durability", r.Durability)
	sync := "not measured"
	if r.SyncMedian > 0 {
		sync = fmt.Sprintf("%v, slowest %v (when the gateway was started)", r.SyncMedian.Round(time.Microsecond), r.SyncSlowest.Round(time.Microsecond))
	}
	t.row("a sync takes", sync)
	log := "none: recordings are bound to nothing"
	if s.Log.Origin != "" {
		log = fmt.Sprintf("%d leaves, %d signed, %d witnessed", s.Log.Size, s.Log.Signed, s.Log.Witnessed)
		if !s.Log.WitnessedAt.IsZero() {
			log += " (" + local(s.Log.WitnessedAt) + ")"
		}
	}
	t.row("log", log)
	if s.Log.Warning != "" {
		t.row("  warning", s.Log.Warning)
	}
	t.row("recordings", fmt.Sprintf("%d, %s with the audit log; %d on hold", r.Recordings, size(r.Bytes), r.Holds))
	for _, d := range r.Days {
		t.row("  "+d.Day, fmt.Sprintf("%d, %s", d.Recordings, size(d.Bytes)))
	}
	t.row("free", fmt.Sprintf("%s, of which %s are kept in reserve", size(r.Free), size(r.Reserve)))
	if r.Free < r.Warn {
		t.row("", "make room: below "+size(r.Reserve)+" no session starts")
	}
	left := "not known: nothing was recorded on the six days before today"
	if r.Left > 0 {
		left = fmt.Sprintf("%.0f days, if it goes on like on the six days before today", r.Left.Hours()/24)
	}
	t.row("lasts", left)
	index := "none: searches read the recordings"
	switch {
	case s.Index.Error != "":
		index = "not usable: " + s.Index.Error
	case s.Index.Kept:
		index = fmt.Sprintf("%d sessions, %d live, %d behind", s.Index.Sessions, s.Index.Live, s.Index.Behind)
	}
	t.row("search index", index)
	archiveRows(t, s.Archive)
	t.row("audit events to move", fmt.Sprint(s.Outbox))
	cleanups(t, s.Cleanups)
}

// mostCleanups is how many roles are listed; --json has all.
const mostCleanups = 20

// cleanups lists the roles that are still to be dropped.
func cleanups(t *table, all []api.Cleanup) {
	if len(all) == 0 {
		t.row("roles to drop", "none")
		return
	}
	stuck := 0
	for _, c := range all {
		if c.Stuck {
			stuck++
		}
	}
	t.row("roles to drop", fmt.Sprintf("%d of grants that are over; %d of them stuck", len(all), stuck))
	for _, c := range all[:min(len(all), mostCleanups)] {
		said := fmt.Sprintf("on %s, grant %s, over since %s", c.Target, c.Grant, local(c.Ended))
		if c.Error != "" {
			said += fmt.Sprintf("; tried %d times, last: %s", c.Attempts, c.Error)
		}
		t.row("  "+c.Role, said)
	}
	if stuck > 0 {
		t.row("", "mend what is in the way, then: sallyport targets check TARGET")
	}
}

func size(bytes int64) string { return humanize.IBytes(uint64(max(0, bytes))) }
