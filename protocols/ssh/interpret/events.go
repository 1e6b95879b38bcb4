package interpret

import (
	"strings"

	"golang.org/x/crypto/ssh"

	"sallyport/recorder/format"
)

// The types of event that only SSH has. What the client said is kept as it stood on the wire (RFC 4254, sections 5.1 and
// 5.4), without the message number and the channel's number, which the gateway replaces.
const (
	// TypeOpen is a client's request for a channel: string type, then what belongs to the type.
	TypeOpen = format.FirstSSH + iota
	// TypeOpened says that the target opened it; no data.
	TypeOpened
	// TypeOpenRefused says that the target did not: uint32 reason, string message.
	TypeOpenRefused
	// TypeRequest is a client's request on a channel: string name, bool want-reply, then what belongs to the name.
	TypeRequest
	// TypeReply is the target's answer to a request: bool done, string name of the request.
	TypeReply
	// TypeTargetRequest is a target's request on a channel, in the form of TypeRequest.
	TypeTargetRequest
	// TypeEOF says that the client will send no more data on the channel; no data.
	TypeEOF
	// TypeClosed says that the channel is closed; no data.
	TypeClosed
	// TypeTargetOpen is a target's request for a channel towards the client, in the form of TypeOpen.
	TypeTargetOpen
)

// Why bytes are kept by length and hash only; stable words in format.Bulk.Why.
const (
	WhyTyped     = "typed"     // terminal input: passwords are typed there. The length alone is kept: a hash of single keys tells them
	WhyInput     = "input"     // what a command was fed
	WhyFile      = "file"      // the contents of files that sftp carries
	WhyWhole     = "whole"     // one file that sftp or scp carried: what passed of it from its beginning on, in order
	WhyLong      = "long"      // output beyond what is kept whole
	WhyForwarded = "forwarded" // a tunnel through the target
)

type channelOpen struct {
	Type  string
	Extra []byte `ssh:"rest"`
}

type openRefusal struct {
	Reason  uint32
	Message string
}

type channelRequest struct {
	Name      string
	WantReply bool
	Payload   []byte `ssh:"rest"`
}

type reply struct {
	Done bool
	Name string
}

// Open is the event of a client's request for a channel.
func Open(channel uint32, kind string, extra []byte) format.Event {
	return format.Event{Type: TypeOpen, Channel: channel, Data: ssh.Marshal(channelOpen{kind, extra})}
}

// TargetOpen is the event of a target's request for a channel towards the client.
func TargetOpen(channel uint32, kind string, extra []byte) format.Event {
	return format.Event{Type: TypeTargetOpen, Channel: channel, Data: ssh.Marshal(channelOpen{kind, extra})}
}

// OpenRefused is the event of a target's refusal of a channel.
func OpenRefused(channel uint32, reason uint32, message string) format.Event {
	return format.Event{Type: TypeOpenRefused, Channel: channel, Data: ssh.Marshal(openRefusal{reason, message})}
}

// Request is the event of a client's request on a channel.
func Request(channel uint32, name string, wantReply bool, payload []byte) format.Event {
	return format.Event{Type: TypeRequest, Channel: channel, Data: ssh.Marshal(channelRequest{name, wantReply, payload})}
}

// TargetRequest is the event of a target's request on a channel.
func TargetRequest(channel uint32, name string, wantReply bool, payload []byte) format.Event {
	return format.Event{Type: TypeTargetRequest, Channel: channel, Data: ssh.Marshal(channelRequest{name, wantReply, payload})}
}

// Reply is the event of a target's answer to a request.
func Reply(channel uint32, name string, done bool) format.Event {
	return format.Event{Type: TypeReply, Channel: channel, Data: ssh.Marshal(reply{done, name})}
}

// The payloads of channel opens and requests that mean something here (RFC 4254, sections 6.2 to 6.10 and 7.2).

type ptyRequest struct {
	Terminal       string
	Columns, Lines uint32
	Width, Height  uint32
	Modes          string
}

type windowChange struct {
	Columns, Lines uint32
	Width, Height  uint32
}

type envRequest struct{ Name, Value string }

type oneString struct{ Value string }

type exitStatus struct{ Status uint32 }

type exitSignal struct {
	Signal   string
	Core     bool
	Message  string
	Language string
}

// DirectTCPIP is what a client asks for with a direct-tcpip channel (RFC 4254, section 7.2).
type DirectTCPIP struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

// ForwardedTCPIP is what a target says with a forwarded-tcpip channel: where it was connected to, and from where (RFC 4254,
// section 7.2).
type ForwardedTCPIP struct {
	Address    string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

// ForwardTCPIP is what a client asks for with tcpip-forward and cancel-tcpip-forward (RFC 4254, section 7.1).
type ForwardTCPIP struct {
	Address string
	Port    uint32
}

// DirectStreamlocal is what a client asks for with direct-streamlocal@openssh.com (OpenSSH's PROTOCOL, section 2.4).
type DirectStreamlocal struct {
	Path         string
	Reserved     string
	ReservedPort uint32
}

// ForwardedStreamlocal is what a target says with forwarded-streamlocal@openssh.com.
type ForwardedStreamlocal struct{ Path, Reserved string }

// StreamlocalForward is what a client asks for with streamlocal-forward@openssh.com and its cancellation.
type StreamlocalForward struct{ Path string }

// printable is s as far as it is text, for fields that people read.
func printable(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
