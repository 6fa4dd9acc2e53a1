package netpath

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The walk of one message starts here: bytes arrive on the connection's reactor
// (reactor_linux.go waits for them) and conn.go takes them over.
//
// A reactor is one loop. A turn of it is
//
//	wait → read what is there, cut frames, run the handler → mail from other goroutines
//	→ Handler.OnTurn → one write for each connection that has output → limits and counters
//
// so that all answers to what had arrived leave together. That was worth 3.8 to 6 times
// the throughput of answering each request by itself.
//
// Everything without another note belongs to the reactor's thread.

// Clock is the one reading of the clock of a loop turn.
type Clock struct {
	UnixMilli int64 // wall clock, for what is stored or sent
	MonoNanos int64 // never jumps, for deadlines and latencies; since the start of the process
}

var processStart = time.Now()

// ReadClock reads the clock that reactors use. Handlers take Reactor.Now instead.
func ReadClock() Clock {
	t := time.Now()
	return Clock{UnixMilli: t.UnixMilli(), MonoNanos: int64(t.Sub(processStart))}
}

func monoNanos() int64 { return int64(time.Since(processStart)) }

// Handler is what a room above does with frames. Each reactor has its own, so its
// fields need no locks.
type Handler interface {
	// OnFrame gets one frame, starting with its mark. It is valid until OnFrame returns.
	OnFrame(c *Conn, frame []byte)
	// OnClose is called exactly once for each connection that was established: whose
	// first bytes were accepted as plain frames, or whose TLS handshake was done.
	OnClose(c *Conn)
	// OnTurn is called in each turn, after its events and before its output is written. Between turns a reactor sleeps for as long as
	// nothing happens: a handler that waits for a moment asks for it with Reactor.SetTimer.
	OnTurn(now Clock)
}

const (
	scratchSize    = 128 << 10 // one read
	scarceRead     = 4 << 10   // one read while memory is over its budget
	framesPerTurn  = 512       // of one connection, before the others get their turn
	maxPosts       = 64 << 10
	stallThreshold = 5 * time.Millisecond
)

// Reactor owns a share of the connections and everything about them.
type Reactor struct {
	index   int
	srv     *Server
	handler Handler
	drainer Drainer // handler, if it is one
	mover   Mover   // likewise
	limits  *Limits
	log     *slog.Logger
	native  bool // waits with the system's poller instead of a channel; does not change
	brief   bool // short waits keep the scheduler's processor: there are more of them than reactors
	poll    poller
	park    parking

	now       Clock
	timerAt   int64 // SetTimer's, MonoNanos; 0 is none
	nextSweep int64
	sweepSlot int   // where the round goes on; 0 between rounds
	earliest  int64 // deadline that the round has seen

	// scratch takes each read. Frames in it are valid until the next one.
	scratch []byte
	// discard is lent by Begin of a connection that is gone.
	discard []byte
	bufs    buffers
	// segments is the list of unused segments; segmentCount its length.
	segments     *segment
	segmentCount int

	// conns is indexed by slot; freeSlots are its nil places.
	// Invariant: a connection is in conns from adopt until drop.
	conns     []*Conn
	freeSlots []int
	// dirty connections have output, or a changed wish to read, to be settled at the end of
	// the turn. Invariant: c.dirty is true exactly for its members.
	dirty, dirtySpare []*Conn
	// ready connections hold frames that were not handled in the turn they arrived in.
	ready, readySpare []*Conn
	// starved connections wait for memory.
	starved   []*Conn
	streams   int // stream goroutines that have not said goodbye
	coldReads int // goroutines that read a part of a file; see cold_linux.go

	balancer balancer
	effort   uint64 // of all connections, see worked

	count counts
	pub   published
	turnWatch

	// load is the number of connections here or on their way; acceptors choose by it.
	load atomic.Int64

	// state is awake, asleep or woken; see Wake.
	state atomic.Uint32

	// mu guards the fields below: what other goroutines want of this reactor.
	mu        sync.Mutex
	mail      []letter
	posts     int  // letters in mail that are Post's. Invariant: <= maxPosts
	shut      bool // the loop has ended; no letter is taken any more
	mailSpare []letter

	draining bool // Shutdown has begun
	ended    bool // the loop has ended
	done     chan struct{}

	ring *ring // in place of most of poll, with PollerUring; does not change
}

