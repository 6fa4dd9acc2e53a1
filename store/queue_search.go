package store

import (
	"fmt"
	"math"
	"strconv"
)

// OffsetByTime finds the first entry whose store time is at least ts; Max when all are older. With upper it finds the
// last one whose store time is at most ts; Min when all are younger. Holes are skipped. storeTime reads one record's
// store time from the log; its error ends the search. May wait for the disk.
func (q *ConsumeQueue) OffsetByTime(ts int64, upper bool, storeTime func(e Entry) (int64, error)) (int64, error) {
	from, to := q.min.Load(), q.max.Load()
	at, err := q.search(from, to, func(e Entry) (bool, error) {
		t, err := storeTime(e)
		return t > ts || t == ts && !upper, err
	})
	if err != nil || !upper {
		return at, err
	}
	// Step back over holes to the last entry that is not younger.
	var one [1]Entry
	for at--; at >= from; at-- {
		if _, err := q.ReadWait(at, one[:]); err != nil {
			return 0, err
		}
		if one[0].Size > 0 {
			return at, nil
		}
	}
	return from, nil
}

// search finds the first entry in [from, to) for which reached holds, given that it holds for all behind such a one.
// Holes are skipped; to when there is none.
func (q *ConsumeQueue) search(from, to int64, reached func(e Entry) (bool, error)) (int64, error) {
	found := to
	for low, high := from, to; low < high; {
		mid := low + (high-low)/2
		at, e, err := q.nextEntry(mid, high)
		if err != nil {
			return 0, err
		}
		if at == high {
			high = mid
			continue
		}
		ok, err := reached(e)
		if err != nil {
			return 0, err
		}
		if ok {
			found, high = at, mid
		} else {
			low = at + 1
		}
	}
	return found, nil
}

// nextEntry is the first entry in [from, to) that is no hole; to when all are.
func (q *ConsumeQueue) nextEntry(from, to int64) (int64, Entry, error) {
	// The first probe nearly always meets an entry; only holes make it read on in larger steps.
	var entries [32]Entry
	for n := 1; from < to; n = len(entries) {
		got, err := q.ReadWait(from, entries[:min(int64(n), to-from)])
		if err != nil {
			return 0, Entry{}, err
		}
		if got == 0 {
			return 0, Entry{}, fmt.Errorf("search consume queue %s-%d: offset %d was trimmed meanwhile", q.Topic, q.QueueID, from)
		}
		for _, e := range entries[:got] {
			if e.Size > 0 {
				return from, e, nil
			}
			from++
		}
	}
	return to, Entry{}, nil
}

// TrimBefore follows a deletion in the log, which now starts at minPhys: Min becomes the first entry whose record is
// still there, and the files that lie wholly before it are deleted, the last one never. What can't be done now is
// logged and done by a later call. One caller at a time. May wait for the disk.
func (q *ConsumeQueue) TrimBefore(minPhys int64) {
	if err := q.trimBefore(minPhys); err != nil {
		q.table.log.Error("consume queue was not trimmed", "topic", q.Topic, "queueId", q.QueueID, "offset", minPhys, "err", err)
	}
}

func (q *ConsumeQueue) trimBefore(minPhys int64) error {
	from, to := q.min.Load(), q.max.Load()
	if from == to || minPhys <= max(q.minPhys.Load(), 0) {
		return nil
	}
	at := to
	// Without this, a queue that nobody used for long would cost reading its file each time.
	if last := q.lastPhys.Load(); last < 0 || last >= minPhys {
		var err error
		at, err = q.search(from, to, func(e Entry) (bool, error) { return e.PhysicalOffset >= minPhys, nil })
		if err != nil {
			return err
		}
	}
	q.raiseMin(at, minPhys)
	if at/q.table.fileUnits > from/q.table.fileUnits {
		return q.deleteFiles(func(base, last int64) bool { return base+q.table.fileUnits <= at && base < last })
	}
	return nil
}

func (q *ConsumeQueue) raiseMin(at, minPhys int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// The entry at min has at least this offset, the next to be appended has, too.
	q.minPhys.Store(minPhys)
	q.min.Store(at)
}

// deleteFiles removes those files of the queue that drop chooses; last is the base of the newest.
func (q *ConsumeQueue) deleteFiles(drop func(base, last int64) bool) error {
	bases, err := q.fileBases()
	if err != nil {
		return err
	}
	for _, base := range bases {
		if !drop(base, bases[len(bases)-1]) {
			continue
		}
		q.table.forget(fileKey{q, base})
		if err := q.table.fs.Remove(q.fileName(base)); err != nil {
			return err
		}
	}
	return nil
}

// fileBases lists the queue's files by the queue offset of their first unit, ascending. Names that are none are left
// alone.
func (q *ConsumeQueue) fileBases() ([]int64, error) {
	names, err := q.table.fs.ReadDir(q.dir())
	if err != nil {
		if isNotFound(err) {
			return nil, nil
		}
		return nil, err
	}
	var bases []int64
	for _, entry := range names {
		name := entry.Name()
		at, err := strconv.ParseInt(name, 10, 64)
		size := q.table.fileUnits * UnitSize
		if len(name) != 20 || err != nil || at < 0 || at%size != 0 || at > math.MaxInt64-size || entry.IsDir() {
			q.table.log.Warn("unknown file among a consume queue's files", "topic", q.Topic, "queueId", q.QueueID, "file", name)
			continue
		}
		bases = append(bases, at/UnitSize)
	}
	return bases, nil
}
