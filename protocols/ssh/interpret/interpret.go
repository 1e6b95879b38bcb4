// Package interpret turns the recorded events of an SSH session into what they meant: commands with their exit status,
// terminal output and sizes, file operations.
//
// It is pure and stands any bytes: what it reads was said by a client or a target that may be hostile. It bounds what it
// remembers, and where it loses the thread it says so and goes on with the rest. What happens inside a tunnel it does not
// guess; the lines that were entered at a terminal it does, from the screen, and says that it is a guess.
package interpret

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"sallyport/recorder"
	"sallyport/recorder/format"
)

// maxChannels is how many channels are followed at once. The gateway lets a client have fewer.
const maxChannels = 1024

// Interpreter is a recorder.Interpreter for protocol "ssh".
type Interpreter struct {
	header   format.Header
	commands int // counts commands, for Item.Ref
	channels map[uint32]*channel
	last     time.Duration // when the last event was
}

// channel is what is known of one channel.
type channel struct {
	terminal       string
	columns, lines int
	pty            bool
	ref            int // of its command; 0 before one was asked for
	started        time.Duration
	exited         bool
	sftp           *sftpSession
	scp            *scpSession
	rsync          *recorder.Item    // what it does with files, as far as its command tells
	answered       int64             // bytes of it that the target sent and that are kept whole
	tails          [2][]byte         // an incomplete rune at the end of stdout and stderr
	forwards       map[string]string // of a forwarded connection: where it goes
	bulk           map[string]format.Bulk
	streams        []string // the keys of bulk in order of appearance
	typed          typedLines
}

// New is an interpreter for one recording.
func New(header format.Header) *Interpreter {
	return &Interpreter{header: header, channels: map[uint32]*channel{}}
}

// Interpret implements recorder.Interpreter.
func (p *Interpreter) Interpret(event format.Event, emit func(recorder.Item)) {
	p.last = event.At
	out := p.emitter(event.Channel, event.At, emit)
	c := p.channel(event.Channel)
	switch event.Type {
	case TypeOpen:
		c.open("open ", event.Data, out)
	case TypeTargetOpen:
		c.open("target opens ", event.Data, out)
	case TypeOpenRefused:
		var r openRefusal
		if ssh.Unmarshal(event.Data, &r) == nil {
			out(recorder.Item{Kind: recorder.ItemOther, Command: "open refused", Error: printable(r.Message)})
		}
	case TypeRequest:
		var r channelRequest
		if ssh.Unmarshal(event.Data, &r) == nil {
			p.request(c, r, event.At, out)
		}
	case TypeReply:
		var r reply
		if ssh.Unmarshal(event.Data, &r) == nil && !r.Done {
			c.refused(r.Name, out)
		}
	case TypeTargetRequest:
		var r channelRequest
		if ssh.Unmarshal(event.Data, &r) == nil {
			c.ended(r, event.At, out)
		}
	case format.TypeSaid:
		if c.sftp != nil {
			c.sftp.said(event.Data, event.At)
		} else if c.scp != nil {
			c.scp.follow(true, event.Data, event.At, out)
		} else {
			out(recorder.Item{Kind: recorder.ItemInput, Stream: "stdin", Data: clone(event.Data), Bytes: int64(len(event.Data))})
		}
	case format.TypeAnswered:
		if c.sftp != nil {
			c.sftp.answered(event.Data, event.At, out)
		} else if c.scp != nil {
			c.scp.follow(false, event.Data, event.At, out)
		} else {
			c.output(0, event.Data, out)
			c.answered += int64(len(event.Data))
			if c.pty {
				c.typed.output(event.Data, event.At, c.columns, screenLines(out))
			}
		}
	case format.TypeAnsweredError:
		c.output(1, event.Data, out)
	case format.TypeBulk:
		b, err := parseBulk(event.Data)
		if err == nil && b.Why == WhyWhole {
			c.whole(b)
			return
		}
		c.count(b)
		if c.pty && b.FromClient && b.Why == WhyTyped {
			c.typed.typed(b.Bytes, c.columns, screenLines(out))
		}
	case TypeClosed:
		c.finish(event.At, out)
		delete(p.channels, event.Channel)
	}
}

// Finish implements recorder.Interpreter.
func (p *Interpreter) Finish(emit func(recorder.Item)) {
	for _, number := range slices.Sorted(maps.Keys(p.channels)) {
		p.channels[number].finish(p.last, p.emitter(number, p.last, emit))
	}
	clear(p.channels)
}

// emitter fills in what all items of an event share.
func (p *Interpreter) emitter(number uint32, at time.Duration, emit func(recorder.Item)) func(recorder.Item) {
	return func(item recorder.Item) {
		item.Session, item.Channel = p.header.Session, number
		if item.At == 0 {
			item.At = at
		}
		item.Time = p.header.Started.Add(item.At)
		emit(item)
	}
}

