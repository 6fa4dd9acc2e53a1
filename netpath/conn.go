package netpath

import (
	"net/netip"
	"sync/atomic"
)

// The walk of one message: reactor_linux.go (or a stream's goroutine, conn_stream.go) brings the
// bytes that arrived; here they are cut by frame.go, and each frame goes to Handler.OnFrame, where
// remoting/command.go reads it. Answers come back through Begin and End, or Send, and leave
// in settle: sendfile_linux.go writes them.

var lastConnID atomic.Uint64

// Conn is one connection. It belongs to its reactor: all methods and fields are for that
// reactor's thread, except where a comment says that any goroutine may use them.
type Conn struct {
	// These do not change once the handler has seen the connection; any goroutine may read them.
	ID       uint64         // unique in the process, never 0
	Listener int            // index into Options.Listen
	Remote   netip.AddrPort // of the client, from the PROXY header if there was one
	Local    netip.AddrPort // likewise
	Secure   bool           // TLS

	// User is the handler's.
	User any

	fd      int // native connections; -1 once it is closed or a stream has it
	slot    int // in Reactor.conns
	gen     int32
	counted netip.Addr // under which the census counts it
	stream  *stream    // nil for a native connection

	established bool // first bytes accepted; OnClose is owed
	proven      bool // the first frame's prefix is valid; more may be buffered
	framed      bool // the first frame has arrived
	gone        bool // dropped; nothing is owed to anybody any more
	dirty       bool // in Reactor.dirty
	inReady     bool // in Reactor.ready
	blocked     bool // the socket takes no more; EPOLLOUT will tell
	borrowed    bool // there may be borrowed bytes in the output
	interest    uint32
	pause       pauseReason

	// in[inOff:] is what arrived and is not handled yet. A native connection owns in and gives
	// it back as soon as it is empty; for a stream it is the batch its reader lent.
	// Invariant: unless pause has pausedOutput or pausedTurn, inOff == 0 and in is the
	// beginning of one frame, or empty.
	in    []byte
	inOff int

	// head..tail is the output, in order; outMem and outFile are its bytes in memory and in files.
	// A stream's writer may have part of it: it is counted here until it is written.
	head, tail *segment
	outMem     int
	outFile    int
	charged    int64 // what the server's budget counts for this connection

	// Deadlines, in MonoNanos. partialSince and stalledSince are 0 while nothing is waited for.
	opened, lastRead, lastWrite int64
	partialSince, stalledSince  int64
	partUntil                   int64 // not 0: our side is closed, and the peer's is waited for until then

	// effort is what the connection cost its reactors so far, in effort units; effortSeen what it was at a look of balance.go, and
	// movedAt (MonoNanos) when it came to its reactor from another.
	effort, effortSeen uint64
	movedAt            int64

	// Any goroutine uses the fields below.

	// reactor is the one that the connection belongs to; give (balance.go) alone changes it.
	reactor     atomic.Pointer[Reactor]
	state       atomic.Uint32 // stateOpen → stateClosing → stateClosed
	closeReason error         // written once, by whoever moved state to stateClosing, before its letter
	sent        atomic.Int64  // bytes of Send's that are still in the mail
	waiting     atomic.Int64  // the backlog after the last turn

	// The rest is the reactor's thread's again, and for its ring: what that has in flight for this connection, whether in got bytes during a
	// pause, whether the output's first sendSize bytes are in a send that was prepared, and the batch of what was prepared last.
	armed    uint8
	late     bool
	sending  bool
	sendSize int
	batch    uint64
	// took frames were handled in the turn tookIn.
	took   int
	tookIn uint64
}

const (
	stateOpen uint32 = iota
	stateClosing
	stateClosed
)

// pauseReason says why a connection is not read. Reading goes on when none is left.
type pauseReason uint8

