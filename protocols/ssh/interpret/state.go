package interpret

import (
	"encoding/json"
	"errors"
	"time"

	"sallyport/recorder/format"
)

// state is what an Interpreter knows between two events.
type state struct {
	Commands int                     `json:"commands"`
	Last     time.Duration           `json:"last_ns"`
	Channels map[uint32]channelState `json:"channels,omitempty"`
}

type channelState struct {
	Terminal string                 `json:"terminal,omitempty"`
	Columns  int                    `json:"columns,omitempty"`
	Lines    int                    `json:"lines,omitempty"`
	PTY      bool                   `json:"pty,omitempty"`
	Ref      int                    `json:"ref,omitempty"`
	Started  time.Duration          `json:"started_ns,omitempty"`
	Exited   bool                   `json:"exited,omitempty"`
	Tails    [2][]byte              `json:"tails"`
	Bulk     map[string]format.Bulk `json:"bulk,omitempty"`
	Streams  []string               `json:"streams,omitempty"`
	Typed    typedLines             `json:"typed"`
}

// State implements recorder.Resumable. While files are transferred it has none.
func (p *Interpreter) State() ([]byte, bool) {
	s := state{Commands: p.commands, Last: p.last, Channels: map[uint32]channelState{}}
	for number, c := range p.channels {
		if c.sftp != nil || c.scp != nil || c.rsync != nil {
			return nil, false
		}
		s.Channels[number] = channelState{
			Terminal: c.terminal, Columns: c.columns, Lines: c.lines, PTY: c.pty, Ref: c.ref, Started: c.started, Exited: c.exited,
			Tails: c.tails, Bulk: c.bulk, Streams: c.streams, Typed: c.typed,
		}
	}
	b, err := json.Marshal(s)
	return b, err == nil
}

// Resume implements recorder.Resumable.
func (p *Interpreter) Resume(b []byte) error {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if len(s.Channels) > maxChannels {
		return errors.New("too many channels")
	}
	p.commands, p.last = s.Commands, s.Last
	for number, c := range s.Channels {
		p.channels[number] = &channel{
			terminal: c.Terminal, columns: size(uint32(max(c.Columns, 0))), lines: size(uint32(max(c.Lines, 0))), pty: c.PTY,
			ref: c.Ref, started: c.Started, exited: c.Exited, tails: c.Tails, bulk: c.Bulk, streams: c.Streams[:min(len(c.Streams), 16)],
			typed: c.Typed,
		}
	}
	return nil
}
