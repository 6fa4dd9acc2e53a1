package store

import (
	"hash/maphash"
	"sync/atomic"
)

// queueLookup finds a queue by topic and queue id for each message that is stored, dispatched or read: an open-addressed table of all queues
// in one row. With 100,000 queues nothing of them is in the processor's cache, and what counts is how many cache lines a look touches: a
// slot, the queue, its topic's name. By way of the map of topics and the slice of a topic's queues it was six or seven, a tenth of the
// server's time.
//
// Readers take no lock. Writers hold QueueTable.createMu. A slot that was in use keeps a pointer, to gone when its queue is deleted, until
// the table is made anew, so that a reader never stops short of what it looks for.
type queueLookup struct {
	seed  maphash.Seed
	table atomic.Pointer[[]queueSlot] // its length is a power of two
	used  int                         // slots that are not empty. Invariant: used <= len(table)/2
}

type queueSlot struct {
	// hash is that of topic and id. It is stored before q, and readers load it after.
	hash atomic.Uint64
	q    atomic.Pointer[ConsumeQueue] // nil: never used
}

// gone stands in the slots of queues that were deleted.
var gone ConsumeQueue

const minLookup = 64

func (l *queueLookup) init(seed maphash.Seed, queues int) {
	l.seed = seed
	l.used = 0
	size := minLookup
	for 2*size < 5*queues {
		size *= 2
	}
	table := make([]queueSlot, size)
	l.table.Store(&table)
}

func spread(topic uint64, queueID int32) uint64 {
	h := (topic ^ uint64(uint32(queueID))) * 0x9E3779B97F4A7C15
	return h ^ h>>32
}

// get answers the queue or nil. Nothing is allocated.
func (l *queueLookup) get(topic []byte, queueID int32) *ConsumeQueue {
	h := spread(maphash.Bytes(l.seed, topic), queueID)
	table := *l.table.Load()
	for at := h; ; at++ {
		s := &table[at%uint64(len(table))]
		q := s.q.Load()
		if q == nil {
			return nil
		}
		if s.hash.Load() == h && q.QueueID == queueID && q.Topic == string(topic) {
			return q
		}
	}
}

// slotLocked is where q stands, or the empty slot where it belongs.
func (l *queueLookup) slotLocked(q *ConsumeQueue) *queueSlot {
	h := spread(maphash.String(l.seed, q.Topic), q.QueueID)
	table := *l.table.Load()
	for at := h; ; at++ {
		s := &table[at%uint64(len(table))]
		there := s.q.Load()
		if there == nil {
			s.hash.Store(h)
			return s
		}
		if s.hash.Load() == h && there.QueueID == q.QueueID && there.Topic == q.Topic {
			return s
		}
	}
}

// putLocked adds a queue, or puts it in the place of the one of that name. all visits the queues that are there, for a table made anew.
func (l *queueLookup) putLocked(q *ConsumeQueue, all func(visit func(*ConsumeQueue))) {
	if 2*(l.used+1) > len(*l.table.Load()) {
		l.growLocked(all)
	}
	s := l.slotLocked(q)
	if s.q.Load() == nil {
		l.used++
	}
	s.q.Store(q)
}

// growLocked makes a table for twice the queues that there are; readers go on in the old one until it is done.
func (l *queueLookup) growLocked(all func(visit func(*ConsumeQueue))) {
	n := 0
	all(func(*ConsumeQueue) { n++ })
	var next queueLookup
	next.init(l.seed, max(n, 1))
	all(func(q *ConsumeQueue) {
		next.slotLocked(q).q.Store(q)
		next.used++
	})
	l.used = next.used
	l.table.Store(next.table.Load())
}

func (l *queueLookup) removeLocked(q *ConsumeQueue) {
	if s := l.slotLocked(q); s.q.Load() == q {
		s.q.Store(&gone)
	}
}