func newReactor(s *Server, index int, native bool) *Reactor {
	return &Reactor{
		index:   index,
		srv:     s,
		limits:  &s.opt.Limits,
		log:     s.opt.Logger,
		native:  native,
		brief:   runtime.GOMAXPROCS(0) > s.opt.Reactors,
		park:    newParking(),
		scratch: make([]byte, scratchSize),
		now:     ReadClock(),
		done:    make(chan struct{}),
	}
}

// Index numbers the reactors of a server from 0.
func (r *Reactor) Index() int { return r.index }

// Now is this turn's clock reading. Reactor thread only.
func (r *Reactor) Now() Clock { return r.now }

// SetTimer asks for a turn at or soon after at (Clock.MonoNanos), whether anything else happens by then or not. Of several wishes
// the earliest is kept; it is used up before the OnTurn that it brings about. Reactor thread only.
func (r *Reactor) SetTimer(at int64) {
	if r.timerAt == 0 || at < r.timerAt {
		r.timerAt = at
	}
}

// The states of a reactor, for Wake.
const (
	awake  uint32 = iota // running a turn, and will not look at its mail before the next
	asleep               // in a wait that only an event ends
	woken                // has mail; will not sleep before it has read it
)

// Wake makes the reactor begin a turn soon. Any goroutine may call it, for no more than an
// atomic exchange unless the reactor sleeps; then the first caller pays for one eventfd write.
func (r *Reactor) Wake() {
	if r.state.Swap(woken) == asleep {
		r.interrupt()
	}
}

// letter is one wish of another goroutine.
type letter struct {
	kind  letterKind
	conn  *Conn
	frame []byte // of Send; the letter owns it
	fn    func() // of Post
	seg   *segment
}

type letterKind uint8

const (
	letterPost  letterKind = iota
	letterSend             // queue frame on conn
	letterClose            // conn.closeReason is set
	letterAdopt            // conn is new here
	letterLook             // conn's stream has frames to handle or segments to give back
	letterBye              // conn's stream goroutines have ended
	letterMoved            // conn comes from another reactor
	letterCold             // frame was read from the file of seg, which is conn's
	letterDrain            // Shutdown has begun
)

// Post runs fn on the reactor's thread, in its next turn. It returns false, and fn never
// runs, when too many are waiting or the reactor has ended.
func (r *Reactor) Post(fn func()) bool {
	r.mu.Lock()
	if r.shut || r.posts >= maxPosts {
		r.mu.Unlock()
		return false
	}
	r.posts++
	r.mail = append(r.mail, letter{kind: letterPost, fn: fn})
	r.mu.Unlock()
	r.Wake()
	return true
}

// write puts one of our own letters into the mail; they are bounded by what they are about.
func (r *Reactor) write(l letter) bool {
	r.mu.Lock()
	return r.deliverUnlock(l)
}

// deliverUnlock puts l into the mail and lets go of mu, which the caller took.
func (r *Reactor) deliverUnlock(l letter) bool {
	ok := !r.shut
	if ok {
		r.mail = append(r.mail, l)
	}
	r.mu.Unlock()
	if ok {
		r.Wake()
	}
	return ok
}

// readMail carries out what other goroutines asked for, in the order they did.
func (r *Reactor) readMail() {
	r.mu.Lock()
	mail := r.mail
	r.mail, r.posts = r.mailSpare[:0], 0
	r.mu.Unlock()
	for i := range mail {
		l := &mail[i]
		switch l.kind {
		case letterPost:
			l.fn()
		case letterSend:
			l.conn.queueSent(l.frame)
		case letterClose:
			r.closeNow(l.conn)
		case letterAdopt:
			r.adopt(l.conn)
		case letterLook:
			l.conn.look()
		case letterBye:
			l.conn.look()
			r.streams--
		case letterMoved:
			r.receive(l.conn)
		case letterCold:
			r.coldArrived(l.conn, l.seg, l.frame)
		case letterDrain:
			r.startDrain()
		}
		*l = letter{}
	}
	if r.mailSpare = mail[:0]; cap(mail) > maxPosts {
		r.mailSpare = nil
	}
}

