package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"

	"github.com/ringmq/ringmq/ioengine"
)

// The snapshot is what a start needs to know of all queues without opening one file of theirs (R6). It is the file
// `queues.snapshot` in the store's root, ours alone:
//
//	| bytes  | field                                                                                      |
//	|--------|--------------------------------------------------------------------------------------------|
//	| 8      | magic "RMQQUEUE"                                                                           |
//	| 4      | version 2                                                                                  |
//	| 4      | units of a queue file                                                                      |
//	| 8      | log offset D: the entries of all records before it are in the files, synced, or here       |
//	| 48, 48 | the checkpoint's fields before and after: the snapshot is of use with one of them on disk  |
//	|        | of each topic: uvarint length and name; uvarint queues; of each uvarints:                  |
//	|        |   queueId, min, max-min, offset in the log at min (lower bound) + 1, of the last one + 1,  |
//	|        |   n, and the n units of 20 bytes before max, which are in no file                          |
//	| 1      | 0: a name of no length ends the topics                                                     |
//	| 4      | CRC-32C of all before                                                                      |
//
// A Java broker that ran in between has changed the checkpoint: then the queue files are scanned. Two stamps, because
// the snapshot is replaced first and the checkpoint second, and a crash may come in between. Entries that lie in the
// files behind max are overwritten when the log is read again from D, and invisible until then.
//
// The units that are in no file make a checkpoint one sequential write, whatever the number of queues: with 100,000 of them that had a
// message or two each, writing and syncing as many files took minutes, one of these takes a tenth of a second. Who goes by the checkpoint
// without the snapshot, as the Java broker does, reads the log from where every entry is in its file (QueueTable.InFiles).
const (
	snapshotName    = "queues.snapshot"
	snapshotMagic   = "RMQQUEUE"
	snapshotVersion = 2
	snapshotHeader  = 8 + 4 + 4 + 8 + 2*checkpointBytes
	// maxSnapshot bounds what is read into memory: 20 bytes a queue for 25 million queues.
	maxSnapshot = 512 << 20
	// snapshotStep is how much is written at a time.
	snapshotStep = 256 << 10
)

// ErrNoSnapshot answers LoadSnapshot when there is none that fits; why is in its text.
var ErrNoSnapshot = errors.New("no usable snapshot of the queues")

func noSnapshot(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrNoSnapshot}, args...)...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// queueBounds is one queue as the snapshot tells it.
type queueBounds struct {
	queueID           int32
	min, max          int64
	minPhys, lastPhys int64
	tail              []byte // the units before max that are in no file; a view into what was read
}

// topicBounds are the queues of one topic.
type topicBounds struct {
	name   string
	queues []queueBounds
}

// SaveSnapshot writes the snapshot and syncs what it says is in the queues' files, before the snapshot takes its name. Every record before
// logOffset has been given to Append already; next is the checkpoint that the caller saves right after, not before.
func (t *QueueTable) SaveSnapshot(logOffset int64, next CheckpointFields) error {
	t.snapshotMu.Lock()
	defer t.snapshotMu.Unlock()
	name := filepath.Join(t.root, snapshotName)
	tmp := name + ".tmp"
	f, err := t.fs.Open(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if err = t.writeSnapshot(f, logOffset, next); err == nil {
		err = t.Sync()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, t.fs.Remove(tmp))
	}
	if err := t.fs.Rename(tmp, name); err != nil {
		return err
	}
	if err := t.fs.SyncDir(t.root); err != nil {
		return err
	}
	t.stamp = next
	return nil
}

// SnapshotBytes is the size of the latest snapshot.
func (t *QueueTable) SnapshotBytes() int64 { return t.snapshotBytes.Load() }

// writeSnapshot holds writeMu, so that no entry moves to its file between the look at a queue and the sync that follows: it would be told
// as synced, or be in neither place.
func (t *QueueTable) writeSnapshot(f ioengine.File, logOffset int64, next CheckpointFields) error {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	w := snapshotWriter{f: f, buf: make([]byte, 0, snapshotStep+snapshotStep/4)}
	w.header(t.fileUnits, logOffset, [2]CheckpointFields{t.stamp, next})
	for i := range t.topics {
		for _, tq := range *t.topics[i].Load() {
			queues := *tq.queues.Load()
			if len(queues) == 0 || queues[0].deleted() {
				continue
			}
			w.topic(tq.name, len(queues))
			for _, q := range queues {
				q.writeBounds(&w, logOffset)
			}
		}
	}
	err := w.end()
	t.snapshotBytes.Store(w.at)
	return err
}

