package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ringmq/ringmq/ioengine"
)

// manyDirty is how many dirty files make one sync of the whole file system cheaper than one each.
const manyDirty = 64

// volumes is what an ioengine.FS may have besides.
type volumes interface {
	OpenVolume(dir string) (ioengine.Volume, error)
}

// Backlog is the bytes of entries that wait to be written. It stays near QueueTableOptions.MaxUnwritten unless writing
// fails; whoever accepts messages can stop at a multiple of it.
func (t *QueueTable) Backlog() int64 { return t.unwritten.Load() }

// activate lists a queue that has got a tail. It may be listed still: somebody dropped its tail outside a pass.
func (t *QueueTable) activate(q *ConsumeQueue) {
	t.activeMu.Lock()
	defer t.activeMu.Unlock()
	if !q.listed {
		q.listed = true
		t.active = append(t.active, q)
	}
}

// retire takes a queue without a tail off the list of active queues; false: it has got one again and stays.
func (t *QueueTable) retire(q *ConsumeQueue) bool {
	t.activeMu.Lock()
	defer t.activeMu.Unlock()
	q.listed = q.tail.Load() != nil
	return !q.listed
}

// grown counts bytes that wait for the flusher. When it does not keep up, the caller does its work.
func (t *QueueTable) grown(bytes int64) {
	now := t.unwritten.Add(bytes)
	if now <= t.relieveAt.Load() {
		return
	}
	if err := t.WriteBack(); err != nil {
		// The entries stay in memory; the flusher reports the error, the next try is 1 MiB away.
		t.relieveAt.Store(now + 1<<20)
	}
}

// WriteBack writes the entries of all active queues to their files, which makes them safe from a kill of the process,
// not from a crash of the machine. A queue whose writing fails keeps its entries and is tried again by the next call;
// the others are written all the same.
func (t *QueueTable) WriteBack() error {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	failed := t.pass(t.writers(), func(q *ConsumeQueue) (bool, error) { return q.writeBack(t.idlePasses) })
	if failed == nil {
		t.relieveAt.Store(t.maxUnwritten)
	}
	return failed
}

// writers is how many goroutines write all queues. The first write of a queue makes a folder and a file, which takes ext4 some 70
// microseconds; several at a time, in different topics, take a quarter less, for it has one journal.
func (t *QueueTable) writers() int {
	t.activeMu.Lock()
	defer t.activeMu.Unlock()
	if len(t.active) < sharedPass {
		return 1
	}
	return max(2, min(runtime.GOMAXPROCS(0), 4))
}

// sharedPass is how many active queues make several writers worth it.
const sharedPass = 1024

// pass calls work for each active queue, on so many goroutines; those for which it answers false are active no more. The caller holds writeMu.
func (t *QueueTable) pass(writers int, work func(q *ConsumeQueue) (active bool, err error)) error {
	t.activeMu.Lock()
	pass := t.active
	t.active, t.spare = t.spare[:0], nil
	t.activeMu.Unlock()

	var kept int
	var failed error
	if writers > 1 {
		kept, failed = t.passParts(pass, writers, work)
	} else {
		kept, failed = t.passPart(pass, work)
	}
	keep := pass[:kept]
	clear(pass[kept:])
	t.activeMu.Lock()
	// What became active meanwhile joins what stayed.
	t.active, t.spare = append(keep, t.active...), t.active
	clear(t.spare)
	t.activeMu.Unlock()
	return failed
}

// passPart calls work for each queue and moves those that stay active, so many, to the front. The error is the first.
func (t *QueueTable) passPart(part []*ConsumeQueue, work func(q *ConsumeQueue) (active bool, err error)) (kept int, failed error) {
	for _, q := range part {
		active, err := work(q)
		if err != nil && failed == nil {
			failed = fmt.Errorf("write consume queue %s-%d: %w", q.Topic, q.QueueID, err)
		}
		if active || !t.retire(q) {
			part[kept] = q
			kept++
		}
	}
	return kept, failed
}

