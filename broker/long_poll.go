package broker

import (
	"bytes"
	"sync"
	"time"

	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
	"github.com/ringmq/ringmq/store"
)

// In the walk of one message: before this, store/dispatch.go gave a queue its entries; after this, pull.go runs the woken pull.
//
// A pull that finds its queue at the end is held until messages arrive or its time is over. It is a row in the table below, and a link in
// two lists that belong to its reactor; no goroutine and no timer. Whoever dispatches takes the rows of the queue out and puts them into
// their reactors' inboxes; the reactor runs the pull again, within the same turn when it dispatched itself. Does the work of
// PullRequestHoldService.

// heldPull is one pull that waits. It belongs to its reactor; the table below has it only while waiting is true.
type heldPull struct {
	owner    *handler
	conn     *netpath.Conn
	frame    []byte // the request without its body, copied: it runs again from there
	queue    *store.ConsumeQueue
	offset   int64
	deadline int64 // ns, monotonic
	waiting  bool  // guarded by the table's shard
	done     bool  // answered or dropped; the reactor's

	next, prev         *heldPull // the reactor's list
	nextConn, prevConn *heldPull // the connection's list
}

// heldList is a doubly linked list of held pulls, by one of their two pairs of links.
type heldList struct {
	first *heldPull
	count int
	bytes int // of their frames
}

const (
	pollShards = 64
	// maxHeld bounds the pulls held in all; more are answered at once, as if their time were over.
	maxHeld = 200_000
	// maxHeldBytes bounds their requests in the same way. A client's own has some 500 bytes.
	maxHeldBytes = 128 << 20
	// maxSuspend is the longest that a pull is held, whatever it asks for: clients ask for 15 or 20 seconds.
	maxSuspend = int64(24 * time.Hour / time.Millisecond)
)

// longPolls is the table of held pulls by queue.
type longPolls struct {
	shards [pollShards]struct {
		mu   sync.Mutex
		held map[*store.ConsumeQueue][]*heldPull
		_    [40]byte
	}
}

func (l *longPolls) shard(q *store.ConsumeQueue) int {
	return int(uint32(q.QueueID)*31+uint32(len(q.Topic))) % pollShards
}

func (l *longPolls) add(p *heldPull) {
	s := &l.shards[l.shard(p.queue)]
	s.mu.Lock()
	if s.held == nil {
		s.held = map[*store.ConsumeQueue][]*heldPull{}
	}
	s.held[p.queue] = append(s.held[p.queue], p)
	p.waiting = true
	p.queue.Waiters.Add(1)
	s.mu.Unlock()
}

// take removes all pulls of q and gives them to each.
func (l *longPolls) take(q *store.ConsumeQueue, each func(*heldPull)) {
	s := &l.shards[l.shard(q)]
	s.mu.Lock()
	held := s.held[q]
	delete(s.held, q)
	for _, p := range held {
		p.waiting = false
	}
	q.Waiters.Add(-int32(len(held)))
	s.mu.Unlock()
	for _, p := range held {
		each(p)
	}
}

