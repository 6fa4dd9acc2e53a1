package store

import (
	"errors"
	"fmt"
)

// manyDirty is how many dirty files make one sync of the whole file system cheaper than one each.
const manyDirty = 64

// syncFS is what an ioengine.FS may have besides: all dirty files of dir's file system made durable at once.
type syncFS interface {
	SyncFS(dir string) error
}

// Backlog is the bytes of entries that wait to be written. It stays near QueueTableOptions.MaxUnwritten unless writing
// fails; whoever accepts messages can stop at a multiple of it.
func (t *QueueTable) Backlog() int64 { return t.unwritten.Load() }

func (t *QueueTable) activate(q *ConsumeQueue) {
	t.activeMu.Lock()
	defer t.activeMu.Unlock()
	t.active = append(t.active, q)
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
// the others are written all the same. A flusher calls it a few times a second.
func (t *QueueTable) WriteBack() error {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	t.activeMu.Lock()
	pass := t.active
	t.active, t.spare = t.spare[:0], nil
	t.activeMu.Unlock()

	var failed error
	keep := pass[:0]
	for _, q := range pass {
		active, err := q.writeBack(t.idlePasses)
		if err != nil && failed == nil {
			failed = fmt.Errorf("write consume queue %s-%d: %w", q.Topic, q.QueueID, err)
		}
		if active {
			keep = append(keep, q)
		}
	}
	clear(pass[len(keep):])
	t.activeMu.Lock()
	// What became active meanwhile joins what stayed.
	t.active, t.spare = append(keep, t.active...), t.active
	clear(t.spare)
	t.activeMu.Unlock()
	if failed == nil {
		t.relieveAt.Store(t.maxUnwritten)
	}
	return failed
}

func (t *QueueTable) markDirty(key fileKey) {
	t.dirtyMu.Lock()
	defer t.dirtyMu.Unlock()
	t.dirty[key] = struct{}{}
}

func (t *QueueTable) markCreated(q *ConsumeQueue) {
	t.dirtyMu.Lock()
	defer t.dirtyMu.Unlock()
	t.created[q] = struct{}{}
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
	dirty, created := t.dirty, t.created
	t.dirty, t.created = map[fileKey]struct{}{}, map[*ConsumeQueue]struct{}{}
	t.dirtyMu.Unlock()
	if err := t.syncAll(dirty, created); err != nil {
		t.syncErr = fmt.Errorf("sync consume queues: %w", err)
	}
	return t.syncErr
}

func (t *QueueTable) syncAll(dirty map[fileKey]struct{}, created map[*ConsumeQueue]struct{}) error {
	if s, ok := t.fs.(syncFS); ok && len(dirty) > manyDirty {
		return s.SyncFS(t.dir)
	}
	for key := range dirty {
		if err := t.syncFile(key); err != nil {
			return err
		}
	}
	for q := range created {
		if err := t.fs.SyncDir(q.dir()); err != nil && !q.isGone(err) {
			return err
		}
	}
	return nil
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