// passParts is passPart on several goroutines. Each takes neighbours, which are of one topic as a rule: what is made in one folder is made one
// after the other.
func (t *QueueTable) passParts(pass []*ConsumeQueue, writers int, work func(q *ConsumeQueue) (active bool, err error)) (kept int, failed error) {
	parts := slices.Collect(slices.Chunk(pass, max(1, (len(pass)+writers-1)/writers)))
	stay, errs := make([]int, len(parts)), make([]error, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() { stay[i], errs[i] = t.passPart(part, work) })
	}
	wg.Wait()
	for i, part := range parts {
		kept += copy(pass[kept:], part[:stay[i]])
		if failed == nil {
			failed = errs[i]
		}
	}
	return kept, failed
}

// Which entries WriteBackDue writes. A write of one entry costs as much as one of a chunk: opening the file, a page of the page cache and
// later of the disk, a sync. With 100,000 queues that get an entry each second, writing each of them each second took four fifths of the
// throughput. So entries wait until a queue has a chunk of them, until they have waited long, or until their memory is wanted; a
// checkpoint does not need them in the files, because the snapshot carries what is not (queue_snapshot.go).
const (
	// dueUnits is how many unwritten entries make a queue due at once.
	dueUnits = chunkUnits
	// duePasses is how many passes entries may wait, and lateWrites how many queues one pass writes because theirs have: the first write of
	// a queue makes two folders and a file and costs ten times a later one, so many of them must not come at once.
	duePasses  = 60
	lateWrites = 256
	// While more memory is held than QueueTableOptions.MaxHeld, queues with pressedUnits unwritten entries are written and let go of it, if
	// that is not enough the others, too; pressedWrites in one pass, but all that it takes at twice MaxHeld.
	pressedUnits  = 8
	pressedWrites = 4096
)

// WriteBackDue is the part of WriteBack that is due: a flusher calls it once a second. Errors are those of WriteBack.
func (t *QueueTable) WriteBackDue() error {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	until := time.Now().Add(t.maxPass)
	late := budget{writes: lateWrites, until: until}
	failed := t.pass(1, func(q *ConsumeQueue) (bool, error) { return q.writeDue(&late) })
	writes := budget{writes: pressedWrites, until: until}
	if t.held.Load() >= 2*t.maxHeld {
		writes = budget{writes: math.MaxInt, until: until.Add(time.Hour)}
	}
	for _, least := range [...]int64{pressedUnits, 1} {
		if failed != nil || t.held.Load() <= t.maxHeld {
			break
		}
		failed = t.relieve(least, &writes)
	}
	if failed == nil {
		t.relieveAt.Store(t.maxUnwritten)
	}
	return failed
}

// budget is what a pass may do of what can wait: on a disk that is busy with other things a first write takes many milliseconds, and the
// checkpoint that follows must not wait for hundreds of them.
type budget struct {
	writes int
	until  time.Time
}

// take counts one write; false means that it has to wait.
func (b *budget) take() bool {
	if b.writes == 0 || !time.Now().Before(b.until) {
		b.writes = 0
		return false
	}
	b.writes--
	return true
}

// relieve writes up to so many queues with at least so many unwritten entries, and lets go of tails that are written, until a quarter of
// the memory is free.
func (t *QueueTable) relieve(least int64, writes *budget) error {
	return t.pass(1, func(q *ConsumeQueue) (bool, error) {
		tail := q.tail.Load()
		if tail == nil {
			return false, nil
		}
		n := q.max.Load() - tail.written
		if t.held.Load() <= t.maxHeld/4*3 || n > 0 && (n < least || !writes.take()) {
			return true, nil
		}
		return q.writeBack(dropNow)
	})
}

// dropNow as the idlePasses of writeBack drops a tail that is written.
const dropNow = -1

// writeDue is writeBack if it is due. late bounds how many queues are written in this pass because their entries have waited.
func (q *ConsumeQueue) writeDue(late *budget) (active bool, err error) {
	t := q.tail.Load()
	if t == nil {
		return false, nil
	}
	switch n := q.max.Load() - t.written; {
	case n == 0, n >= dueUnits, q.deleted():
	case t.waited < duePasses:
		t.waited++
		return true, nil
	case !late.take():
		return true, nil
	}
	return q.writeBack(q.table.idlePasses)
}