const (
	pausedOutput pauseReason = 1 << iota // its peer does not take the answers
	pausedTurn                           // it used up its share of this turn; it is in Reactor.ready
	pausedMemory                         // no memory for the rest of its frame; it is in Reactor.starved
	pausedDrain                          // shutdown
)

const (
	sendCopyMax  = 2 << 10   // a frame of Send up to this is copied behind others rather than sent as a piece of its own
	sendOverhead = 64        // what a queued frame costs besides its bytes
	keptPiece    = 192 << 10 // at least so much of what was borrowed is copied into one buffer, where there is as much
)

func (s *Server) newConn(r *Reactor, listener, fd int, remote, local netip.AddrPort) *Conn {
	c := &Conn{
		ID: lastConnID.Add(1), Listener: listener, fd: fd, slot: -1,
		Remote: remote, Local: local, counted: remote.Addr(),
	}
	c.reactor.Store(r)
	return c
}

// Reactor is the reactor that c belongs to. On that reactor's thread it stays so until the handler returns; to other goroutines it may be
// another one a moment later (Mover).
func (c *Conn) Reactor() *Reactor { return c.reactor.Load() }

// Begin returns the output buffer, to append one response to. It is the caller's until End, which
// has to follow before anything else is done with this connection.
func (c *Conn) Begin() []byte { return c.BeginSize(0) }

// BeginSize is Begin for an answer of n bytes, which then are appended without a larger buffer being made for them.
func (c *Conn) BeginSize(n int) []byte {
	if c.gone {
		return c.Reactor().discard[:0]
	}
	t := c.tail
	if t == nil || t.file || t.foreign || t.sending || len(t.buf) > sealedBuffer || n > cap(t.buf)-len(t.buf) && n > outputBuffer {
		t = c.Reactor().newSegment()
		t.buf = c.Reactor().bufs.get(max(n, outputBuffer))
		c.link(t)
	}
	return t.buf
}

// End takes the buffer of Begin back. What was appended leaves at the end of the turn.
func (c *Conn) End(buf []byte) {
	if c.gone {
		if cap(buf) <= maxKeptBuffer {
			c.Reactor().discard = buf
		}
		return
	}
	t := c.tail
	n := len(buf) - len(t.buf)
	if n <= 0 {
		return
	}
	t.buf = buf
	c.outMem += n
	c.grew()
}

// SendFile queues n bytes of fd from off behind what was answered so far. rel is released
// exactly once, on this thread, when the bytes have left or never will; fd has to stay
// open and the range unchanged until then.
func (c *Conn) SendFile(fd int, off int64, n int, rel Releaser) {
	if c.gone || n <= 0 {
		if rel != nil {
			rel.Release()
		}
		return
	}
	s := c.Reactor().newSegment()
	s.file, s.fd, s.fileOff, s.fileLen, s.fileTotal, s.rel = true, fd, off, n, n, rel
	s.turn = c.Reactor().count.turns
	c.link(s)
	c.outFile += n
	c.grew()
}

// Borrows says that Borrow saves a copy now: the output is written at the end of the turn, by this thread.
func (c *Conn) Borrows() bool {
	return c.stream == nil && c.Reactor().ring == nil && !c.blocked && !c.gone
}

// Borrow queues b behind what was answered so far, without a copy where that can be. It stays as it is until rel, which may be nil, is released: once,
// on this thread, at the end of the turn at the latest. By then the bytes have left, or were copied.
func (c *Conn) Borrow(b []byte, rel Releaser) {
	if !c.Borrows() && !c.borrowed || len(b) == 0 { // behind what is borrowed nothing is given back before that
		c.End(append(c.BeginSize(len(b)), b...))
		if rel != nil {
			rel.Release()
		}
		return
	}
	s := c.Reactor().newSegment()
	s.buf, s.foreign, s.borrowed, s.rel = b, true, true, rel
	c.link(s)
	c.borrowed = true
	c.outMem += len(b)
	c.grew()
}

