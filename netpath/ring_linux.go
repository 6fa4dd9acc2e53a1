package netpath

import (
	"errors"
	"fmt"
	"io"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/uring"
)

// The reactor on io_uring (PollerUring): what reactor_linux.go asks epoll and the sockets for, one call each, goes through one ring.
//
//	wait → submit what the last turn prepared, collect what is done
//	       done: a send → Conn.settled at once; a piece received, a poll → handleCompletions, in the turn
//	turn → frames are cut in the ring's own buffers, the buffers given back, a send prepared for each connection with output
//
// so that a turn under load is one system call, whatever the number of connections that it serves.
//
// # Receiving
//
// A proven connection has one multishot receive in flight, into buffers that all connections of the reactor share. A connection that is
// not proven yet is polled, once at a time, and read as with epoll: strangers get small bites, hold none of the shared buffers, and
// one that turns out to speak TLS leaves the ring with nothing in flight. A connection that is paused has its receive cancelled. What comes
// before the cancellation has worked is kept behind Conn.in (Conn.late): for one connection 32 buffers a turn, for all as much as there are
// buffers. A group without free buffers ends the receives that need one; each is armed anew at the end of its turn,
// when the buffers have been given back.
//
// # Sending
//
// A send is prepared with MSG_DONTWAIT, for which the kernel neither polls nor takes a worker: it is over when the call that submits it
// returns, whether all of it, some or nothing went out. So the kernel holds none of our memory while handlers run. Between
// settle, which prepares it, and the next wait it is ours to keep: the segments in it are marked (segment.sending), nothing is appended to them,
// and closing a connection submits first (ringCloses), because memory and the descriptor are somebody else's a moment later. What the
// socket did not take waits for a poll. Output with file ranges goes as with epoll, by sendmsg with MSG_MORE and sendfile, in settle.
//
// A ring keeps a reference to the file of what it has in flight: a socket that is closed says so to its peer only when its receive is
// cancelled, too.

// ring is what a reactor on io_uring has in place of the epoll set. Its thread's, but for Wake.
type ring struct {
	*uring.Ring
	buffers *uring.BufferRing
	// events are completions that were collected and not handled; all but sends.
	events []uring.Completion
	// batch numbers the submissions; what is prepared now goes with it. inFlight is the number of operations without their last
	// completion, those included that are only prepared.
	batch    uint64
	inFlight int
	enabled  bool
	// watched are Watch's; an operation for one has its index.
	watched []int
	// accepted wait to be welcomed.
	accepted []accepted
	// messages are for sends of several segments; the first used of them are in this batch.
	messages [64]ringMessage
	used     int
}

type ringMessage struct {
	head unix.Msghdr
	iov  [ringIovecs]unix.Iovec
}

const (
	ringEntries     = 1024
	ringCompletions = 8192
	ringGroup       = 1
	ringIovecs      = 64 // of one message
	// maxHeld is what a connection that waits for its turn may hold before its receive is cancelled.
	maxHeld = 64 << 10
)

// The data of an operation: its kind, the generation of its connection, and the slot, or the index of a listener.
const (
	ringRecv uint64 = 1 + iota
	ringPollIn
	ringPollOut
	ringSend
	ringListener
	ringWatch
	ringCancel

	ringKindShift = 60
	ringGenMask   = 1<<28 - 1
)

func ringData(kind uint64, gen int32, slot int) uint64 {
	return kind<<ringKindShift | uint64(gen&ringGenMask)<<32 | uint64(uint32(slot))
}

// What a connection has in flight, see Conn.armed.
const (
	armedRecv uint8 = 1 << iota
	armedPollIn
	armedPollOut
	armedCancel // of the receive, which has not ended yet
)

var (
	errRingOld   = fmt.Errorf("the kernel's io_uring has no multishot receive: run linux 6.0 or later: %w", uring.ErrUnsupported)
	errRingStays = errors.New("the connection has operations in flight in its ring")
)

