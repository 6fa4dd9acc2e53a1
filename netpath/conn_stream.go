package netpath

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"
)

// stream carries a connection that the reactor cannot read and write itself: TLS, and every
// connection of the portable path. One goroutine reads and cuts, one writes. Handlers notice
// nothing: frames are handled on the reactor's thread, as those of native connections are.
//
// The reader has two buffers. It lends one, as a batch of whole frames, to the reactor and
// fills the other; before it lends again the reactor must have given the first back. So a
// connection that is not served is not read.
type stream struct {
	c      *Conn
	conn   net.Conn // replaced by the TLS connection before the writer starts
	prefix []byte   // read before conn was ours; the reader's
	first  firstKind

	quit     chan struct{} // closed by close: nobody waits for this stream's batches any more
	returned chan struct{} // capacity 1: the batch was given back
	progress atomic.Int64  // MonoNanos of the writer's last write

	mu   sync.Mutex
	cond sync.Cond // the writer waits here for queue or closing
	told bool      // a letterLook is on its way
	// batch is lent to the reactor, which sets it to nil as it takes it.
	batch []byte
	// hello is set once, when the first bytes were accepted.
	hello *greeting
	// queue..queueEnd is the output the writer has not taken; spent what it has done with.
	queue, queueEnd *segment
	spent           *segment
	bytesIn         uint64 // since the reactor last looked; likewise the two below
	bytesOut        uint64
	writes          uint64
	closing         bool
	parting         bool      // a shutdown closes it in order: see part
	deadline        time.Time // for the last writes, once closing

	held int64 // what the budget counts for the reader's buffers; the reader's
}

// greeting is what the reader found out about a new connection; the reactor applies it.
type greeting struct {
	kind  firstKind
	proxy proxyHeader
}

const (
	streamBuffer    = 4 << 10  // what a quiet stream reads into
	streamBatch     = 16 << 10 // what a busy one does: the size of a TLS record
	streamBufferMax = 64 << 10 // beyond this a buffer grows no further than its frame
	closeGrace      = time.Second
	memoryRetry     = 20 * time.Millisecond
)

// newStream makes the stream of c over conn, whose first bytes were read already if first is known.
func newStream(c *Conn, conn net.Conn, prefix []byte, first firstKind) *stream {
	s := &stream{
		c: c, conn: conn, prefix: prefix, first: first,
		quit: make(chan struct{}), returned: make(chan struct{}, 1),
	}
	s.cond.L = &s.mu
	return s
}

// start runs the stream's goroutines; the reactor counts it from then on until letterBye.
func (s *stream) start() { go s.run() }

func (s *stream) run() {
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("netpath", "stream")))
	written := make(chan struct{})
	buf, err := s.greet()
	if err == nil {
		go func() {
			defer close(written)
			s.writeLoop()
		}()
		err = s.readLoop(buf)
	} else {
		close(written)
		if isTimeout(err) {
			err = ErrFirstFrame
		}
	}
	s.c.Close(err)
	<-s.quit
	<-written
	s.part()
	s.conn.Close()
	s.charge(0, 0)
	s.c.Reactor().srv.budget.yield(s.c)
	s.mu.Lock()
	s.spend(s.queue)
	s.queue, s.queueEnd = nil, nil
	s.mu.Unlock()
	s.c.Reactor().write(letter{kind: letterBye, conn: s.c})
}

// --- the reading goroutine ---

// greet finds out what the connection is, does the TLS handshake, and returns a buffer
// that starts with the first bytes of frames.
func (s *stream) greet() (buf []byte, err error) {
	opt := &s.c.Reactor().srv.opt
	s.conn.SetReadDeadline(time.Now().Add(opt.Limits.FirstFrameTimeout))
	buf = append(make([]byte, 0, streamBuffer), s.prefix...)
	g := greeting{kind: s.first}
	for g.kind == firstUnknown {
		if len(buf) > sniffMax {
			return nil, errProxy
		}
		if buf, err = s.readMore(buf, sniffMax+1-len(buf)); err != nil {
			return nil, err
		}
		var used int
		if g.kind, g.proxy, used, err = sniffFirst(buf, opt.ProxyProtocol); err != nil {
			return nil, err
		}
		buf = buf[used:]
	}
	if g.kind == firstTLS && (opt.TLSMode == TLSDisabled || opt.TLSConfig == nil) {
		return nil, ErrTLS
	}
	if g.kind == firstTLS {
		conn := tls.Server(&replayConn{Conn: s.conn, prefix: buf}, opt.TLSConfig)
		ctx, cancel := context.WithTimeout(context.Background(), opt.Limits.FirstFrameTimeout)
		defer cancel()
		if err := conn.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.conn = conn
		s.mu.Unlock()
		buf = make([]byte, 0, streamBuffer)
	}
	s.prefix = nil
	s.mu.Lock()
	s.hello = &g
	s.mu.Unlock()
	s.tell()
	return buf, nil
}