// writeBounds tells of entries before logOffset in full, and of those behind it that are in the file, which are cut when the log is read
// again; those behind it in memory are left out. The caller holds table.writeMu.
func (q *ConsumeQueue) writeBounds(w *snapshotWriter, logOffset int64) {
	q.mu.Lock()
	b := queueBounds{queueID: q.QueueID, min: q.min.Load(), max: q.max.Load(), minPhys: q.minPhys.Load(), lastPhys: q.lastPhys.Load()}
	t := q.tail.Load()
	q.mu.Unlock()
	if t == nil {
		w.queue(&b, 0)
		return
	}
	if b.lastPhys >= logOffset {
		q.leaveOut(t, &b, logOffset)
	}
	w.queue(&b, b.max-t.written)
	at := t.written
	for c := t.head.Load(); c != nil; c = c.next.Load() {
		if from, to := max(at, c.first), min(b.max, c.end()); from < to {
			w.units(c.slice(from, to))
			at = to
		}
	}
}

// leaveOut lowers b.max to before the unwritten entries from logOffset on.
func (q *ConsumeQueue) leaveOut(t *queueTail, b *queueBounds, logOffset int64) {
	end := b.max
	b.max, b.lastPhys = t.written, t.writtenPhys
	for c := t.head.Load(); c != nil; c = c.next.Load() {
		for at := max(t.written, c.first); at < min(end, c.end()); at++ {
			e := entryFrom(c.slice(at, at+1))
			if e.isFiller() {
				continue // counts with the message behind it
			}
			if e.PhysicalOffset >= logOffset {
				return
			}
			b.max, b.lastPhys = at+1, e.PhysicalOffset
		}
	}
}

// snapshotWriter encodes a snapshot and writes it in steps; without f it is kept in buf.
type snapshotWriter struct {
	f   ioengine.File
	buf []byte
	at  int64 // bytes written
	sum uint32
	err error
}

func (w *snapshotWriter) header(fileUnits, logOffset int64, stamps [2]CheckpointFields) {
	be := binary.BigEndian
	w.buf = append(w.buf, snapshotMagic...)
	w.buf = be.AppendUint32(w.buf, snapshotVersion)
	w.buf = be.AppendUint32(w.buf, uint32(fileUnits))
	w.buf = be.AppendUint64(w.buf, uint64(logOffset))
	w.buf = stamps[1].append(stamps[0].append(w.buf))
}

// topic begins a topic; as many calls of queue follow.
func (w *snapshotWriter) topic(name string, queues int) {
	w.buf = append(binary.AppendUvarint(w.buf, uint64(len(name))), name...)
	w.buf = binary.AppendUvarint(w.buf, uint64(queues))
}

// queue begins a queue; units with its n units follow.
func (w *snapshotWriter) queue(b *queueBounds, n int64) {
	for _, v := range [...]int64{int64(b.queueID), b.min, b.max - b.min, b.minPhys + 1, b.lastPhys + 1, n} {
		w.buf = binary.AppendUvarint(w.buf, uint64(v))
	}
	if len(w.buf) >= snapshotStep && w.f != nil {
		w.flush()
	}
}

func (w *snapshotWriter) units(b []byte) { w.buf = append(w.buf, b...) }

func (w *snapshotWriter) flush() {
	w.sum = crc32.Update(w.sum, castagnoli, w.buf)
	if w.err == nil {
		_, w.err = w.f.WriteAt(w.buf, w.at)
	}
	w.at += int64(len(w.buf))
	w.buf = w.buf[:0]
}

func (w *snapshotWriter) end() error {
	w.buf = append(w.buf, 0)
	w.buf = binary.BigEndian.AppendUint32(w.buf, crc32.Update(w.sum, castagnoli, w.buf))
	if w.f != nil {
		w.flush()
	}
	return w.err
}