// ringUsable says whether this kernel has what a reactor needs.
func ringUsable() error {
	f, err := uring.Probe()
	if err != nil {
		return err
	}
	if !f.MultishotRecv || !f.BufferRing || !f.MultishotAccept {
		return errRingOld
	}
	return nil
}

// openRing makes the reactor's ring, which its thread enables.
func (r *Reactor) openRing() error {
	o := &r.srv.opt
	u, err := uring.New(uring.Options{Entries: ringEntries, Completions: ringCompletions, Disabled: true, RawSubmit: true})
	if err != nil {
		return err
	}
	b, err := u.NewBufferRing(ringGroup, o.RingBuffers, o.RingBufferSize)
	if err != nil {
		return errors.Join(err, u.Close())
	}
	r.ring = &ring{Ring: u, buffers: b, batch: 1}
	return nil
}

// enableRing makes the calling thread the ring's owner, and begins to accept.
func (r *Reactor) enableRing() {
	if err := r.ring.Enable(); err != nil {
		panic(fmt.Sprintf("BUG: %v", err))
	}
	r.ring.enabled = true
	for i := range r.ring.watched {
		r.armWatch(i)
	}
	r.setListeners(unix.EPOLLIN)
}

// armWatch has a completion come each time that a watched descriptor becomes readable.
func (r *Reactor) armWatch(i int) {
	e := r.entry(nil)
	e.PollMultishot(r.ring.watched[i], unix.POLLIN)
	e.SetData(ringData(ringWatch, 0, i))
}

// closeRing waits for what was cancelled, and ends the ring.
func (r *Reactor) closeRing() {
	g := r.ring
	for i := range g.watched {
		if g.enabled {
			r.cancelOperation(ringData(ringWatch, 0, i))
		}
	}
	for end := monoNanos() + int64(time.Second); g.enabled && g.inFlight > 0 && monoNanos() < end; {
		_ = g.Wait(10 * time.Millisecond) // ends by its time, and is asked again
		for c, ok := g.Completed(); ok; c, ok = g.Completed() {
			g.ended(c)
			if c.Data>>ringKindShift == ringListener && c.Result >= 0 {
				closeSocket(int(c.Result))
			}
		}
	}
	for _, a := range g.accepted {
		closeSocket(a.fd)
	}
	if err := g.Close(); err != nil {
		r.log.Warn("close io_uring", "reactor", r.index, "err", err)
	}
	if g.inFlight == 0 || !g.enabled {
		// Otherwise the buffers are left to whatever the kernel still does with them.
		_ = g.buffers.Free()
	}
}

// ended counts a completion.
func (g *ring) ended(c uring.Completion) {
	if c.Flags&uring.CompletionMore == 0 {
		g.inFlight--
	}
}

// entry is a place for an operation of c, or of a listener where c is nil.
func (r *Reactor) entry(c *Conn) *uring.Entry {
	g := r.ring
	e := g.Next()
	for ; e == nil; e = g.Next() {
		r.submit()
	}
	g.inFlight++
	if c != nil {
		c.batch = g.batch
	}
	return e
}

// submit hands what is prepared to the kernel. Sends among it are over when it returns.
func (r *Reactor) submit() {
	g := r.ring
	for tries := 0; ; tries++ {
		err := g.Submit()
		if g.Prepared() == 0 {
			r.submitted()
			return
		}
		r.ringFailed(err)
		if tries > 0 {
			time.Sleep(time.Millisecond) // the kernel has no memory for operations
		}
		r.collect()
	}
}

func (r *Reactor) submitted() {
	g := r.ring
	g.batch++
	for i := range g.used {
		m := &g.messages[i]
		clear(m.iov[:m.head.Iovlen]) // the segments may be given away while we wait
	}
	g.used = 0
}

// ringFailed ends the process where the ring is used wrongly: nothing would ever be served again. A lack of memory passes.
func (r *Reactor) ringFailed(err error) {
	if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOMEM) {
		panic(fmt.Sprintf("BUG: reactor %d: %v", r.index, err))
	}
}

