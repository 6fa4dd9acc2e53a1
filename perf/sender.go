package perf

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	redialAfter = 100 * time.Millisecond
	tick        = int64(50 * time.Millisecond)
)

// Latencies that a sender records.
const (
	latencyAck = iota
	latencyLag
)

// sender is a worker that sends. Its fields are its own, but for those that are atomic.
type sender struct {
	config    *Config
	clock     *clock
	generator uint64
	poller    *poller
	streams   []*stream
	dirty     []*stream
	recorder  *recorder

	// Open loop: message number n is due at first + n*spacing.
	first   float64
	spacing float64
	due     int64 // number of the next message
	turnAt  int   // the stream whose turn it is

	start              int64 // when the load begins, on the clock
	measureFrom, until int64
	budget             int64 // messages that may still be sent; < 0: no limit
	born               [13]byte
	bornMillis         int64

	stopped atomic.Bool   // send no more
	ended   chan struct{} // closed when the worker has returned

	// results, read after ended
	errors   map[int32]int64
	problems []string
	measured int64 // messages acknowledged within the measured time
	total    int64 // messages acknowledged
	sentAll  int64 // messages encoded
	unknowns int64 // messages whose outcome is not known
	missed   int64 // messages of the measured time that were not acknowledged
	lastAck  int64
	repeats  int64 // queue offsets that were answered twice
	below    int64 // queue offsets that the queue had before the run
	unsorted int64 // queue offsets not above one that was answered before the request was sent
	askew    int64 // answers that name another queue
	failure  error // what ended the worker early
}

// maxProblems is how many sentences of a kind a report keeps.
const maxProblems = 20

func (s *sender) problem(text string) {
	if len(s.problems) < maxProblems {
		s.problems = append(s.problems, text)
	}
}

// connect dials every stream. It runs before the worker does.
func (s *sender) connect() error {
	for _, st := range s.streams {
		c, err := net.DialTimeout("tcp", st.addr, s.config.Timeout)
		if err != nil {
			return fmt.Errorf("connect to broker: %w", err)
		}
		if st.sock, err = s.poller.add(c, st); err != nil {
			return err
		}
		st.greet()
	}
	return nil
}

// run is the worker.
func (s *sender) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.ended)
	nextTick := int64(0)
	for {
		now := s.clock.now()
		s.recorder.turn(now)
		if now >= nextTick {
			s.everyTick(now)
			nextTick = now + tick
		}
		sending := s.budget != 0 && !s.stopped.Load() && s.hasMore(now)
		switch {
		case !sending && s.inFlight() == 0:
			s.countUnsent()
			s.recorder.finish()
			return
		case now < s.start:
		case sending && s.spacing > 0:
			s.sendDue(now)
		case sending:
			s.sendFill(now)
		}
		for _, st := range s.dirty {
			st.flush()
		}
		s.dirty = s.dirty[:0]
		ready, err := s.poller.wait(now, s.wakeAt(now, nextTick, sending))
		if err != nil {
			s.failure = err
			s.recorder.finish()
			return
		}
		if len(ready) > 0 {
			s.handle(ready)
		}
	}
}

// hasMore tells whether there is something to send, now or later. An open loop owes every message that was due before the end, also
// those that a server has held up until after it: to leave them out would flatter a server that stalls at the end. It owes them
// for one time limit; what cannot be sent until then counts as an error.
func (s *sender) hasMore(now int64) bool {
	if s.spacing == 0 {
		return now < s.until
	}
	return s.dueAt(s.due) < s.until && (s.until == noLimit || now < s.until+int64(s.config.Timeout))
}

// dueAt is when request n of an open loop is to be sent.
func (s *sender) dueAt(n int64) int64 { return int64(s.first + float64(n)*s.spacing) }

// countUnsent counts what an open loop owed and could not send.
func (s *sender) countUnsent() {
	if s.spacing == 0 || s.until == noLimit || s.budget == 0 || s.stopped.Load() {
		return
	}
	for ; s.dueAt(s.due) < s.until; s.due++ {
		s.missing(s.dueAt(s.due), codeUnsent, int64(s.config.Batch))
	}
}

func (s *sender) handle(ready []*socket) {
	for _, sock := range ready {
		st := sock.owner.(*stream)
		if st.sock != sock {
			continue
		}
		if st.readable(); st.sock != nil && st.sent < len(st.out) {
			st.flush()
		}
	}
}

func (s *sender) everyTick(now int64) {
	for _, st := range s.streams {
		if st.sock == nil {
			st.reconnect(now)
			continue
		}
		st.expire(now)
	}
}

func (s *sender) inFlight() (n int) {
	for _, st := range s.streams {
		n += st.inFlight
	}
	return n
}