func (p *Interpreter) channel(number uint32) *channel {
	c := p.channels[number]
	if c == nil {
		c = &channel{}
		if len(p.channels) < maxChannels {
			p.channels[number] = c
		}
	}
	return c
}

// open is a wish for a channel; sessions are told by what is asked on them.
func (c *channel) open(verb string, data []byte, out func(recorder.Item)) {
	var o channelOpen
	if ssh.Unmarshal(data, &o) != nil || o.Type == "session" {
		return
	}
	c.forwards = destination(o.Type, o.Extra)
	out(recorder.Item{Kind: recorder.ItemOther, Command: verb + printable(o.Type), Fields: c.forwards})
}

// destination is where a forwarded connection goes, or where on the target it came in.
func destination(kind string, extra []byte) map[string]string {
	port := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	switch kind {
	case "direct-tcpip":
		var d DirectTCPIP
		if ssh.Unmarshal(extra, &d) == nil {
			return map[string]string{"host": printable(d.Host), "port": port(d.Port)}
		}
	case "forwarded-tcpip":
		var d ForwardedTCPIP
		if ssh.Unmarshal(extra, &d) == nil {
			return map[string]string{"host": printable(d.Address), "port": port(d.Port), "from": printable(d.OriginHost)}
		}
	case "direct-streamlocal@openssh.com":
		var d DirectStreamlocal
		if ssh.Unmarshal(extra, &d) == nil {
			return map[string]string{"path": printable(d.Path)}
		}
	case "forwarded-streamlocal@openssh.com":
		var d ForwardedStreamlocal
		if ssh.Unmarshal(extra, &d) == nil {
			return map[string]string{"path": printable(d.Path)}
		}
	}
	return nil
}

// forward is a client's request about forwarding from the target.
func forward(r channelRequest) map[string]string {
	switch r.Name {
	case "tcpip-forward", "cancel-tcpip-forward":
		var f ForwardTCPIP
		if ssh.Unmarshal(r.Payload, &f) == nil {
			return map[string]string{"host": printable(f.Address), "port": strconv.FormatUint(uint64(f.Port), 10)}
		}
	case "streamlocal-forward@openssh.com", "cancel-streamlocal-forward@openssh.com":
		var f StreamlocalForward
		if ssh.Unmarshal(r.Payload, &f) == nil {
			return map[string]string{"path": printable(f.Path)}
		}
	}
	return nil
}

// request is one of the client's.
func (p *Interpreter) request(c *channel, r channelRequest, at time.Duration, out func(recorder.Item)) {
	switch r.Name {
	case "pty-req":
		var pty ptyRequest
		if ssh.Unmarshal(r.Payload, &pty) == nil {
			c.pty, c.terminal = true, printable(pty.Terminal)
			c.columns, c.lines = size(pty.Columns), size(pty.Lines)
		}
	case "window-change":
		var w windowChange
		if ssh.Unmarshal(r.Payload, &w) == nil {
			c.columns, c.lines = size(w.Columns), size(w.Lines)
			out(recorder.Item{Kind: recorder.ItemResize, Columns: c.columns, Lines: c.lines})
		}
	case "env":
		var e envRequest
		if ssh.Unmarshal(r.Payload, &e) == nil {
			out(recorder.Item{Kind: recorder.ItemOther, Command: "env", Fields: map[string]string{printable(e.Name): printable(e.Value)}})
		}
	case "signal":
		var s oneString
		if ssh.Unmarshal(r.Payload, &s) == nil {
			out(recorder.Item{Kind: recorder.ItemOther, Command: "signal", Signal: printable(s.Value)})
		}
	case "shell", "exec", "subsystem":
		var s oneString
		if r.Name != "shell" && ssh.Unmarshal(r.Payload, &s) != nil {
			s.Value = string(r.Payload)
		}
		p.commands++
		c.ref, c.started, c.exited = p.commands, at, false
		c.means(r.Name, s.Value)
		item := recorder.Item{Kind: recorder.ItemCommand, Ref: c.ref, Via: r.Name, Command: printable(s.Value)}
		if !utf8.ValidString(s.Value) {
			item.Data = []byte(s.Value)
		}
		if c.pty {
			item.Terminal, item.Columns, item.Lines = c.terminal, c.columns, c.lines
		}
		out(item)
	default:
		out(recorder.Item{Kind: recorder.ItemOther, Command: printable(r.Name), Fields: forward(r)})
	}
}

// means is what the command's streams are taken for.
func (c *channel) means(request, line string) {
	if SFTP(request, line) {
		c.sftp = newSFTPSession()
	} else if upload, at, ok := SCP(request, line); ok && !c.pty {
		c.scp = &scpSession{upload: upload, at: at}
	} else if upload, at, ok := Rsync(request, line); ok {
		c.rsync = &recorder.Item{Kind: recorder.ItemFile, Command: "download", Path: printable(at), Fields: map[string]string{"via": "rsync"}}
		if upload {
			c.rsync.Command = "upload"
		}
	}
}

