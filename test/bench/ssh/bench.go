// Command ssh measures SSH through the gateway side by side with what people would otherwise put there: nothing, a jump host
// (`ssh -J`, which records nothing), and a relay made of the bare Go library, which records nothing either.
//
// It promises that what it compares was measured in the same run, in turns, on the same target: each round visits every
// endpoint once, the order is reversed in every other round, and a cell is the median of its rounds. On a shared machine
// absolute numbers say little; the ratios are the result. All endpoints speak AES-128-GCM and curve25519. `make bench`
// runs it.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/test/bench/run"
)

type options struct {
	binary, out string
	rounds      int
	megabytes   int
	sessions    int
	keys        int
	idle        int
	parts       string
	everything  bool
}

func main() { run.Main(measure, map[string]func([]string) error{"relay": relay}) }

func measure(ctx context.Context, arguments []string) (err error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.binary, "sallyport", "bin/sallyport", "the `binary` that is measured")
	flags.StringVar(&o.out, "out", "", "write the report to this `file` too")
	flags.IntVar(&o.rounds, "rounds", 5, "how often each cell is measured")
	flags.IntVar(&o.megabytes, "size", 500, "`megabytes` of a transfer")
	flags.IntVar(&o.sessions, "sessions", 10, "new sessions of a round")
	flags.IntVar(&o.keys, "keys", 300, "keystrokes of a round")
	flags.IntVar(&o.idle, "idle", 30, "idle sessions of which memory is measured")
	flags.StringVar(&o.parts, "parts", "down,up,down4,up4,new,new4,echo,idle", "what is measured")
	flags.BoolVar(&o.everything, "everything", false, "also through a target whose recordings are locked to a recipient, and to a stricter one for what is typed")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	b, err := start(ctx, o)
	if b != nil {
		defer func() { err = errors.Join(err, b.close()) }()
	}
	if err != nil {
		return err
	}
	report, err := b.all(ctx)
	fmt.Print(report)
	if err == nil && o.out != "" {
		err = os.WriteFile(o.out, []byte(report), 0o644)
	}
	return err
}

// part is one measurement on one endpoint, in unit.
type part struct {
	name, what, unit string
	more             bool // more is better
	run              func(context.Context, *bench, endpoint) (float64, error)
}

var parts = []part{
	{"down", "download, one stream", "MB/s", true, transfer(1, false)},
	{"up", "upload, one stream", "MB/s", true, transfer(1, true)},
	{"down4", "download, four streams", "MB/s", true, transfer(4, false)},
	{"up4", "upload, four streams", "MB/s", true, transfer(4, true)},
	{"new", "new session (`ssh HOST true`), p50", "ms", false, newSessions},
	{"new4", "new sessions, four at once", "1/s", true, newSessionsAtOnce},
	{"echo", "keystroke echo, p50", "µs", false, echo},
	{"idle", "memory of an idle session", "kB", false, idle},
}

