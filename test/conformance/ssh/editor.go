package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// editor is how VS Code's Remote - SSH connects: it feeds a script to a shell without a terminal, which starts a server on the target's
// loopback and says at which port, and reaches that server through the same connection's dynamic forwarding, several times at once. On
// the gateway the account's role allows forwarding to the loopback and nothing else.
func editor(ctx context.Context, s *side) (string, error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	args := append([]string{"-F", s.config, "-T", "-D", at, "-o", "ConnectTimeout=15", "-o", "ExitOnForwardFailure=yes"}, s.as("editor")...)
	cmd := s.command(ctx, "ssh", append(args, "web-1", "bash")...)
	var said strings.Builder
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer cmd.Process.Kill() //nolint:errcheck // it has ended
	if _, err := io.WriteString(in, serverScript+"\n"); err != nil {
		return "", err
	}
	lines := bufio.NewReader(out)
	var there string
	for there == "" {
		line, err := lines.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("it never says where it listens: %w; ssh said %s", err, said.String())
		}
		if at, ok := strings.CutPrefix(strings.TrimSpace(line), "listeningOn=="); ok {
			there = at
		}
	}
	results := make(chan string, 4)
	for range cap(results) {
		go func() {
			heard, err := socks("tcp", at, net.JoinHostPort("127.0.0.1", there))
			results <- fmt.Sprint(heard, err)
		}()
	}
	var b strings.Builder
	for range cap(results) {
		b.WriteString(<-results)
	}
	if s.through { // elsewhere the role lets nothing go
		to, stop, err := echoServer("127.0.1.1:0")
		if err != nil {
			return "", err
		}
		defer stop()
		_, elsewhere, err := net.SplitHostPort(to)
		if err != nil {
			return "", err
		}
		if heard, err := socks("tcp", at, net.JoinHostPort("127.0.1.1", elsewhere)); err == nil && strings.Contains(heard, "the same: true") {
			return "", errors.New("it forwards to what the role does not name: " + heard)
		}
	}
	if _, err := io.WriteString(in, "kill $server; echo over >&2; exit 3\n"); err != nil {
		return "", err
	}
	rest, _ := io.ReadAll(lines) // ssh's end says how it went
	_ = cmd.Wait()
	if err := in.Close(); err != nil && !strings.Contains(err.Error(), "already closed") {
		return "", err
	}
	fmt.Fprintf(&b, "rest %q, status %d, errors that it is over: %v\n", rest, cmd.ProcessState.ExitCode(), strings.Contains(said.String(), "over"))
	return b.String(), nil
}

// serverScript starts a server that echoes, says where, and goes on reading what the client feeds it.
const serverScript = `coproc SERVER { exec /usr/bin/python3 -u -c '
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while True:
            data = self.request.recv(65536)
            if not data:
                return
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
with Server(("127.0.0.1", 0), Echo) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
'; }
server=$!
read -r -u "${SERVER[0]}" port
echo "listeningOn==$port"`