// run is the reactor's goroutine.
func (r *Reactor) run() {
	defer close(r.done)
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("reactor", strconv.Itoa(r.index))))
	if r.native {
		// Never unlocked: a thread with a narrowed affinity must end with its goroutine.
		runtime.LockOSThread()
		r.pin()
		r.noSlack()
		if r.ring != nil {
			r.enableRing()
		}
	}
	for !r.finished() {
		r.turn()
	}
	r.end()
}

// turn is one turn of the loop.
func (r *Reactor) turn() {
	events, mail := r.wait()
	r.now = ReadClock()
	r.beginWatch()
	framesBefore := r.count.framesIn
	// Before the events: who had too much in the last turn waits for this one, not for itself.
	if len(r.ready) > 0 || len(r.starved) > 0 {
		r.resumeReady()
		r.feedStarved()
	}
	if events > 0 {
		r.handleEvents(events)
	}
	r.watch(stepRead)
	if mail {
		r.readMail()
		r.watch(stepMail)
	}
	if r.timerAt != 0 && r.now.MonoNanos >= r.timerAt {
		r.timerAt = 0
	}
	r.handler.OnTurn(r.now)
	r.watch(stepHandler)
	if len(r.dirty) > 0 {
		r.settleDirty()
		r.watch(stepWrite)
	}
	r.resumeListeners()
	if r.now.MonoNanos >= r.nextSweep {
		r.sweep()
		r.watch(stepSweep)
	}
	if r.balancer.on {
		r.rebalance()
	}
	r.count.turns++
	r.endWatch(events, r.count.framesIn-framesBefore)
	r.publish()
}

// wait returns when there is something to do: the number of the poller's events, and whether
// there is mail. Where it could not sleep briefly without the scheduler's help it looks first: under load the look finds something,
// and a look cannot block.
func (r *Reactor) wait() (events int, mail bool) {
	if r.ring != nil {
		return r.waitRing()
	}
	idle := len(r.dirty) == 0 && len(r.ready) == 0
	if !r.brief || !idle {
		events = r.peek()
	}
	if events == 0 && idle {
		if r.state.CompareAndSwap(awake, asleep) {
			events = r.sleep(r.sleepTime())
		} else if r.brief {
			events = r.peek() // mail must not keep the sockets from being looked at
		}
	}
	return events, r.state.Swap(awake) == woken
}

// sleepTime is how long nothing needs to happen: 10 s with the default limits and nothing to do, so that an idle process rests.
func (r *Reactor) sleepTime() time.Duration {
	until := r.nextSweep
	if r.draining || len(r.starved) > 0 { // what they wait for wakes nobody
		until = min(until, r.now.MonoNanos+int64(r.srv.opt.Tick))
	}
	if r.timerAt != 0 {
		until = min(until, r.timerAt)
	}
	return time.Duration(max(0, until-monoNanos()))
}

// resumeReady goes on with connections that hold whole frames.
func (r *Reactor) resumeReady() {
	list := r.ready
	r.ready, r.readySpare = r.readySpare[:0], list
	for i, c := range list {
		list[i] = nil
		c.inReady = false
		if !c.gone {
			c.pause &^= pausedTurn
			c.handleHeld()
			if r.ring != nil {
				r.touch(c) // it may hold little enough to be read on
			}
		}
	}
}

// feedStarved lets connections that waited for memory try again.
func (r *Reactor) feedStarved() {
	kept := r.starved[:0]
	for _, c := range r.starved {
		switch {
		case c.gone:
			c.pause &^= pausedMemory
		case r.srv.budget.mayGrow(c, bufferClasses[0]):
			c.pause &^= pausedMemory
			r.touch(c)
		default:
			kept = append(kept, c)
		}
	}
	clear(r.starved[len(kept):])
	r.starved = kept
}

