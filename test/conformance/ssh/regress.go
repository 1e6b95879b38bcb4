package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// suite are OpenSSH's own tests, as Debian packs them (openssh-tests). Straight they run as they are; through, shim.go stands where
// the tests start sshd. What they test of sshd's own taking of keys, of ssh's options alone or of key files is left out: the
// gateway has no part in it. So are forwarding and dynamic-forward, all of whose traffic is SSH in a tunnel, which the gateway cuts on
// purpose; the scenarios forward/… are there instead.
var suite = []scenario{
	regress("connect"), regress("proxy-connect"), regress("exit-status"), regress("exit-status-signal"), regress("envpass"), regress("transfer"),
	regress("banner"), regress("stderr-data"), regress("stderr-after-eof"), regress("broken-pipe"), regress("yes-head"), regress("localcommand"),
	regress("forcecommand"), regress("host-expand"), regress("scp3"), regress("scp-uri"), regress("scp"), regress("sftp-uri"), regress("connect-uri"), regress("channel-timeout"),
	regress("multiplex"),
}

//go:embed openssh-tests.txt
var regressExpected string

func regress(script string) scenario {
	return scenario{name: "openssh-tests/" + script, timeout: 6 * time.Minute, run: func(ctx context.Context, s *side) (string, error) {
		if s.name == "jump" {
			return "", errSkipped{"a test's own ProxyCommand stands where the jump would"}
		}
		env, stop, err := s.stage(ctx)
		if err != nil {
			return "", err
		}
		defer stop()
		if out, err := exec.CommandContext(ctx, "cp", "-a", "/usr/lib/openssh/regress", s.path("r")).CombinedOutput(); err != nil {
			return "", fmt.Errorf("copy the tests: %w: %s", err, out)
		}
		cmd := s.command(ctx, "sh", s.path("r/test-exec.sh"), s.path("r"), s.path("r/"+script+".sh"))
		cmd.Dir = s.path("r")
		cmd.Env = append(os.Environ(), append(env, "BUILDDIR="+s.path("r"), "TEST_SHELL=sh", "TEST_SSH_SFTPSERVER=/usr/lib/openssh/sftp-server",
			"TEST_SSH_UNSAFE_PERMISSIONS=1", "TEST_SSH_ECC=yes", "SSH_AUTH_SOCK=")...)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		err = cmd.Run()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			return said.String(), err
		}
		failed, _ := os.ReadFile(s.path("r/failed-regress.log")) // there is none where nothing failed
		return judged(script, string(failed), err != nil, said.String(), s.through)
	}}
}

// judged is what failed of a test, without what is expected to and does. What was expected and did not fail is said too.
func judged(script, log string, bad bool, said string, through bool) (string, error) {
	var kept strings.Builder
	expected := expectations(script, through)
	failures := 0
	for line := range strings.Lines(log) {
		message, fails := strings.CutPrefix(strings.TrimSpace(line), "FAIL: ")
		if !fails {
			continue
		}
		failures++
		excused := false
		for beginning := range expected {
			if strings.HasPrefix(message, beginning) {
				expected[beginning], excused = true, true
			}
		}
		if !excused {
			fmt.Fprintf(&kept, "fails: %s\n", message)
		}
	}
	for _, message := range slices.Sorted(maps.Keys(expected)) {
		if !expected[message] {
			fmt.Fprintf(&kept, "expected to fail, and did not: %s\n", message)
		}
	}
	if bad && failures == 0 {
		fmt.Fprintf(&kept, "fails without saying what: %s\n", tailOf(said))
	}
	if kept.Len() > 0 {
		return kept.String(), errors.New("it fails")
	}
	return "", nil
}

// expectations are the beginnings of messages of a test that stand in openssh-tests.txt, each line of which is SCRIPT | SIDE | MESSAGE | REASON.
func expectations(script string, through bool) map[string]bool {
	found := map[string]bool{}
	for line := range strings.Lines(regressExpected) {
		parts := strings.SplitN(strings.TrimSpace(line), " | ", 4)
		if len(parts) != 4 || strings.HasPrefix(line, "#") || parts[0] != script {
			continue
		}
		if parts[1] == "both" || parts[1] == "through" && through {
			found[parts[2]] = false
		}
	}
	return found
}
