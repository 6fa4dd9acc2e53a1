package netpath

import "time"

// Rebalancing. A new connection goes to the reactor with the fewest, but connections differ in load: two busy ones may share a reactor
// while another sleeps. So each reactor compares itself with the others once a second, by the time that their turns took, and the
// busiest gives connections to the least busy when it is so by far, and was a second ago.
//
// What keeps connections from going to and fro: the difference must be large, and found twice in a row; what moves is at most half of
// it; in one second only one reactor of a server moves anything; and a connection that came stays for a while. A single connection
// that makes all the load never moves: its share is the whole difference.
//
// # The invariant of a move
//
// Conn.reactor changes only in give: on the thread of the reactor it leaves, at the end of a turn, with the mail of both locked, and
// together with the letterMoved that the other one finds; and only while no letter about the connection, and no posted function, is in the
// mail of the reactor it leaves. Whoever writes a letter about a connection does it under the lock of the reactor that the connection
// belongs to (Conn.deliver). Therefore
//
//   - a letter about a connection is always in the mail of the connection's reactor, behind its letterMoved; none is ever forwarded, and
//     what one goroutine sends keeps its order;
//   - the new reactor's thread sees everything that the old one's did to the connection, and the old one does nothing to it afterwards;
//   - a function that was posted while the connection was here has run before it leaves.

// Mover is a Handler whose connections may go on at another reactor. The handlers of a server's reactors are of one kind: the other one's
// gets the connection's next frame, with Conn.User as it is.
type Mover interface {
	Handler
	// Movable says whether nothing that this handler keeps for its reactor refers to c, and nobody will call it, on this reactor's thread,
	// for c. It is asked at the end of a turn. What other goroutines do by Conn.Send and Conn.Close needs no care.
	Movable(c *Conn) bool
}

// Rebalance says whether connections move between reactors.
type Rebalance int

const (
	// RebalanceAuto moves them where there are several reactors with pollers, and the Handler is a Mover.
	RebalanceAuto Rebalance = iota
	RebalanceOff
)

const (
	balanceEvery = time.Second
	// moveRest is how long a connection stays where it came to.
	moveRest = 10 * time.Second
	// A reactor gives connections away if it is busy for more than minBusy of the time, and by minGap and half as much again busier than
	// the least busy one.
	minBusy = 0.25
	minGap  = 0.2
	// maxMoves bounds the connections that move at once, scanned those that are looked at for them.
	maxMoves, scanned = 16, 1024
	// effortBytes are the bytes whose way through a socket costs about as much as the handling of a small frame.
	effortBytes = 8 << 10
)

// balancer is what a reactor does about its load. Its thread's.
type balancer struct {
	on    bool
	next  int64 // when to look again, MonoNanos
	since int64 // MonoNanos of the last look, and
	seen  []int64
	// streak: this many looks in a row found this reactor the busiest by far. At the first the efforts of the connections in
	// slots [from, from+scanned) are noted, at the second those to move are chosen by what they have done since.
	streak     int
	from       int
	effortSeen uint64
	// want are to move to the reactor to, as soon as each can, until until.
	want  []*Conn
	to    *Reactor
	until int64
}

// worked counts what c costs: frames, and units of effortBytes.
func (r *Reactor) worked(c *Conn, effort int) {
	c.effort += uint64(effort)
	r.effort += uint64(effort)
}

func (r *Reactor) startBalancer() {
	r.mover, _ = r.handler.(Mover)
	b := &r.balancer
	b.on = r.mover != nil && r.native && r.ring == nil && len(r.srv.reactors) > 1 && r.srv.opt.Rebalance == RebalanceAuto
	b.since, b.seen = r.now.MonoNanos, make([]int64, len(r.srv.reactors))
	b.next = b.since + int64(balanceEvery)
}

// rebalance is part of each turn, behind the output.
func (r *Reactor) rebalance() {
	b := &r.balancer
	if len(b.want) > 0 {
		r.moveWanted()
	}
	if r.now.MonoNanos < b.next || r.draining {
		return
	}
	b.next = r.now.MonoNanos + int64(balanceEvery)
	own, least, to := r.compareLoads()
	gap := own - least
	if to == nil || own < minBusy || gap < minGap || own < 1.5*least {
		b.streak = 0
		return
	}
	if b.streak++; b.streak == 1 {
		r.noteEfforts()
		return
	}
	b.streak = 0
	last := r.srv.lastMove.Load()
	if r.now.MonoNanos-last < int64(balanceEvery) || !r.srv.lastMove.CompareAndSwap(last, r.now.MonoNanos) {
		return
	}
	r.choose(own, gap, to)
}

