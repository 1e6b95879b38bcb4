// Package userfile writes files that people and other programs read too. It promises that a reader sees an old file or the new one and never a
// piece, and that of a file that belongs to the user nothing changes but one marked block.
package userfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The lines between which login writes in a file that belongs to the user. Everything else in it is left as it is.
const (
	blockBegin = "# >>> sallyport >>>"
	blockEnd   = "# <<< sallyport <<<"
	blockNote  = `# "sallyport login" writes these lines and "sallyport logout" removes them; changes here are lost.`
)

// Place says where a new block goes.
type Place int

// The places.
const (
	AtTop Place = iota
	AtBottom
)

// mergeBlock returns text with the block's content replaced, or added where there is none; empty content removes the
// block. Merging twice is merging once.
func mergeBlock(text, content string, where Place) (string, error) {
	before, _, after, found, err := cutBlock(text)
	if err != nil {
		return "", err
	}
	block := ""
	if content != "" {
		block = blockBegin + "\n" + blockNote + "\n" + strings.TrimRight(content, "\n") + "\n" + blockEnd + "\n"
	}
	switch {
	case found:
		return before + block + after, nil
	case block == "":
		return text, nil
	case where == AtTop:
		return block + text, nil
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text + block, nil
}

// cutBlock splits text around the block.
func cutBlock(text string) (before, block, after string, found bool, err error) {
	begin, end := -1, -1
	at := 0
	for line := range strings.Lines(text) {
		switch strings.TrimRight(line, "\r\n") {
		case blockBegin:
			if begin >= 0 {
				return "", "", "", false, errors.New("it holds two beginnings of sallyport's block; remove one by hand")
			}
			begin = at
		case blockEnd:
			if begin < 0 || end >= 0 {
				return "", "", "", false, errors.New("it holds an end of sallyport's block without a beginning; remove it by hand")
			}
			end = at + len(line)
		}
		at += len(line)
	}
	switch {
	case begin < 0:
		return text, "", "", false, nil
	case end < 0:
		return "", "", "", false, errors.New("sallyport's block in it has no end; remove the block by hand")
	}
	return text[:begin], text[begin:end], text[end:], true, nil
}

// Merge replaces the block's content in a file, or adds the block where there is none; empty content removes it. The file keeps its
// mode. One that would be made only to hold nothing is not made.
func Merge(path, content string, where Place) error {
	mode := fs.FileMode(0o600)
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if content == "" {
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if info, err := os.Stat(path); err == nil {
			mode = info.Mode().Perm()
		}
	}
	merged, err := mergeBlock(string(old), content, where)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if merged == string(old) {
		return nil
	}
	return Write(path, []byte(merged), mode)
}

// Before is what of a text stands before the block, which is all of it where there is none.
func Before(text string) (string, error) {
	before, _, _, _, err := cutBlock(text)
	return before, err
}

// Write replaces a file whole: a reader sees the old one or the new one, also after a crash. Where path is a link,
// what it leads to is replaced.
func Write(path string, data []byte, mode fs.FileMode) (err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".sallyport-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			temporary.Close()
			os.Remove(temporary.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := temporary.Chmod(mode); err != nil {
		return err
	}
	if _, err := temporary.Write(data); err != nil {
		return err
	}
	if err := temporary.Sync(); err != nil {
		return err
	}
	if err := temporary.Close(); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}