func (s *stream) readMore(buf []byte, limit int) ([]byte, error) {
	if len(buf) == cap(buf) {
		buf = append(make([]byte, 0, 2*cap(buf)+streamBuffer), buf...)
	}
	room := buf[len(buf):cap(buf)]
	n, err := s.conn.Read(room[:min(limit, len(room))])
	if n > 0 {
		err = nil
	}
	return buf[:len(buf)+n], err
}

// readLoop reads frames and lends them to the reactor until the connection ends.
// buf is the reader's: its content is the beginning of a frame, except before the first cut.
func (s *stream) readLoop(buf []byte) error {
	limits := s.c.Reactor().limits
	var spare []byte
	lent, proven, size := false, false, streamBuffer
	defer func() {
		if lent {
			s.await() // frames that came before the end are handled before it
		}
	}()
	partial := time.Now() // since when buf's frame has been coming; buf is not empty or nothing has come
	for {
		if !proven {
			enough, err := checkFirst(buf, limits.MaxFrame)
			if err != nil {
				return err
			}
			proven = enough
		}
		whole, err := wholeFrames(buf, limits.MaxFrame)
		if whole > 0 {
			if lent && !s.await() {
				lent = false
				return net.ErrClosed
			}
			tail := append(spare[:0], buf[whole:]...)
			if cap(tail) < size || cap(tail) > streamBufferMax && len(tail) < streamBuffer {
				tail = append(make([]byte, 0, max(size, len(tail))), tail...)
			}
			spare, lent, partial = buf[:0], true, time.Now()
			s.lend(buf[:whole])
			buf = tail
			s.c.Reactor().srv.budget.yield(s.c)
			s.charge(cap(buf), cap(spare))
		}
		if err != nil {
			return err
		}
		if len(buf) == 0 {
			s.conn.SetReadDeadline(time.Time{}) // idleness is the sweep's business
			if whole > 0 || !proven {
				partial = time.Time{}
			}
		} else {
			if partial.IsZero() {
				partial = time.Now()
			}
			s.conn.SetReadDeadline(partial.Add(limits.PartialFrameTimeout))
		}
		if len(buf) == cap(buf) {
			if buf, err = s.grow(buf, cap(spare), partial); err != nil {
				return err
			}
		}
		if err := s.aliveOr(net.ErrClosed); err != nil {
			return err
		}
		n, err := s.conn.Read(buf[len(buf):cap(buf)])
		if n > 0 {
			s.mu.Lock()
			s.bytesIn += uint64(n)
			s.mu.Unlock()
		} else if err != nil {
			if len(buf) > 0 && isTimeout(err) {
				return ErrPartialFrame
			}
			return err
		}
		if buf = buf[:len(buf)+n]; len(buf) == cap(buf) && proven {
			size = streamBatch // there is more than a quiet stream brings
		}
	}
}

// aliveOr keeps a reader from setting a deadline behind close's back and then waiting for it.
func (s *stream) aliveOr(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return err
	}
	return nil
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// wholeFrames is the length of the whole frames at the start of buf. They are good even where
// what follows them is an error.
func wholeFrames(buf []byte, maxFrame int) (n int, err error) {
	for {
		_, used, err := Cut(buf[n:], maxFrame)
		if used == 0 {
			return n, err
		}
		n += used
	}
}

// grow doubles buf, for a frame no further than to its end. Without memory it waits, but not
// longer than the frame may take.
func (s *stream) grow(buf []byte, spare int, partial time.Time) ([]byte, error) {
	size := 2 * cap(buf)
	if size > streamBufferMax {
		size = min(size, max(frameSize(buf), streamBufferMax))
	}
	if size <= cap(buf) {
		size = cap(buf) + streamBuffer
	}
	budget := &s.c.Reactor().srv.budget
	for !budget.mayGrow(s.c, size-cap(buf)) {
		if time.Since(partial) > s.c.Reactor().limits.PartialFrameTimeout {
			return nil, ErrPartialFrame
		}
		select {
		case <-s.quit:
			return nil, net.ErrClosed
		case <-time.After(memoryRetry):
		}
	}
	grown := append(make([]byte, 0, size), buf...)
	s.charge(cap(grown), spare)
	return grown, nil
}