// size bounds what a client says of its terminal to what players can take.
func size(n uint32) int { return int(min(n, 10000)) }

// refused is a target's no to a request.
func (c *channel) refused(name string, out func(recorder.Item)) {
	switch name {
	case "shell", "exec", "subsystem":
		out(recorder.Item{Kind: recorder.ItemExit, Ref: c.ref, Error: "the target refused it"})
		c.exited, c.sftp, c.scp, c.rsync = true, nil, nil, nil
	case "pty-req":
		c.pty = false
	}
}

// ended is a target's request, which mostly says how a command ended.
func (c *channel) ended(r channelRequest, at time.Duration, out func(recorder.Item)) {
	item := recorder.Item{Kind: recorder.ItemExit, Ref: c.ref, Duration: at - c.started}
	switch r.Name {
	case "exit-status":
		var e exitStatus
		if ssh.Unmarshal(r.Payload, &e) != nil {
			return
		}
		status := int(e.Status)
		item.ExitStatus = &status
	case "exit-signal":
		var e exitSignal
		if ssh.Unmarshal(r.Payload, &e) != nil {
			return
		}
		item.Signal, item.Error = printable(e.Signal), printable(e.Message)
	default:
		return
	}
	c.flush(out)
	c.typed.decide(c.columns, screenLines(out))
	c.exited = true
	out(item)
}

var streamNames = [2]string{"stdout", "stderr"}

// output is one piece of stdout (0) or stderr (1). A rune that is cut waits for its rest, so that Text is text.
func (c *channel) output(stream int, data []byte, out func(recorder.Item)) {
	data = append(c.tails[stream], data...)
	cut := len(data) - incomplete(data)
	c.tails[stream] = clone(data[cut:])
	c.emitOutput(stream, data[:cut], out)
}

func (c *channel) emitOutput(stream int, data []byte, out func(recorder.Item)) {
	if len(data) == 0 {
		return
	}
	item := recorder.Item{Kind: recorder.ItemOutput, Stream: streamNames[stream], Data: clone(data), Bytes: int64(len(data))}
	if utf8.Valid(data) {
		item.Text = string(data)
	}
	out(item)
}

// incomplete is how many bytes at the end of data begin a rune that is not complete.
func incomplete(data []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(data); n++ {
		if tail := data[len(data)-n:]; utf8.RuneStart(tail[0]) {
			if tail[0] >= utf8.RuneSelf && !utf8.FullRune(tail) {
				return n
			}
			return 0
		}
	}
	return 0
}

func (c *channel) flush(out func(recorder.Item)) {
	for stream, tail := range c.tails {
		c.tails[stream] = nil
		c.emitOutput(stream, tail, out)
	}
}

// whole is the hash of one file.
func (c *channel) whole(b format.Bulk) {
	if c.sftp != nil {
		c.sftp.whole(b)
	} else if c.scp != nil && len(c.scp.whole) < scpMaxWhole {
		c.scp.whole = append(c.scp.whole, b)
	}
}

// count keeps the latest state of a stream that is kept by length and hash.
func (c *channel) count(b format.Bulk) {
	key := b.Stream + " " + b.Why
	last, known := c.bulk[key]
	if !known {
		if len(c.streams) >= 16 {
			return
		}
		if c.bulk == nil {
			c.bulk = map[string]format.Bulk{}
		}
		c.streams = append(c.streams, key)
	}
	if b.SHA256 == "" && b.Bytes == last.Bytes {
		b.SHA256 = last.SHA256
	}
	c.bulk[key] = b
}

// finish emits what was still open when the channel was closed.
func (c *channel) finish(at time.Duration, out func(recorder.Item)) {
	c.flush(out)
	c.typed.decide(c.columns, screenLines(out))
	if c.sftp != nil {
		c.sftp.finish(at, out)
		if c.sftp.lost != "" {
			out(recorder.Item{Kind: recorder.ItemNote, Text: "file operations could not be followed to the end: " + c.sftp.lost})
		}
	}
	if c.scp != nil {
		c.scp.end("not finished", at, out)
		if c.scp.lost {
			out(recorder.Item{Kind: recorder.ItemNote, Text: "file operations could not be followed to the end: the stream is not scp"})
		}
	}
	if c.rsync != nil {
		if c.rsync.Command == "download" {
			c.rsync.Bytes = c.answered
		}
		for _, b := range c.bulk {
			if b.FromClient == (c.rsync.Command == "upload") {
				c.rsync.Bytes = max(c.rsync.Bytes, b.Bytes) // of the stream, of which files are most
			}
		}
		out(*c.rsync)
	}
	for _, key := range c.streams {
		b := c.bulk[key]
		out(recorder.Item{
			Kind: recorder.ItemBulk, Stream: b.Stream, Bytes: b.Bytes, SHA256: b.SHA256, Text: printable(b.Why), Fields: c.forwards,
		})
	}
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }

func parseBulk(data []byte) (b format.Bulk, err error) {
	err = json.Unmarshal(data, &b)
	return b, err
}
