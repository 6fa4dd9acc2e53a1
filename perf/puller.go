package perf

import (
	"errors"
	"fmt"
	"math"
	"net"
	"runtime"
	"sync/atomic"
)

// suspendMillis is how long a broker may hold a pull that finds nothing; what is beyond it and suspendSlack has got lost.
const (
	suspendMillis = 15_000
	suspendSlack  = 15_000
)

// A pull's opaque is a number that differs from the queue's last, above the queue's place in its connection.
const (
	pullIndexBits = 20
	pullIndexMask = 1<<pullIndexBits - 1
)

// errorPause is how long a queue rests after an error.
const errorPause = int64(100e6)

// Latencies that a puller records.
const (
	latencyRead     = iota // end to end, or of the pull in a drain
	latencyAfterAck        // end to end: since the sender had its acknowledgement
)

// pullQueue is one queue that is read. It has at most one request in flight.
type pullQueue struct {
	*queueCheck
	next   int64 // the offset to pull
	began  int64 // the offset where reading began
	flying bool
	opaque int32
	asked  int64 // when the request was sent
	rest   int64 // no request before this time
	passes int   // how often it is to be read again when its end has been reached
	left   int   // answers that the request in flight may still have, where it has several
	// acks, by stream, say when the messages of this run were acknowledged; nil: nobody asks.
	acks []*ackTimes
	// limit is where to stop: no queue offset from it on is read. The run sets it when it knows.
	limit atomic.Int64
}

func (q *pullQueue) done() bool { return q.next >= q.limit.Load() }

// pullConn is one connection that pulls.
type pullConn struct {
	puller *puller
	addr   string
	sock   *socket
	in     inbox
	out    []byte
	sent   int
	queues []*pullQueue
	round  int32
	wire   pullWire
	answer pullAnswer
}

// puller is a worker that reads. Its fields are its own, but for those that are atomic.
type puller struct {
	config   *Config
	clock    *clock
	poller   *poller
	conns    []*pullConn
	recorder *recorder
	drain    bool   // no long polls; latency is that of the pull
	own      uint64 // record end-to-end latency of this generator's messages only; 0: of all

	measureFrom int64 // intended send times from here on are measured, on the clock
	measureTo   atomic.Int64

	stopped atomic.Bool
	ended   chan struct{}
	heard   atomic.Int64 // when the last message came
	// received counts every record, for those who wait for a number of them.
	received atomic.Int64

	errors   map[int32]int64
	problems []string
	measured int64
	lastRead int64
	failure  error
	message  received
}

func (p *puller) connect() error {
	for _, c := range p.conns {
		conn, err := net.DialTimeout("tcp", c.addr, p.config.Timeout)
		if err != nil {
			return fmt.Errorf("connect to broker: %w", err)
		}
		if c.sock, err = p.poller.add(conn, c); err != nil {
			return err
		}
		c.out = c.wire.hello(c.out)
	}
	return nil
}

func (p *puller) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.ended)
	nextTick := int64(0)
	for !p.stopped.Load() {
		now := p.clock.now()
		p.recorder.turn(now)
		if now >= nextTick {
			p.expire(now)
			if p.askAll(now) == 0 {
				break
			}
			nextTick = now + tick
		}
		ready, err := p.poller.wait(now, nextTick)
		for _, sock := range ready {
			if err == nil {
				err = sock.owner.(*pullConn).readable()
			}
		}
		if err != nil && p.failure == nil {
			p.failure = err
		}
		if p.failure != nil {
			break
		}
	}
	p.recorder.finish()
}

// askAll sends a request for every queue that has none in flight, and returns how many queues are not done. It runs every tick;
// between ticks a queue is asked for again as soon as it has answered.
func (p *puller) askAll(now int64) (open int) {
	for _, c := range p.conns {
		for i, q := range c.queues {
			if !q.done() {
				open++
				c.askAgain(int32(i), q, now)
			}
		}
		if err := c.flush(); err != nil {
			p.failure = err
			return 0
		}
	}
	return open
}

func (c *pullConn) askAgain(index int32, q *pullQueue, now int64) {
	if !q.flying && now >= q.rest && !q.done() {
		c.encode(index, q, now)
	}
}

func (c *pullConn) encode(index int32, q *pullQueue, now int64) {
	if c.sent == len(c.out) {
		c.out, c.sent = c.out[:0], 0
	}
	// The round makes a late answer to an earlier request of this queue different.
	c.round++
	q.opaque = (c.round%1024)<<pullIndexBits | index
	q.flying, q.asked = true, now
	c.out = c.wire.ask(c.out, q, !c.puller.drain)
}

func (c *Config) subscription() string {
	if c.Tag == "" {
		return "*"
	}
	return c.Tag
}

func (c *pullConn) flush() error {
	if c.sent == len(c.out) {
		return nil
	}
	n, err := c.sock.write(c.out[c.sent:])
	c.sent += n
	if err != nil && !errors.Is(err, errAgain) {
		return fmt.Errorf("connection to %s: %w", c.addr, err)
	}
	return nil
}