// charge tells the budget the sizes of the reader's two buffers. What a quiet stream needs is
// not counted, or idle clients would use the budget up.
func (s *stream) charge(a, b int) {
	held := int64(max(0, a-streamBatch) + max(0, b-streamBatch))
	if held != s.held {
		s.c.Reactor().srv.budget.used.Add(held - s.held)
		s.held = held
	}
}

func (s *stream) lend(batch []byte) {
	s.mu.Lock()
	s.batch = batch
	s.mu.Unlock()
	s.tell()
}

// await waits until the reactor is done with the batch lent last.
func (s *stream) await() bool {
	select {
	case <-s.returned:
		return true
	case <-s.quit:
		return false
	}
}

// tell asks the reactor to look, unless it was asked and has not yet.
func (s *stream) tell() {
	s.mu.Lock()
	told := s.told
	s.told = true
	s.mu.Unlock()
	if !told {
		s.c.Reactor().write(letter{kind: letterLook, conn: s.c})
	}
}

// replayConn reads prefix before it reads the connection.
type replayConn struct {
	net.Conn
	prefix []byte
}

func (r *replayConn) Read(p []byte) (int, error) {
	if len(r.prefix) > 0 {
		n := copy(p, r.prefix)
		r.prefix = r.prefix[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// --- the reactor's side ---

// look takes what the stream's goroutines have ready. Reactor thread.
func (c *Conn) look() {
	s, r := c.stream, c.Reactor()
	s.mu.Lock()
	s.told = false
	hello, batch, spent := s.hello, s.batch, s.spent
	s.hello, s.batch, s.spent = nil, nil, nil
	r.count.bytesIn += s.bytesIn
	r.count.bytesOut += s.bytesOut
	r.count.writes += s.writes
	s.bytesIn, s.bytesOut, s.writes = 0, 0, 0
	s.mu.Unlock()
	for spent != nil {
		next := spent.next
		c.outMem -= len(spent.buf)
		c.outFile -= spent.fileTotal
		r.recycle(spent)
		spent, c.lastWrite = next, r.now.MonoNanos
		c.stalledSince = 0
	}
	c.charge()
	if c.gone {
		return
	}
	if hello != nil && c.stream.first == firstUnknown {
		if err := c.welcome(hello.kind, hello.proxy); err != nil {
			c.Close(err)
			return
		}
	}
	if hello != nil {
		c.established, c.proven, c.Secure = true, true, hello.kind == firstTLS
	}
	if batch != nil {
		c.lastRead = r.now.MonoNanos
		c.in = batch
		c.handleHeld()
	}
	r.touch(c)
}

// giveBack returns the batch to the reader. Reactor thread.
func (s *stream) giveBack() {
	select {
	case s.returned <- struct{}{}:
	default:
		panic("BUG: batch given back twice")
	}
}

// send hands a chain of output to the writer. Reactor thread.
func (s *stream) send(head, tail *segment) {
	s.mu.Lock()
	if s.queueEnd == nil {
		s.queue = head
	} else {
		s.queueEnd.next = head
	}
	s.queueEnd = tail
	s.mu.Unlock()
	s.cond.Signal()
}

// close ends the stream: the writer may write what it has for a moment, the reader nothing more.
func (s *stream) close() {
	s.mu.Lock()
	s.closing = true
	s.parting = s.c.Reactor().draining && !s.c.Reactor().srv.force.Load()
	s.deadline = time.Now().Add(closeGrace)
	conn := s.conn
	s.mu.Unlock()
	conn.SetReadDeadline(time.Unix(1, 0))
	conn.SetWriteDeadline(s.deadline)
	close(s.quit) // behind the deadlines: part sets one of its own
	s.cond.Signal()
}

// part is the goodbye of drain.go, on the stream's goroutine, when everything is written.
func (s *stream) part() {
	s.mu.Lock()
	parting, conn := s.parting, s.conn
	s.mu.Unlock()
	if !parting {
		return
	}
	if t, ok := conn.(*tls.Conn); ok {
		if t.CloseWrite() != nil {
			return
		}
		conn = t.NetConn()
	}
	if replay, ok := conn.(*replayConn); ok {
		conn = replay.Conn
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok || tcp.CloseWrite() != nil {
		return
	}
	tcp.SetReadDeadline(time.Now().Add(s.c.Reactor().srv.partTime))
	io.Copy(io.Discard, tcp)
}

// abort is for a shutdown that has run out of time.
func (s *stream) abort() {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn() // Close of TLS would wait to say goodbye
	}
	conn.Close()
}
