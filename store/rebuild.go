package store

import (
	"errors"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/message"
)

// Rule R5: a consume queue with an entry that can't be true is read from the log again, in the background.

// damagedQueue is a queue whose entries are to be trusted no more from one offset on.
type damagedQueue struct {
	topic   string
	queueID int32
	from    int64
}

// queueDamaged is QueueTableOptions.OnDamage.
func (s *Store) queueDamaged(topic string, queueID int32, from int64) {
	s.opt.Logger.Error("a consume queue file is damaged; its entries are read from the log again", "topic", topic, "queueId", queueID, "offset", from)
	d := damagedQueue{topic, queueID, from}
	s.damagedMu.Lock()
	defer s.damagedMu.Unlock()
	if !s.opened {
		s.damaged = append(s.damaged, d)
		return
	}
	s.wg.Go(func() { s.rebuildQueue(d) })
}

// rebuildFound begins with what was met while the store was opened: there was no log to read from.
func (s *Store) rebuildFound() {
	s.damagedMu.Lock()
	defer s.damagedMu.Unlock()
	s.opened = true
	for _, d := range s.damaged {
		s.wg.Go(func() { s.rebuildQueue(d) })
	}
	s.damaged = nil
}

var errQueueGone = errors.New("its topic was deleted")

func (s *Store) rebuildQueue(d damagedQueue) {
	n, err := s.rewriteFrom(d)
	switch {
	case err == nil:
		s.opt.Logger.Info("the damaged consume queue is whole again", "topic", d.topic, "queueId", d.queueID, "entries", n)
	case !errors.Is(err, errQueueGone) && s.ctx.Err() == nil:
		s.opt.Logger.Error("the queue stays damaged", "topic", d.topic, "queueId", d.queueID, "err", err)
	}
}

// rewriteFrom reads the log and rewrites the entries of one queue from an offset on. What the log does not hold becomes a hole: its
// message is lost, and it must not count as damage again at each look.
func (s *Store) rewriteFrom(d damagedQueue) (rewritten int, err error) {
	q := s.queues.Get([]byte(d.topic), d.queueID)
	if q == nil {
		return 0, errQueueGone
	}
	// Only after it, damage in this queue is reported again.
	defer q.EndRewrite()
	// In this order: every entry below max has its record before end.
	max := q.Max()
	end := s.log.Published()
	next := d.from
	var buf []byte
	var r message.Record
	for at := s.rebuildStart(q, d.from); at < end && next < max; {
		if s.ctx.Err() != nil {
			return rewritten, commitlog.ErrClosed
		}
		raw, after, err := s.log.ReadNext(at, buf)
		if err != nil {
			return rewritten, err
		}
		buf, at = raw[:0], after
		if len(raw) == 0 || message.Decode(raw, &r) != nil || r.QueueOffset < next || r.QueueOffset >= max || !s.hasEntry(&r, d) {
			continue
		}
		if err := rewriteHoles(q, next, r.QueueOffset); err != nil {
			return rewritten, err
		}
		if err := q.Rewrite(r.QueueOffset, Entry{r.PhysicalOffset, r.Size, s.tagsCode(&r)}); err != nil {
			return rewritten, err
		}
		next = r.QueueOffset + 1
		rewritten++
	}
	return rewritten, rewriteHoles(q, next, max)
}

// hasEntry tells whether a record is one of the queue's.
func (s *Store) hasEntry(r *message.Record, d damagedQueue) bool {
	t := r.SysFlag & message.SysTransactionMask
	return r.QueueID == d.queueID && string(r.Topic) == d.topic && t != message.SysTransactionPrepared && t != message.SysTransactionRollback
}

func rewriteHoles(q *ConsumeQueue, from, to int64) error {
	for ; from < to; from++ {
		if err := q.Rewrite(from, Entry{}); err != nil {
			return err
		}
	}
	return nil
}

// rebuildStart is where in the log the record of the entry before from lies, if that entry is good; else the start of the log.
func (s *Store) rebuildStart(q *ConsumeQueue, from int64) int64 {
	var e [1]Entry
	n, err := q.ReadWait(from-1, e[:])
	if err != nil || n == 0 || e[0].Size <= 0 {
		return s.log.MinOffset()
	}
	raw, err := s.log.ReadRecord(e[0].PhysicalOffset)
	if err != nil {
		return s.log.MinOffset()
	}
	var r message.Record
	if message.Decode(raw, &r) != nil || r.QueueOffset != from-1 || !s.hasEntry(&r, damagedQueue{q.Topic, q.QueueID, from}) {
		return s.log.MinOffset()
	}
	return e[0].PhysicalOffset
}
