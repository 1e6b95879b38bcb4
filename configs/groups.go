package configs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
)

// What a file of groups may hold. The length of a name is what is taken from providers too.
const (
	maxGroupFile   = 4 << 20
	maxGroupName   = 256
	maxGroupMember = 1024
)

// ReadGroups reads a file of groups (Config.GroupFile): the members of each group, as they stand there. It is read whole or
// not at all.
func ReadGroups(path string) (map[string][]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the file of groups can't be read: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxGroupFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the file of groups can't be read: %w", err)
	case len(data) > maxGroupFile:
		return nil, fmt.Errorf("the file of groups %s is longer than %d bytes", path, maxGroupFile)
	}
	var groups map[string][]string
	if err := yaml.Unmarshal(data, &groups); err != nil {
		return nil, fmt.Errorf("the file of groups %s: write each group's name with a list of subjects: %w", path, err)
	}
	if len(groups) == 0 { // half a file, or one that is just being written
		return nil, fmt.Errorf("the file of groups %s: %w", path, errors.New("it has no group in it"))
	}
	for group, members := range groups {
		if !legible(group, maxGroupName) {
			return nil, fmt.Errorf("the file of groups %s: the group %q is empty, longer than %d bytes or not printable", path, group, maxGroupName)
		}
		for _, member := range members {
			if !legible(member, maxGroupMember) || strings.HasPrefix(member, " ") || strings.HasSuffix(member, " ") {
				return nil, fmt.Errorf("the file of groups %s: a member of %q is %q; write a subject, or issuer, one blank and subject", path, group, member)
			}
		}
	}
	return groups, nil
}

func legible(s string, limit int) bool {
	return s != "" && len(s) <= limit && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
