package netpath

import (
	"sync/atomic"
	"time"
)

// Stats is a sum over all reactors, read while they run: its numbers need not be of one instant.
type Stats struct {
	Conns         int
	Accepted      uint64
	Refused       map[string]uint64 // refused or closed on our decision, by reason
	BytesIn       uint64
	BytesOut      uint64
	FramesIn      uint64
	Writes        uint64 // calls that wrote bytes
	SendFiles     uint64 // calls that sent a file range
	Turns         uint64
	LongestTurn   time.Duration
	InFlightBytes int64
	Moved         uint64          // connections that went from one reactor to another
	ColdReads     uint64          // parts of file ranges that had left memory while they waited, and were read by a goroutine
	Busy          []time.Duration // time in turns, by reactor
}

// counts are one reactor's own; plain numbers, as only its thread touches them.
type counts struct {
	bytesIn, bytesOut, framesIn, writes, sendFiles, turns, moved, coldReads uint64

	longest, busy int64
}

// published is the copy for other goroutines, made once a turn. The padding keeps it off the
// cache lines that neighbours write.
type published struct {
	_                                                                       [64]byte
	bytesIn, bytesOut, framesIn, writes, sendFiles, turns, moved, coldReads atomic.Uint64

	longest, busy atomic.Int64
	_             [64]byte
}

func (r *Reactor) publish() {
	c, p := &r.count, &r.pub
	p.turns.Store(c.turns)
	p.busy.Store(c.busy)
	if p.bytesIn.Load() != c.bytesIn {
		p.bytesIn.Store(c.bytesIn)
	}
	if p.framesIn.Load() != c.framesIn {
		p.framesIn.Store(c.framesIn)
	}
	if p.bytesOut.Load() != c.bytesOut {
		p.bytesOut.Store(c.bytesOut)
	}
	if p.writes.Load() != c.writes || p.sendFiles.Load() != c.sendFiles {
		p.writes.Store(c.writes)
		p.sendFiles.Store(c.sendFiles)
	}
	if p.moved.Load() != c.moved || p.coldReads.Load() != c.coldReads {
		p.moved.Store(c.moved)
		p.coldReads.Store(c.coldReads)
	}
	if p.longest.Load() != c.longest {
		p.longest.Store(c.longest)
	}
}

// step names a part of a turn for the stall detector.
type step uint8

const (
	stepRead step = iota
	stepMail
	stepHandler
	stepWrite
	stepSweep
)

var stepNames = [...]string{"reading and OnFrame", "mail", "OnTurn", "writing", "sweep"}

// turnWatch finds the turns that take too long. It reads the monotonic clock where a step
// ends, some 20 ns each, because a cause cannot be found afterwards.
type turnWatch struct {
	started, last int64
	worst         int64
	worstStep     step
	warnedAt      int64
	unwarned      int
}

func (w *turnWatch) watch(s step) {
	t := monoNanos()
	if d := t - w.last; d > w.worst {
		w.worst, w.worstStep = d, s
	}
	w.last = t
}

func (r *Reactor) beginWatch() {
	w := &r.turnWatch
	w.started, w.last, w.worst = r.now.MonoNanos, r.now.MonoNanos, 0
}

func (r *Reactor) endWatch(events int, frames uint64) {
	w := &r.turnWatch
	took := w.last - w.started
	r.count.busy += took
	if took > r.count.longest {
		r.count.longest = took
	}
	if took < int64(stallThreshold) {
		return
	}
	if w.warnedAt != 0 && w.last-w.warnedAt < int64(time.Second) {
		w.unwarned++
		return
	}
	r.log.Warn("reactor turn took long", "reactor", r.index, "took", time.Duration(took),
		"step", stepNames[w.worstStep], "stepTook", time.Duration(w.worst),
		"events", events, "frames", frames, "othersSinceLast", w.unwarned)
	w.warnedAt, w.unwarned = w.last, 0
}