// keepBorrowed copies what is borrowed and has not left, and gives it back.
func (c *Conn) keepBorrowed() {
	c.borrowed = false
	r, at, last := c.Reactor(), &c.head, (*segment)(nil)
	for s := c.head; s != nil; {
		if !s.borrowed {
			at, last, s = &s.next, s, s.next
			continue
		}
		n := 0
		for t := s; t != nil && t.borrowed && n < keptPiece; t = t.next {
			n += len(t.buf) - t.pos
		}
		k := r.newSegment()
		k.buf = r.bufs.get(n)
		for more := true; more; more = len(k.buf) < n {
			next := s.next
			k.buf = append(k.buf, s.buf[s.pos:]...)
			r.recycle(s)
			s = next
		}
		*at, k.next = k, s
		at, last = &k.next, k
	}
	c.tail = last
}

// Send queues a frame from any goroutine, behind what is queued already. It takes frame over.
// It returns false when the connection is closed, or its backlog so large that it is now.
func (c *Conn) Send(frame []byte) bool {
	if c.state.Load() != stateOpen {
		return false
	}
	size := int64(len(frame) + sendOverhead)
	if c.sent.Add(size)+c.waiting.Load() > int64(c.Reactor().limits.MaxBacklog) {
		c.sent.Add(-size)
		c.Close(ErrBacklog)
		return false
	}
	if !c.deliver(letter{kind: letterSend, conn: c, frame: frame}) {
		c.sent.Add(-size)
		return false
	}
	return true
}

// Close ends the connection, from any goroutine, soon: the reactor writes what was queued
// before as far as the socket takes it, and calls OnClose. Only the first reason counts.
func (c *Conn) Close(reason error) {
	if c.state.CompareAndSwap(stateOpen, stateClosing) {
		c.closeReason = reason
		c.deliver(letter{kind: letterClose, conn: c})
	}
}

// deliver puts a letter about c into the mail of the reactor that c belongs to.
func (c *Conn) deliver(l letter) bool {
	for {
		r := c.Reactor()
		r.mu.Lock()
		if c.Reactor() != r { // it moved in between
			r.mu.Unlock()
			continue
		}
		return r.deliverUnlock(l)
	}
}

// Closed says, to any goroutine, whether Close was called or the connection has ended.
func (c *Conn) Closed() bool { return c.state.Load() != stateOpen }

// Backlog is the number of bytes that wait to be written. A handler with much to say, such as
// many held pulls woken at once, should stop well below Limits.MaxBacklog and go on in a later turn.
func (c *Conn) Backlog() int { return c.outMem + c.outFile }

func (c *Conn) link(s *segment) {
	if c.tail == nil {
		c.head = s
	} else {
		c.tail.next = s
	}
	c.tail = s
}

// grew follows every addition to the output.
func (c *Conn) grew() {
	c.Reactor().touch(c)
	if c.Backlog() <= c.Reactor().limits.MaxBacklog || c.Closed() {
		return
	}
	// Much may have been answered in one turn to a peer that reads well: ask the socket first.
	if !c.blocked && !c.sending {
		c.flush()
	}
	if c.Backlog() > c.Reactor().limits.MaxBacklog {
		c.Close(ErrBacklog)
	}
}

// queueSent is Send, arrived on the reactor.
func (c *Conn) queueSent(frame []byte) {
	c.sent.Add(-int64(len(frame) + sendOverhead))
	if c.gone {
		return
	}
	if len(frame) <= sendCopyMax {
		c.End(append(c.Begin(), frame...))
		return
	}
	s := c.Reactor().newSegment()
	s.buf, s.foreign = frame, true
	c.link(s)
	c.outMem += len(frame)
	c.grew()
}

