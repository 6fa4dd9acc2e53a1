package broker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
	"github.com/ringmq/ringmq/store"
)

// handler is one reactor's share of the broker: its scratch memory, the acknowledgements and the pulls that wait on its
// connections. Everything in it belongs to the reactor's thread but the inbox.
type handler struct {
	b       *Broker
	reactor *netpath.Reactor

	cmd   remoting.Command
	queue remoting.QueueHeader
	send  sender
	pull  puller

	// acks wait for the log to be flushed, in log order.
	acks *commitlog.Waiters[ack]
	// appended: this turn stored messages. asked: some of them wait for a flush that nobody has asked for yet.
	appended, asked bool
	// sent are the sends answered in this turn, for the statistics of its end.
	sent       []sentTo
	held       heldList
	ranges     []commitlog.Range
	nextExpiry int64

	inboxMu sync.Mutex
	inbox   []*heldPull // pulls whose queue got messages; filled by whoever dispatches
	woken   []*heldPull
}

// sentTo is where a message went.
type sentTo struct {
	topic   *Topic
	queueID int32
}

const (
	// maxAcks bounds the acknowledgements that wait on one reactor; more are refused with SYSTEM_BUSY.
	maxAcks = 64 << 10
	// expireEvery is how often held pulls are looked through for those whose time is over.
	expireEvery = int64(200 * time.Millisecond)
)

// connState is what a connection carries for the broker.
type connState struct {
	held heldList // its held pulls
	// waiting are its sends on the put lane. The reactor adds, the lane takes away.
	waiting atomic.Int32
}

// waitingOf is the number of sends of c on the put lane.
func waitingOf(c *netpath.Conn) int32 {
	if st, ok := c.User.(*connState); ok {
		return st.waiting.Load()
	}
	return 0
}

func newHandler(b *Broker, r *netpath.Reactor) *handler {
	h := &handler{b: b, reactor: r, acks: commitlog.NewWaiters[ack](maxAcks)}
	stats := b.stats.lane(r.Index() + 1)
	h.send.b, h.send.stats = b, stats
	h.pull.b, h.pull.stats = b, stats
	b.addHandler(h)
	return h
}

// OnFrame runs one request on the reactor's thread.
func (h *handler) OnFrame(c *netpath.Conn, frame []byte) {
	if err := h.cmd.Decode(frame); err != nil {
		c.Close(err)
		return
	}
	if h.cmd.IsResponse() {
		h.b.calls.answered(c, &h.cmd)
		return
	}
	rt := h.b.routes.find(h.cmd.Code)
	switch {
	case rt == nil:
		h.reply(c, remoting.RespRequestCodeNotSupported, unsupportedRemark(h.cmd.Code))
	case rt.hot != nil:
		rt.hot(h, c)
	case !h.b.lanes[rt.lane].Submit(c, frame, rt.run):
		h.reply(c, remoting.RespSystemBusy, laneOverload)
	}
}

const laneOverload = "[OVERLOAD]too many requests of this kind are waiting, try again later"

// reply answers the request in h.cmd without a body.
func (h *handler) reply(c *netpath.Conn, code int32, remark string) {
	if h.cmd.IsOneway() {
		return
	}
	w := remoting.Respond(c.Begin(), &h.cmd, code, remark)
	c.End(w.Finish(nil))
}

// replyError answers with the code that belongs to err.
func (h *handler) replyError(c *netpath.Conn, err error) {
	code, remark := codeOf(err)
	h.reply(c, code, remark)
}

// OnClose forgets the connection.
func (h *handler) OnClose(c *netpath.Conn) {
	if st, ok := c.User.(*connState); ok {
		for p := st.held.first; p != nil; p = st.held.first {
			h.drop(p)
		}
	}
	h.b.connectionClosed(c)
}

func stateOf(c *netpath.Conn) *connState {
	st, ok := c.User.(*connState)
	if !ok {
		st = &connState{}
		c.User = st
	}
	return st
}

// OnTurn ends a turn: entries for what it stored, a flush where one is waited for, acknowledgements whose time has come, pulls whose
// messages have.
func (h *handler) OnTurn(now netpath.Clock) {
	if h.appended {
		h.appended = false
		h.b.store.Dispatch()
	}
	if h.asked {
		h.asked = false
		h.b.store.Log().RequestFlush()
	}
	h.releaseAcks(now)
	h.runWoken(now)
	h.countSent(now)
	if now.MonoNanos >= h.nextExpiry {
		h.nextExpiry = now.MonoNanos + expireEvery
		h.expireHeld(now)
	}
}

// countSent counts how long the turn's sends took. Their answers leave together when it ends, so one look at the clock serves them all.
func (h *handler) countSent(now netpath.Clock) {
	if len(h.sent) == 0 {
		return
	}
	millis := millisSince(now.MonoNanos)
	for i, s := range h.sent {
		h.send.stats.putTook(s.topic, s.queueID, millis)
		h.sent[i] = sentTo{}
	}
	h.sent = h.sent[:0]
}

// millisSince is the time since a moment of the monotonic clock (ns).
func millisSince(began int64) int64 {
	return (netpath.ReadClock().MonoNanos - began) / int64(time.Millisecond)
}

// flushed and arrived are called from other threads.

func (b *Broker) flushed() {
	for _, h := range b.allHandlers() {
		h.reactor.Wake()
	}
}

// arrived wakes the pulls that are held on q: each runs again on the reactor that owns its connection.
func (b *Broker) arrived(q *store.ConsumeQueue) {
	b.longPoll.take(q, func(p *heldPull) {
		h := p.owner
		h.inboxMu.Lock()
		h.inbox = append(h.inbox, p)
		h.inboxMu.Unlock()
		h.reactor.Wake()
	})
}

func (h *handler) runWoken(now netpath.Clock) {
	h.inboxMu.Lock()
	h.inbox, h.woken = h.woken[:0], h.inbox
	h.inboxMu.Unlock()
	for i, p := range h.woken {
		h.woken[i] = nil
		h.resume(p, now, false)
	}
}
