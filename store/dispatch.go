package store

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/ringmq/ringmq/message"
)

// In the walk of one message: before this, commitlog/append.go published the record; after this, consume_queue.go holds its entry and
// broker/long_poll.go wakes the pulls that wait for it.
//
// dispatch follows the log: each record that was published becomes an entry of its queue, in log order. It has no thread of its own. A
// reactor dispatches at the end of its turn what it appended in it, while the bytes are in its cache and before it writes its answers,
// so a consumer learns of a message without any thread being woken. (The original hands over to a thread that polls: 0.55 ms from
// acknowledgement to consumer.) Does the work of ReputMessageService.
type dispatch struct {
	// mu is the ownership of the follower's place: one at a time.
	mu sync.Mutex
	// at is how far the log was followed. Invariant: at <= published, and every record before it is in its queue.
	at atomic.Int64
	// arrived are the queues that got entries while pulls are held on them, collected within one run.
	arrived []*ConsumeQueue
	// notes come from those who append; indexNotes go to the indexer.
	notes      noteList[note]
	indexNotes noteList[indexNote]
	record     message.Record
	buf        []byte
	// stuck is set when the log cannot be followed any further: said once, and visible in the broker's status as dispatchBehindBytes.
	stuck atomic.Bool
}

// Dispatched is the log offset before which every record is in its queue.
func (s *Store) Dispatched() int64 { return s.dispatch.at.Load() }

// dispatchPatience is how often a thread looks whether another one has dispatched for it, some microseconds in all: that one is at it.
const dispatchPatience = 2000

// Dispatch follows the log up to where it ends now. It never waits: false tells that another thread is at it and has not come so far yet, and
// that the caller has to come back soon, for that one goes no further than where the log ended when it began. A thread that went on for
// as long as others append would never get to its own connections again.
func (s *Store) Dispatch() bool {
	d := &s.dispatch
	end, looks := s.log.Published(), 0
	for d.at.Load() < end && !d.stuck.Load() {
		if d.mu.TryLock() {
			s.dispatchLocked()
			d.mu.Unlock()
		} else if looks++; looks > dispatchPatience {
			return false
		}
	}
	return true
}

// DispatchWait is Dispatch for goroutines that may wait.
func (s *Store) DispatchWait() {
	d := &s.dispatch
	d.mu.Lock()
	defer d.mu.Unlock()
	for end := s.log.Published(); d.at.Load() < end && !d.stuck.Load(); {
		s.dispatchLocked()
	}
}

// dispatchLocked follows the log and wakes the pulls that wait.
func (s *Store) dispatchLocked() {
	arrived := s.follow()
	for _, q := range arrived {
		s.opt.OnArrive(q)
	}
	s.dispatch.arrived = arrived[:0]
}

// follow dispatches up to the end of the log as it is now and returns the queues to wake.
func (s *Store) follow() []*ConsumeQueue {
	d := &s.dispatch
	for at, end := d.at.Load(), s.log.Published(); at < end; {
		limit := end
		switch n := d.notes.from(at, (*note).place); {
		case n == nil:
		case n.index.at == at:
			at = n.end()
			s.dispatchNoted(n)
			d.notes.taken()
			d.at.Store(at)
			continue
		default:
			limit = min(limit, n.index.at)
		}
		view, ok := s.log.ViewHot(at)
		if !ok {
			return s.followCold(at)
		}
		b := view.Bytes
		n := s.dispatchRun(b[:min(int64(len(b)), limit-at)], at)
		view.Done()
		if n == 0 {
			s.dispatchStuck(at, errNoRecord)
			return d.arrived
		}
		at += n
		d.at.Store(at)
	}
	return d.arrived
}

// dispatchNoted is dispatchPublished for a record with a note, which says all that is wanted of it. A queue that was deleted since takes
// nothing any more.
func (s *Store) dispatchNoted(n *note) {
	d, q := &s.dispatch, n.queue
	if s.index != nil && n.index.keys.n > 0 {
		if to := d.indexNotes.room(); to != nil {
			*to = n.index
			d.indexNotes.added()
		}
	}
	if q.deleted() {
		return
	}
	q.Append(n.offset, Entry{PhysicalOffset: n.index.at, Size: n.index.size, TagsCode: n.tagsCode})
	d.arrive(q)
}

// arrive notes a queue that got an entry, if pulls are held on it.
func (d *dispatch) arrive(q *ConsumeQueue) {
	if q.Waiters.Load() > 0 {
		if a := d.arrived; len(a) == 0 || a[len(a)-1] != q {
			d.arrived = append(a, q)
		}
	}
}