// compareLoads returns which part of the time since the last look this reactor and the least busy one were in turns. to is nil
// where this one is not the busiest.
func (r *Reactor) compareLoads() (own, least float64, to *Reactor) {
	b := &r.balancer
	passed := float64(r.now.MonoNanos - b.since)
	b.since = r.now.MonoNanos
	busiest, lowest := true, int64(1)<<62
	mine := r.count.busy - b.seen[r.index]
	for i, other := range r.srv.reactors {
		total := other.pub.busy.Load()
		if other == r {
			total = r.count.busy
		}
		busy := total - b.seen[i]
		b.seen[i] = total
		if busy > mine {
			busiest = false
		}
		if other != r && busy < lowest {
			lowest, to = busy, other
		}
	}
	if !busiest {
		to = nil
	}
	return float64(mine) / passed, float64(lowest) / passed, to
}

// window are the connections that one attempt looks at; each attempt takes the next ones.
func (r *Reactor) window() []*Conn {
	b := &r.balancer
	if b.from >= len(r.conns) {
		b.from = 0
	}
	return r.conns[b.from:min(len(r.conns), b.from+scanned)]
}

func (r *Reactor) noteEfforts() {
	for _, c := range r.window() {
		if c != nil {
			c.effortSeen = c.effort
		}
	}
	r.balancer.effortSeen = r.effort
}

// choose picks connections that together make at most half of the gap between the two reactors' loads.
func (r *Reactor) choose(own, gap float64, to *Reactor) {
	b := &r.balancer
	all := float64(r.effort - b.effortSeen)
	if all == 0 {
		return
	}
	left := gap / 2
	b.to, b.until = to, r.now.MonoNanos+int64(balanceEvery)
	for _, c := range r.window() {
		if c == nil || c.stream != nil || c.movedAt != 0 && r.now.MonoNanos-c.movedAt < int64(moveRest) {
			continue
		}
		share := own * float64(c.effort-c.effortSeen) / all
		if share < minGap/maxMoves || share > left {
			continue
		}
		left -= share
		if b.want = append(b.want, c); len(b.want) == maxMoves {
			break
		}
	}
	b.from += scanned
	r.moveWanted()
}

// moveWanted moves those of want that have nothing in flight at this moment.
func (r *Reactor) moveWanted() {
	b := &r.balancer
	kept := b.want[:0]
	for _, c := range b.want {
		if c.Reactor() == r && !c.gone && r.now.MonoNanos < b.until && !r.give(c, b.to) {
			kept = append(kept, c)
		}
	}
	clear(b.want[len(kept):])
	b.want = kept
}

// restful says whether c has nothing in flight as far as netpath knows.
func (c *Conn) restful() bool {
	return c.stream == nil && c.framed && !c.gone && c.partUntil == 0 && c.pause == 0 && !c.blocked && !c.dirty && !c.inReady &&
		c.in == nil && c.head == nil && c.charged == 0 && c.state.Load() == stateOpen
}

// give hands c over to another reactor of the server, or returns false where that may not be now. See the invariant above.
func (r *Reactor) give(c *Conn, to *Reactor) bool {
	if r.draining || !c.restful() || !r.mover.Movable(c) {
		return false
	}
	first, second := r, to
	if to.index < r.index {
		first, second = to, r
	}
	first.mu.Lock()
	second.mu.Lock()
	moved := r.posts == 0 && c.sent.Load() == 0 && c.state.Load() == stateOpen && !to.shut && r.unregister(c) == nil
	if moved {
		r.displace(c)
		c.reactor.Store(to)
		to.load.Add(1)
		to.mail = append(to.mail, letter{kind: letterMoved, conn: c})
	}
	second.mu.Unlock()
	first.mu.Unlock()
	if moved {
		r.count.moved++
		to.Wake()
	}
	return moved
}

// receive takes over a connection that another reactor gave.
func (r *Reactor) receive(c *Conn) {
	r.place(c)
	c.movedAt = r.now.MonoNanos
	if r.ended {
		r.drop(c, ErrShutdown)
		return
	}
	if r.draining {
		c.pause |= pausedDrain
		r.touch(c)
	}
	if err := r.register(c); err != nil {
		r.drop(c, err)
	}
}
