package perf

import (
	"fmt"
)

// laneKey names a lane as a reader sees it; which queue is said by the queueCheck that has it.
type laneKey struct {
	generator uint64
	stream    uint32
}

// laneCheck is what a reader has seen of one lane.
type laneCheck struct {
	seen    bitset
	settled uint64 // highest "settled" of the messages so far: none of a lower number may follow
	highest uint64 // one more than the highest sequence so far
	first   uint64 // lowest sequence seen
}

// maxLanes bounds the lanes of one queue: a queue that many runs have written to.
const maxLanes = 1 << 20

// findings count what is wrong with the messages that were read.
type findings struct {
	Received   int64 `json:"received"`
	Foreign    int64 `json:"foreign"`    // not from a generator
	Corrupt    int64 `json:"corrupt"`    // checksum of the record or of the body is wrong, or the record cannot be read
	Duplicated int64 `json:"duplicated"` // sequence seen before
	Reordered  int64 `json:"reordered"`  // behind a message that was sent after its answer
	Overtaken  int64 `json:"overtaken"`  // behind a message that was in flight at the same time
	Misplaced  int64 `json:"misplaced"`  // in another queue or topic than it was sent to or asked from
	OffsetGaps int64 `json:"offsetGaps"` // queue offsets passed over
	OffsetBack int64 `json:"offsetBack"` // queue offsets that went back
}

func (f *findings) add(o *findings) {
	f.Received += o.Received
	f.Foreign += o.Foreign
	f.Corrupt += o.Corrupt
	f.Duplicated += o.Duplicated
	f.Reordered += o.Reordered
	f.Overtaken += o.Overtaken
	f.Misplaced += o.Misplaced
	f.OffsetGaps += o.OffsetGaps
	f.OffsetBack += o.OffsetBack
}

// queueCheck verifies the messages of one queue in the order of their offsets.
type queueCheck struct {
	queue  *queue
	expect int64 // the next queue offset; -1: whatever comes
	lanes  map[laneKey]*laneCheck
	found  findings
	// lastKey and last spare most look-ups: neighbours often come from one lane.
	lastKey  laneKey
	last     *laneCheck
	problems []string
}

func newQueueCheck(q *queue, from int64) *queueCheck {
	return &queueCheck{queue: q, expect: from, lanes: map[laneKey]*laneCheck{}}
}

func (q *queueCheck) problem(format string, args ...any) {
	if len(q.problems) < maxProblems {
		place := fmt.Sprintf("%s queue %d of %s: ", q.queue.topic, q.queue.id, q.queue.addr)
		q.problems = append(q.problems, place+fmt.Sprintf(format, args...))
	}
}

// record checks one message. ours tells that s has been filled.
func (q *queueCheck) record(m *received, s *stamp) (ours bool) {
	q.found.Received++
	q.offset(m.offset)
	if m.broken != nil {
		q.corrupt(m, m.broken.Error())
		return false
	}
	if m.queueID >= 0 && m.queueID != int64(q.queue.id) || m.topic != nil && string(m.topic) != q.queue.topic {
		q.found.Misplaced++
		q.problem("offset %d: record says topic %s queue %d", m.offset, m.topic, m.queueID)
	}
	switch s.read(m.body) {
	case bodyForeign:
		q.found.Foreign++
		return false
	case bodyCorrupt:
		q.corrupt(m, "the generator's checksum does not match")
		return false
	}
	if int(s.queue) != q.queue.id {
		q.found.Misplaced++
		q.problem("offset %d: message was sent to queue %d", m.offset, s.queue)
	}
	q.sequence(m.offset, s)
	return true
}

func (q *queueCheck) corrupt(m *received, why string) {
	q.found.Corrupt++
	q.problem("offset %d: %s", m.offset, why)
}

func (q *queueCheck) offset(offset int64) {
	switch {
	case q.expect < 0 || offset == q.expect || q.queue.sparse && offset > q.expect:
	case offset > q.expect:
		q.found.OffsetGaps += offset - q.expect
		q.problem("offset %d follows %d: %d missing", offset, q.expect-1, offset-q.expect)
	default:
		q.found.OffsetBack++
		q.problem("offset %d where %d was expected", offset, q.expect)
		return
	}
	q.expect = offset + 1
}

func (q *queueCheck) sequence(offset int64, s *stamp) {
	key := laneKey{s.generator, s.stream}
	l := q.last
	if l == nil || q.lastKey != key {
		if l = q.lane(key, s.sequence); l == nil {
			q.found.Corrupt++
			q.problem("offset %d: more than %d generators and streams", offset, maxLanes)
			return
		}
		q.last, q.lastKey = l, key
	}
	again, ok := l.seen.set(s.sequence)
	switch {
	case !ok:
		q.found.Corrupt++
		q.problem("offset %d: sequence %d is beyond any run", offset, s.sequence)
		return
	case again:
		q.found.Duplicated++
		q.problem("offset %d: stream %d sequence %d again", offset, s.stream, s.sequence)
		return
	case s.sequence < l.settled:
		q.found.Reordered++
		q.problem("offset %d: stream %d sequence %d, but all below %d were settled before", offset, s.stream, s.sequence, l.settled)
	case s.sequence < l.highest:
		q.found.Overtaken++
	}
	l.settled = max(l.settled, s.settled)
	l.highest = max(l.highest, s.sequence+1)
	l.first = min(l.first, s.sequence)
}

func (q *queueCheck) lane(key laneKey, first uint64) *laneCheck {
	l := q.lanes[key]
	if l == nil {
		if len(q.lanes) >= maxLanes {
			return nil
		}
		l = &laneCheck{first: first}
		q.lanes[key] = l
	}
	return l
}

// holes counts the messages that are missing between others of their lane. Where the queue's beginning has been deleted or was not
// read, a lane begins with the first message seen.
func (q *queueCheck) holes(fromStart bool) (n int64) {
	for _, l := range q.lanes {
		from := l.first
		if fromStart {
			from = 0
		}
		n += int64(l.highest-from) - l.seen.count
	}
	return n
}