// dispatchRun dispatches the records at the start of b, which lie at the log offset at, and returns how far it got; a blank counts up
// to the end of its segment.
func (s *Store) dispatchRun(b []byte, at int64) int64 {
	r := &s.dispatch.record
	var done int64
	for int64(len(b)) > done {
		if int64(len(b))-done < message.BlankSize {
			return done + s.log.ToSegmentEnd(at+done)
		}
		switch err := message.Decode(b[done:], r); err {
		case nil:
			s.dispatchPublished(r)
			done += int64(r.Size)
		case message.ErrBlank:
			return done + s.log.ToSegmentEnd(at+done)
		default:
			return done
		}
	}
	return done
}

// dispatchPublished puts the entry of a record that this process appended into its queue. A queue that is gone, or that began behind the
// record, tells that the record's topic was deleted since: its queue offset means nothing to the queue that has the name now.
func (s *Store) dispatchPublished(r *message.Record) {
	if !isQueued(r) {
		return
	}
	q := s.queues.Get(r.Topic, r.QueueID)
	if q == nil || r.PhysicalOffset < q.begin.Load() {
		return
	}
	s.addEntry(q, r)
	s.dispatch.arrive(q)
}

// dispatchRecord puts the entry of a record that a start read into its queue, made if it is not there. A record of queue offset 0 behind
// the queue's entries tells that the topic was deleted and made again, and that the run ended before a checkpoint knew: the entries are of
// the deleted queue, and would be in the way of those of the new one.
func (s *Store) dispatchRecord(r *message.Record) {
	if !isQueued(r) {
		return
	}
	q := s.queues.Get(r.Topic, r.QueueID)
	if q == nil {
		var err error
		if q, err = s.queues.GetOrCreate(string(r.Topic), r.QueueID); err != nil {
			s.opt.Logger.Error("a record has no queue", "topic", string(r.Topic), "queueId", r.QueueID, "offset", r.PhysicalOffset, "err", err)
			return
		}
	}
	if last := q.lastPhys.Load(); r.QueueOffset == 0 && q.Max() > 0 && last >= 0 && r.PhysicalOffset > last {
		fresh, err := s.queues.renew(q)
		if err != nil {
			s.opt.Logger.Error("a queue that began anew keeps its old entries", "topic", q.Topic, "queueId", q.QueueID, "offset", r.PhysicalOffset, "err", err)
			return
		}
		q = fresh
	}
	s.addEntry(q, r)
}

// isQueued tells whether a record has an entry: prepared and rolled-back messages have none.
func isQueued(r *message.Record) bool {
	t := r.SysFlag & message.SysTransactionMask
	return t != message.SysTransactionPrepared && t != message.SysTransactionRollback
}

func (s *Store) addEntry(q *ConsumeQueue, r *message.Record) {
	q.Append(r.QueueOffset, Entry{PhysicalOffset: r.PhysicalOffset, Size: r.Size, TagsCode: s.tagsCode(r)})
}

// tagsCode is what the queue entry says of the tags; for a delayed message, when it is due.
func (s *Store) tagsCode(r *message.Record) int64 {
	hot := message.ScanHot(r.Properties)
	if len(hot.Delay) > 0 && string(r.Topic) == message.ScheduleTopic {
		if due, ok := s.dueTime(hot.Delay, r.StoreTimestamp); ok {
			return due
		}
	}
	if len(hot.Tags) == 0 {
		return 0
	}
	return message.TagsCode(hot.Tags)
}

// followCold dispatches records that have left the memory behind the tail: after a start, or when dispatching was held up.
func (s *Store) followCold(at int64) []*ConsumeQueue {
	d := &s.dispatch
	raw, next, err := s.log.ReadNext(at, d.buf)
	if err != nil {
		s.dispatchStuck(at, err)
		return d.arrived
	}
	d.buf = raw[:0]
	if len(raw) > 0 && s.dispatchRun(raw, at) == 0 {
		s.dispatchStuck(at, errNoRecord)
		return d.arrived
	}
	d.at.Store(next)
	return d.arrived
}

var errNoRecord = errors.New("no record starts there")

func (s *Store) dispatchStuck(at int64, err error) {
	s.dispatch.stuck.Store(true)
	s.opt.Logger.Error("the commit log cannot be followed any further: new messages are stored but not delivered. "+
		"Start the broker again, which sets damaged parts aside", "offset", at, "err", err)
}
