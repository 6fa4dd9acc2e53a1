package perf

import (
	"errors"
	"fmt"
	"math/bits"
	"net"
	"sync/atomic"
	"time"
)

// Outcomes that have no response code; they count among the errors under these numbers.
const (
	codeTimeout    int32 = -1
	codeConnection int32 = -2
	codeUnreadable int32 = -3
	codeUnsent     int32 = -4
)

// sendQueue is one queue as one sender sees it.
type sendQueue struct {
	*queue
	template template
	offsets  bitset // the queue offsets of the answers, counted from queue.base
}

// lane is what one stream sends to one queue.
type lane struct {
	*sendQueue
	next uint64 // sequence of the next message
	// settled: every message below has its outcome. Invariant: settled <= next.
	settled uint64
	done    bitset    // which messages have their outcome
	acked   bitset    // which were acknowledged with code 0
	floor   int64     // highest queue offset that was answered; -1 before the first
	acks    *ackTimes // nil unless a reader of the same run wants to know
}

func (l *lane) settle(sequence uint64) {
	_, _ = l.done.set(sequence)
	for l.settled < l.next && l.done.has(l.settled) {
		l.settled++
	}
}

// request is one send request in flight.
type request struct {
	opaque   uint32
	used     bool
	lane     int32
	sequence uint64 // of its first message
	intended int64
	sent     int64
	floor    int64 // lane.floor when it was sent: its offset must be higher
}

// stream is one connection that sends. It belongs to its sender.
type stream struct {
	sender *sender
	id     uint32
	addr   string
	sock   *socket // nil while there is no connection
	redial atomic.Pointer[net.TCPConn]
	retry  int64 // when to dial again; 0: a dial is under way

	in       inbox
	out      []byte // out[sent:] is not written yet
	sent     int
	dirty    bool // in sender.dirty
	lanes    []lane
	nextLane int
	// requests is a ring; request n is at n & mask. Invariant: tail <= head <= tail + len(requests).
	requests   []request
	mask       uint32
	head, tail uint32
	inFlight   int
	wire       sendWire
	outgoing   outgoing
	answered   sendAnswer
}

// ringSize is how many requests a stream can have in flight. It is generous even for a small depth, since one answer that is late
// holds its place in the ring while others come and go.
func ringSize(depth int, rate float64) int {
	n := max(1024, 4*depth)
	if rate > 0 {
		n = max(n, 16384)
	}
	return 1 << bits.Len(uint(n-1))
}

// maxOut is how many bytes a stream lets pile up before it stops to encode.
const maxOut = 1 << 20

func newStream(s *sender, id int, addr string, lanes []lane, wire sendWire) *stream {
	size := ringSize(s.config.Depth, s.config.Rate)
	st := &stream{
		sender: s, id: uint32(id), addr: addr, lanes: lanes, nextLane: id % len(lanes), wire: wire,
		requests: make([]request, size), mask: uint32(size - 1),
		out: make([]byte, 0, maxOut+lanes[0].template.size()),
	}
	st.outgoing.born = &s.born
	putHex(st.outgoing.uniq[:16], s.generator)
	putHex(st.outgoing.uniq[16:20], uint64(id))
	return st
}

// canSend tells whether a request can be encoded now.
func (st *stream) canSend() bool {
	return st.sock != nil && len(st.out)-st.sent < maxOut && !st.requests[st.head&st.mask].used
}

// encode adds one request to out.
func (st *stream) encode(intended, now int64) {
	s := st.sender
	at := st.nextLane
	l := &st.lanes[at]
	if st.nextLane++; st.nextLane == len(st.lanes) {
		st.nextLane = 0
	}
	opaque := firstOpaque + st.head%opaqueCount
	st.requests[st.head&st.mask] = request{
		opaque: opaque, used: true, lane: int32(at), sequence: l.next, intended: intended, sent: now, floor: l.floor,
	}
	st.head++
	st.inFlight++
	if st.sent == len(st.out) {
		st.out, st.sent = st.out[:0], 0
	}
	o := &st.outgoing
	o.opaque, o.lane = opaque, l
	o.stamp = stamp{generator: s.generator, stream: st.id, queue: uint32(l.id), settled: l.settled, time: s.clock.wall + intended}
	st.out = l.template.append(st.out, o)
	st.touch()
}

// touch has the sender write at the end of its turn.
func (st *stream) touch() {
	s := st.sender
	if !st.dirty {
		st.dirty = true
		s.dirty = append(s.dirty, st)
	}
}

