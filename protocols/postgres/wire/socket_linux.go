package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket reads from a TCP socket without waiting, and knows when there is no use in trying: the kernel says with each read
// what is left (TCP_INQ, Linux 4.18), and counts the end of the stream as something.
//
// Its calls never wait (MSG_DONTWAIT), so the scheduler is not told of them: each telling of a call that might wait also wakes
// the runtime's monitor, a thread that then looks after it every 20 microseconds, which costs more than the call.
type socket struct {
	open    bool // within Arrivals
	raw     syscall.RawConn
	held    int // the descriptor while it is held, or -1
	drained bool

	// Of one read by once, which is made once.
	once func(fd uintptr) bool
	p    []byte
	n    int
	err  error

	message unix.Msghdr
	vector  unix.Iovec
	control [32]byte // of one number and its header
}

// wait is Arrivals for a socket.
func (a *Ahead) wait(raw syscall.RawConn, holding bool, arrived func() (bool, error)) error {
	var inq error
	if err := raw.Control(func(fd uintptr) {
		inq = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_INQ, 1)
	}); err != nil {
		return err
	}
	if inq != nil {
		return a.each(arrived) // no TCP socket
	}
	s := &a.socket
	*s = socket{open: true, raw: raw, held: -1}
	defer func() { *s = socket{} }()
	s.once = func(fd uintptr) bool {
		s.n, s.err = s.read(int(fd), s.p)
		return true
	}
	a.writing.Lock()
	a.out.over(raw)
	a.writing.Unlock()
	if holding {
		return a.hold(arrived)
	}
	more, err := arrived()
	something := func(fd uintptr) bool { // waits in the runtime, with what came buffered when it is over
		s.drained = false
		s.held = int(fd)
		err = a.fill()
		s.held = -1
		return !errors.Is(err, ErrNothing)
	}
	for err == nil && more {
		if waited := raw.Read(something); waited != nil {
			return waited
		}
		if err == nil {
			more, err = arrived()
		}
	}
	return err
}

// hold is wait in one single Read of the RawConn, whose function never says that it is done. So an arrival between two
// calls of it is kept by the runtime, and not lost as it would be if each wait were a call of its own that does not try
// to read first.
func (a *Ahead) hold(arrived func() (bool, error)) error {
	s := &a.socket
	var more bool
	var err error
	waited := s.raw.Read(func(fd uintptr) (done bool) {
		s.held, s.drained = int(fd), false
		more, err = arrived()
		return err != nil || !more
	})
	if err == nil {
		err = waited
	}
	return err
}

// receive reads what has arrived into p; ErrNothing says that nothing has.
func (s *socket) receive(p []byte) (int, error) {
	if s.drained {
		return 0, ErrNothing
	}
	if s.held >= 0 {
		return s.read(s.held, p)
	}
	s.p = p
	err := s.raw.Read(s.once)
	s.p = nil
	if err != nil {
		return 0, err
	}
	return s.n, s.err
}

func (s *socket) read(fd int, p []byte) (int, error) {
	s.vector.Base = &p[0]
	s.vector.SetLen(len(p))
	defer func() { s.vector.Base = nil }()
	for {
		s.message = unix.Msghdr{Iov: &s.vector, Iovlen: 1, Control: &s.control[0]}
		s.message.SetControllen(len(s.control))
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.message)), unix.MSG_DONTWAIT) //nolint:gosec // the kernel fills in what s owns
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			s.drained = true
			return 0, ErrNothing
		case errno != 0:
			return 0, os.NewSyscallError("recvmsg", errno)
		case n == 0:
			return 0, io.EOF
		}
		s.drained = s.left() == 0
		return int(n), nil
	}
}

// left is how much the kernel says is there still; 1 where it does not say.
func (s *socket) left() uint32 {
	const header = unix.SizeofCmsghdr
	if s.message.Controllen < header+4 {
		return 1
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&s.control[0]))        //nolint:gosec // of that length, as looked at above
	if h.Level != unix.IPPROTO_TCP || h.Type != unix.TCP_INQ { // the message's type is the option's number
		return 1
	}
	return binary.NativeEndian.Uint32(s.control[header:])
}

// sender writes to a TCP socket, and waits in the runtime only where the kernel takes no more. Whoever uses it holds the
// Ahead's writing.
type sender struct {
	raw syscall.RawConn

	// Of one write by once, which is made once.
	once func(fd uintptr) bool
	p    []byte // what is left of it
	err  error
}

// over has it write to a connection from now on.
func (s *sender) over(raw syscall.RawConn) {
	s.raw = raw
	s.once = func(fd uintptr) bool {
		for len(s.p) > 0 {
			n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&s.p[0])), uintptr(len(s.p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0) //nolint:gosec // the kernel reads what s.p holds
			switch {
			case errno == unix.EINTR:
			case errno == unix.EAGAIN:
				return false
			case errno != 0:
				s.err = os.NewSyscallError("sendto", errno)
				return true
			default:
				s.p = s.p[n:]
			}
		}
		return true
	}
}

// ready reports whether there is a socket to write to.
func (s *sender) ready() bool { return s.raw != nil }

// write is net.Conn's Write.
func (s *sender) write(p []byte) (int, error) {
	s.p, s.err = p, nil
	err := s.raw.Write(s.once)
	n := len(p) - len(s.p)
	s.p = nil
	if err == nil {
		err = s.err
	}
	return n, err
}

// Broken reports whether the connection was reset. A reset that comes together with the last bytes is not told apart from
// them by Arrivals, where it holds; whoever holds looks from time to time.
func (a *Ahead) Broken() bool {
	conn, ok := a.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	broken := false
	_ = raw.Control(func(fd uintptr) { // of a closed connection somebody else knows
		look := []unix.PollFd{{Fd: int32(fd)}} // errors are always looked for
		n, err := unix.Poll(look, 0)
		broken = err == nil && n > 0 && look[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
	})
	return broken
}
