package commitlog

import (
	"context"
	"errors"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/internal/beat"
	"github.com/ringmq/ringmq/ioengine"
)

// In the walk of one message: this stands in for group_commit.go where the log has a Tail (ioEngine pwrite, direct, uring).
//
// pipeline writes the log from the memory of its Tail to its segments, with as many writes in flight as the engine takes.
//
//	log     ... | piece | piece | piece | block |  published
//	             done    flying  flying   ^ the last block is not full: it is written again when more has come
//
// A group commit is what has been published when its write starts. The next one need not wait for it, but both have a part of the block that
// the first one ends in, and two writes of one block at a time would leave to chance which of them stays. So that block becomes a piece
// of its own, which waits, while the blocks behind it are on their way. Whatever order the device does them in, the log counts as
// written (and, under SYNC_FLUSH, flushed) up to the first piece that is not done: acknowledgements keep the order of the log.
//
// Under SYNC_FLUSH each write is durable when it is done. Under ASYNC_FLUSH writes are plain, and a flush is: write everything, the last
// block too, then sync the files.
type pipeline struct {
	l *Log
	// w is the flusher's own writer.
	w ioengine.LogWriter
	// commit and kick are the wishes of other goroutines: a group commit, a look at what is to be written. look: somebody found mu taken, and
	// whoever has it takes a turn for them.
	commit, kick, look atomic.Bool

	// mu guards everything below. Only the flusher waits for it. Nothing waits for the device with it held, but for the engines that have one operation at
	// a time.
	mu sync.Mutex
	// at is the writer of the thread that has mu: it starts operations there. hosted are those of all committers.
	at     ioengine.LogWriter
	hosted []ioengine.SharedWriter
	ended  bool

	// next is the log offset up to which writes were started; want up to which they shall be, the last block included.
	// Invariant: flushed <= written <= next <= published.
	next, want int64
	// pieces are in the order of the log; those in front that are done are taken out. Their tickets count up.
	pieces []piece
	ticket uint64 // of the next piece
	flying int    // operations in all writers
	// seen and seenAt are the end of the log and the appenders' clock when start looked last.
	seen, seenAt int64

	// A flush under ASYNC_FLUSH. flushTo is 0 when there is none. Syncs were started for what lies before syncing, and so many are still out.
	flushTo, flushBegan int64
	syncing             int64
	syncs               int
	again               bool // another one was asked for meanwhile
}

// piece is one write.
type piece struct {
	ticket   uint64
	seg      *segment
	from, to int64 // log offsets of what is written
	hi       int64 // where the log is written up to when this and all before are done
	began    int64 // not later than the byte at hi was appended, ms of the appenders' clock
	state    pieceState
}

type pieceState uint8

const (
	waiting pieceState = iota // for the piece that its block is in
	flying
	done
)

const (
	// maxPiece is the most that one write takes, bytes.
	maxPiece = 1 << 20
	// directStep is how much is written at a time under ASYNC_FLUSH, when nobody waits for it.
	directStep = 1 << 20
	// pipelineDepth is the writes in flight. 4 gave 2.4 times the commits of one by one, 16 hardly more.
	pipelineDepth = 8
	syncTicket    = 1 << 63
)

