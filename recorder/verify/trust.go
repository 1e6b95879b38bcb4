package verify

import (
	"fmt"
	"os"
	"strings"

	"sallyport/recorder/disk"
	"sallyport/recorder/transparency"
)

// Trust reads what somebody trusts: the log's public key, witnesses' public keys and kept checkpoints, each as a file's name
// or, for keys, as the text itself.
func Trust(logKey string, witnesses, kept []string) (Options, error) {
	var o Options
	var err error
	if logKey != "" {
		if o.LogKey, err = transparency.ParseLogKey(fileOrText(logKey)); err != nil {
			return o, err
		}
	}
	for _, text := range witnesses {
		for line := range strings.Lines(fileOrText(text)) {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			key, err := transparency.ParseWitnessKey(line)
			if err != nil {
				return o, err
			}
			o.Witnesses = append(o.Witnesses, key)
		}
	}
	for _, name := range kept {
		content, err := disk.Read(name, transparency.MaxCheckpoint)
		if err != nil {
			return o, fmt.Errorf("read a checkpoint that was kept: %w", err)
		}
		o.Kept = append(o.Kept, content)
	}
	return o, nil
}

// fileOrText is the content of the file of that name, or the text itself where there is none.
func fileOrText(text string) string {
	if info, err := os.Stat(text); err == nil && info.Mode().IsRegular() && info.Size() < 64<<10 {
		if content, err := os.ReadFile(text); err == nil {
			return strings.TrimSpace(string(content))
		}
	}
	return text
}

// Proven says that nothing is wrong and that somebody outside the gateway vouches for it: the log's key was given, and a
// witness's cosignature or a kept checkpoint covers leaves.
func (r *Report) Proven() bool {
	return r.Whole && r.Log != nil && r.Log.Trusted && r.Log.Covered > 0
}
