package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/protocols/postgres/interpret"
	ssh "sallyport/protocols/ssh/interpret"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

var interpreters = map[string]func(format.Header) recorder.Interpreter{
	"postgres": func(h format.Header) recorder.Interpreter { return interpret.New(h) },
	"ssh":      func(h format.Header) recorder.Interpreter { return ssh.New(h) },
}

func open(ctx context.Context, dir string, index bool) (*recorder.Recorder, error) {
	o := recorder.Options{Dir: dir, Interpreters: interpreters, Config: configs.Recording{Durability: configs.Written, AllowVolatile: true}}
	if index {
		o.Index = filepath.Join(dir, "index.db")
	}
	return recorder.Open(ctx, o)
}

func message(to []byte, t byte, body string) []byte {
	to = binary.BigEndian.AppendUint32(append(to, t), uint32(len(body)+4))
	return append(to, body...)
}

// conversation is a Postgres session: statements as applications send them, each with its answer.
type conversation struct {
	random *rand.Rand
	n      int
	buf    []byte
}

func (c *conversation) statement() string {
	r, n := c.random, c.n
	c.n++
	switch n % 5 {
	case 0:
		return fmt.Sprintf("SELECT o.id, o.total, c.name FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.id = %d", r.IntN(1e6))
	case 1:
		return fmt.Sprintf("UPDATE orders SET status = 'shipped', changed = now() WHERE id = %d AND status = 'packed'", r.IntN(1e6))
	case 2:
		return fmt.Sprintf("INSERT INTO events (kind, subject, body) VALUES ('login', 'user-%05d', '{\"from\": \"10.%d.%d.%d\"}')",
			r.IntN(1e5), r.IntN(256), r.IntN(256), r.IntN(256))
	case 3:
		return fmt.Sprintf("SELECT count(*) FROM sessions WHERE token = '%016x'", r.Uint64())
	}
	return fmt.Sprintf("DELETE FROM carts WHERE updated < now() - interval '%d minutes' AND owner = 'user-%05d'", r.IntN(500), r.IntN(1e5))
}

// run records one statement as the gateway does, and its answer.
func (c *conversation) run(ctx context.Context, rec *recorder.Recording) error {
	c.buf = message(c.buf[:0], 'Q', c.statement()+"\x00")
	if err := rec.Record(ctx, format.Event{Type: interpret.TypeClient, Data: c.buf}); err != nil {
		return err
	}
	c.buf = message(c.buf[:0], 'C', "UPDATE 1\x00")
	c.buf = message(c.buf, 'Z', "I")
	return rec.Note(format.Event{Type: interpret.TypeServer, Data: c.buf})
}

func (c *conversation) begin(ctx context.Context, r *recorder.Recorder, session string) (*recorder.Recording, error) {
	rec, err := r.Begin(ctx, format.Header{Session: session, Protocol: "postgres", Target: "orders", Account: "app",
		Identity: format.Party{Issuer: "https://login.example", Subject: "alice", Name: "Alice"}}, "")
	if err != nil {
		return nil, err
	}
	c.buf = message(c.buf[:0], 'Z', "I")
	return rec, rec.Record(ctx, format.Event{Type: interpret.TypeServer, Data: c.buf})
}

// file is a recording's.
func file(dir, session string) (string, error) {
	all, err := filepath.Glob(filepath.Join(dir, "recordings", "*", "*", "*", session+".srec"))
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("%d files of session %s", len(all), session)
	}
	if err != nil {
		return "", err
	}
	return all[0], nil
}