// all measures everything and makes the report.
func (b *bench) all(ctx context.Context) (string, error) {
	var r strings.Builder
	fmt.Fprintf(&r, "\n| | |")
	for _, e := range b.endpoints {
		fmt.Fprintf(&r, " %s |", e.name)
	}
	r.WriteString("\n|---|---|" + strings.Repeat("---|", len(b.endpoints)) + "\n")
	for _, p := range parts {
		if !slices.Contains(strings.Split(b.options.parts, ","), p.name) {
			continue
		}
		rounds := b.options.rounds
		if p.name == "idle" {
			rounds = 1
		}
		values := make([][]float64, len(b.endpoints))
		ratios := make([][]float64, len(b.endpoints))
		cpu := make([][]float64, len(b.endpoints))
		for round := range rounds {
			order := make([]int, len(b.endpoints))
			for i := range order {
				order[i] = i
			}
			if round%2 == 1 {
				slices.Reverse(order)
			}
			row := make([]float64, len(b.endpoints))
			for _, i := range order {
				before := b.endpoints[i].cpu()
				v, err := p.run(ctx, b, b.endpoints[i])
				if err != nil {
					return r.String(), fmt.Errorf("%s, %s: %w", p.name, b.endpoints[i].name, err)
				}
				row[i] = v
				cpu[i] = append(cpu[i], b.endpoints[i].cpu()-before)
			}
			for i, v := range row {
				values[i] = append(values[i], v)
				if row[jumpIndex] > 0 {
					ratios[i] = append(ratios[i], v/row[jumpIndex])
				}
			}
			fmt.Fprintf(os.Stderr, "%s, round %d of %d: %.1f\n", p.name, round+1, rounds, row)
		}
		fmt.Fprintf(&r, "| %s | %s |", p.what, p.unit)
		for i := range b.endpoints {
			switch v := median(values[i]); {
			case v == 0:
				r.WriteString(" |")
			default:
				fmt.Fprintf(&r, " %.0f |", v)
			}
		}
		r.WriteString("\n| | of `ssh -J` |")
		for i := range b.endpoints {
			if len(ratios[i]) == 0 || median(values[i]) == 0 {
				r.WriteString(" |")
				continue
			}
			fmt.Fprintf(&r, " **%.2f** (%.2f–%.2f) |", median(ratios[i]), slices.Min(ratios[i]), slices.Max(ratios[i]))
		}
		r.WriteString("\n")
		if strings.HasPrefix(p.name, "down") || strings.HasPrefix(p.name, "up") {
			r.WriteString("| | CPU s between |")
			for i := range b.endpoints {
				if v := median(cpu[i]); v > 0 {
					fmt.Fprintf(&r, " %.2f |", v)
				} else {
					r.WriteString(" |")
				}
			}
			r.WriteString("\n")
		}
	}
	fmt.Fprintf(&r, "\n%d rounds, %d MB a transfer, %d new sessions and %d keys a round.\n", b.options.rounds, b.options.megabytes, b.options.sessions, b.options.keys)
	return r.String(), nil
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// ssh prepares the stock client.
func (e endpoint) ssh(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ssh", append([]string{"-F", e.config, "target"}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// zeros is input without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// transfer is the rate in MB/s of streams that together carry the run's size.
func transfer(streams int, up bool) func(context.Context, *bench, endpoint) (float64, error) {
	return func(ctx context.Context, b *bench, e endpoint) (float64, error) {
		each := int64(b.options.megabytes) * 1_000_000 / int64(streams)
		var group sync.WaitGroup
		errs := make([]error, streams)
		start := time.Now()
		for i := range streams {
			group.Go(func() {
				cmd := e.ssh(ctx, fmt.Sprintf("head -c %d /dev/zero", each))
				if up {
					cmd = e.ssh(ctx, "cat >/dev/null")
					in, err := cmd.StdinPipe()
					if err != nil {
						errs[i] = err
						return
					}
					go func() {
						defer in.Close()
						_, _ = io.CopyBuffer(in, io.LimitReader(zeros{}, each), make([]byte, 256<<10)) // ssh's status says it
					}()
				}
				var said bytes.Buffer
				cmd.Stderr = &said
				if err := cmd.Run(); err != nil {
					errs[i] = fmt.Errorf("%w: %s", err, said.String())
				}
			})
		}
		group.Wait()
		return float64(each*int64(streams)) / 1e6 / time.Since(start).Seconds(), errors.Join(errs...)
	}
}

// newSessions is how long one connection with one command takes, in ms.
func newSessions(ctx context.Context, b *bench, e endpoint) (float64, error) {
	var took []float64
	for range b.options.sessions {
		start := time.Now()
		if out, err := e.ssh(ctx, "true").CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%w: %s", err, out)
		}
		took = append(took, float64(time.Since(start).Microseconds())/1000)
	}
	return median(took), nil
}

// newSessionsAtOnce is how many such connections a second four clients make.
func newSessionsAtOnce(ctx context.Context, b *bench, e endpoint) (float64, error) {
	var group sync.WaitGroup
	errs := make([]error, 4)
	start := time.Now()
	for i := range errs {
		group.Go(func() {
			for range b.options.sessions {
				if out, err := e.ssh(ctx, "true").CombinedOutput(); err != nil {
					errs[i] = fmt.Errorf("%w: %s", err, out)
					return
				}
			}
		})
	}
	group.Wait()
	return float64(4*b.options.sessions) / time.Since(start).Seconds(), errors.Join(errs...)
}

// echo is how long it takes until a key that was typed is shown, in µs.
func echo(ctx context.Context, b *bench, e endpoint) (float64, error) {
	cmd := exec.CommandContext(ctx, "ssh", "-F", e.config, "-tt", "target", "exec cat >/dev/null")
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var took []float64
	one := make([]byte, 1)
	for i := range b.options.keys + 20 {
		start := time.Now()
		if _, err := in.Write([]byte{'a' + byte(i%26)}); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(out, one); err != nil {
			return 0, err
		}
		if i >= 20 { // what came first may have waited for the command's start
			took = append(took, float64(time.Since(start).Nanoseconds())/1000)
		}
		time.Sleep(2 * time.Millisecond) // nobody types faster
	}
	return median(took), nil
}

// idle is how much memory of what stands between a session costs that does nothing, in kB.
func idle(ctx context.Context, b *bench, e endpoint) (float64, error) {
	if len(e.processes()) == 0 {
		return 0, nil
	}
	before := e.memory()
	var sessions []*exec.Cmd
	defer func() {
		for _, cmd := range sessions {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	for range b.options.idle {
		cmd := e.ssh(ctx, "echo ready; exec sleep 1000")
		out, err := cmd.StdoutPipe()
		if err != nil {
			return 0, err
		}
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		sessions = append(sessions, cmd)
		if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
			return 0, fmt.Errorf("session %d: %w: %s", len(sessions), err, said.String())
		}
	}
	time.Sleep(3 * time.Second) // what only the beginning needs is given back
	return (e.memory() - before) / float64(len(sessions)), nil
}