// consume hands the whole frames that start data to the handler and returns how many bytes
// they were. It stops early, and says why in pause, when the connection had its share.
func (c *Conn) consume(data []byte) (used int) {
	r := c.Reactor()
	maxFrame := r.limits.MaxFrame
	for handled := 0; c.state.Load() == stateOpen; handled++ {
		frame, n, err := Cut(data[used:], maxFrame)
		if n == 0 {
			if err != nil {
				c.Close(err)
			}
			break
		}
		if c.outMem+c.outFile > pauseBacklog {
			c.pause |= pausedOutput
			r.touch(c)
			break
		}
		if handled == framesPerTurn {
			c.waitTurn()
			break
		}
		used += n
		r.count.framesIn++
		r.worked(c, 1+n/effortBytes)
		r.handler.OnFrame(c, frame)
	}
	if used > 0 {
		c.framed = true
		c.partialSince = 0
	}
	return used
}

// waitTurn puts c in line for the next turn: it holds whole frames.
func (c *Conn) waitTurn() {
	c.pause |= pausedTurn
	if !c.inReady {
		c.inReady = true
		c.Reactor().ready = append(c.Reactor().ready, c)
	}
}

// received handles what a native connection read. data is in the reactor's scratch buffer,
// behind what was read into c.in directly; what has to be kept is copied.
func (c *Conn) received(data []byte) {
	if !c.proven {
		c.greet(data)
		return
	}
	if len(c.in) > 0 {
		rest, whole := c.fill(data)
		if !whole {
			return
		}
		c.handleHeld()
		if data = rest; len(c.in) > 0 { // it was not its turn: what is behind waits with it
			c.hold(data)
			return
		}
	}
	used := c.consume(data)
	if c.state.Load() == stateOpen {
		c.hold(data[used:])
	}
	c.notePartial()
}

// fill completes the frame that c.in begins. rest is what of data is behind it.
func (c *Conn) fill(data []byte) (rest []byte, whole bool) {
	for {
		_, used, err := Cut(c.in, c.Reactor().limits.MaxFrame)
		if err != nil {
			c.Close(err)
			return nil, false
		}
		if used > 0 {
			return data, true
		}
		if len(data) == 0 {
			return nil, false
		}
		n := min(frameSize(c.in)-len(c.in), len(data))
		c.hold(data[:n])
		data = data[n:]
	}
}

// handleHeld goes on with what c.in holds.
func (c *Conn) handleHeld() {
	if c.pause != 0 || len(c.in) == 0 {
		return
	}
	c.inOff += c.consume(c.in[c.inOff:])
	switch {
	case c.inOff == len(c.in):
		c.releaseIn()
	case c.pause == 0 && c.inOff > 0:
		n := copy(c.in, c.in[c.inOff:])
		c.in, c.inOff = c.in[:n], 0
	}
	c.notePartial()
}

func (c *Conn) notePartial() {
	if len(c.in) == 0 {
		c.partialSince = 0
	} else if c.partialSince == 0 {
		c.partialSince = c.Reactor().now.MonoNanos
	}
}

// hold keeps a copy of data behind c.in. The buffer is at most a class, or double, of what
// has really arrived.
func (c *Conn) hold(data []byte) {
	if len(data) == 0 {
		return
	}
	if need := len(c.in) + len(data); need > cap(c.in) {
		if len(c.in) > 0 {
			need = max(need, min(2*len(c.in), frameSize(c.in)))
		}
		c.growIn(need)
	}
	c.in = append(c.in, data...)
}

func (c *Conn) growIn(n int) {
	buf := append(c.Reactor().bufs.get(n), c.in...)
	if c.in != nil {
		c.Reactor().bufs.put(c.in)
	}
	c.in = buf
	c.charge()
}