// packed waits until a recording is packed, and returns how long its file was and is.
func packed(ctx context.Context, dir, session string) (before, after int64, err error) {
	path, err := file(dir, session)
	if err != nil {
		return 0, 0, err
	}
	look := func() (format.Info, int64, error) {
		f, err := os.Open(path)
		if err != nil {
			return format.Info{}, 0, err
		}
		defer f.Close()
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return format.Info{}, 0, err
		}
		info, err := format.Look(f, size)
		return info, size, err
	}
	for {
		info, size, err := look()
		if err != nil || info.Packed {
			return info.Content, size, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
}

// counted counts what is written to it.
type counted int64

func (c *counted) Write(b []byte) (int, error) {
	*c += counted(len(b))
	return len(b), nil
}

// sizes is how many bytes a statement takes.
func sizes(ctx context.Context, o options, w io.Writer) (err error) {
	dir := filepath.Join(o.dir, "sizes")
	r, err := open(ctx, dir, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(context.WithoutCancel(ctx))) }()
	const statements = 100_000
	c := conversation{random: rand.New(rand.NewPCG(1, 2))}
	rec, err := c.begin(ctx, r, "s1")
	for range statements {
		if err == nil {
			err = c.run(ctx, rec)
		}
	}
	if err != nil {
		return err
	}
	if err := rec.End(format.End{Reason: "done"}); err != nil {
		return err
	}
	plain, small, err := packed(ctx, dir, "s1")
	if err != nil {
		return err
	}
	var lines counted
	if err := r.Export(ctx, "s1", "jsonl", &lines, recorder.ExportOptions{}); err != nil {
		return err
	}
	each := func(n int64) float64 { return float64(n) / statements }
	fmt.Fprintf(w, "bytes a statement with its answer, of %d: %.1f while the session lives, %.1f packed, %.1f as JSON Lines: %.1f times smaller (to reach: 5)\n",
		statements, each(plain), each(small), each(int64(lines)), float64(lines)/float64(small))
	return nil
}

// seeks is how long it takes until any place of a large recording is shown, of a database session and of a terminal.
func seeks(ctx context.Context, o options, w io.Writer) error {
	dir := filepath.Join(o.dir, "seeks")
	r, err := open(ctx, dir, false)
	if err != nil {
		return err
	}
	err = errors.Join(seekStatements(ctx, o, r, dir, w), seekTerminal(ctx, o, r, dir, w))
	return errors.Join(err, r.Close(context.WithoutCancel(ctx)))
}

func seekStatements(ctx context.Context, o options, r *recorder.Recorder, dir string, w io.Writer) error {
	c := conversation{random: rand.New(rand.NewPCG(3, 4))}
	rec, err := c.begin(ctx, r, "database")
	if err != nil {
		return err
	}
	for size := 0.0; size < o.gib*(1<<30) && err == nil; size += 190 {
		err = c.run(ctx, rec)
	}
	if err != nil {
		return err
	}
	return seek(ctx, r, rec, dir, "statements", w)
}

func seekTerminal(ctx context.Context, o options, r *recorder.Recorder, dir string, w io.Writer) error {
	rec, err := r.Begin(ctx, format.Header{Session: "terminal", Protocol: "ssh", Target: "web-1", Account: "deploy"}, "")
	if err != nil {
		return err
	}
	pty := xssh.Marshal(struct {
		Terminal                      string
		Columns, Lines, Width, Height uint32
		Modes                         string
	}{"xterm-256color", 120, 40, 0, 0, ""})
	if err := rec.Record(ctx, ssh.Open(1, "session", nil), ssh.Request(1, "pty-req", true, pty), ssh.Request(1, "shell", true, nil)); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(5, 6))
	var out []byte
	for size := 0.0; size < o.gib*(1<<30); size += float64(len(out)) {
		out = out[:0]
		for range 200 {
			out = fmt.Appendf(out, "2026-11-25T03:%02d:%02dZ \x1b[3%dmINFO\x1b[0m worker %d handled request %016x for /api/v1/things in %d ms\r\n",
				random.IntN(60), random.IntN(60), random.IntN(8), random.IntN(64), random.Uint64(), random.IntN(1000))
		}
		if err := rec.Note(format.Event{Type: format.TypeAnswered, Channel: 1, Data: out}); err != nil {
			return err
		}
	}
	return seek(ctx, r, rec, dir, "a terminal", w)
}