func (l *Log) startPipeline() error {
	p := &pipeline{l: l, next: l.published.Load()}
	l.pipeline = p
	ctx, cancel := context.WithCancel(context.Background())
	l.flusher.done = make(chan struct{})
	opened := make(chan error)
	go pprof.Do(ctx, pprof.Labels("room", "commitlog", "thread", "flusher"), func(ctx context.Context) {
		defer close(l.flusher.done)
		if l.opt.Engine == ioengine.EngineUring {
			// A ring belongs to one thread. The others are better off without: waking a goroutine that is locked to a thread takes two more
			// switches.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		w, err := l.opt.newWriter(l.opt.Engine, pipelineDepth)
		p.w = w
		opened <- err
		if err == nil {
			p.run(ctx)
		}
	})
	err := <-opened
	l.flusher.quit = func() {
		cancel()
		if err == nil {
			p.w.Wake()
		}
	}
	return err
}

// ask notes a wish and wakes the pipeline.
func (p *pipeline) ask(wish *atomic.Bool) {
	if !wish.Swap(true) {
		p.w.Wake()
	}
}

func (p *pipeline) run(ctx context.Context) {
	every := p.l.flushEvery()
	tick := time.Now().Add(beat.UntilNext(every))
	for {
		quit, now := ctx.Err() != nil, time.Now()
		late := !now.Before(tick)
		if late {
			tick = now.Add(beat.UntilNext(every))
		}
		p.mu.Lock()
		p.turn(p.w, late || quit)
		over := p.l.failed.Load() != nil || quit && p.settled()
		p.mu.Unlock()
		if over {
			break
		}
		if !p.look.Load() {
			p.reap(max(tick.Sub(now), time.Millisecond))
		}
	}
	p.settle()
	err := p.w.Close()
	<-ctx.Done()
	// Reactors look at their writers until the log is closed.
	for _, w := range p.hosted {
		err = errors.Join(err, w.Close())
	}
	if err != nil {
		p.l.opt.Logger.Warn("close the log's writers", "err", err)
	}
}

// settle waits for what is in flight, whose memory must outlive it, and starts no more.
func (p *pipeline) settle() {
	p.mu.Lock()
	for p.flying > 0 {
		p.turn(p.w, false)
		p.mu.Unlock()
		p.reap(time.Millisecond) // nobody wakes the flusher for what is in flight at committers
		p.mu.Lock()
	}
	p.ended = true
	p.mu.Unlock()
}

// settled tells that all is written and flushed.
func (p *pipeline) settled() bool {
	return p.flying == 0 && p.flushTo == 0 && p.l.flushed.Load() == p.l.published.Load()
}

// turn takes what is done and starts, at w, what is due. wish: also what nobody asked for.
func (p *pipeline) turn(w ioengine.LogWriter, wish bool) {
	p.look.Store(false)
	p.kick.Store(false)
	if p.ended {
		return
	}
	p.at = w
	p.takeHosted()
	if p.commit.Swap(false) || wish {
		p.wish()
	}
	p.start()
	// What was started goes to the kernel with this. What is done by now may have made room for more.
	if p.takeHosted() {
		p.look.Store(true)
	}
}

// takeHosted takes what is done at the committers, and submits what was started there.
func (p *pipeline) takeHosted() (took bool) {
	for _, w := range p.hosted {
		for done, ok := w.Next(0); ok; done, ok = w.Next(0) {
			p.take(done)
			took = true
		}
	}
	return took
}

// reap takes what is done at the flusher's own writer, waiting d for the first.
func (p *pipeline) reap(d time.Duration) {
	done, ok := p.w.Next(d)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = p.w
	for ; ok; done, ok = p.w.Next(0) {
		p.take(done)
	}
}

// wish asks for everything published by now to become flushed.
func (p *pipeline) wish() {
	l := p.l
	switch {
	case l.opt.Sync:
		p.want = l.published.Load()
	case p.flushTo != 0:
		p.again = true
	default:
		l.mu.Lock()
		to, began := l.published.Load(), l.lastNow
		l.mu.Unlock()
		if to > l.flushed.Load() {
			p.flushTo, p.flushBegan, p.want = to, began, max(p.want, to)
			p.syncing = l.flushed.Load()
			p.flushIfWritten()
		}
	}
}

// start starts the writes that are due and have a place.
func (p *pipeline) start() {
	l := p.l
	if l.failed.Load() != nil {
		return
	}
	l.mu.Lock()
	published, now := l.published.Load(), l.lastNow
	l.mu.Unlock()
	before := p.seenAt
	p.seen, p.seenAt = published, now
	for p.flying < p.w.Depth() {
		to, whole := p.want, false
		if p.next >= p.want {
			if to, whole = published, true; published-p.next < directStep {
				break
			}
		}
		if !p.startPiece(to, whole, before) {
			break
		}
	}
	l.writeBackAt.Store(p.next + directStep)
	if !l.opt.Sync && p.flushTo == 0 && published-l.flushed.Load() >= l.opt.MaxUnflushed/2 {
		p.wish()
	}
}

// startPiece starts one write from next on, up to the log offset to or less; whole leaves out the block that is not full. False: there is
// nothing that may be written now.
func (p *pipeline) startPiece(to int64, whole bool, before int64) bool {
	l, block := p.l, p.w.Block()
	s := l.find(p.next)
	if s == nil {
		l.fail(errLostSegment(p.next))
		return false
	}
	from := s.base + (p.next-s.base)/block*block
	hi := min(to, s.end())
	end := hi
	if hi == s.end() {
		// Behind the blank nothing was ever made ready: the file has zeroes there.
		end = min(hi, s.base+s.warm.Load())
	}
	end = s.base + (end-s.base+block-1)/block*block
	if whole && hi < s.end() {
		end = s.base + (hi-s.base)/block*block
		hi = end
	}
	if end-from > maxPiece {
		end = from + maxPiece
		hi = end
	}
	if hi <= p.next {
		return false
	}
	if n := len(p.pieces); n > 0 && p.pieces[n-1].to > from {
		if end <= from+block {
			return false
		}
		p.add(piece{seg: s, from: from, to: from + block, hi: from + block, began: before})
		from += block
	}
	began := before
	if hi == p.seen {
		began = p.seenAt
	}
	p.add(piece{seg: s, from: from, to: end, hi: hi, began: began, state: flying})
	p.next = hi
	return p.submit(&p.pieces[len(p.pieces)-1])
}

func (p *pipeline) add(x piece) {
	x.ticket = p.ticket
	p.ticket++
	p.pieces = append(p.pieces, x)
}

func (p *pipeline) submit(x *piece) bool {
	x.state = flying
	p.flying++
	err := p.at.Write(x.seg.file, x.from-x.seg.base, x.seg.file.View(x.from-x.seg.base, x.to-x.from), p.l.opt.Sync, x.ticket)
	if err != nil {
		p.flying--
		p.l.fail(err)
	}
	return err == nil
}

// take takes an operation that is done.
func (p *pipeline) take(d ioengine.Done) {
	l := p.l
	p.flying--
	switch {
	case d.Err != nil:
		l.fail(d.Err)
	case d.Ticket&syncTicket != 0:
		p.syncs--
		if p.flushIfWritten(); p.syncs == 0 && p.syncing >= p.flushTo && l.failed.Load() == nil {
			p.flushed()
		}
	default:
		p.pieces[d.Ticket-p.pieces[0].ticket].state = done
		p.advance()
		p.startWaiting()
		p.flushIfWritten()
	}
}

// advance takes the pieces out of the front that are done.
func (p *pipeline) advance() {
	l, n := p.l, 0
	var last piece
	for n < len(p.pieces) && p.pieces[n].state == done {
		last = p.pieces[n]
		n++
	}
	if n == 0 {
		return
	}
	p.pieces = p.pieces[:copy(p.pieces, p.pieces[n:])]
	l.written.Store(last.hi)
	l.memory.SetWritten(last.hi)
	if wanted := l.roomWanted.Load(); wanted > 0 && last.hi >= wanted {
		l.kickKeeper()
	}
	if l.opt.Sync {
		if l.advanceFlushed(last.hi, last.began) {
			l.announceFlushed()
		}
	}
}

// startWaiting starts the pieces whose block is free by now.
func (p *pipeline) startWaiting() {
	for i := range p.pieces {
		x := &p.pieces[i]
		if x.state == waiting && p.flying < p.w.Depth() && (i == 0 || p.pieces[i-1].state == done || p.pieces[i-1].to <= x.from) && !p.submit(x) {
			return
		}
	}
}

// flushIfWritten starts the syncs of a flush whose writes are all done, one a segment, as many as have a place: the rest when something ends.
func (p *pipeline) flushIfWritten() {
	l := p.l
	if p.flushTo == 0 || l.written.Load() < p.flushTo {
		return
	}
	for p.syncing < p.flushTo && p.flying < p.w.Depth() && l.failed.Load() == nil {
		s := l.find(p.syncing)
		if s == nil {
			l.fail(errLostSegment(p.syncing))
			return
		}
		p.syncs++
		p.flying++
		if err := p.at.Sync(s.file, syncTicket); err != nil {
			p.syncs--
			p.flying--
			l.fail(err)
			return
		}
		p.syncing = s.end()
	}
}

func (p *pipeline) flushed() {
	l := p.l
	if l.advanceFlushed(p.flushTo, p.flushBegan) {
		l.announceFlushed()
	}
	p.flushTo = 0
	if p.again {
		p.again = false
		p.wish()
	}
}

// openMemory makes the Tail of an engine that has one, after what an earlier process left in it was written.
func (l *Log) openMemory() error {
	o := &l.opt
	err := l.chooseEngine()
	if err != nil || o.Engine == ioengine.EngineMmap {
		return err
	}
	if o.TailFile == "" {
		l.memory, err = ioengine.NewTail(o.TailSize)
		return err
	}
	l.memory, err = ioengine.NewTailFile(o.TailFile, o.TailSize, o.Sync)
	if errors.Is(err, ioengine.ErrDiskFull) {
		// Messages can be read, and old ones deleted, without a tail.
		o.Logger.Warn("there is no space for the log tail's file, so the log is written through its mapping; free some and start again",
			"file", o.TailFile, "bytes", o.TailSize, "engine", o.Engine, "next", ioengine.EngineMmap, "err", err)
		o.Engine = ioengine.EngineMmap
		return nil
	}
	return err
}

// openSegmentFile opens or makes the segment that starts at base, behind the log's Tail where it has one.
func (l *Log) openSegmentFile(name string, base int64, create bool) (ioengine.Segment, error) {
	f, err := l.opt.FS.OpenSegment(name, l.opt.SegmentSize, create)
	if err != nil || l.memory == nil {
		return f, err
	}
	return ioengine.Buffered(f, l.memory, base, l.opt.SegmentSize, l.opt.Engine)
}

// loadTail brings the block that the log's end lies in into the Tail: it will be written again.
func (l *Log) loadTail(s *segment, from int64) error {
	if _, err := s.file.ReadAt(s.file.Window(from, s.stored-from), from); err != nil {
		return err
	}
	s.stored = 0
	s.hot.Store(from)
	return nil
}

// makeRoom lets go of the memory that the log's bytes up to the offset end are to have: those that they follow must be in their segments,
// and no reader in them any more. False: they are not written yet.
func (l *Log) makeRoom(end int64) bool {
	if l.memory == nil {
		return true
	}
	low := end - l.memory.Size()
	// First the wish, then the look: a write that is done in between sees the one or is seen by the other.
	l.roomWanted.Store(low)
	if l.written.Load() < low {
		// Perhaps less is waiting to be written than is written at a time.
		l.RequestFlush()
		return false
	}
	l.roomWanted.Store(0)
	for _, s := range l.list() {
		hot := s.hot.Load()
		if s.base >= low {
			break
		}
		if hot < 0 || s.base+hot >= low {
			continue
		}
		if s.end() <= low {
			s.hot.Store(-1)
		} else {
			s.hot.Store(low - s.base)
		}
		s.waitViewers()
	}
	return true
}
