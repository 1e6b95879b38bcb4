package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// copying moves files with everything that OpenSSH and rsync have for it.
var copying = []scenario{
	{name: "sftp/batch", run: func(ctx context.Context, s *side) (string, error) {
		big, err := s.file("big", 20<<20)
		if err != nil {
			return "", err
		}
		w := s.work
		batch := strings.Join([]string{
			"mkdir " + w + "/remote", "cd " + w + "/remote", "put " + big + " one", "put -p " + big + " two", "rename one three", "chmod 600 three",
			"ls -1", "ln -s three link", "ln three hard", "get three " + w + "/back", "-get nosuch " + w + "/nothing", "rm two", "mkdir sub", "rmdir sub",
			"-rmdir nosuch", "symlink three again", "pwd", "df -h .", "reget three " + w + "/back", "!echo local",
		}, "\n")
		h, err := s.run(ctx, strings.NewReader(batch+"\n"), "sftp", "-q", "-F", s.config, "-b", "-", "web-1")
		if err != nil || h.status != 0 {
			return h.String(), err
		}
		h.out = withoutLines(h.out, "%") // of the disk
		one, err := digest(w + "/back")
		if err != nil {
			return h.String(), err
		}
		tree, err := listing(w + "/remote")
		return h.String() + one + tree, err
	}},
	{name: "sftp/many-small", run: func(ctx context.Context, s *side) (string, error) {
		if err := smallFiles(s.path("tree"), 200); err != nil {
			return "", err
		}
		h, err := s.run(ctx, strings.NewReader(fmt.Sprintf("put -r %s %s\nget -r %s %s\n", s.path("tree"), s.path("there"), s.path("there"), s.path("back"))),
			"sftp", "-q", "-F", s.config, "-b", "-", "web-1")
		if err != nil || h.status != 0 {
			return h.String(), err
		}
		return listing(s.path("back"))
	}},
	{name: "sftp/program", run: func(ctx context.Context, s *side) (string, error) {
		// -s with a path makes sftp an exec of that program.
		name, err := s.file("one", 100000)
		if err != nil {
			return "", err
		}
		h, err := s.run(ctx, strings.NewReader("put "+name+" "+s.path("two")+"\n"), "sftp", "-q", "-F", s.config, "-s", "/usr/lib/openssh/sftp-server", "-b", "-", "web-1")
		if err != nil || h.status != 0 {
			return h.String(), err
		}
		return digest(s.path("two"))
	}},
	{name: "scp/sftp-protocol", run: scp()},
	{name: "scp/old-protocol", run: scp("-O")},
	{name: "scp/old-refused", run: func(ctx context.Context, s *side) (string, error) {
		h, err := s.run(ctx, nil, "scp", "-q", "-O", "-F", s.config, "web-1:/nonexistent/file", s.path("x"))
		return h.String(), err
	}},
	{name: "rsync/both-ways", run: func(ctx context.Context, s *side) (string, error) {
		if err := smallFiles(s.path("tree"), 100); err != nil {
			return "", err
		}
		if _, err := s.file("tree/big", 20<<20); err != nil {
			return "", err
		}
		shell := "ssh -F " + s.config
		for _, args := range [][]string{
			{s.path("tree") + "/", "web-1:" + s.path("there") + "/"}, {s.path("tree") + "/", "web-1:" + s.path("there") + "/"},
			{"web-1:" + s.path("there") + "/", s.path("back") + "/"}, {"-z", "--checksum", "--delete", "web-1:" + s.path("there") + "/", s.path("back") + "/"},
		} {
			if h, err := s.run(ctx, nil, "rsync", append([]string{"-a", "-e", shell}, args...)...); err != nil || h.status != 0 {
				return h.String(), err
			}
		}
		return listing(s.path("back"))
	}},
	{name: "rsync/missing", run: func(ctx context.Context, s *side) (string, error) {
		h, err := s.run(ctx, nil, "rsync", "-a", "-e", "ssh -F "+s.config, "web-1:/nonexistent/", s.path("x"))
		return fmt.Sprint(h.status), err
	}},
	{name: "tar/pipe", run: func(ctx context.Context, s *side) (string, error) {
		if err := smallFiles(s.path("tree"), 100); err != nil {
			return "", err
		}
		cmd := s.command(ctx, "bash", "-c", `set -o pipefail; mkdir there back; tar cf - -C tree . | ssh -F "$SIDE_CONFIG" web-1 "tar xf - -C $SIDE_WORK/there" && ssh -F "$SIDE_CONFIG" web-1 "tar cf - -C $SIDE_WORK/there ." | tar xf - -C back`)
		if out, err := cmd.CombinedOutput(); err != nil {
			return string(out), err
		}
		return listing(s.path("back"))
	}},
}

// scp copies a file and a tree there and back, with times and modes.
func scp(flags ...string) func(context.Context, *side) (string, error) {
	return func(ctx context.Context, s *side) (string, error) {
		if _, err := s.file("big", 20<<20); err != nil {
			return "", err
		}
		if err := smallFiles(s.path("tree"), 50); err != nil {
			return "", err
		}
		flags := append([]string{"-q", "-p", "-F", s.config}, flags...)
		for _, args := range [][]string{
			{s.path("big"), "web-1:" + s.path("there big")}, {"web-1:" + strings.ReplaceAll(s.path("there big"), " ", "?"), s.path("back-big")},
			{"-r", s.path("tree"), "web-1:" + s.path("there")}, {"-r", "web-1:" + s.path("there"), s.path("back")},
		} {
			if h, err := s.run(ctx, nil, "scp", append(append([]string{}, flags...), args...)...); err != nil || h.status != 0 {
				return h.String(), err
			}
		}
		big, err := digest(s.path("back-big"))
		if err != nil {
			return "", err
		}
		tree, err := listing(s.path("back"))
		return big + tree, err
	}
}

// smallFiles makes files of some kilobytes in directories, with odd names and modes.
func smallFiles(dir string, n int) error {
	for i := range n {
		name := filepath.Join(dir, fmt.Sprintf("d%d", i%7), fmt.Sprintf("file %d ü", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(strings.Repeat(fmt.Sprintf("line %d\n", i), i*17)), os.FileMode(0o600+i%2*0o044)); err != nil {
			return err
		}
	}
	return nil
}

// listing is every file under dir with mode, size and hash.
func listing(dir string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		sum := ""
		if info.Mode().IsRegular() {
			if sum, err = digest(path); err != nil {
				return err
			}
		}
		fmt.Fprintf(&b, "%s %s %s\n", strings.TrimPrefix(path, dir), info.Mode(), sum)
		return nil
	})
	return b.String(), err
}

func withoutLines(text, with string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, with) {
			b.WriteString(line)
		}
	}
	return b.String()
}