// roomToRead makes room in c.in for more of its frame, or returns false when there is no
// memory: the connection then waits in Reactor.starved.
func (c *Conn) roomToRead() bool {
	size := len(c.in)
	want := min(frameSize(c.in), 2*size)
	if cap(c.in)-size >= min(want-size, bufferClasses[0]) && cap(c.in) > size {
		return true
	}
	want = max(want, min(frameSize(c.in), size+bufferClasses[0]))
	if !c.Reactor().srv.budget.mayGrow(c, want-cap(c.in)) {
		c.pause |= pausedMemory
		c.Reactor().starved = append(c.Reactor().starved, c)
		c.Reactor().touch(c)
		return false
	}
	c.growIn(want)
	return true
}

// releaseIn gives the emptied input buffer back.
func (c *Conn) releaseIn() {
	if c.in == nil {
		return
	}
	if c.stream != nil {
		c.stream.giveBack()
	} else {
		c.Reactor().bufs.put(c.in)
	}
	c.in, c.inOff = nil, 0
	c.charge()
	c.Reactor().srv.budget.yield(c)
}

// firstRead bounds one read of a connection that has not proven itself.
func (c *Conn) firstRead() int {
	limit := c.Reactor().limits.FirstFrameBytes
	if !c.established && c.Reactor().srv.opt.ProxyProtocol {
		limit += proxyV2Max
	}
	return max(1, limit-len(c.in))
}

// greet takes the first bytes of a native connection, until they are known to be what we serve.
func (c *Conn) greet(data []byte) {
	kept := len(c.in) > 0
	if kept {
		c.hold(data)
		data = c.in
	}
	if !c.established {
		kind, h, used, err := sniffFirst(data, c.Reactor().srv.opt.ProxyProtocol)
		if err == nil && kind != firstUnknown {
			err = c.welcome(kind, h)
		}
		switch {
		case err != nil:
			c.Close(err)
			return
		case kind == firstTLS:
			c.startTLS(data[used:])
			return
		case kind == firstUnknown:
			if !kept {
				c.hold(data)
			}
			return
		}
		c.established = true
		data = data[used:]
	}
	enough, err := checkFirst(data, c.Reactor().limits.MaxFrame)
	if err != nil {
		c.Close(err)
		return
	}
	c.proven = enough
	if kept {
		n := copy(c.in, data) // closes the gap a PROXY header left
		c.in = c.in[:n]
		c.handleHeld()
	} else if enough {
		c.received(data)
	} else {
		c.hold(data)
	}
}

// welcome applies the server's rules to what sniffing found.
func (c *Conn) welcome(kind firstKind, h proxyHeader) error {
	mode := c.Reactor().srv.opt.TLSMode
	if kind == firstTLS && (mode == TLSDisabled || c.Reactor().srv.opt.TLSConfig == nil) {
		return ErrTLS
	}
	if kind == firstPlain && mode == TLSEnforcing {
		return ErrPlain
	}
	if !h.src.IsValid() {
		return nil
	}
	if !c.Reactor().srv.census.move(c.counted, h.src.Addr(), c.Reactor().limits) {
		return errPerAddr
	}
	c.counted = h.src.Addr()
	c.Remote, c.Local = h.src, h.dst
	return nil
}

// startTLS turns a native connection into a stream. first is the beginning of its handshake.
func (c *Conn) startTLS(first []byte) {
	prefix := append([]byte(nil), first...)
	c.releaseIn()
	conn, err := c.Reactor().detach(c)
	if err != nil {
		c.Close(err)
		return
	}
	c.stream = newStream(c, conn, prefix, firstTLS)
	c.Reactor().streams++
	c.stream.start()
}

// settle ends the turn for a connection: writes its output, and decides whether it is read on.
func (c *Conn) settle() {
	if c.head != nil && !c.blocked {
		if r := c.Reactor(); r.ring != nil && c.stream == nil && r.queueSend(c) {
			return // settled follows the send
		}
		c.flush()
		if c.gone {
			return
		}
	}
	if c.borrowed {
		c.keepBorrowed()
	}
	c.settled()
}