// waitRing is wait on a ring. A call that submits sends has their completions at once, so it does not wait, and goes without the
// scheduler's help; only one that finds nothing to do is followed by one that sleeps.
func (r *Reactor) waitRing() (events int, mail bool) {
	g := r.ring
	entered := false
	idle := func() bool { return len(r.dirty) == 0 && len(r.ready) == 0 && len(g.accepted) == 0 }
	if g.Prepared() > 0 || !idle() || r.state.Load() == woken {
		r.submit()
		r.collect()
		entered = true
	}
	if len(g.events) == 0 && idle() {
		if r.state.CompareAndSwap(awake, asleep) {
			r.ringFailed(g.Wait(r.sleepTime()))
			if g.Prepared() == 0 {
				r.submitted()
			}
			r.collect()
		} else if !entered {
			r.submit() // mail must not keep the sockets from being looked at
			r.collect()
		}
	}
	return len(g.events) + len(g.accepted), r.state.Swap(awake) == woken
}

// collect takes what is done. Sends are settled here, before anything else happens to their connections.
func (r *Reactor) collect() {
	g := r.ring
	for {
		done, ok := g.Completed()
		if !ok {
			return
		}
		g.ended(done)
		switch done.Data >> ringKindShift {
		case ringSend:
			if c := r.ringConn(done.Data); c != nil {
				r.sent(c, int(done.Result))
			}
		case ringCancel:
		default:
			g.events = append(g.events, done)
		}
	}
}

// ringConn is the connection that an operation was made for, or nil where it is gone.
func (r *Reactor) ringConn(data uint64) *Conn {
	slot := int(uint32(data))
	if slot >= len(r.conns) {
		return nil
	}
	c := r.conns[slot]
	if c == nil || c.gone || uint64(c.gen&ringGenMask) != data>>32&ringGenMask {
		return nil
	}
	return c
}

// handleCompletions is handleEvents on a ring. Closing connections may submit, and so collect more while it runs.
func (r *Reactor) handleCompletions() {
	g := r.ring
	for i := 0; i < len(g.events); i++ {
		done := g.events[i]
		kind := done.Data >> ringKindShift
		switch kind {
		case ringListener:
			r.listenerReady(int(uint32(done.Data)), done)
			continue
		case ringWatch:
			if done.Flags&uring.CompletionMore == 0 && !r.ended {
				r.armWatch(int(uint32(done.Data)))
			}
			continue
		}
		c := r.ringConn(done.Data)
		switch {
		case kind == ringRecv:
			if c != nil {
				r.ringReceived(c, done)
			}
			g.buffers.GiveBack(done)
		case c == nil:
		case kind == ringPollIn:
			c.armed &^= armedPollIn
			r.polled(c, done)
		default:
			c.armed &^= armedPollOut
			r.polled(c, done)
		}
	}
	g.events = g.events[:0]
	r.welcomeAccepted()
}

// polled does what the same events of an epoll set do, and lets settle ask again.
func (r *Reactor) polled(c *Conn, done uring.Completion) {
	if done.Result > 0 {
		r.handleEvent(c, uint32(done.Result))
	}
	if !c.gone && c.stream == nil {
		r.touch(c)
	}
}

// ringReceived handles one completion of c's receive.
func (r *Reactor) ringReceived(c *Conn, done uring.Completion) {
	if done.Flags&uring.CompletionMore == 0 {
		c.armed &^= armedRecv | armedCancel
		r.touch(c)
	}
	switch errno := unix.Errno(max(0, -done.Result)); {
	case errno == unix.ECANCELED || errno == unix.ENOBUFS || errno == unix.EAGAIN || errno == unix.EINTR:
	case errno != 0:
		r.drop(c, fmt.Errorf("read: %w", errno))
	case done.Result == 0:
		r.endOfInput(c)
	default:
		c.lastRead = r.now.MonoNanos
		r.count.bytesIn += uint64(done.Result)
		r.ringTakes(c, r.ring.buffers.Bytes(done))
	}
}

// endOfInput is what a receive of nothing says. It says so again, when a connection that is paused now is read on.
func (r *Reactor) endOfInput(c *Conn) {
	switch {
	case c.partUntil != 0:
		r.drop(c, ErrShutdown)
	case c.pause == 0:
		c.Close(io.EOF)
	}
}