// touch has c settled at the end of the turn.
func (r *Reactor) touch(c *Conn) {
	if !c.dirty {
		c.dirty = true
		r.dirty = append(r.dirty, c)
	}
}

func (r *Reactor) settleDirty() {
	list := r.dirty
	r.dirty, r.dirtySpare = r.dirtySpare[:0], list
	for i, c := range list {
		list[i] = nil
		c.dirty = false
		if !c.gone {
			c.settle()
		}
	}
}

// sweep looks at some of the connections for missed deadlines. A round over all of them takes a second, or a quarter of the shortest
// deadline where that is less; the next round begins when one that it saw is due. Those that arise meanwhile are not earlier than the
// shortest after the round's beginning.
func (r *Reactor) sweep() {
	r.nextSweep = r.now.MonoNanos + int64(r.srv.opt.Tick)
	if r.draining {
		return
	}
	if r.sweepSlot == 0 {
		r.earliest = r.now.MonoNanos + int64(r.limits.shortest())
	}
	period := min(time.Second, r.limits.shortest()/4)
	ticks := max(1, int(period/r.srv.opt.Tick))
	end := min(len(r.conns), r.sweepSlot+len(r.conns)/ticks+1)
	for ; r.sweepSlot < end; r.sweepSlot++ {
		c := r.conns[r.sweepSlot]
		if c == nil {
			continue
		}
		if at, why := c.deadline(); r.now.MonoNanos > at {
			r.drop(c, why)
		} else {
			r.earliest = min(r.earliest, at)
		}
	}
	if r.sweepSlot >= len(r.conns) {
		r.sweepSlot = 0
		r.nextSweep = max(r.nextSweep, r.earliest+1)
	}
}

// adopt makes c one of this reactor's connections.
func (r *Reactor) adopt(c *Conn) {
	if r.draining {
		c.abandon()
		return
	}
	r.place(c)
	c.opened = r.now.MonoNanos
	c.lastRead, c.lastWrite = c.opened, c.opened
	if c.stream != nil {
		r.streams++
		c.stream.start()
		return
	}
	if err := r.register(c); err != nil {
		r.drop(c, err)
	}
}

// place gives c a slot, displace takes it back.
func (r *Reactor) place(c *Conn) {
	if n := len(r.freeSlots); n > 0 {
		c.slot = r.freeSlots[n-1]
		r.freeSlots = r.freeSlots[:n-1]
		r.conns[c.slot] = c
	} else {
		c.slot = len(r.conns)
		r.conns = append(r.conns, c)
	}
}

func (r *Reactor) displace(c *Conn) {
	r.conns[c.slot] = nil
	r.freeSlots = append(r.freeSlots, c.slot)
	r.load.Add(-1)
}

// closeNow carries out Conn.Close: what was answered before gets a last chance to leave.
func (r *Reactor) closeNow(c *Conn) {
	if c.gone {
		return
	}
	if c.head != nil && !c.blocked && !c.sending {
		c.flush()
	}
	if !c.gone {
		r.drop(c, c.closeReason)
	}
}

// drop ends a connection. It is the only place that does, so everything is given back once.
func (r *Reactor) drop(c *Conn, reason error) {
	if c.gone {
		return
	}
	c.gone = true
	c.state.Store(stateClosed)
	r.displace(c)
	r.srv.census.leave(c.counted)
	if why, ok := refusalOf(reason); ok {
		r.srv.refused[why].Add(1)
	}
	r.log.Debug("connection closed", "addr", c.Remote, "err", reason)
	if c.established {
		r.handler.OnClose(c)
	}
	if c.stream != nil {
		c.stream.close()
	} else {
		r.closeFD(c)
		c.releaseIn()
	}
	c.dropOutput()
	c.charge()
	r.srv.budget.yield(c)
}

// end refuses further mail and carries out what had been accepted.
func (r *Reactor) end() {
	r.mu.Lock()
	r.shut = true
	r.mu.Unlock()
	r.ended = true
	r.readMail()
	r.readMail() // what the first reading wrote itself
	r.publish()
	r.closePoller()
}
