//go:build !portable

package perf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A poller waits for the sockets of one worker, for a wake-up from another goroutine and for a time, whichever comes first. Here:
// one epoll set with a timer in it, which is precise to microseconds where epoll_wait's own limit counts in milliseconds.
// poller_other.go supplies the same functions for other systems.
type poller struct {
	epoll, timer, wakeup int
	armed                int64 // when the timer fires, on the worker's clock; 0: it does not
	events               [256]unix.EpollEvent
	sockets              []*socket
	ready                []*socket
}

// socket is one connection of a poller.
type socket struct {
	poller *poller
	fd     int
	at     int // in poller.sockets
	owner  any
	wants  bool // waits until it can write
}

var errAgain = errors.New("not ready")

const (
	timerEvent  = -1
	wakeupEvent = -2
)

func newPoller() (*poller, error) {
	p := &poller{timer: -1, wakeup: -1}
	var err error
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if p.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		p.close()
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	if p.wakeup, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		p.close()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	// Edge-triggered: neither has to be read to fall silent.
	for fd, event := range map[int]int32{p.timer: timerEvent, p.wakeup: wakeupEvent} {
		e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: event}
		if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
			p.close()
			return nil, fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	return p, nil
}

// add takes a connection over. owner is for the caller, to know the socket again.
func (p *poller) add(c net.Conn, owner any) (*socket, error) {
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{poller: p, fd: -1, owner: owner}
	var dupErr error
	// A duplicate, so that Go's own poller loses interest when c is closed.
	if err := raw.Control(func(fd uintptr) { s.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, fmt.Errorf("duplicate socket: %w", dupErr)
	}
	s.at = len(p.sockets)
	for i, other := range p.sockets {
		if other == nil {
			s.at = i
			break
		}
	}
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.at)}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, s.fd, &e); err != nil {
		_ = unix.Close(s.fd)
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	if s.at == len(p.sockets) {
		p.sockets = append(p.sockets, s)
	} else {
		p.sockets[s.at] = s
	}
	return s, nil
}

// wait returns the sockets on which something happened, at the latest at the time until (0: at once). now is the time.
func (p *poller) wait(now, until int64) ([]*socket, error) {
	millis := -1
	switch {
	case until <= now:
		millis = 0
	case until != p.armed:
		spec := unix.ItimerSpec{Value: unix.NsecToTimespec(until - now)}
		if err := unix.TimerfdSettime(p.timer, 0, &spec, nil); err != nil {
			return nil, fmt.Errorf("timerfd_settime: %w", err)
		}
		p.armed = until
	}
	n, err := unix.EpollWait(p.epoll, p.events[:], millis)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return nil, fmt.Errorf("epoll_wait: %w", err)
	}
	p.ready = p.ready[:0]
	for i := range max(n, 0) {
		switch at := p.events[i].Fd; at {
		case timerEvent:
			p.armed = 0
		case wakeupEvent:
		default:
			if s := p.sockets[at]; s != nil {
				p.ready = append(p.ready, s)
			}
		}
	}
	return p.ready, nil
}

// wake makes a wait return. It may be called from any goroutine until close.
func (p *poller) wake() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(p.wakeup, one[:])
}

func (p *poller) close() {
	for _, s := range p.sockets {
		if s != nil {
			s.close()
		}
	}
	for _, fd := range []int{p.epoll, p.timer, p.wakeup} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// rawIO reads or writes a socket that never blocks, so that Go's scheduler need not know.
func rawIO(call uintptr, fd int, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

func (s *socket) read(b []byte) (int, error) {
	n, err := rawIO(unix.SYS_READ, s.fd, b)
	if n > 0 {
		return n, nil
	}
	return 0, s.result(n, err)
}

// writeMore is write, with the promise that more follows at once: the kernel waits with a packet that is not full.
func (s *socket) writeMore(b []byte) (int, error) {
	n, err := unix.SendmsgN(s.fd, b, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
	return s.wrote(n, len(b), err)
}

// sendFile sends n bytes of a file from an offset on.
func (s *socket) sendFile(file *os.File, offset int64, n int) (int, error) {
	sent, err := unix.Sendfile(s.fd, int(file.Fd()), &offset, n)
	if sent == 0 && err == nil {
		return 0, io.ErrUnexpectedEOF
	}
	return s.wrote(sent, n, err)
}

// write sends what it can. When that is not all, the poller tells when there is room again.
func (s *socket) write(b []byte) (int, error) {
	n, err := rawIO(unix.SYS_WRITE, s.fd, b)
	return s.wrote(n, len(b), err)
}

// wrote takes the result of sending all bytes.
func (s *socket) wrote(n, all int, err error) (int, error) {
	if n == all {
		if s.wants {
			return n, s.want(false)
		}
		return n, nil
	}
	if n > 0 {
		return n, s.want(true)
	}
	if err = s.result(1, err); errors.Is(err, errAgain) {
		if e := s.want(true); e != nil {
			return 0, e
		}
	}
	return 0, err
}

func (s *socket) result(n int, err error) error {
	switch {
	case err == nil && n == 0:
		return errors.New("connection closed by the server")
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return errAgain
	}
	return os.NewSyscallError("socket", err)
}

func (s *socket) want(write bool) error {
	if s.wants == write {
		return nil
	}
	s.wants = write
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.at)}
	if write {
		e.Events |= unix.EPOLLOUT
	}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(s.poller.epoll, unix.EPOLL_CTL_MOD, s.fd, &e))
}

func (s *socket) close() {
	if s.fd < 0 {
		return
	}
	_ = unix.Close(s.fd)
	s.fd = -1
	s.poller.sockets[s.at] = nil
}
