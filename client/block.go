package client

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

// place says where a new block goes.
type place int

const (
	atTop place = iota
	atBottom
)

// mergeBlock returns text with the block's content replaced, or added where there is none; empty content removes the
// block. Merging twice is merging once.
func mergeBlock(text, content string, where place) (string, error) {
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
	case where == atTop:
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

// mergeFile is mergeBlock on a file, which keeps its mode. A file that would be made only to hold nothing is not made.
func mergeFile(path, content string, where place) error {
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
	return writeFile(path, []byte(merged), mode)
}
