package netpath

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The walk of one message: the client's bytes make the kernel report their connection
// here, they are read, and conn.go takes them over.
//
// The epoll set is level-triggered. A connection whose bytes did not fit one read is simply
// reported again, so fairness needs no list of our own, and a read that got less than it asked
// for need not be repeated to see EAGAIN: one read a turn. (Edge-triggered is used for the
// eventfd alone: it then never has to be read.)
//
// Calls that cannot block are made raw. Those that can go through unix.Syscall: Go's
// runtime cannot stop a thread that blocks in a raw call, and so all others wait for it
// at the next collection (105 ms were measured).

const hasPoller = true

// poller is what the kernel sees of a reactor. Its arrays live as long as the reactor.
type poller struct {
	epfd, wakefd int
	// park is an epoll set that Go's own poller knows: events of epfd reach it during a long wait. look asks epfd for them; found is what it found.
	park   *os.File
	parkfd int
	raw    syscall.RawConn
	look   func(uintptr) bool
	found  int
	// limit is that of a short wait; noShort: the kernel has none.
	limit     unix.Timespec
	noShort   bool
	events    [256]unix.EpollEvent
	iov       [maxIovecs]unix.Iovec
	msg       unix.Msghdr
	off       int64 // sendfile's
	lastGen   int32
	listeners []listener // reactor 0 only
	resumeAt  int64      // listeners are out of the set until then, for lack of descriptors
}

type listener struct {
	fd    int
	index int
	armed bool // a ring has a poll of it in flight
}

// EpollEvent.Fd is a slot of Reactor.conns, and Pad the generation of the connection in it:
// an event may be for one that was dropped earlier in the same turn. Other events have these.
const (
	padListener int32 = -1 // Fd is an index into poller.listeners
	padWake     int32 = -2
)

// acceptsPerTurn bounds what connections wait for while others come: accepting one costs some 9 µs.
const acceptsPerTurn = 16

func (r *Reactor) openPoller() error {
	if r.srv.opt.Poller == PollerUring {
		return r.openRing()
	}
	p := &r.poll
	var err error
	if p.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	if p.wakefd, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		unix.Close(p.epfd)
		return fmt.Errorf("eventfd: %w", err)
	}
	if err = r.control(unix.EPOLL_CTL_ADD, p.wakefd, unix.EPOLLIN|unix.EPOLLET, 0, padWake); err != nil {
		err = fmt.Errorf("epoll_ctl: %w", err)
	} else {
		err = r.openPark()
	}
	if err != nil {
		r.closePoller()
	}
	return err
}

// openPark makes the set for long waits.
func (r *Reactor) openPark() (err error) {
	p := &r.poll
	if p.parkfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	if err = unix.SetNonblock(p.parkfd, true); err == nil {
		err = control(p.parkfd, unix.EPOLL_CTL_ADD, p.epfd, 0, 0, 0)
	}
	p.park = os.NewFile(uintptr(p.parkfd), "epoll")
	if err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	p.look = func(uintptr) bool {
		p.found = r.peek()
		return p.found > 0
	}
	p.raw, err = p.park.SyscallConn()
	return err
}

// Watch has a turn begin soon after fd becomes readable, once for each time that it does; the handler looks at it in OnTurn. It is for
// descriptors that live as long as the reactor, and may be called by anybody before Server.Start. The error wraps errors.ErrUnsupported on
// the portable path.
func (r *Reactor) Watch(fd int) error {
	if !r.native {
		return errNoWatch
	}
	if r.ring != nil {
		r.ring.watched = append(r.ring.watched, fd)
		return nil
	}
	if err := r.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN|unix.EPOLLET, 0, padWake); err != nil {
		return fmt.Errorf("watch a descriptor: epoll_ctl: %w", err)
	}
	return nil
}

// closePoller closes the reactor's descriptors. No other goroutine writes to wakefd then:
// interrupt holds mu and sees shut. A ring takes care of that itself.
func (r *Reactor) closePoller() {
	if !r.native {
		return
	}
	if r.ring != nil {
		r.closeRing()
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut = true
	if r.poll.park != nil {
		r.poll.park.Close()
	}
	unix.Close(r.poll.epfd)
	unix.Close(r.poll.wakefd)
}

func (r *Reactor) control(op, fd int, events uint32, data, pad int32) error {
	return control(r.poll.epfd, op, fd, events, data, pad)
}

func control(epfd, op, fd int, events uint32, data, pad int32) error {
	ev := unix.EpollEvent{Events: events, Fd: data, Pad: pad}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epfd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// pin binds the thread to its CPU. On one or two CPUs that would only get into others' way.
func (r *Reactor) pin() {
	cpus := r.srv.opt.CPUs
	if len(cpus) == 0 || runtime.NumCPU() <= 2 && !r.srv.opt.pinAnyway {
		return
	}
	var set unix.CPUSet
	set.Set(cpus[r.index%len(cpus)])
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		r.log.Warn("reactor is not pinned; check reactorCpus against the process's cpuset",
			"reactor", r.index, "cpu", cpus[r.index%len(cpus)], "err", err)
	}
}

// noSlack lets this thread's short waits end when they are over and not, as is usual, up to 50 µs later.
func (r *Reactor) noSlack() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) }