// ringTakes takes over what was received, wanted or not.
func (r *Reactor) ringTakes(c *Conn, data []byte) {
	switch {
	case c.pause&pausedDrain != 0 || c.partUntil != 0 || c.state.Load() != stateOpen:
		// As if it had stayed in the socket: nobody reads it any more.
	case c.pause != 0 || len(c.in) > 0 && !c.roomToRead():
		c.hold(data)
		c.late = true
		r.touch(c)
	default:
		if c.tookIn != r.count.turns {
			c.tookIn, c.took = r.count.turns, 0
		}
		before := r.count.framesIn
		c.received(data)
		if c.took += int(r.count.framesIn - before); c.took >= framesPerTurn && c.pause == 0 && !c.gone {
			c.waitTurn() // consume sees one piece at a time
		}
	}
}

// ringArms is setInterest on a ring.
func (r *Reactor) ringArms(c *Conn) {
	if c.late && c.pause == 0 {
		c.late = false
		if len(c.in) > 0 {
			c.waitTurn()
		}
	}
	if c.blocked && c.armed&armedPollOut == 0 {
		r.armPoll(c, armedPollOut, ringPollOut, unix.POLLOUT)
	}
	read := c.pause&^pausedTurn == 0 && len(c.in)-c.inOff <= maxHeld || c.partUntil != 0 || c.pause == 0
	switch in := c.armed & (armedRecv | armedPollIn); {
	case read && in == 0 && c.proven && c.partUntil == 0:
		e := r.entry(c)
		e.RecvMultishot(c.fd, ringGroup)
		e.SetData(ringData(ringRecv, c.gen, c.slot))
		c.armed |= armedRecv
	case read && in == 0:
		r.armPoll(c, armedPollIn, ringPollIn, unix.POLLIN)
	case !read && c.armed&(armedRecv|armedCancel) == armedRecv:
		r.cancelOperation(ringData(ringRecv, c.gen, c.slot))
		c.armed |= armedCancel
	}
}

func (r *Reactor) armPoll(c *Conn, bit uint8, kind uint64, events uint32) {
	e := r.entry(c)
	e.Poll(c.fd, events)
	e.SetData(ringData(kind, c.gen, c.slot))
	c.armed |= bit
}

func (r *Reactor) cancelOperation(data uint64) {
	e := r.entry(nil)
	e.Cancel(data)
	e.SetData(ringCancel << ringKindShift)
}

// ringRegisters is register on a ring.
func (r *Reactor) ringRegisters(c *Conn) {
	r.poll.lastGen = (r.poll.lastGen + 1) & ringGenMask
	c.gen = r.poll.lastGen
	r.ringArms(c)
}

// ringCloses makes c's socket ready to be closed: whatever was prepared for its descriptor goes to the kernel while that is still its, and
// what is in flight ends.
func (r *Reactor) ringCloses(c *Conn) {
	if c.batch == r.ring.batch {
		r.submit()
	}
	if c.armed&(armedRecv|armedCancel) == armedRecv {
		r.cancelOperation(ringData(ringRecv, c.gen, c.slot))
	}
	if c.armed&armedPollIn != 0 {
		r.cancelOperation(ringData(ringPollIn, c.gen, c.slot))
	}
	if c.armed&armedPollOut != 0 {
		r.cancelOperation(ringData(ringPollOut, c.gen, c.slot))
	}
	c.armed = 0
}

// queueSend prepares the send of c's output, or returns false where that has to go by plain calls: file ranges, or very many segments.
// The turn of c then ends in sent.
func (r *Reactor) queueSend(c *Conn) bool {
	if c.sending {
		return true
	}
	s := c.head
	b := s.buf[s.pos:]
	if s.file || len(b) == 0 {
		return false
	}
	const flags = unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT
	if s.next == nil {
		s.sending = true
		e := r.entry(c)
		e.Send(c.fd, b, flags)
		e.SetData(ringData(ringSend, c.gen, c.slot))
		c.sendSize = len(b)
	} else {
		if r.ring.used == len(r.ring.messages) || !r.gather(c) {
			return false
		}
		m := &r.ring.messages[r.ring.used]
		r.ring.used++
		e := r.ring.Next()
		r.ring.inFlight++
		c.batch = r.ring.batch
		e.SendMsg(c.fd, &m.head, flags)
		e.SetData(ringData(ringSend, c.gen, c.slot))
	}
	c.sending = true
	r.count.writes++
	return true
}