// flush writes what is encoded: one write, unless the server does not keep up.
func (st *stream) flush() {
	st.dirty = false
	if st.sock == nil || st.sent == len(st.out) {
		return
	}
	n, err := st.sock.write(st.out[st.sent:])
	st.sent += n
	if err != nil && !errors.Is(err, errAgain) {
		st.fail(err)
		return
	}
	if rest := len(st.out) - st.sent; st.sent > maxOut/2 && rest > 0 {
		// Keep the room: out never grows beyond what newStream gave it.
		st.out, st.sent = st.out[:copy(st.out, st.out[st.sent:])], 0
	}
}

// readable handles what has come in. The time of an answer is when its bytes were read.
func (st *stream) readable() {
	for {
		whole, err := st.in.fill(st.sock)
		now := st.sender.clock.now()
		for err == nil {
			var size int
			if size, err = st.wire.next(st.in.rest(), &st.answered); size == 0 {
				break
			}
			st.in.take(size)
			st.answer(&st.answered, now)
		}
		switch {
		case errors.Is(err, errAgain):
			return
		case err != nil:
			st.fail(err)
			return
		case !whole:
			return
		}
	}
}

// answer settles the request that a answers. What is no answer, and an answer that comes after its time-out, are passed over.
func (st *stream) answer(a *sendAnswer, now int64) {
	if len(a.reply) > 0 {
		st.out = append(st.out, a.reply...)
		st.touch()
	}
	n := a.opaque - firstOpaque
	if a.outcome == outcomeNone || n >= opaqueCount {
		return
	}
	r := &st.requests[n&st.mask]
	if !r.used || r.opaque != a.opaque {
		return
	}
	r.used = false
	st.inFlight--
	l := &st.lanes[r.lane]
	st.sender.answered(st, l, r, a, now)
	for i := range uint64(st.sender.config.Batch) {
		l.settle(r.sequence + i)
	}
}

// expire gives up on requests that are older than the time limit. Their outcome stays unknown, so they do not settle.
func (st *stream) expire(now int64) {
	limit := now - int64(st.sender.config.Timeout)
	for ; st.tail != st.head; st.tail++ {
		r := &st.requests[st.tail&st.mask]
		if !r.used {
			continue
		}
		if r.sent > limit {
			return
		}
		r.used = false
		st.inFlight--
		st.sender.unknown(st, r, codeTimeout)
	}
}

// fail drops the connection and everything in flight on it, and dials again later. What was in flight can no longer be stored
// after anything that is sent from now on, so it settles.
func (st *stream) fail(err error) {
	s := st.sender
	s.problem(fmt.Sprintf("connection to %s: %v", st.addr, err))
	st.sock.close()
	st.sock = nil
	st.in.reset()
	st.out, st.sent = st.out[:0], 0
	for ; st.tail != st.head; st.tail++ {
		r := &st.requests[st.tail&st.mask]
		if !r.used {
			continue
		}
		r.used = false
		s.unknown(st, r, codeConnection)
		l := &st.lanes[r.lane]
		for i := range uint64(s.config.Batch) {
			l.settle(r.sequence + i)
		}
	}
	st.inFlight = 0
	st.retry = s.clock.now() + int64(redialAfter)
}

// reconnect dials in the background and takes the new connection over; the sender calls it every tick.
func (st *stream) reconnect(now int64) {
	if c := st.redial.Swap(nil); c != nil {
		sock, err := st.sender.poller.add(c, st)
		if err != nil {
			st.sender.problem(err.Error())
			st.retry = now + int64(redialAfter)
			return
		}
		st.sock = sock
		st.greet()
		return
	}
	if st.retry == 0 || now < st.retry {
		return
	}
	st.retry = 0
	go st.dialAgain()
}

// greet says what a fresh connection says first.
func (st *stream) greet() {
	if st.out = st.wire.hello(st.out); len(st.out) > 0 {
		st.touch()
	}
}

func (st *stream) dialAgain() {
	for !st.sender.stopped.Load() {
		c, err := net.DialTimeout("tcp", st.addr, redialAfter*5)
		if err == nil {
			st.redial.Store(c.(*net.TCPConn))
			st.sender.poller.wake()
			return
		}
		select {
		case <-st.sender.ended:
			return
		case <-time.After(redialAfter):
		}
	}
}