// settled decides what happens next to a connection whose output was written as far as may be now.
func (c *Conn) settled() {
	backlog := c.Backlog()
	if c.waiting.Load() != int64(backlog) {
		c.waiting.Store(int64(backlog))
	}
	scarce := c.outMem > 0 && c.Reactor().srv.budget.over()
	switch {
	case backlog > pauseBacklog || scarce:
		c.pause |= pausedOutput
	case c.pause&pausedOutput != 0 && backlog <= resumeBacklog:
		c.pause &^= pausedOutput
		if len(c.in) > 0 {
			c.waitTurn()
		}
	}
	if backlog == 0 {
		c.stalledSince = 0
	} else if c.stalledSince == 0 {
		c.stalledSince = c.Reactor().now.MonoNanos
	}
	c.charge()
	if c.stream == nil {
		c.Reactor().setInterest(c)
	}
}

// flush writes as much output as may be now.
func (c *Conn) flush() {
	if c.stream != nil {
		c.stream.send(c.head, c.tail)
		c.head, c.tail = nil, nil
		return
	}
	c.Reactor().flushSocket(c)
}

// advance removes n sent bytes from the head of the output, and the segments they finished.
func (c *Conn) advance(n int) {
	for s := c.head; s != nil; s = c.head {
		if s.file {
			k := min(n, s.fileLen)
			s.fileLen -= k
			s.fileOff += int64(k)
			c.outFile -= k
			n -= k
			if s.fileLen > 0 {
				return
			}
		} else {
			k := min(n, len(s.buf)-s.pos)
			s.pos += k
			c.outMem -= k
			n -= k
			if s.pos < len(s.buf) {
				return
			}
		}
		if c.head = s.next; c.head == nil {
			c.tail = nil
		}
		c.Reactor().recycle(s)
		if n == 0 && (c.head == nil || !c.head.empty()) {
			return
		}
	}
}

// dropOutput gives up what was not sent.
func (c *Conn) dropOutput() {
	for s := c.head; s != nil; s = c.head {
		c.head = s.next
		c.outMem -= len(s.buf) - s.pos
		c.outFile -= s.fileLen
		if !s.reading { // else coldArrived will
			c.Reactor().recycle(s)
		}
	}
	c.tail = nil
}

// charge tells the budget what memory this connection holds beyond this turn. Where nothing
// outlives its turn the two numbers are 0 and nothing is touched.
func (c *Conn) charge() {
	total := int64(c.outMem)
	if c.stream == nil {
		total += int64(cap(c.in))
	}
	if total != c.charged {
		c.Reactor().srv.budget.used.Add(total - c.charged)
		c.charged = total
	}
}

// deadline is the first moment (MonoNanos) after which c is to be closed, and the reason.
func (c *Conn) deadline() (at int64, why error) {
	l := c.Reactor().limits
	stalledSince, lastWrite := c.stalledSince, c.lastWrite
	if c.stream != nil {
		p := c.stream.progress.Load()
		stalledSince, lastWrite = max(stalledSince, p), max(lastWrite, p)
	}
	at, why = max(c.lastRead, lastWrite)+int64(l.IdleTimeout), ErrIdle
	if t := stalledSince + int64(l.PartialFrameTimeout); c.stalledSince != 0 && t <= at {
		at, why = t, ErrStalled
	}
	mayRead := c.pause&(pausedOutput|pausedTurn) == 0
	if t := c.partialSince + int64(l.PartialFrameTimeout); c.stream == nil && c.partialSince != 0 && mayRead && t <= at {
		at, why = t, ErrPartialFrame
	}
	if t := c.opened + int64(l.FirstFrameTimeout); !c.framed && t <= at {
		at, why = t, ErrFirstFrame
	}
	return at, why
}

// abandon closes a connection that no reactor has adopted.
func (c *Conn) abandon() {
	if c.stream != nil {
		c.stream.conn.Close()
	} else {
		closeSocket(c.fd)
	}
	c.Reactor().srv.census.leave(c.counted)
	c.Reactor().load.Add(-1)
}
