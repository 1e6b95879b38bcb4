package main

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// programs stand on the stock ssh.
var programs = []scenario{
	{name: "git/push-clone-fetch", run: func(ctx context.Context, s *side) (string, error) {
		cmd := s.command(ctx, "bash", "-euc", `
git config --global user.email a@b.example; git config --global user.name A; git config --global init.defaultBranch main
git init -q --bare there.git
git init -q one; cd one
for i in $(seq 1 50); do head -c 40000 /dev/zero | openssl enc -aes-128-ctr -nosalt -pass pass:$i >f$i 2>/dev/null; done; git add .; git commit -qm first --date=2026-01-01T00:00:00Z
git remote add origin "web-1:$SIDE_WORK/there.git"; git push -q origin main
cd ..; git clone -q "ssh://web-1$SIDE_WORK/there.git" two
echo more >>two/f1; git -C two commit -qam second; git -C two push -q
git -C one pull -q origin main; cmp one/f1 two/f1; git -C one log --format=%s; git ls-remote -q "web-1:$SIDE_WORK/nosuch.git" 2>/dev/null || echo "status $?"`)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}},
	{name: "ansible/ten-modules", timeout: 10 * time.Minute, run: ansible(false)},
	{name: "ansible/ten-modules-pipelined", timeout: 10 * time.Minute, run: ansible(true)},
}

//go:embed clients
var clients embed.FS

// client writes a client's file into the scenario's directory.
func (s *side) client(name string) (string, error) {
	text, err := clients.ReadFile("clients/" + name)
	if err != nil {
		return "", err
	}
	return s.path(name), os.WriteFile(s.path(name), text, 0o700)
}

func ansible(pipelining bool) func(context.Context, *side) (string, error) {
	return func(ctx context.Context, s *side) (string, error) {
		playbook, err := s.client("playbook.yml")
		if err != nil {
			return "", err
		}
		inventory := fmt.Sprintf("web-1 ansible_ssh_common_args='-F %s' ansible_python_interpreter=/usr/bin/python3 work=%s\n", s.config, s.work)
		if err := os.WriteFile(s.path("inventory"), []byte(inventory), 0o600); err != nil {
			return "", err
		}
		cmd := s.command(ctx, "ansible-playbook", "-i", s.path("inventory"), playbook)
		cmd.Env = append(cmd.Env, fmt.Sprintf("ANSIBLE_PIPELINING=%v", pipelining), "ANSIBLE_NOCOLOR=1", "ANSIBLE_HOST_KEY_CHECKING=True", "ANSIBLE_LOCAL_TEMP="+s.path("local"),
			"ANSIBLE_SSH_CONTROL_PATH_DIR="+shortDir(s), "ANSIBLE_REMOTE_TEMP="+s.path("remote"))
		defer os.RemoveAll(shortDir(s))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return string(out), fmt.Errorf("ansible: %w", err)
		}
		tree, err := listing(s.path("made"))
		return times.ReplaceAllString(string(out), `"$1": TIME`) + tree, err
	}
}

// times are what ansible tells of when a command ran.
var times = regexp.MustCompile(`"(delta|start|end)": "[^"]*"`)

// shortDir is a directory for sockets, whose names may not be long.
func shortDir(s *side) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("sp-%d-%s-cp", os.Getpid(), s.name))
}

// installClients installs what is missing of the clients, on Debian and as root.
func installClients(ctx context.Context) error {
	need := map[string]string{
		"plink": "putty-tools", "puttygen": "putty-tools", "dbclient": "dropbear-bin", "ansible-playbook": "ansible-core", "rsync": "rsync", "git": "git", "vim": "vim",
		"tmux": "tmux", "npm": "npm", "ssh": "openssh-client", "openssl": "openssl",
	}
	files := map[string]string{
		"/usr/lib/python3/dist-packages/paramiko": "python3-paramiko", "/usr/lib/python3/dist-packages/asyncssh": "python3-asyncssh",
		"/usr/lib/openssh/regress": "openssh-tests", "/usr/lib/openssh/sftp-server": "openssh-sftp-server",
	}
	var missing []string
	for program, pkg := range need {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, pkg)
		}
	}
	for file, pkg := range files {
		if _, err := os.Stat(file); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"}, missing...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install %s: %w: %s", strings.Join(missing, " "), err, tailOf(string(out)))
	}
	return nil
}
