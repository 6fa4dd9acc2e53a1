package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"sync"

	"github.com/ringmq/ringmq/ioengine"
)

// LoadScan finds all queues and their bounds from the files: a store that the Java broker wrote, or one without a valid
// snapshot. It answers the log offset behind the last message that any queue knows; 0 without queues.
//
// A queue costs listing its folder and some twenty reads in its first and last file. The bounds are found by halving,
// which trusts that a file is a row of set units before a row of zeroes. Where a machine that lost power left zeroes in
// the middle, either end may be found: what is missed is read from the log again, what is zero is told as damage.
func (t *QueueTable) LoadScan(ctx context.Context) (end int64, err error) {
	t.emptyTrash()
	topics, err := t.fs.ReadDir(t.dir)
	if err != nil {
		if isNotFound(err) {
			return 0, nil
		}
		return 0, err
	}
	var found []*ConsumeQueue
	for _, topic := range topics {
		if !topic.IsDir() {
			continue
		}
		if found, err = t.findQueues(found, topic.Name()); err != nil {
			return 0, err
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
	var mu sync.Mutex
	err = inParallel(ctx, found, func(q *ConsumeQueue) error {
		last, err := q.scan()
		mu.Lock()
		defer mu.Unlock()
		end = max(end, last)
		return err
	})
	return end, err
}

// findQueues makes the queues of one topic's folder.
func (t *QueueTable) findQueues(found []*ConsumeQueue, topic string) ([]*ConsumeQueue, error) {
	ids, err := t.fs.ReadDir(filepath.Join(t.dir, topic))
	if err != nil {
		return nil, err
	}
	for _, entry := range ids {
		id, err := strconv.ParseUint(entry.Name(), 10, 31)
		if err != nil || !entry.IsDir() || strconv.FormatUint(id, 10) != entry.Name() {
			t.log.Warn("unknown file among a topic's queues", "topic", topic, "file", entry.Name())
			continue
		}
		q, err := t.GetOrCreate(topic, int32(id))
		if err != nil {
			return nil, err
		}
		found = append(found, q)
	}
	return found, nil
}

// inParallel does work for each item, a queue or a file, on a few goroutines; the first error ends it.
func inParallel[T any](ctx context.Context, items []T, work func(item T) error) error {
	step := min(64, 1+len(items)/64)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	chunks := make(chan []T)
	var wg sync.WaitGroup
	for range min(8*runtime.GOMAXPROCS(0), 16, len(items)) {
		wg.Go(func() {
			for chunk := range chunks {
				for _, item := range chunk {
					if ctx.Err() != nil {
						break
					}
					if err := work(item); err != nil {
						cancel(err)
					}
				}
			}
		})
	}
	for chunk := range slices.Chunk(items, step) {
		chunks <- chunk
	}
	close(chunks)
	wg.Wait()
	return context.Cause(ctx)
}

// scan sets the bounds from the files and answers the log offset behind the last message.
func (q *ConsumeQueue) scan() (int64, error) {
	bases, err := q.fileBases()
	if err != nil || len(bases) == 0 {
		return 0, err
	}
	// Files before a gap can't be reached: queue offsets are contiguous.
	first := len(bases) - 1
	for first > 0 && bases[first-1] == bases[first]-q.table.fileUnits {
		first--
	}
	if first > 0 {
		q.table.log.Error("consume queue files are missing; the messages before the gap are out of reach",
			"topic", q.Topic, "queueId", q.QueueID, "file", q.fileName(bases[first]))
		bases = bases[first:]
	}
	end, last, err := q.scanEnd(bases)
	if err != nil {
		return 0, err
	}
	begin, err := q.scanBegin(bases[0], end)
	if err != nil {
		return 0, err
	}
	q.min.Store(begin)
	q.max.Store(end)
	q.Next = end
	if last.Size <= 0 || last.isFiller() {
		return 0, nil
	}
	q.lastPhys.Store(last.PhysicalOffset)
	if last.PhysicalOffset < 0 || last.PhysicalOffset > math.MaxInt64-int64(last.Size) {
		q.damaged(end - 1)
		return 0, nil
	}
	return last.PhysicalOffset + int64(last.Size), nil
}

// scanEnd finds the offset behind the last set unit, and that unit. The newest files may be empty: made in advance.
func (q *ConsumeQueue) scanEnd(bases []int64) (end int64, last Entry, err error) {
	for i := len(bases) - 1; i >= 0; i-- {
		err = q.scanFile(bases[i], func(at func(n int64) Entry) {
			n := int64(sort.Search(int(q.table.fileUnits), func(n int) bool { return at(int64(n)).Size <= 0 }))
			end = bases[i] + n
			if n > 0 {
				last = at(n - 1)
			}
		})
		if err != nil || end > bases[i] {
			return end, last, err
		}
	}
	return bases[0], Entry{}, nil
}

// scanBegin finds the first unit that is no filler.
func (q *ConsumeQueue) scanBegin(base, end int64) (begin int64, err error) {
	err = q.scanFile(base, func(at func(n int64) Entry) {
		units := int(min(q.table.fileUnits, end-base))
		begin = base
		if units > 0 && at(0).isFiller() {
			begin += int64(sort.Search(units, func(n int) bool { return !at(int64(n)).isFiller() }))
		}
	})
	return begin, err
}

// scanFile lets look read single units of one file. A file that a crash left short gets its size.
func (q *ConsumeQueue) scanFile(base int64, look func(at func(n int64) Entry)) error {
	f, err := q.table.fs.Open(q.fileName(base), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	// Nothing was written but the size, which the next writer checks again.
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if full := q.table.fileUnits * UnitSize; size > full {
		return wrongSize(f.Name(), size, full)
	} else if size < full {
		q.table.log.Warn("consume queue file is short: a crash came while it was made", "file", f.Name(), "size", size)
		if err := f.Truncate(full); err != nil {
			return err
		}
	}
	look(func(n int64) Entry {
		var unit [UnitSize]byte
		if _, readErr := f.ReadAt(unit[:], n*UnitSize); readErr != nil && readErr != io.EOF {
			err = errors.Join(err, readErr)
		}
		return entryFrom(unit[:])
	})
	return err
}

// TruncateBeyond takes back every entry whose record lies at phys or behind: the log was cut there after a crash. It is
// called before anybody reads. Units behind the queues' ends, which a snapshot does not know and nobody can see, are
// cleared in the background, so that a later scan does not take them for messages.
func (t *QueueTable) TruncateBeyond(phys int64) error {
	if err := t.CutFrom(phys); err != nil {
		return err
	}
	t.background.Go(func() {
		if err := t.clearBehind(); err != nil && t.ctx.Err() == nil {
			t.log.Error("consume queue files may hold entries of messages that were lost; only a scan would see them", "err", err)
		}
	})
	return nil
}

// CutFrom is TruncateBeyond for entries that the log is about to be read for again: units behind the queues' ends are left to be
// overwritten.
func (t *QueueTable) CutFrom(phys int64) error {
	var cut []*ConsumeQueue
	t.All(func(q *ConsumeQueue) {
		if last := q.lastPhys.Load(); q.Max() > q.Min() && (last < 0 || last >= phys) {
			cut = append(cut, q)
		}
	})
	return inParallel(t.ctx, cut, func(q *ConsumeQueue) error { return q.truncateBeyond(phys) })
}

func (q *ConsumeQueue) truncateBeyond(phys int64) error {
	if err := q.writeOut(); err != nil {
		return fmt.Errorf("truncate consume queue %s-%d: %w", q.Topic, q.QueueID, err)
	}
	// The end of the log may be what phys says already; entries behind it must be seen here and not count as damage.
	end, last := q.min.Load(), Entry{}
	err := q.rawSearch(func(at int64, e Entry) bool {
		if e.PhysicalOffset >= phys {
			return false
		}
		end, last = at+1, e
		return true
	})
	if err != nil {
		return fmt.Errorf("truncate consume queue %s-%d: %w", q.Topic, q.QueueID, err)
	}
	q.max.Store(end)
	q.Next = end
	if q.lastPhys.Store(-1); last.Size > 0 {
		q.lastPhys.Store(last.PhysicalOffset)
	}
	return nil
}

// writeOut puts all entries into the files and keeps none in memory.
func (q *ConsumeQueue) writeOut() error {
	q.table.writeMu.Lock()
	defer q.table.writeMu.Unlock()
	_, err := q.writeBack(dropNow)
	return err
}

// rawSearch is search without the checks: the first message for which before is false ends the part that stays. Units
// of zeroes count as holes.
func (q *ConsumeQueue) rawSearch(before func(at int64, e Entry) bool) error {
	var block [chunkUnits * UnitSize]byte
	for low, high := q.min.Load(), q.max.Load(); low < high; {
		mid := low + (high-low)/2
		// Step over holes from mid on.
		at, e := mid, Entry{}
		for at < high && e.Size == 0 {
			n := min(high-at, chunkUnits, q.table.fileUnits-at%q.table.fileUnits)
			if err := q.rawUnits(block[:n*UnitSize], at); err != nil {
				return err
			}
			for i := int64(0); i < n && e.Size == 0; i++ {
				if u := entryFrom(block[i*UnitSize:]); u.Size > 0 && !u.isFiller() {
					e = u
				} else {
					at++
				}
			}
		}
		if e.Size == 0 || !before(at, e) {
			high = mid
		} else {
			low = at + 1
		}
	}
	return nil
}

// rawUnits reads units as they are; a missing file reads as zeroes.
func (q *ConsumeQueue) rawUnits(b []byte, at int64) error {
	clear(b)
	f, err := q.table.files.acquire(q, at-at%q.table.fileUnits, true)
	if err != nil {
		if errors.Is(err, errNotFound) {
			return nil
		}
		return err
	}
	defer f.release()
	if _, err := f.f.ReadAt(b, at%q.table.fileUnits*UnitSize); err != nil && err != io.EOF {
		return err
	}
	return nil
}

// clearBehind makes every queue's files end with its last entry. What lies behind is nobody's: new entries are written
// under the same lock.
func (t *QueueTable) clearBehind() error {
	var all []*ConsumeQueue
	t.All(func(q *ConsumeQueue) { all = append(all, q) })
	return inParallel(t.ctx, all, func(q *ConsumeQueue) error {
		t.writeMu.Lock()
		defer t.writeMu.Unlock()
		return q.clearBehind()
	})
}

func (q *ConsumeQueue) clearBehind() error {
	if q.state.Load()&queueDeleted != 0 {
		return nil
	}
	if _, err := q.writeBack(math.MaxInt); err != nil {
		return err
	}
	q.mu.Lock()
	end := q.max.Load()
	if t := q.tail.Load(); t != nil {
		end = t.written
	}
	q.mu.Unlock()
	base := end - end%q.table.fileUnits
	if err := q.deleteFiles(func(b, _ int64) bool { return b > base }); err != nil {
		return err
	}
	f, err := q.table.files.acquire(q, base, true)
	if err != nil {
		if errors.Is(err, errNotFound) {
			return nil
		}
		return err
	}
	defer f.release()
	stale, err := hasUnits(f.f, (end-base)*UnitSize)
	if err != nil || !stale {
		return err
	}
	q.table.markDirty(f.key)
	// Down and up again drops the blocks instead of writing zeroes.
	if err := f.f.Truncate((end - base) * UnitSize); err != nil {
		return err
	}
	return f.f.Truncate(q.table.fileUnits * UnitSize)
}

// hasUnits tells whether anything is set from off on. One block is looked at: lost entries follow the last good one.
func hasUnits(f ioengine.File, off int64) (bool, error) {
	var block [chunkUnits * UnitSize]byte
	n, err := f.ReadAt(block[:], off)
	if err != nil && err != io.EOF {
		return false, err
	}
	for _, b := range block[:n] {
		if b != 0 {
			return true, nil
		}
	}
	return false, nil
}
