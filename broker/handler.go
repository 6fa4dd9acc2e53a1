package broker

import (
	"bytes"
	"errors"
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
	acks ackQueue
	// appended: this turn stored messages. asked: some of them wait for a flush that nobody has asked for yet.
	appended, asked bool
	// committer carries out group commits on this thread; nil where the log's flusher does. waits says to the others that acks is not empty.
	committer  *commitlog.Committer
	group      groupCommit
	waits      atomic.Bool
	held       heldList
	ranges     []commitlog.Range
	pieces     [][]byte
	loans      []*loan // that are not in use
	nextExpiry int64

	inboxMu sync.Mutex
	inbox   []*heldPull // pulls whose queue got messages; filled by whoever dispatches
	woken   []*heldPull
}

const (
	// maxAcks bounds the acknowledgements that wait on one reactor; more are refused with SYSTEM_BUSY.
	maxAcks = 64 << 10
	// expireEvery is how often held pulls are looked through for those whose time is over, ns; ackEvery the same for acknowledgements,
	// which the flusher releases as a rule.
	expireEvery = int64(200 * time.Millisecond)
	ackEvery    = int64(100 * time.Millisecond)
)

// ackQueue counts, for each connection, the acknowledgements that wait. Its 12 MB are made with the first: under ASYNC_FLUSH there is none as
// a rule, and what lives makes the collector leave as much again unused.
type ackQueue struct{ *commitlog.Waiters[ack] }

func (q *ackQueue) Len() int {
	if q.Waiters == nil {
		return 0
	}
	return q.Waiters.Len()
}

func (q *ackQueue) Full() bool { return q.Waiters != nil && q.Waiters.Full() }

func (q *ackQueue) Add(end, deadline int64, a ack) bool {
	if q.Waiters == nil {
		q.Waiters = commitlog.NewWaiters[ack](maxAcks)
	}
	if !q.Waiters.Add(end, deadline, a) {
		return false
	}
	stateOf(a.conn).acks++
	return true
}

func (q *ackQueue) Next(reached, now int64) (a ack, late, ok bool) {
	if q.Waiters == nil {
		return a, false, false
	}
	if a, late, ok = q.Waiters.Next(reached, now); ok {
		stateOf(a.conn).acks--
	}
	return a, late, ok
}

// connState is what a connection carries for the broker.
type connState struct {
	held heldList // its held pulls
	acks int      // its acknowledgements in handler.acks
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
	h := &handler{b: b, reactor: r}
	stats := b.stats.lane(r.Index() + 1)
	h.send.b, h.send.stats = b, stats
	h.pull.b, h.pull.stats = b, stats
	b.addHandler(h)
	return h
}

// OnFrame runs one request on the reactor's thread.
func (h *handler) OnFrame(c *netpath.Conn, frame []byte) {
	if owner := c.Reactor(); owner != h.reactor {
		h.b.runAt(owner, c, frame)
		return
	}
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

// runAt runs a frame that came back from a lane after its connection had moved: at the reactor that has it now.
func (b *Broker) runAt(owner *netpath.Reactor, c *netpath.Conn, frame []byte) {
	frame = bytes.Clone(frame)
	for _, h := range b.allHandlers() {
		if h.reactor == owner && h.reactor.Post(func() {
			if !c.Closed() {
				h.OnFrame(c, frame)
			}
		}) {
			return
		}
	}
	var cmd remoting.Command
	if cmd.Decode(frame) == nil {
		b.answer(c, &cmd, refused(remoting.RespSystemBusy, laneOverload))
	}
}

// Movable lets a connection go to another reactor while none of its pulls is held here, none of its sends waits to be acknowledged, and
// none is on the put lane, which would bring its acknowledgement here. See netpath.Mover.
func (h *handler) Movable(c *netpath.Conn) bool {
	st, ok := c.User.(*connState)
	return !ok || st.held.count == 0 && st.acks == 0 && st.waiting.Load() == 0
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
		if h.appended = !h.b.store.Dispatch(); h.appended {
			h.reactor.SetTimer(now.MonoNanos) // another thread is at it: see to the rest in a turn that follows at once
		}
	}
	h.commit(now)
	h.countTurn()
	h.releaseAcks(now)
	h.runWoken(now)
	if now.MonoNanos >= h.nextExpiry {
		h.nextExpiry = now.MonoNanos + expireEvery
		h.expireHeld(now)
	}
	if h.held.count > 0 {
		h.reactor.SetTimer(h.nextExpiry)
	}
	if h.acks.Len() > 0 {
		h.reactor.SetTimer(now.MonoNanos + ackEvery)
	}
}

// commit has what this turn stored flushed where somebody waits for it, and takes what has been.
func (h *handler) commit(now netpath.Clock) {
	if h.committer == nil {
		if h.asked {
			h.b.store.Log().RequestFlush()
		}
		h.asked = false
		h.waits.Store(h.acks.Len() > 0)
		return
	}
	// What this thread moves on itself it need not be woken for.
	h.waits.Store(false)
	if wait := h.group.wait(h.acks.Len(), now.MonoNanos); !h.asked {
		h.committer.Look()
	} else if wait > 0 {
		h.committer.Look()
		h.reactor.SetTimer(now.MonoNanos + wait)
	} else {
		h.group.begin(now.MonoNanos)
		h.committer.Commit()
		h.asked = false
	}
	h.waits.Store(h.acks.Len() > 0)
}

// hostCommits lets the reactors carry out group commits where the log's engine can do that. Before Server.Start.
func (b *Broker) hostCommits() error {
	for _, h := range b.allHandlers() {
		c, err := b.store.Log().NewCommitter()
		if errors.Is(err, commitlog.ErrNotHosted) {
			return nil
		}
		if err == nil {
			err = h.reactor.Watch(c.FD())
		}
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return err
		}
		h.committer = c
	}
	return nil
}

// millisSince is the time since a moment of the monotonic clock (ns).
func millisSince(began int64) int64 {
	return (netpath.ReadClock().MonoNanos - began) / int64(time.Millisecond)
}

// flushed and arrived are called from other threads.

func (b *Broker) flushed() {
	for _, h := range b.allHandlers() {
		if h.waits.Load() {
			h.reactor.Wake()
		}
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