// peek returns the events that are there, without waiting.
func (r *Reactor) peek() int {
	if !r.native {
		return 0
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(r.poll.epfd),
		uintptr(unsafe.Pointer(&r.poll.events[0])), uintptr(len(r.poll.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// sleep waits for an event, at most d. A short wait goes without the scheduler's help: each time that Go lets a thread go into a call that may
// take long, its monitor wakes up to take the processor away from it, which costs more than most waits here. A signal ends the wait, too.
func (r *Reactor) sleep(d time.Duration) int {
	if !r.native {
		r.park.sleep(d)
		return 0
	}
	if d > 0 && d < time.Millisecond && !r.poll.noShort {
		return r.sleepShort(d)
	}
	if r.brief && d > 0 {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(r.poll.epfd),
			uintptr(unsafe.Pointer(&r.poll.events[0])), uintptr(len(r.poll.events)), briefWait, 0, 0)
		if errno != 0 {
			return 0
		}
		if d -= briefWait * time.Millisecond; n > 0 || d <= 0 {
			return int(n)
		}
	}
	if d <= 0 {
		return r.peek()
	}
	return r.sleepLong(d)
}

// sleepLong waits in Go's poller. In a call of its own the thread would keep a processor of the scheduler for 10 ms, and the monitor that takes it away
// then looks for that every 20 µs: 85 switches for each wait. The rest of the time Go's poller must not know of the events here, or each would wake it, too.
func (r *Reactor) sleepLong(d time.Duration) int {
	p := &r.poll
	p.found = 0
	_ = control(p.parkfd, unix.EPOLL_CTL_MOD, p.epfd, unix.EPOLLIN, 0, 0)
	if p.park.SetReadDeadline(time.Now().Add(d)) == nil {
		_ = p.raw.Read(p.look) // the deadline: a turn for nothing
	}
	_ = control(p.parkfd, unix.EPOLL_CTL_MOD, p.epfd, 0, 0, 0)
	return p.found
}

// sleepShort is sleep for less than what epoll_wait can count.
func (r *Reactor) sleepShort(d time.Duration) int {
	r.poll.limit = unix.NsecToTimespec(int64(d))
	call := unix.Syscall6
	if r.brief {
		call = unix.RawSyscall6
	}
	n, _, errno := call(unix.SYS_EPOLL_PWAIT2, uintptr(r.poll.epfd), uintptr(unsafe.Pointer(&r.poll.events[0])), uintptr(len(r.poll.events)),
		uintptr(unsafe.Pointer(&r.poll.limit)), 0, 0)
	if errno == unix.ENOSYS || errno == unix.EPERM {
		r.poll.noShort = true // before linux 5.11
	}
	if errno != 0 {
		return 0
	}
	return int(n)
}

// briefWait is how long a collection of garbage may have to wait for a reactor that waits, ms.
const briefWait = 1

// one is what a wake adds to the eventfd. Nobody reads it: each write is an event of its own, and the counter lasts for 2^64 of them.
var one uint64 = 1

// interrupt ends sleep, from any goroutine.
func (r *Reactor) interrupt() {
	if !r.native {
		r.park.interrupt()
		return
	}
	if r.ring != nil {
		r.ring.Wake()
		return
	}
	r.mu.Lock()
	if !r.shut {
		unix.RawSyscall(unix.SYS_WRITE, uintptr(r.poll.wakefd), uintptr(unsafe.Pointer(&one)), 8)
	}
	r.mu.Unlock()
}

func (r *Reactor) handleEvents(n int) {
	if r.ring != nil {
		r.handleCompletions()
		return
	}
	for i := range n {
		ev := &r.poll.events[i]
		switch ev.Pad {
		case padWake:
		case padListener:
			r.accept(r.poll.listeners[ev.Fd])
		default:
			if c := r.conns[ev.Fd]; c != nil && c.gen == ev.Pad && !c.gone {
				r.handleEvent(c, ev.Events)
			}
		}
	}
}

func (r *Reactor) handleEvent(c *Conn, events uint32) {
	if events&unix.EPOLLOUT != 0 {
		c.blocked = false
		r.touch(c)
	}
	switch {
	case events&unix.EPOLLIN != 0 && c.partUntil != 0:
		r.discardInput(c)
	case events&unix.EPOLLIN != 0 && c.pause == 0:
		r.read(c)
	case events&(unix.EPOLLERR|unix.EPOLLHUP) != 0:
		r.drop(c, io.ErrUnexpectedEOF)
	}
}

// read makes the turn's one read of c. Bytes go straight into c.in as far as they belong to
// the frame it begins, and behind that into the scratch buffer, where they are cut in place.
func (r *Reactor) read(c *Conn) {
	limit := len(r.scratch)
	if !c.proven {
		limit = min(limit, c.firstRead())
	} else if r.srv.budget.over() {
		limit = scarceRead // what is read may have to be kept
	}
	var direct []byte
	if held := len(c.in); held > 0 && c.proven {
		if !c.roomToRead() {
			return
		}
		direct = c.in[held:min(cap(c.in), frameSize(c.in))]
	}
	n, errno := r.readInto(c.fd, direct, r.scratch[:limit])
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return
	case errno != 0:
		r.drop(c, fmt.Errorf("read: %w", errno))
		return
	case n == 0:
		c.Close(io.EOF)
		return
	}
	c.lastRead = r.now.MonoNanos
	r.count.bytesIn += uint64(n)
	k := min(n, len(direct))
	c.in = c.in[:len(c.in)+k]
	c.received(r.scratch[:n-k])
}

func (r *Reactor) readInto(fd int, direct, scratch []byte) (int, unix.Errno) {
	if len(direct) == 0 {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(scratch))), uintptr(len(scratch)))
		return int(n), errno
	}
	iov := &r.poll.iov
	iov[0].Base = unsafe.SliceData(direct)
	iov[0].SetLen(len(direct))
	iov[1].Base = unsafe.SliceData(scratch)
	iov[1].SetLen(len(scratch))
	n, _, errno := unix.RawSyscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), 2)
	iov[0].Base, iov[1].Base = nil, nil
	return int(n), errno
}

