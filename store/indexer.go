package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/internal/beat"
	"github.com/ringmq/ringmq/message"
)

// indexer follows the dispatched log and puts keys into the index, on its own goroutine: an index entry is two scattered writes, which
// have no place on a reactor. It wakes by a timer and not by messages, so it costs nothing a message; a query does what is left first, so
// that every message acknowledged before it is found.
type indexer struct {
	at        atomic.Int64
	storeTime atomic.Int64

	mu  sync.Mutex // one follows at a time; guards buf
	buf []byte
}

// maxCatchUp bounds what a query indexes before it looks, in bytes of the log: behind a rebuild it does not wait.
const maxCatchUp = 64 << 20

// How often the indexer looks: the first time while there is something, twice as long after each look that found nothing, up to the second. An idle
// broker must not wake twenty times a second for its index; what begins after a rest waits little more than a second.
const (
	indexEvery = 50 * time.Millisecond
	indexRest  = time.Second
)

func (x *indexer) run(ctx context.Context, s *Store) {
	rest := indexEvery
	timer := time.NewTimer(rest)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if end := s.Dispatched(); end > x.at.Load() {
			x.follow(s, end)
			rest = indexEvery
		} else {
			rest = min(2*rest, indexRest)
		}
		if rest == indexRest {
			timer.Reset(beat.UntilNext(rest))
		} else {
			timer.Reset(rest)
		}
	}
}

// catchUp indexes what was dispatched before a query.
func (x *indexer) catchUp(s *Store) {
	if end := s.Dispatched(); end-x.at.Load() < maxCatchUp {
		x.follow(s, end)
	}
}

// follow indexes up to the log offset end.
func (x *indexer) follow(s *Store, end int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := max(x.at.Load(), s.log.MinOffset())
	for at < end {
		limit := end
		if n := s.dispatch.indexNotes.from(at, (*indexNote).place); n != nil {
			if n.at == at {
				if err := s.index.putHashes(at, n.storeTime, &n.keys); err != nil {
					s.opt.Logger.Error("the index stands still", "offset", at, "err", err)
					return
				}
				at = n.end()
				x.storeTime.Store(n.storeTime)
				s.dispatch.indexNotes.taken()
				x.at.Store(at)
				continue
			}
			limit = min(end, n.at)
		}
		next, err := x.followRun(s, at, limit)
		if err == nil && next == at {
			next, err = x.followOne(s, at)
		}
		if err != nil {
			s.opt.Logger.Error("the index stands still", "offset", at, "err", err)
			return
		}
		at = next
		x.at.Store(at)
	}
	if cap(x.buf) > indexRun {
		x.buf = nil
	}
}

// indexRun is how much of the log is read at a time: reading each record by itself took half of the indexer's time.
const indexRun = 64 << 10

// followRun indexes the whole records of one run, and answers where it stopped: at the first that is not whole in it, or is none.
func (x *indexer) followRun(s *Store, at, end int64) (int64, error) {
	if cap(x.buf) < indexRun {
		x.buf = make([]byte, indexRun)
	}
	b := x.buf[:min(indexRun, end-at, s.log.ToSegmentEnd(at))]
	if err := s.log.ReadWait(b, at); err != nil {
		return at, err
	}
	var r message.Record
	for len(b) > 0 && message.Decode(b, &r) == nil && r.PhysicalOffset == at {
		if err := s.indexRecord(&r); err != nil {
			return at, err
		}
		x.storeTime.Store(r.StoreTimestamp)
		b, at = b[r.Size:], at+int64(r.Size)
		x.at.Store(at)
	}
	return at, nil
}

// followOne goes on where a run could not: a record that is larger, the end of a segment, damage.
func (x *indexer) followOne(s *Store, at int64) (int64, error) {
	raw, next, err := s.log.ReadNext(at, x.buf)
	if err != nil {
		return at, err
	}
	x.buf = raw[:0]
	var r message.Record
	if len(raw) > 0 && message.Decode(raw, &r) == nil {
		if err := s.indexRecord(&r); err != nil {
			return at, err
		}
		x.storeTime.Store(r.StoreTimestamp)
	}
	return next, nil
}

func (s *Store) indexRecord(r *message.Record) error {
	if r.SysFlag&message.SysTransactionMask == message.SysTransactionRollback {
		return nil
	}
	hot := message.ScanHot(r.Properties)
	return s.index.Put(r.PhysicalOffset, r.StoreTimestamp, r.Topic, hot.UniqKey, hot.Keys, hot.Tags)
}

// IndexedOffset is the log offset before which every key can be asked for.
func (s *Store) IndexedOffset() int64 { return s.indexer.at.Load() }