// gather puts c's output into the next message, if it is bytes only and there is an entry for it.
func (r *Reactor) gather(c *Conn) bool {
	g := r.ring
	if g.Room() == 0 {
		r.submit()
	}
	m := &g.messages[g.used]
	n, size := 0, 0
	for s := c.head; s != nil; s = s.next {
		if s.file || n == ringIovecs {
			clear(m.iov[:n])
			return false
		}
		if b := s.buf[s.pos:]; len(b) > 0 {
			m.iov[n].Base = unsafe.SliceData(b)
			m.iov[n].SetLen(len(b))
			size += len(b)
			n++
		}
	}
	for s := c.head; s != nil; s = s.next {
		s.sending = true
	}
	m.head.Iov = &m.iov[0]
	m.head.SetIovlen(n)
	c.sendSize = size
	return true
}

// sent ends the turn of a connection whose send is over.
func (r *Reactor) sent(c *Conn, result int) {
	c.sending = false
	for s := c.head; s != nil && s.sending; s = s.next {
		s.sending = false
	}
	switch errno := unix.Errno(max(0, -result)); errno {
	case 0:
		r.count.bytesOut += uint64(result)
		r.worked(c, result/effortBytes)
		c.lastWrite, c.stalledSince = r.now.MonoNanos, 0
		c.advance(result)
		c.blocked = result < c.sendSize
	case unix.EINTR:
		r.touch(c)
	case unix.EAGAIN:
		c.blocked = true
	default:
		r.drop(c, fmt.Errorf("write: %w", errno))
		return
	}
	c.settled()
}

// accepted is a connection that a listener's multishot accept brought.
type accepted struct{ listener, fd int }

// listenerReady takes a connection over, or the end of a listener's accept. How many come at a time is the kernel's choice; how many a turn
// welcomes is not.
func (r *Reactor) listenerReady(index int, done uring.Completion) {
	l := &r.poll.listeners[index]
	if done.Flags&uring.CompletionMore == 0 {
		l.armed = false
	}
	if done.Result >= 0 {
		if l.fd < 0 {
			closeSocket(int(done.Result))
		} else {
			r.ring.accepted = append(r.ring.accepted, accepted{index, int(done.Result)})
		}
	} else if r.acceptFailed(unix.Errno(-done.Result)) {
		r.pauseListeners(unix.Errno(-done.Result))
	}
	if !l.armed && l.fd >= 0 && r.poll.resumeAt == 0 {
		r.armListener(l)
	}
}

// welcomeAccepted makes connections of what was accepted.
func (r *Reactor) welcomeAccepted() {
	g := r.ring
	n := min(len(g.accepted), acceptsPerTurn)
	for _, a := range g.accepted[:n] {
		remote, err := unix.Getpeername(a.fd)
		if err != nil {
			closeSocket(a.fd) // it is gone already
			continue
		}
		r.welcomeFD(a.listener, a.fd, addrPort(remote))
	}
	g.accepted = g.accepted[:copy(g.accepted, g.accepted[n:])]
}

func (r *Reactor) armListener(l *listener) {
	if l.armed {
		return
	}
	e := r.entry(nil)
	e.AcceptMultishot(l.fd)
	e.SetData(ringData(ringListener, 0, l.index))
	l.armed = true
}

// releaseListeners lets the ring go of the listeners, so that their closing closes them.
func (r *Reactor) releaseListeners() {
	any := false
	for i := range r.poll.listeners {
		if l := &r.poll.listeners[i]; l.armed {
			r.cancelOperation(ringData(ringListener, 0, i))
			any = true
		}
	}
	if any {
		r.submit()
	}
}