// register puts c into the epoll set.
func (r *Reactor) register(c *Conn) error {
	if r.ring != nil {
		r.ringRegisters(c)
		return nil
	}
	r.poll.lastGen = (r.poll.lastGen + 1) & 0x7FFFFFFF
	c.gen, c.interest = r.poll.lastGen, unix.EPOLLIN
	if err := r.control(unix.EPOLL_CTL_ADD, c.fd, c.interest, int32(c.slot), c.gen); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// unregister takes c out of the epoll set. Events of it that were fetched before are not handled any more: its slot is empty.
func (r *Reactor) unregister(c *Conn) error {
	if r.ring != nil {
		if c.armed != 0 || c.batch == r.ring.batch {
			return errRingStays
		}
		return nil
	}
	return r.control(unix.EPOLL_CTL_DEL, c.fd, 0, 0, 0)
}

// setInterest tells the kernel what c waits for, when that has changed. A connection that is
// only waiting for its turn stays as it is: nothing sleeps meanwhile.
func (r *Reactor) setInterest(c *Conn) {
	if r.ring != nil {
		r.ringArms(c)
		return
	}
	var want uint32
	if c.pause&^pausedTurn == 0 || c.partUntil != 0 {
		want = unix.EPOLLIN
	}
	if c.blocked {
		want |= unix.EPOLLOUT
	}
	if want == c.interest {
		return
	}
	c.interest = want
	if err := r.control(unix.EPOLL_CTL_MOD, c.fd, want, int32(c.slot), c.gen); err != nil {
		r.drop(c, fmt.Errorf("epoll_ctl: %w", err))
	}
}

// part closes our side of c, whose peer sees the end behind the last answer.
func (r *Reactor) part(c *Conn) {
	if err := unix.Shutdown(c.fd, unix.SHUT_WR); err != nil {
		r.drop(c, fmt.Errorf("shutdown: %w", err))
		return
	}
	r.setInterest(c)
}

// discardInput reads what the peer of a parted connection sent too late, up to its end.
func (r *Reactor) discardInput(c *Conn) {
	n, errno := r.readInto(c.fd, nil, r.scratch)
	if n == 0 && errno == 0 || errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR {
		r.drop(c, ErrShutdown)
	}
}

// closeFD closes a native connection's socket, which also takes it out of the epoll set; a ring has to be told.
func (r *Reactor) closeFD(c *Conn) {
	if c.fd >= 0 {
		if r.ring != nil {
			r.ringCloses(c)
		}
		closeSocket(c.fd)
		c.fd = -1
	}
}

func closeSocket(fd int) { unix.Close(fd) }

// detach takes c's socket out of the reactor and returns it as Go's own kind of connection.
func (r *Reactor) detach(c *Conn) (net.Conn, error) {
	if err := r.unregister(c); err != nil {
		return nil, fmt.Errorf("take connection out of its reactor: %w", err)
	}
	f := os.NewFile(uintptr(c.fd), "tcp")
	defer f.Close()
	c.fd = -1                    // f's now
	conn, err := net.FileConn(f) // duplicates the descriptor
	if err != nil {
		return nil, fmt.Errorf("hand connection over to TLS: %w", err)
	}
	return conn, nil
}

// addListener gives a bound listener to reactor 0, before it runs.
func (s *Server) addListener(l net.Listener) error {
	f, err := l.(*net.TCPListener).File() // a duplicate: l can go
	if err != nil {
		return fmt.Errorf("listener descriptor: %w", err)
	}
	defer f.Close()
	defer l.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("listener descriptor: %w", err)
	}
	// Accepted sockets inherit TCP_NODELAY. listen again only sets the backlog.
	err = errors.Join(unix.SetNonblock(fd, true), unix.Listen(fd, cmp.Or(s.opt.Backlog, defaultBacklog)),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	p := &s.reactors[0].poll
	if err == nil && s.reactors[0].ring == nil {
		err = s.reactors[0].control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN, int32(len(p.listeners)), padListener)
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("prepare listener: %w", err)
	}
	p.listeners = append(p.listeners, listener{fd: fd, index: len(p.listeners)})
	return nil
}