func (c *pullConn) readable() error {
	for {
		whole, err := c.in.fill(c.sock)
		now := c.puller.clock.now()
		for err == nil {
			var size int
			if size, err = c.wire.next(c.in.rest(), &c.answer); size == 0 {
				break
			}
			c.in.take(size)
			c.take(&c.answer, now)
		}
		switch {
		case err != nil && !errors.Is(err, errAgain):
			return fmt.Errorf("connection to %s: %w", c.addr, err)
		case err != nil || !whole:
			return c.flush()
		}
	}
}

// take takes the answer to a pull.
func (c *pullConn) take(a *pullAnswer, now int64) {
	c.out = append(c.out, a.reply...)
	index := a.opaque & pullIndexMask
	if a.outcome == outcomeNone || int(index) >= len(c.queues) {
		return
	}
	q := c.queues[index]
	if !q.flying || q.opaque != a.opaque {
		return
	}
	q.flying = false
	if a.more {
		q.left--
		q.flying = q.left > 0
	}
	switch {
	case a.outcome == outcomeFound:
		c.found(q, a, now)
	case a.outcome == outcomeNothing:
		if c.puller.drain {
			q.rest = now + errorPause
		}
	case a.outcome == outcomeUnclear:
		c.puller.failed(q, codeUnreadable, string(a.remark), now)
	case a.outcome == outcomeAgain && a.next > q.next:
		q.next = a.next
	case a.outcome == outcomeAgain:
		q.rest = now + errorPause
	case a.outcome == outcomeMoved && a.next > q.next:
		// What was there is gone: the check will say how many offsets are missing.
		q.next = a.next
	default:
		c.puller.failed(q, a.code, string(a.remark), now)
	}
	if q.done() {
		c.puller.again(q)
	}
	c.askAgain(index, q, now)
}

func (c *pullConn) found(q *pullQueue, a *pullAnswer, now int64) {
	end := c.puller.records(c.wire, q, a.records, now)
	next := a.next
	if next < 0 {
		next = max(end, q.next)
	}
	if next <= q.next {
		// To ask for the same again and again would never end.
		q.found.OffsetBack++
		q.problem("pull at %d found messages, and is told to go on at %d", q.next, next)
		next = max(q.expect, q.next+1)
		q.rest = now + errorPause
	}
	q.next = next
}

func (p *puller) failed(q *pullQueue, code int32, remark string, now int64) {
	p.errors[code]++
	q.rest = now + errorPause
	if p.errors[code] == 1 && len(p.problems) < maxProblems {
		p.problems = append(p.problems, fmt.Sprintf("pull of %s queue %d from %s at %d: %s %s", q.queue.topic, q.queue.id, q.queue.addr, q.next, codeName(code), remark))
	}
	p.recorder.current.failed++
}

// records checks the records of one answer, and gives the offset behind the last one.
func (p *puller) records(wire pullWire, q *pullQueue, records []byte, now int64) (end int64) {
	current := p.recorder.current
	before, limit := current.messages, q.limit.Load()
	var s stamp
	m := &p.message
	current.records += int64(len(records))
	for len(records) > 0 {
		left := len(records)
		var err error
		if records, err = wire.record(records, m); err != nil {
			q.found.Corrupt++
			q.problem("answer of %d bytes left cannot be read: %v", left, err)
			break
		}
		if m.offset < 0 || m.early && m.offset < q.next {
			continue
		}
		if end = m.offset + 1; m.offset >= limit {
			break
		}
		if p.config.Tag != "" {
			q.expect = -1
		}
		ours := q.queueCheck.record(m, &s)
		current.messages++
		current.bytes += int64(len(m.body))
		sent := s.time - p.clock.wall
		if ours && !p.drain && (p.own == 0 || p.own == s.generator) && sent >= p.measureFrom {
			record(current.latencies[latencyRead], now-sent)
			if int(s.stream) < len(q.acks) && q.acks[s.stream] != nil {
				record(current.latencies[latencyAfterAck], now-q.acks[s.stream].get(s.sequence, now))
			}
		}
		if now >= p.measureFrom && now < p.measureTo.Load() {
			p.measured++
		}
	}
	if p.drain {
		record(current.latencies[latencyRead], now-q.asked)
	}
	p.lastRead = now
	p.heard.Store(now)
	p.received.Add(current.messages - before)
	return end
}

// again begins with a queue from its beginning, where the run reads it several times.
func (p *puller) again(q *pullQueue) {
	if q.passes <= 0 {
		return
	}
	q.passes--
	q.flying = false
	found, problems := q.found, q.problems
	*q.queueCheck = *newQueueCheck(q.queue, q.began)
	q.found, q.problems = found, problems
	q.next = q.began
}

// expire asks again where an answer is overdue.
func (p *puller) expire(now int64) {
	limit := now - (suspendMillis+suspendSlack)*1e6
	if p.drain {
		limit = now - int64(p.config.Timeout)
	}
	for _, c := range p.conns {
		for _, q := range c.queues {
			if q.flying && q.asked < limit {
				q.flying = false
				p.failed(q, codeTimeout, "", now)
			}
		}
	}
}

const noLimit = math.MaxInt64
