package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

func seq(items ...item.Item) iter.Seq2[item.Item, error] {
	return func(yield func(item.Item, error) bool) {
		for i, it := range items {
			it.Number = i + 1
			if !yield(it, nil) {
				return
			}
		}
	}
}

func start(protocol string) item.Item {
	return item.Item{Kind: item.Start, Session: "s1", Header: &format.Header{
		Session: "s1", Protocol: protocol, Account: "app", Target: "orders", Grant: "g-1", Reason: "fix \x1b]0;x\x07 it", Approvers: []string{"Bob"},
		Identity: format.Party{Name: "Alice", Email: "alice@corp.example"}, Client: "127.0.0.1:9", Durability: "synced",
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}}
}

func ptr[T any](v T) *T { return &v }

func TestTimeline(t *testing.T) {
	var out strings.Builder
	err := Play(t.Context(), seq(
		start("postgres"),
		item.Item{Kind: item.Statement, At: time.Second, Ref: 1, SQL: "SELECT *\n  FROM orders WHERE id = $1 AND note = $2 AND x = $3 AND y = $4",
			Params: []item.Param{{Text: "4'2"}, {Null: true}, {Binary: []byte{0xca, 0xfe}}, {Text: strings.Repeat("z", 600)}}},
		item.Item{Kind: item.Result, At: 1500 * time.Millisecond, Ref: 1, Tag: "SELECT 1", Rows: ptr(int64(1)), Duration: 12345 * time.Microsecond},
		item.Item{Kind: item.Statement, At: 2 * time.Second, Ref: 2, SQL: "SELECT '\x1b]52;c;x\x07'"},
		item.Item{Kind: item.Result, At: 62 * time.Second, Ref: 2, SQLState: "57014", Error: "canceling statement due to user request", Duration: time.Minute},
		item.Item{Kind: item.Note, At: 63 * time.Second, Command: "cancel", Text: "done"},
		item.Item{Kind: item.End, At: 64 * time.Second, Reason: "grant_revoked", Text: "by Bob"},
	), &out, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := `session s1: Alice <alice@corp.example> as app@orders
started 2026-01-02 03:04:05.000 UTC from 127.0.0.1:9, recorded at level synced
under grant g-1 for "fix \\x1b]0;x\\x07 it", approved by Bob

00:00:01.000  [1]  SELECT *
                     FROM orders WHERE id = $1 AND note = $2 AND x = $3 AND y = $4
                   $1 = '4''2'
                   $2 = NULL
                   $3 = '\xcafe'
                   $4 = '` + strings.Repeat("z", 512) + `…'
00:00:01.500  [1]  SELECT 1, 1 row, 12.3 ms
00:00:02.000  [2]  SELECT '\x1b]52;c;x\x07'
00:01:02.000  [2]  ERROR 57014: canceling statement due to user request, 1m0s
00:01:03.000  note: cancel: done
00:01:04.000  ended: grant_revoked, by Bob
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func shell() iter.Seq2[item.Item, error] {
	return seq(
		start("ssh"),
		item.Item{Kind: item.Command, At: time.Second, Channel: 1, Ref: 3, Via: "shell", Terminal: "xterm", Columns: 100, Lines: 30},
		item.Item{Kind: item.Output, At: 2 * time.Second, Channel: 1, Stream: "stdout", Data: []byte("$ \x1b]52;c;x\x07l")},
		item.Item{Kind: item.Input, At: 2500 * time.Millisecond, Channel: 1, Data: []byte("s\r")},
		item.Item{Kind: item.Output, At: 3 * time.Second, Channel: 1, Stream: "stdout", Data: []byte("s\r\nna\xc3")},
		item.Item{Kind: item.Output, At: 3 * time.Second, Channel: 2, Stream: "stdout", Data: []byte("elsewhere")},
		item.Item{Kind: item.Output, At: 3000100 * time.Microsecond, Channel: 1, Stream: "stdout", Data: []byte("\xafve\xff\r\n")},
		item.Item{Kind: item.Resize, At: 4 * time.Second, Channel: 1, Columns: 80, Lines: 24},
		item.Item{Kind: item.Output, At: 100 * time.Second, Channel: 1, Stream: "stdout", Data: []byte("\xe2\x9c")},
		item.Item{Kind: item.Exit, At: 101 * time.Second, Channel: 1, Ref: 3, ExitStatus: ptr(7)},
		item.Item{Kind: item.End, At: 102 * time.Second, Reason: "client_closed"},
	)
}

func TestTerminalKeepsTime(t *testing.T) {
	var out strings.Builder
	var waits []time.Duration
	wait := func(ctx context.Context, d time.Duration) error {
		if d > 0 {
			waits = append(waits, d)
		}
		return ctx.Err()
	}
	if err := Play(t.Context(), shell(), &out, Options{Speed: 2, IdleLimit: 3 * time.Second, wait: wait}); err != nil {
		t.Fatal(err)
	}
	ms := time.Millisecond
	if got, want := fmt.Sprint(waits), fmt.Sprint([]time.Duration{500 * ms, 500 * ms, 250 * ms, 250 * ms, 50 * time.Microsecond, 999900 * time.Microsecond / 2, 3 * time.Second, 500 * ms, 500 * ms}); got != want {
		t.Errorf("pauses %s, want %s", got, want)
	}
	for _, want := range []string{"Alice", "$ ls\r\n", "── $ shell, terminal xterm, 100×30", "exit status 7", "ended: client_closed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in %q", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b]") {
		t.Errorf("the clipboard is reached: %q", out.String())
	}
	out.Reset()
	if err := Play(t.Context(), shell(), &out, Options{Raw: true, wait: wait}); err != nil || !strings.Contains(out.String(), "\x1b]52;c;x\x07") {
		t.Errorf("raw is not raw: %v %q", err, out.String())
	}
}

func TestTerminalStopsWhenAsked(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	first := make(chan struct{}, 1)
	go func() {
		stopped <- Terminal(ctx, shell(), writer(func(p []byte) (int, error) {
			select {
			case first <- struct{}{}:
			default:
			}
			return len(p), nil
		}), Options{Speed: 0.001}) // the next output would come in a quarter of an hour
	}()
	<-first
	cancel()
	select {
	case err := <-stopped:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it goes on")
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestText(t *testing.T) {
	var out strings.Builder
	if err := Text(t.Context(), shell(), &out, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"00:00:03.000  $ ls\n", "00:00:03.000  naïve\uFFFD\n", "exit status 7\n", "elsewhere\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

// cast reads an asciicast back as a player does.
func cast(t *testing.T, c Cast) (header map[string]any, events string) {
	t.Helper()
	var out bytes.Buffer
	if err := Asciicast(t.Context(), shell(), &out, c); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	var clock float64
	for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if i == 0 {
			if err := json.Unmarshal([]byte(line), &header); err != nil {
				t.Fatal(err)
			}
			continue
		}
		var e [3]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if c.Version == 2 {
			clock = e[0].(float64)
		} else {
			clock += e[0].(float64)
		}
		fmt.Fprintf(&b, "%.4f %s %q\n", clock, e[1], e[2])
	}
	return header, b.String()
}

func TestAsciicast(t *testing.T) {
	header, events := cast(t, Cast{Input: true})
	term := header["term"].(map[string]any)
	if header["version"] != 3.0 || term["cols"] != 100.0 || term["rows"] != 30.0 || term["type"] != "xterm" || header["timestamp"] != 1767323045.0 {
		t.Errorf("header %v", header)
	}
	want := `1.0000 m "shell"
2.0000 o "$ l"
2.5000 i "s\r"
3.0000 o "s\r\nna"
3.0001 o "ïve` + "\uFFFD" + `\r\n"
4.0000 r "80x24"
101.0000 o "` + "\uFFFD" + `"
101.0000 x "7"
`
	if events != want {
		t.Errorf("got\n%s\nwant\n%s", events, want)
	}
	header, events = cast(t, Cast{Version: 2, Raw: true})
	want = `1.0000 m "shell"
2.0000 o "$ \x1b]52;c;x\al"
3.0000 o "s\r\nna"
3.0001 o "ïve` + "\uFFFD" + `\r\n"
4.0000 r "80x24"
101.0000 o "` + "\uFFFD" + `"
`
	if header["version"] != 2.0 || header["width"] != 100.0 || header["height"] != 30.0 || events != want {
		t.Errorf("%v\n%s", header, events)
	}
	if err := Asciicast(t.Context(), seq(start("ssh"), item.Item{Kind: item.End}), &bytes.Buffer{}, Cast{}); !errors.Is(err, ErrNoTerminal) {
		t.Error(err)
	}
}

// Microseconds that a float cannot hold exactly do not add up to another time at the end.
func TestAsciicastIntervalsDoNotDrift(t *testing.T) {
	items := []item.Item{start("ssh")}
	const n = 20000
	for i := range n {
		items = append(items, item.Item{Kind: item.Output, Channel: 1, At: time.Duration(i) * 333_333 * time.Nanosecond, Data: []byte("x")})
	}
	var out bytes.Buffer
	if err := Asciicast(t.Context(), seq(items...), &out, Cast{}); err != nil {
		t.Fatal(err)
	}
	total := 0
	for line := range strings.Lines(out.String()) {
		var s, us int
		if _, err := fmt.Sscanf(line, "[%d.%06d,", &s, &us); err == nil {
			total += s*1e6 + us
		}
	}
	if want := int((time.Duration(n-1) * 333_333 * time.Nanosecond).Microseconds()); total != want {
		t.Errorf("%d µs, want %d", total, want)
	}
}