// InFiles is the log offset before which every entry is in its file, at most upTo; every record before upTo has been given to Append
// already. What lies before it is durable after the next Sync.
func (t *QueueTable) InFiles(upTo int64) int64 {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	t.activeMu.Lock()
	active := t.active
	t.activeMu.Unlock()
	for _, q := range active {
		if tail := q.tail.Load(); tail != nil && !q.deleted() {
			upTo = min(upTo, q.firstUnwritten(tail))
		}
	}
	return upTo
}

// firstUnwritten is the log offset of the first message that is not in the file. The caller holds table.writeMu.
func (q *ConsumeQueue) firstUnwritten(t *queueTail) int64 {
	end := q.max.Load()
	for c := t.head.Load(); c != nil; c = c.next.Load() {
		for at := max(t.written, c.first); at < min(end, c.end()); at++ {
			if e := entryFrom(c.slice(at, at+1)); !e.isFiller() {
				return e.PhysicalOffset
			}
		}
	}
	return math.MaxInt64
}

func (t *QueueTable) markDirty(key fileKey) {
	t.dirtyMu.Lock()
	defer t.dirtyMu.Unlock()
	t.dirty[key] = struct{}{}
}

func (t *QueueTable) markNamed(q *ConsumeQueue) {
	t.dirtyMu.Lock()
	defer t.dirtyMu.Unlock()
	t.named[q] = struct{}{}
}

// forget drops a file that is about to be removed.
func (t *QueueTable) forget(key fileKey) {
	t.files.forget(func(k fileKey) bool { return k == key })
	t.dirtyMu.Lock()
	defer t.dirtyMu.Unlock()
	delete(t.dirty, key)
}

// Sync makes durable what WriteBack wrote before. After an error it never answers nil again: the bytes that were to be
// synced may be lost, and only a start from an older snapshot brings them back from the log.
func (t *QueueTable) Sync() error {
	t.syncMu.Lock()
	defer t.syncMu.Unlock()
	if t.syncErr != nil {
		return t.syncErr
	}
	t.dirtyMu.Lock()
	dirty, named := t.dirty, t.named
	t.dirty, t.named = map[fileKey]struct{}{}, map[*ConsumeQueue]struct{}{}
	t.dirtyMu.Unlock()
	if err := t.syncAll(dirty, named); err != nil {
		t.syncErr = fmt.Errorf("sync consume queues: %w", err)
	}
	return t.syncErr
}

func (t *QueueTable) syncAll(dirty map[fileKey]struct{}, named map[*ConsumeQueue]struct{}) error {
	if t.volume != nil && len(dirty)+len(named) > manyDirty {
		return t.volume.Sync()
	}
	// Side by side: a file system that journals takes several syncs in one commit.
	err := inParallel(context.Background(), slices.Collect(maps.Keys(dirty)), t.syncFile)
	if err != nil || len(named) == 0 {
		return err
	}
	folders := map[string]*ConsumeQueue{}
	for q := range named {
		folders[q.dir()] = q
		folders[filepath.Join(t.dir, q.Topic)] = q
	}
	err = inParallel(context.Background(), slices.Collect(maps.Keys(folders)), func(dir string) error {
		if err := t.fs.SyncDir(dir); err != nil && !folders[dir].isGone(err) {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.fs.SyncDir(t.dir)
}

func (t *QueueTable) syncFile(key fileKey) error {
	f, err := t.files.acquire(key.q, key.base, true)
	if err != nil {
		if errors.Is(err, errNotFound) && key.q.goneBefore(key.base+t.fileUnits) {
			return nil
		}
		return err
	}
	defer f.release()
	return f.f.Sync()
}

// goneBefore tells whether the entries below offset may be missing: trimmed, or their topic was deleted.
func (q *ConsumeQueue) goneBefore(offset int64) bool {
	return q.state.Load()&queueDeleted != 0 || offset <= q.min.Load()
}

func (q *ConsumeQueue) isGone(err error) bool {
	return isNotFound(err) && q.state.Load()&queueDeleted != 0
}