// LoadSnapshot fills an empty table from the snapshot and answers the log offset from which the log has to be read.
// on is the checkpoint found on disk. An error that is ErrNoSnapshot means: LoadScan; the table is still empty.
func (t *QueueTable) LoadSnapshot(on CheckpointFields) (logOffset int64, err error) {
	t.snapshotMu.Lock()
	defer t.snapshotMu.Unlock()
	t.stamp = on
	name := filepath.Join(t.root, snapshotName)
	info, err := t.fs.Stat(name)
	if err != nil {
		return 0, noSnapshot("%w", err)
	}
	if info.Size() > maxSnapshot {
		return 0, noSnapshot("%s has %d bytes", name, info.Size())
	}
	b, err := t.fs.ReadFile(name)
	if err != nil {
		return 0, noSnapshot("%w", err)
	}
	s, err := decodeSnapshot(b)
	if err != nil {
		return 0, noSnapshot("%s is damaged: %w", name, err)
	}
	if s.fileUnits != t.fileUnits {
		return 0, noSnapshot("it is of queue files of %d bytes, mappedFileSizeConsumeQueue says %d", s.fileUnits*UnitSize, t.fileUnits*UnitSize)
	}
	if on != s.stamps[0] && on != s.stamps[1] {
		return 0, noSnapshot("the checkpoint was changed by another broker")
	}
	if err := t.install(s.topics); err != nil {
		return 0, noSnapshot("%w", err)
	}
	t.snapshotBytes.Store(info.Size())
	t.emptyTrash()
	return s.logOffset, nil
}

// snapshot is a decoded one.
type snapshot struct {
	fileUnits, logOffset int64
	stamps               [2]CheckpointFields
	topics               []topicBounds
}

func decodeSnapshot(b []byte) (s snapshot, err error) {
	be := binary.BigEndian
	if len(b) < snapshotHeader+4 || string(b[:8]) != snapshotMagic {
		return s, errors.New("no snapshot header")
	}
	b, sum := b[:len(b)-4], be.Uint32(b[len(b)-4:])
	if crc32.Checksum(b, castagnoli) != sum {
		return s, errors.New("checksum differs")
	}
	if v := be.Uint32(b[8:]); v != snapshotVersion {
		return s, fmt.Errorf("version %d is not known here", v)
	}
	s.fileUnits = int64(be.Uint32(b[12:]))
	s.logOffset = int64(be.Uint64(b[16:]))
	if s.fileUnits == 0 || s.fileUnits > maxFileUnits || s.logOffset < 0 {
		return s, errors.New("impossible header")
	}
	for i := range s.stamps {
		if s.stamps[i], err = checkpointFrom(b[24+i*checkpointBytes:]); err != nil {
			return s, err
		}
	}
	r := uvarints{rest: b[snapshotHeader:]}
	for {
		tb := r.topic()
		if r.bad {
			return s, errors.New("topic does not fit")
		}
		if tb.name == "" {
			break
		}
		s.topics = append(s.topics, tb)
	}
	if len(r.rest) > 0 {
		return s, errors.New("bytes behind the last topic")
	}
	return s, nil
}

// uvarints cuts numbers from rest; bad stays set once one did not fit.
type uvarints struct {
	rest []byte
	bad  bool
}

func (r *uvarints) next(limit int64) int64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > uint64(limit) {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return int64(v)
}

// units cuts n units; one that can't be an entry is bad.
func (r *uvarints) units(n int64) []byte {
	if n > int64(len(r.rest)/UnitSize) {
		r.bad = true
	}
	if n == 0 || r.bad {
		return nil
	}
	units := r.rest[:n*UnitSize]
	r.rest = r.rest[n*UnitSize:]
	for at := int64(0); at < n; at++ {
		if e := entryFrom(units[at*UnitSize:]); e.Size <= 0 || e.PhysicalOffset < 0 {
			r.bad = true
		}
	}
	return units
}

func (r *uvarints) topic() (tb topicBounds) {
	n := r.next(int64(len(r.rest)))
	if n > int64(len(r.rest)) {
		r.bad = true
		return tb
	}
	if tb.name, r.rest = string(r.rest[:n]), r.rest[n:]; n == 0 {
		return tb
	}
	before := int32(-1)
	for range r.next(MaxQueueID + 1) {
		q := queueBounds{queueID: int32(r.next(MaxQueueID))}
		q.min = r.next(math.MaxInt64 / UnitSize)
		q.max = q.min + r.next(math.MaxInt64/UnitSize-q.min)
		q.minPhys = r.next(math.MaxInt64) - 1
		q.lastPhys = r.next(math.MaxInt64) - 1
		q.tail = r.units(r.next(q.max))
		if r.bad || q.queueID <= before {
			r.bad = true
			return tb
		}
		before = q.queueID
		tb.queues = append(tb.queues, q)
	}
	r.bad = r.bad || before < 0
	return tb
}