// remove takes p out; false: it was taken before.
func (l *longPolls) remove(p *heldPull) bool {
	s := &l.shards[l.shard(p.queue)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.waiting {
		return false
	}
	p.waiting = false
	p.queue.Waiters.Add(-1)
	held := s.held[p.queue]
	for i, other := range held {
		if other == p {
			held[i] = held[len(held)-1]
			held[len(held)-1] = nil
			held = held[:len(held)-1]
			break
		}
	}
	if len(held) == 0 {
		delete(s.held, p.queue)
	} else {
		s.held[p.queue] = held
	}
	return true
}

// shouldHold tells whether what get found is worth waiting for.
func (p *puller) shouldHold() bool {
	return p.hdr.SysFlag&remoting.PullSuspend != 0 && pullCode(p.get.Status, p.hdr.QueueOffset) == remoting.RespPullNotFound
}

// hold lets the pull in h.cmd wait for messages.
func (h *handler) hold(c *netpath.Conn, q *store.ConsumeQueue, now netpath.Clock) {
	p := &h.pull
	if q == nil {
		// The queue appears with its first message; make it now, so that there is something to wait on.
		var err error
		if q, err = h.b.store.EnsureQueue(string(p.hdr.Topic), p.hdr.QueueID); err != nil {
			h.replyError(c, err)
			return
		}
	}
	frame := h.cmd.Frame()
	frame = frame[:len(frame)-len(h.cmd.Body)]
	if reactors := len(h.b.allHandlers()); h.held.count >= maxHeld/reactors || h.held.bytes+len(frame) > maxHeldBytes/reactors || h.cmd.IsOneway() {
		h.replyPull(c, remoting.RespPullNotFound, p.remark(), p.get.Next, nil)
		return
	}
	wait := p.hdr.SuspendMillis
	if cfg := h.b.cfg.Load(); !cfg.LongPollingEnable {
		wait = cfg.ShortPollingTimeMills
	}
	held := &heldPull{owner: h, conn: c, frame: bytes.Clone(frame), queue: q, offset: p.hdr.QueueOffset,
		deadline: now.MonoNanos + min(max(wait, 0), maxSuspend)*int64(time.Millisecond)}
	h.link(held)
	h.wait(held, now)
}

// wait puts p into the table, and takes it out again if its message has come in between.
func (h *handler) wait(p *heldPull, now netpath.Clock) {
	h.b.longPoll.add(p)
	if p.queue.Max() > p.offset && h.b.longPoll.remove(p) {
		h.resume(p, now, false)
	}
}

// resume runs a held pull again: because messages arrived, or, with last, because its time is over.
func (h *handler) resume(p *heldPull, now netpath.Clock, last bool) {
	if p.done {
		return
	}
	if p.conn.Closed() {
		h.drop(p)
		return
	}
	pl := &h.pull
	if h.cmd.Decode(p.frame) != nil || pl.hdr.Decode(&h.cmd) != nil {
		h.drop(p)
		return
	}
	v, forbidden := pl.check(&h.cmd, p.conn)
	if v.code == sendWaits { // its group was deleted meanwhile
		h.drop(p)
		h.toLane(p.conn, laneControl, h.pullOfNewGroup)
		return
	}
	if v.code != sendReady {
		h.drop(p)
		h.replyPullError(p.conn, v, forbidden)
		return
	}
	pl.limits()
	err := pl.get.Do(h.b.store, p.queue, p.offset, int(pl.hdr.MaxMsgNums), false)
	if err == nil && !last && pl.get.Status != store.GetFound && now.MonoNanos < p.deadline {
		// What arrived is not for this consumer: it goes on waiting, from behind it.
		if pl.get.Status == store.GetNoMatchedMessage {
			p.offset = pl.get.Next
		}
		if pl.get.Status == store.GetNoMatchedMessage || pl.get.Status == store.GetOffsetOverflowOne || pl.get.Status == store.GetNoMessageInQueue {
			h.wait(p, now)
			return
		}
	}
	h.drop(p)
	if err == nil && pl.get.Status == store.GetOffsetOverflowOne {
		h.replyPull(p.conn, remoting.RespPullNotFound, pl.remark(), p.offset, nil)
		return
	}
	h.answerPull(p.conn, err, now)
}

// expireHeld answers the pulls whose time is over.
func (h *handler) expireHeld(now netpath.Clock) {
	for p := h.held.first; p != nil; {
		next := p.next
		if now.MonoNanos >= p.deadline && h.b.longPoll.remove(p) {
			h.resume(p, now, true)
		}
		if next != nil && next.done {
			return // the list changed under us; the rest is looked at next time
		}
		p = next
	}
}

// link adds p to its reactor's and its connection's list.
func (h *handler) link(p *heldPull) {
	p.next = h.held.first
	if p.next != nil {
		p.next.prev = p
	}
	h.held.first = p
	h.held.count++
	h.held.bytes += len(p.frame)
	l := &stateOf(p.conn).held
	p.nextConn = l.first
	if p.nextConn != nil {
		p.nextConn.prevConn = p
	}
	l.first = p
	l.count++
}

// drop forgets p, wherever it is.
func (h *handler) drop(p *heldPull) {
	if p.done {
		return
	}
	p.done = true
	h.b.longPoll.remove(p)
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		h.held.first = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	}
	h.held.count--
	h.held.bytes -= len(p.frame)
	l := &stateOf(p.conn).held
	if p.prevConn != nil {
		p.prevConn.nextConn = p.nextConn
	} else {
		l.first = p.nextConn
	}
	if p.nextConn != nil {
		p.nextConn.prevConn = p.prevConn
	}
	l.count--
}
