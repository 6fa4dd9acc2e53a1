package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

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

const indexEvery = 50 * time.Millisecond

func (x *indexer) run(ctx context.Context, s *Store) {
	every(ctx, indexEvery, func() { x.follow(s, s.Dispatched()) })
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
	var r message.Record
	for at < end {
		raw, next, err := s.log.ReadNext(at, x.buf)
		if err != nil {
			s.opt.Logger.Error("the index stands still: the commit log cannot be read", "offset", at, "err", err)
			return
		}
		x.buf = raw[:0]
		if len(raw) > 0 && message.Decode(raw, &r) == nil {
			if err := s.indexRecord(&r); err != nil {
				s.opt.Logger.Error("the index stands still", "offset", at, "err", err)
				return
			}
			x.storeTime.Store(r.StoreTimestamp)
		}
		at = next
		x.at.Store(at)
	}
	if cap(x.buf) > 64<<10 {
		x.buf = nil
	}
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
