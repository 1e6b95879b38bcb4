package wal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/recorder/disk"
)

// Found is what Replay found.
type Found struct {
	Groups  int      // that were given
	Damages []string // what is missing though something written later is there; never a group that was just being written
}

// used is a segment that was in use when its log ended.
type used struct {
	header
	path string
}

// Replay gives the records of every group that was safe when the log in dir ended, and perhaps of the one that was being
// written, in the order they were appended in. It changes nothing; once the records are safe elsewhere, Remove the log.
// The records' Data are valid during the call.
func Replay(dir string, apply func(Record) error) (Found, error) {
	var found Found
	segments, err := inUse(dir)
	if err != nil {
		return found, fmt.Errorf("read the write-ahead log: %w", err)
	}
	if len(segments) == 0 {
		return found, nil
	}
	last := segments[len(segments)-1]
	// Older ones were left to be used again; what they hold is in its files.
	segments = slices.DeleteFunc(segments, func(s used) bool { return s.generation < last.oldest })
	next := segments[0].first
	for i, s := range segments {
		if i > 0 && (s.generation != segments[i-1].generation+1 || s.first != next) {
			found.Damages = append(found.Damages, fmt.Sprintf("%s does not go on where the one before it ends", filepath.Base(s.path)))
		}
		if next, err = replaySegment(s, &found, apply); err != nil {
			return found, fmt.Errorf("read the write-ahead log: %s: %w", filepath.Base(s.path), err)
		}
	}
	return found, nil
}

// inUse lists the segments of a directory that are or were in use, oldest first.
func inUse(dir string) ([]used, error) {
	paths, err := filesOf(dir)
	if err != nil {
		return nil, err
	}
	var segments []used
	for _, path := range paths {
		top, err := readTop(path)
		if err != nil {
			return nil, err
		}
		if h, ok := decodeHeader(top); ok {
			segments = append(segments, used{h, path})
		}
	}
	slices.SortFunc(segments, func(a, b used) int { return cmp.Compare(a.generation, b.generation) })
	return segments, nil
}

func filesOf(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var paths []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), extension) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, err
}

func readTop(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	top := make([]byte, headerSize)
	n, err := f.ReadAt(top, 0)
	if n < len(top) && err != nil && !isEnd(err) {
		return nil, err
	}
	return top[:n], nil
}

// replaySegment gives a segment's records and returns the number of the group that should come next.
func replaySegment(s used, found *Found, apply func(Record) error) (uint64, error) {
	content, err := os.ReadFile(s.path) // of a bounded size, one at a time
	if err != nil {
		return 0, err
	}
	next, seed := s.first, s.seed()
	missing := false
	for at := page; at < len(content); {
		number, records, size, ok := parseGroup(content[at:], seed)
		if !ok || number < next {
			missing = true // unless nothing comes after
			at += page
			continue
		}
		if missing || number != next {
			found.Damages = append(found.Damages, fmt.Sprintf("%s: groups %d to %d are not what was written", filepath.Base(s.path), next, number-1))
			missing = false
		}
		for len(records) > 0 {
			var r Record
			if r, records, err = parseRecord(records); err == nil {
				err = apply(r)
			}
			if err != nil {
				return 0, err
			}
		}
		found.Groups++
		next = number + 1
		at += size
	}
	return next, nil
}

// Remove removes a log for good.
func Remove(dir string) error {
	paths, err := filesOf(dir)
	if err != nil || len(paths) == 0 {
		return err
	}
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return disk.SyncDirectory(dir)
}