// seek ends a recording, waits until it is packed, and comes to places in it.
func seek(ctx context.Context, r *recorder.Recorder, rec *recorder.Recording, dir, what string, w io.Writer) error {
	if err := rec.End(format.End{Reason: "done"}); err != nil {
		return err
	}
	session := rec.Header().Session
	began := time.Now()
	plain, small, err := packed(ctx, dir, session)
	if err != nil {
		return err
	}
	packing := time.Since(began)
	path, err := file(dir, session)
	if err != nil {
		return err
	}
	length := time.Duration(0)
	if err := lastKey(path, &length); err != nil {
		return err
	}
	var slowest, all time.Duration
	const places = 20
	for i := range places {
		at := length / places * time.Duration(i+1)
		began := time.Now()
		items, err := r.ItemsFrom(ctx, session, at)
		if err != nil {
			return err
		}
		for it, err := range items {
			if err != nil {
				return err
			}
			if it.Kind != item.Start && it.Via != item.Picture && it.At >= at {
				break
			}
		}
		took := time.Since(began)
		all, slowest = all+took, max(slowest, took)
	}
	fmt.Fprintf(w, "seek in %s, %.2f GiB (%.2f GiB packed, in %s): %s on average, %s at the slowest of %d places (to reach: <= 1 s)\n", what,
		float64(plain)/(1<<30), float64(small)/(1<<30), packing.Round(time.Second), short(all/places), short(slowest), places)
	return nil
}

// lastKey is when the last frames of a recording were, as far as its last key knows.
func lastKey(path string, at *time.Duration) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	reader, _, err := format.Resume(f, size, 1<<62)
	if err != nil {
		return err
	}
	if _, err := reader.Next(); err != nil {
		return err
	}
	*at = reader.Latest()
	return nil
}

// searches is how long it takes to find something in many statements.
func searches(ctx context.Context, o options, w io.Writer) (err error) {
	dir := filepath.Join(o.dir, "searches")
	r, err := open(ctx, dir, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(context.WithoutCancel(ctx))) }()
	c := conversation{random: rand.New(rand.NewPCG(1, 2))}
	const each = 1000
	for s := range max(1, o.search/each) {
		rec, err := c.begin(ctx, r, fmt.Sprintf("s%06d", s))
		for range each {
			if err == nil {
				err = c.run(ctx, rec)
			}
		}
		if err == nil {
			err = rec.End(format.End{Reason: "done"})
		}
		if err != nil {
			return err
		}
	}
	began := time.Now()
	for {
		status, _ := r.IndexStatus()
		if status.Error != "" && status.Behind == 0 {
			return errors.New(status.Error)
		}
		if status.Sessions >= o.search/each {
			break
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	fmt.Fprintf(w, "search in %d statements, after %s of indexing (to reach: <= 200 ms for the first 100)\n\n", o.search, time.Since(began).Round(time.Second))
	for _, q := range []struct {
		name string
		recorder.Query
	}{
		{"nothing", recorder.Query{Text: "DROP TABLE audit_trail"}},
		{"one value", recorder.Query{Text: "user-00042"}},
		{"every fifth statement", recorder.Query{Text: "update orders"}},
		{"two letters", recorder.Query{Text: "zz"}},
		{"errors only", recorder.Query{Text: "delete", Errors: true}},
	} {
		var times []time.Duration
		found := 0
		for range 5 {
			began := time.Now()
			found = 0
			for _, err := range r.Search(ctx, q.Query) {
				if err != nil {
					return err
				}
				if found++; found == 100 {
					break
				}
			}
			times = append(times, time.Since(began))
		}
		slowest := times[0]
		for _, t := range times {
			slowest = max(slowest, t)
		}
		fmt.Fprintf(w, "%-24s %3d found, %10s at the slowest of %d\n", q.name, found, short(slowest), len(times))
	}
	return nil
}
