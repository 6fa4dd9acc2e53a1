package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"path/filepath"

	"github.com/ringmq/ringmq/ioengine"
)

// The snapshot is what a start needs to know of all queues without opening one file of theirs (R6). It is the file
// `queues.snapshot` in the store's root, ours alone:
//
//	| bytes  | field                                                                                      |
//	|--------|--------------------------------------------------------------------------------------------|
//	| 8      | magic "RMQQUEUE"                                                                           |
//	| 4      | version 1                                                                                  |
//	| 4      | units of a queue file                                                                      |
//	| 8      | log offset D: the entries of all records before it are in the files, synced                |
//	| 48, 48 | the checkpoint's fields before and after: the snapshot is of use with one of them on disk  |
//	| 4      | topics; of each:                                                                           |
//	|        |   uvarint length and name; uvarint queues; of each uvarints:                               |
//	|        |     queueId, min, max-min, offset in the log at min (lower bound) + 1, of the last one + 1 |
//	| 4      | CRC-32C of all before                                                                      |
//
// A Java broker that ran in between has changed the checkpoint: then the queue files are scanned. Two stamps, because
// the snapshot is replaced first and the checkpoint second, and a crash may come in between. Entries that lie in the
// files behind max are overwritten when the log is read again from D, and invisible until then.
const (
	snapshotName    = "queues.snapshot"
	snapshotMagic   = "RMQQUEUE"
	snapshotVersion = 1
	snapshotHeader  = 8 + 4 + 4 + 8 + 2*checkpointBytes + 4
	// maxSnapshot bounds what is read into memory: 20 bytes a queue for 25 million queues.
	maxSnapshot = 512 << 20
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
	q                 *ConsumeQueue // while writing
}

// topicBounds are the queues of one topic.
type topicBounds struct {
	name   string
	queues []queueBounds
}

// SaveSnapshot writes and syncs all queues and then the snapshot. Every record before logOffset has been given to
// Append already; next is the checkpoint that the caller saves right after, not before.
func (t *QueueTable) SaveSnapshot(logOffset int64, next CheckpointFields) error {
	t.snapshotMu.Lock()
	defer t.snapshotMu.Unlock()
	// Bounds first: what is told must be written by what follows. Entries behind logOffset may be among them; they are
	// skipped when the log is read again.
	topics := t.bounds()
	if err := t.WriteBack(); err != nil {
		return err
	}
	if err := t.Sync(); err != nil {
		return err
	}
	b := appendSnapshot(nil, t.fileUnits, logOffset, [2]CheckpointFields{t.stamp, next}, topics)
	if err := ioengine.WriteFileAtomic(t.fs, filepath.Join(t.root, snapshotName), b); err != nil {
		return err
	}
	t.stamp = next
	return nil
}

func (t *QueueTable) bounds() []topicBounds {
	var topics []topicBounds
	for i := range t.topics {
		for _, tq := range *t.topics[i].Load() {
			tb := topicBounds{name: tq.name}
			for _, q := range *tq.queues.Load() {
				tb.queues = append(tb.queues, q.bounds())
			}
			topics = append(topics, tb)
		}
	}
	return topics
}

func (q *ConsumeQueue) bounds() queueBounds {
	q.mu.Lock()
	defer q.mu.Unlock()
	return queueBounds{queueID: q.QueueID, min: q.min.Load(), max: q.max.Load(), minPhys: q.minPhys.Load(), lastPhys: q.lastPhys.Load(), q: q}
}

func appendSnapshot(b []byte, fileUnits, logOffset int64, stamps [2]CheckpointFields, topics []topicBounds) []byte {
	be := binary.BigEndian
	b = append(b, snapshotMagic...)
	b = be.AppendUint32(b, snapshotVersion)
	b = be.AppendUint32(b, uint32(fileUnits))
	b = be.AppendUint64(b, uint64(logOffset))
	b = stamps[1].append(stamps[0].append(b))
	countAt, count := len(b), uint32(0)
	b = be.AppendUint32(b, 0)
	for _, tb := range topics {
		if len(tb.queues) == 0 || tb.queues[0].q != nil && tb.queues[0].q.state.Load()&queueDeleted != 0 {
			continue
		}
		count++
		b = append(binary.AppendUvarint(b, uint64(len(tb.name))), tb.name...)
		b = binary.AppendUvarint(b, uint64(len(tb.queues)))
		for _, q := range tb.queues {
			for _, v := range [...]int64{int64(q.queueID), q.min, q.max - q.min, q.minPhys + 1, q.lastPhys + 1} {
				b = binary.AppendUvarint(b, uint64(v))
			}
		}
	}
	be.PutUint32(b[countAt:], count)
	return be.AppendUint32(b, crc32.Checksum(b, castagnoli))
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
	count := be.Uint32(b[snapshotHeader-4:])
	r := uvarints{rest: b[snapshotHeader:]}
	for range count {
		tb := r.topic()
		if r.bad {
			return s, errors.New("topic does not fit")
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

func (r *uvarints) topic() (tb topicBounds) {
	n := r.next(int64(len(r.rest)))
	if n > int64(len(r.rest)) {
		r.bad = true
		return tb
	}
	tb.name, r.rest = string(r.rest[:n]), r.rest[n:]
	before := int32(-1)
	for range r.next(MaxQueueID + 1) {
		q := queueBounds{queueID: int32(r.next(MaxQueueID))}
		q.min = r.next(math.MaxInt64 / UnitSize)
		q.max = q.min + r.next(math.MaxInt64/UnitSize-q.min)
		q.minPhys = r.next(math.MaxInt64) - 1
		q.lastPhys = r.next(math.MaxInt64) - 1
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