func (r *Reactor) closeListeners() {
	if r.ring != nil {
		r.releaseListeners()
	}
	for i := range r.poll.listeners {
		if l := &r.poll.listeners[i]; l.fd >= 0 {
			unix.Close(l.fd)
			l.fd = -1
		}
	}
}

// accept takes the connections that wait at a listener and spreads them over the reactors.
func (r *Reactor) accept(l listener) {
	for range acceptsPerTurn {
		fd, sa, err := unix.Accept4(l.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			r.welcomeFD(l.index, fd, addrPort(sa))
		case err == unix.EINTR || err == unix.ECONNABORTED:
		case r.acceptFailed(err):
			r.pauseListeners(err)
			return
		default:
			return
		}
	}
}

// acceptFailed tells whether it was for lack of something that may be there later.
func (r *Reactor) acceptFailed(err error) (lack bool) {
	switch err {
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
		return true
	case unix.EAGAIN, unix.EINTR, unix.ECONNABORTED, unix.ECANCELED:
	default:
		r.log.Debug("accept", "err", err)
	}
	return false
}

func (r *Reactor) welcomeFD(index, fd int, remote netip.AddrPort) {
	s := r.srv
	if !s.enter(remote) {
		unix.Close(fd)
		return
	}
	local, _ := unix.Getsockname(fd)
	to := s.leastLoaded()
	c := s.newConn(to, index, fd, remote, addrPort(local))
	if to == r {
		r.adopt(c)
	} else if !to.write(letter{kind: letterAdopt, conn: c}) {
		c.abandon()
	}
}

// pauseListeners takes the listeners out of the epoll set for a while: they would be reported
// again and again while there are no descriptors to accept with.
func (r *Reactor) pauseListeners(cause error) {
	r.log.Warn("no resources to accept connections; raise the limit of open files (ulimit -n)", "err", cause)
	r.poll.resumeAt = r.now.MonoNanos + int64(acceptPause)
	r.setListeners(0)
	r.SetTimer(r.poll.resumeAt)
}

// resumeListeners is called in every turn.
func (r *Reactor) resumeListeners() {
	if r.poll.resumeAt != 0 && r.now.MonoNanos >= r.poll.resumeAt {
		r.poll.resumeAt = 0
		r.setListeners(unix.EPOLLIN)
	}
}

func (r *Reactor) setListeners(events uint32) {
	for i, l := range r.poll.listeners {
		if l.fd < 0 {
			continue
		}
		if r.ring != nil {
			if events != 0 { // else those that fire are not armed again
				r.armListener(&r.poll.listeners[i])
			}
			continue
		}
		if err := r.control(unix.EPOLL_CTL_MOD, l.fd, events, int32(i), padListener); err != nil {
			r.log.Error("epoll_ctl of a listener", "err", err)
		}
	}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}
