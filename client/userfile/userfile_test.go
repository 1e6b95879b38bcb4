package userfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestMergeBlock(t *testing.T) {
	const block = blockBegin + "\n" + blockNote + "\nx\n" + blockEnd + "\n"
	for _, test := range []struct {
		name, text, content string
		where               Place
		want                string
	}{
		{"into nothing", "", "x", AtBottom, block},
		{"at the bottom", "mine\n", "x", AtBottom, "mine\n" + block},
		{"at the top", "mine\n", "x\n", AtTop, block + "mine\n"},
		{"after a last line without an end", "mine", "x", AtBottom, "mine\n" + block},
		{"replaced where it stands", "a\n" + blockBegin + "\nold\n" + blockEnd + "\nb\n", "x", AtTop, "a\n" + block + "b\n"},
		{"replaced in a file with Windows line ends", "a\r\n" + blockBegin + "\r\nold\r\n" + blockEnd + "\r\nb\r\n", "x", AtTop, "a\r\n" + block + "b\r\n"},
		{"taken out", "a\n" + block + "b\n", "", AtTop, "a\nb\n"},
		{"nothing to take out", "a\n", "", AtTop, "a\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := mergeBlock(test.text, test.content, test.where)
			if err != nil || got != test.want {
				t.Errorf("got %q, %v\nwant %q", got, err, test.want)
			}
		})
	}
}

func TestMergeBlockLeavesABrokenFileAlone(t *testing.T) {
	for _, text := range []string{
		blockBegin + "\nx\n",
		blockEnd + "\n",
		blockEnd + "\n" + blockBegin + "\n",
		blockBegin + "\n" + blockBegin + "\n" + blockEnd + "\n",
		blockBegin + "\n" + blockEnd + "\n" + blockEnd + "\n",
	} {
		if got, err := mergeBlock(text, "x", AtTop); err == nil {
			t.Errorf("%q was merged into %q", text, got)
		}
	}
}

// Whatever the user's file holds: merging twice is merging once, and taking the block out gives the file back.
func TestMergeBlockIsIdempotentAndReversible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`([a-z \[\]=#]{0,8}\n){0,5}`).Draw(t, "text")
		content := rapid.StringMatching(`([a-z]{1,8}\n){1,3}`).Draw(t, "content")
		where := Place(rapid.IntRange(0, 1).Draw(t, "where"))
		once, err := mergeBlock(text, content, where)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := mergeBlock(once, content, where); err != nil || twice != once {
			t.Fatalf("twice: %q, %v\nonce:  %q", twice, err, once)
		}
		if back, err := mergeBlock(once, "", where); err != nil || back != text {
			t.Fatalf("taken out: %q, %v\nwas:       %q", back, err, text)
		}
	})
}

func TestMergeFileKeepsModeAndLink(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "dotfiles")
	link := filepath.Join(dir, "config")
	if err := os.WriteFile(real, []byte("Host mine\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Skip("no links here:", err)
	}
	if err := Merge(link, "Include x", AtTop); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(real)
	if err != nil || !strings.HasPrefix(string(data), blockBegin) || !strings.HasSuffix(string(data), "Host mine\n") {
		t.Errorf("the file behind the link holds %q, %v", data, err)
	}
	info, err := os.Lstat(link)
	if err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
	if info, err := os.Stat(real); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	leftovers, err := filepath.Glob(filepath.Join(dir, ".sallyport-*"))
	if err != nil || len(leftovers) > 0 {
		t.Errorf("left over: %v, %v", leftovers, err)
	}
}

func TestMergeFileMakesNoEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "config")
	if err := Merge(path, "", AtTop); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("something was made: %v", err)
	}
}