// wakeAt is how long the worker may sleep: until the next message is due, but not beyond the next tick.
func (s *sender) wakeAt(now, nextTick int64, sending bool) int64 {
	if now < s.start {
		return min(s.start, nextTick)
	}
	if !sending || s.spacing == 0 {
		return nextTick
	}
	at := s.dueAt(s.due)
	if at <= now {
		// Due, but no stream can take it: an answer or room in a socket will wake us.
		return nextTick
	}
	return min(at, nextTick)
}

// sendFill keeps every stream at its depth.
func (s *sender) sendFill(now int64) {
	s.stampBorn(now)
	for _, st := range s.streams {
		for st.inFlight < s.config.Depth && s.budget != 0 && st.canSend() {
			s.encode(st, now, now)
		}
	}
}

// sendDue sends every message whose time has come, in its stream's turn; a stream that cannot send is passed over. What no stream
// can take stays due, with its intended time.
func (s *sender) sendDue(now int64) {
	s.stampBorn(now)
	for s.budget != 0 {
		intended := s.dueAt(s.due)
		if intended > now || intended >= s.until {
			return
		}
		st := s.nextStream()
		if st == nil {
			return
		}
		s.due++
		s.encode(st, intended, now)
	}
}

func (s *sender) nextStream() *stream {
	for range s.streams {
		st := s.streams[s.turnAt]
		if s.turnAt++; s.turnAt == len(s.streams) {
			s.turnAt = 0
		}
		if st.canSend() {
			return st
		}
	}
	return nil
}

func (s *sender) encode(st *stream, intended, now int64) {
	st.encode(intended, now)
	s.sentAll += int64(s.config.Batch)
	if s.budget > 0 {
		s.budget = max(0, s.budget-int64(s.config.Batch))
	}
	if s.spacing > 0 && intended >= s.measureFrom {
		record(s.recorder.current.latencies[latencyLag], now-intended)
	}
}

func (s *sender) stampBorn(now int64) {
	if millis := (s.clock.wall + now) / 1e6; millis != s.bornMillis {
		s.bornMillis = millis
		putDigits(s.born[:], uint64(millis))
	}
}

// answered takes the outcome of one request.
func (s *sender) answered(st *stream, l *lane, r *request, a *sendAnswer, now int64) {
	batch := int64(s.config.Batch)
	stored := a.outcome == outcomeStored || a.outcome == outcomeWeak
	if stored && !a.placed || a.outcome == outcomeUnclear {
		s.missing(r.intended, codeUnreadable, batch)
		return
	}
	if stored {
		s.place(l, r, a)
	}
	if a.outcome != outcomeStored {
		if s.errors[a.code] == 0 {
			s.problem(fmt.Sprintf("%s answered code %d: %s", st.addr, a.code, a.remark))
		}
		s.missing(r.intended, a.code, batch)
		return
	}
	for i := range uint64(batch) {
		_, _ = l.acked.set(r.sequence + i)
		if l.acks != nil {
			l.acks.set(r.sequence+i, now)
		}
	}
	current := s.recorder.current
	current.messages += batch
	current.bytes += batch * int64(s.config.Size)
	s.total += batch
	s.lastAck = now
	if now >= s.measureFrom && now < s.until {
		s.measured += batch
	}
	if r.intended >= s.measureFrom {
		record(current.latencies[latencyAck], now-r.intended)
	}
}

// place checks the queue and the offset that the broker gave.
func (s *sender) place(l *lane, r *request, a *sendAnswer) {
	if a.queueID >= 0 && a.queueID != int64(l.id) {
		s.askew++
	}
	if a.offset <= r.floor {
		s.unsorted++
	}
	batch := int64(s.config.Batch)
	l.floor = max(l.floor, a.offset+batch-1)
	for i := range batch {
		at := a.offset + i - l.base
		if at < 0 {
			s.below++
			continue
		}
		if again, ok := l.offsets.set(uint64(at)); again || !ok {
			s.repeats++
		}
	}
}

// missing takes messages that were to be sent at intended and are not acknowledged. No time can be given for them; the shares
// under a limit count them as late.
func (s *sender) missing(intended int64, code int32, messages int64) {
	s.errors[code] += messages
	s.recorder.current.failed += messages
	if intended >= s.measureFrom {
		s.missed += messages
	}
}

// unknown takes a request that got no answer: it may be stored or not.
func (s *sender) unknown(st *stream, r *request, code int32) {
	batch := int64(s.config.Batch)
	s.unknowns += batch
	s.missing(r.intended, code, batch)
}

// codeName is an outcome in words.
func codeName(code int32) string {
	switch code {
	case codeTimeout:
		return "no answer in time"
	case codeConnection:
		return "connection lost"
	case codeUnreadable:
		return "unreadable answer"
	case codeUnsent:
		return "not sent in time"
	}
	return strconv.Itoa(int(code))
}

var errNoQueues = errors.New("no broker has a writable queue of the topic")
