package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/ringmq/ringmq/ioengine"
)

// In the walk of one message: before this, dispatch.go calls Append; after this, get.go reads, and QueueTable.WriteBack writes the files.
// Does the work of ConsumeQueue and MappedFileQueue.

// A queue file is a row of units, `fileUnits` of them (300,000), in a file of exactly that size:
//
//	| at | bytes | field                                                     |
//	|----|-------|-----------------------------------------------------------|
//	| 0  | 8     | physicalOffset of the record in the CommitLog             |
//	| 8  | 4     | its size; 0 = nothing was written; 0x7FFFFFFF = filler    |
//	| 12 | 8     | tagsCode                                                  |
//
// The unit of queue offset n stands at n*20 counted from the first file; the file's name is the byte position of its
// first unit, 20 digits. A filler (0, 0x7FFFFFFF, 0) stands before a queue's first entry and where a message was lost
// to rot: unlike a unit of zeroes it does not end the queue for whoever scans the file, the Java broker included. So a
// unit of zeroes below Max can only be a write that a crash took away, and is told as damage.
const (
	UnitSize = 20
	// fillerSize marks a unit without a message. No record is that large.
	fillerSize = math.MaxInt32
	// maxHole bounds how far an entry may lie beyond the queue's end: more is not a lost span but a damaged offset.
	maxHole = 1 << 24
	// A tail starts with a small chunk, so that a queue with one message now and then costs little, and ends with
	// chunks of the number of entries that stay in memory for readers at the tail. Up to wholeUnits it is one chunk, copied to a larger one
	// when it is full: with 100,000 queues it is their memory that decides how often entries go to a file of 4 KiB of page cache each, and a
	// chain of chunks that double is half empty.
	firstChunkUnits = 4
	wholeUnits      = 64
	chunkUnits      = 256
)

// ErrDamaged answers a read that met a unit which can't be true: it lies outside the log or was never written. The
// queue has been told to QueueTableOptions.OnDamage; read again after it was rebuilt.
var ErrDamaged = errors.New("consume queue entry is damaged: it is being rebuilt from the commit log")

// errTrimmed: the entry that a reader was after is gone, rightly.
var errTrimmed = errors.New("consume queue entry was trimmed")

// Entry is one unit: where the message of one queue offset lies. Size 0 is a hole: that message is lost, skip it.
type Entry struct {
	PhysicalOffset int64
	Size           int32
	TagsCode       int64
}

func (e Entry) put(b []byte) {
	binary.BigEndian.PutUint64(b, uint64(e.PhysicalOffset))
	binary.BigEndian.PutUint32(b[8:], uint32(e.Size))
	binary.BigEndian.PutUint64(b[12:], uint64(e.TagsCode))
}

func entryFrom(b []byte) Entry {
	return Entry{
		PhysicalOffset: int64(binary.BigEndian.Uint64(b)),
		Size:           int32(binary.BigEndian.Uint32(b[8:])),
		TagsCode:       int64(binary.BigEndian.Uint64(b[12:])),
	}
}

// stored is the form on disk: a hole becomes a filler.
func (e Entry) stored() Entry {
	if e.Size <= 0 {
		return Entry{Size: fillerSize}
	}
	return e
}

func (e Entry) isFiller() bool {
	return e.Size == fillerSize && e.PhysicalOffset == 0 && e.TagsCode == 0
}

// ConsumeQueue is one queue of one topic. Everything in it is derived from the CommitLog.
//
// New entries collect in the tail, a chain of chunks in memory, and become visible at once; WriteBack carries them to
// the file. Readers take no lock: a chunk's bytes below Max never change, and a chunk that left the chain was written
// before. A queue without a tail costs this struct and nothing else.
//
//	Invariant: min <= tail.head.first <= tail.written <= max, and [min, tail.written) is in the files.
//
// With 100,000 queues none is in the processor's cache, and a message waits for each line of it that it touches: the struct is two lines
// long, in memory that is aligned to both, with what a message needs first.
type ConsumeQueue struct {
	Topic   string
	QueueID int32
	state   atomic.Uint32
	// Next is the queue offset of the next message. The owner of the log's tail gives it out under its lock;
	// here it is only set while loading, to max.
	Next int64
	// begin is the log offset of the first record that this queue numbered since the start, notBegun before. Stored by the owner of the log's
	// tail. A record before it with this queue's name belongs to a queue that was deleted under that name, or was dispatched by the start.
	begin atomic.Int64
	// min and max bound what is visible. max is stored by the dispatcher alone, min by whoever trims.
	max  atomic.Int64
	tail atomic.Pointer[queueTail]
	// mu is held to change the chain of chunks, for a few instructions; never across I/O.
	mu sync.Mutex

	// lastPhys is the physical offset of the latest entry, minPhys a lower bound of that at min; -1 = not known. They
	// save opening a file when the log is trimmed.
	lastPhys, minPhys atomic.Int64
	min               atomic.Int64
	table             *QueueTable
	// Waiters counts the pulls that wait for this queue; owned by the long polls.
	Waiters atomic.Int32
	// listed: it is among the active queues, once. Belongs to table.activeMu.
	listed bool
	_      [27]byte
}

// notBegun is ConsumeQueue.begin before the first record.
const notBegun = math.MaxInt64

const (
	queueDeleted  = 1 << iota // its topic was deleted; what is unwritten is dropped
	queueReported             // damage was told and EndRewrite not called yet
	queueTooFar               // an impossible offset was told
)

// queueTail is there while a queue is active.
type queueTail struct {
	// last is the newest chunk; readers walk back from it. Stored under mu.
	last atomic.Pointer[chunk]
	// head is the oldest chunk. Stored under mu. It may be replaced by a larger copy, which is then next of the old one: whoever goes along
	// the chain meets units again.
	head atomic.Pointer[chunk]
	// written is the end of what is in the file, writtenPhys the log offset of the last message before that end, -1 when it is not known. They
	// belong to the holder of table.writeMu.
	written, writtenPhys int64
	// idle is how many passes found nothing new to write, waited how many left something unwritten; they belong to the same.
	idle, waited int32
}

// chunk holds units [first, first+len(units)/20) of one file. Those below the queue's max are set and stay.
type chunk struct {
	first int64
	units []byte
	prev  atomic.Pointer[chunk] // nil once the chunk before has left the chain
	next  atomic.Pointer[chunk]
}

func (c *chunk) end() int64 { return c.first + int64(len(c.units)/UnitSize) }

// slice is the bytes of units [from, to).
func (c *chunk) slice(from, to int64) []byte {
	return c.units[(from-c.first)*UnitSize : (to-c.first)*UnitSize]
}

// Min is the first queue offset whose message is still in the log.
func (q *ConsumeQueue) Min() int64 { return q.min.Load() }

// Max is the visible end: the queue offset behind the latest entry.
func (q *ConsumeQueue) Max() int64 { return q.max.Load() }

// deleted tells whether the queue's topic was deleted. Invariant: it is set before another queue of that name is made.
func (q *ConsumeQueue) deleted() bool { return q.state.Load()&queueDeleted != 0 }

// Append adds the entry of one message. One dispatcher calls it, in log order. An offset that is there already is
// skipped (the log is read again after a restart); a gap before it becomes holes.
func (q *ConsumeQueue) Append(offset int64, e Entry) {
	end := q.max.Load()
	if offset < end {
		return
	}
	if offset > end && !q.bridge(end, offset) {
		return
	}
	q.put(offset, e)
}

// bridge makes offset the queue's end. A queue that never had an entry starts there; else the gap is filled.
func (q *ConsumeQueue) bridge(end, offset int64) bool {
	if end == 0 && offset <= math.MaxInt64/UnitSize-q.table.fileUnits {
		q.min.Store(offset)
		q.max.Store(offset)
		return true
	}
	if offset-end > maxHole {
		if q.state.Or(queueTooFar)&queueTooFar == 0 {
			q.table.log.Error("message left out of its consume queue: its queue offset is far beyond the end, so the record is damaged",
				"topic", q.Topic, "queueId", q.QueueID, "offset", offset, "end", end)
		}
		return false
	}
	q.table.log.Warn("consume queue has a hole: messages were lost from the commit log",
		"topic", q.Topic, "queueId", q.QueueID, "offset", end, "end", offset)
	for ; end < offset; end++ {
		q.put(end, Entry{})
	}
	return true
}

// put stores one unit behind the end and makes it visible.
func (q *ConsumeQueue) put(offset int64, e Entry) {
	q.mu.Lock()
	t := q.tail.Load()
	if t == nil {
		t = q.startTailLocked(offset)
	}
	c := t.last.Load()
	if offset == c.end() {
		c = q.growLocked(t, c)
	}
	e.stored().put(c.slice(offset, offset+1))
	if e.Size > 0 {
		if q.minPhys.Load() < 0 && q.min.Load() == offset {
			q.minPhys.Store(e.PhysicalOffset)
		}
		q.lastPhys.Store(e.PhysicalOffset)
	}
	q.max.Store(offset + 1)
	q.mu.Unlock()
	q.table.grown(UnitSize)
}

func (q *ConsumeQueue) startTailLocked(offset int64) *queueTail {
	c := q.newChunk(offset, firstChunkUnits)
	t := &queueTail{written: offset, writtenPhys: q.lastPhys.Load()}
	t.head.Store(c)
	t.last.Store(c)
	q.tail.Store(t)
	q.table.activate(q)
	return t
}

// installTail gives a queue that is being loaded the entries before max that are in no file.
func (q *ConsumeQueue) installTail(units []byte, max int64) {
	if len(units) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	first := max - int64(len(units)/UnitSize)
	t := q.startTailLocked(first)
	t.writtenPhys = -1
	for c := t.head.Load(); ; c = q.growLocked(t, c) {
		if units = units[copy(c.slice(first, c.end()), units):]; len(units) == 0 {
			break
		}
		first = c.end()
	}
	q.table.unwritten.Add((max - t.written) * UnitSize)
}

// growLocked makes room behind the last chunk.
func (q *ConsumeQueue) growLocked(t *queueTail, last *chunk) *chunk {
	n := len(last.units) / UnitSize
	if n < wholeUnits && t.head.Load() == last {
		// Half as much again, in steps that the runtime has sizes for.
		if c := q.newChunk(last.first, min(n+max(firstChunkUnits, n/8*firstChunkUnits), wholeUnits)); c.end() > last.end() {
			q.replaceLocked(t, last, c)
			return c
		}
	}
	c := q.newChunk(last.end(), min(2*n, chunkUnits))
	c.prev.Store(last)
	last.next.Store(c)
	t.last.Store(c)
	return c
}

// newChunk never crosses the end of a file, so that one write carries it.
func (q *ConsumeQueue) newChunk(first int64, units int) *chunk {
	units = int(min(int64(max(units, firstChunkUnits)), q.table.fileUnits-first%q.table.fileUnits))
	q.table.held.Add(int64(units * UnitSize))
	return &chunk{first: first, units: make([]byte, units*UnitSize)}
}

// replaceLocked puts a larger copy in the place of the only chunk. Readers may hold the old one, whose bytes stay as they are.
func (q *ConsumeQueue) replaceLocked(t *queueTail, old, c *chunk) {
	copy(c.units, old.units)
	old.next.Store(c)
	t.head.Store(c)
	t.last.Store(c)
	q.table.held.Add(-int64(len(old.units)))
}

// letGo counts the chunks from c up to before end as no longer held; end nil means the rest of the chain.
func (t *QueueTable) letGo(c, end *chunk) {
	for ; c != nil && c != end; c = c.next.Load() {
		t.held.Add(-int64(len(c.units)))
	}
}

// Read fills dst with the entries from queue offset from on and answers how many; 0 outside [Min, Max). It never waits
// for the disk: what it can't have at once answers ioengine.ErrCold. A short count with nil: call again from there.
func (q *ConsumeQueue) Read(from int64, dst []Entry) (int, error) { return q.read(from, dst, false) }

// ReadWait is Read that may wait for the disk.
func (q *ConsumeQueue) ReadWait(from int64, dst []Entry) (int, error) { return q.read(from, dst, true) }

func (q *ConsumeQueue) read(from int64, dst []Entry, wait bool) (int, error) {
	// max is read before the chain: what is below it and not in the chain is in the files.
	end := q.max.Load()
	if from < q.min.Load() || from >= end {
		return 0, nil
	}
	end = min(end, from+int64(len(dst)))
	n := 0
	for at := from; at < end; {
		c, inMemory := q.findChunk(at)
		if c != nil {
			at = c.copyTo(dst, from, at, end)
			n = int(at - from)
			continue
		}
		m, err := q.readFile(at, dst[n:min(end, inMemory)-from], wait)
		n, at = n+m, at+int64(m)
		if err != nil {
			// What came before an error is good; the next call from there tells it.
			if n > 0 || errors.Is(err, errTrimmed) {
				return n, nil
			}
			return 0, err
		}
	}
	return n, nil
}

// findChunk answers the chunk that holds offset, or nil and the first offset that is in memory.
func (q *ConsumeQueue) findChunk(offset int64) (c *chunk, inMemory int64) {
	t := q.tail.Load()
	if t == nil {
		return nil, math.MaxInt64
	}
	for c = t.last.Load(); c != nil; c = c.prev.Load() {
		if offset >= c.first {
			return c, 0
		}
		inMemory = c.first
	}
	return nil, inMemory
}

func (c *chunk) copyTo(dst []Entry, from, at, end int64) int64 {
	for end = min(end, c.end()); at < end; at++ {
		e := entryFrom(c.slice(at, at+1))
		if e.isFiller() {
			e = Entry{}
		}
		dst[at-from] = e
	}
	return at
}

// readBuffers hold what is read from a file before it becomes entries.
var readBuffers = sync.Pool{New: func() any { return new([chunkUnits * UnitSize]byte) }}

// readFile reads entries from the one file that holds offset at. It answers at least one entry or an error; entries
// with ErrDamaged end before a unit that can't be true. The unit before at is read along, because one that points
// elsewhere into the log shows only against its neighbour: their records must follow each other.
func (q *ConsumeQueue) readFile(at int64, dst []Entry, wait bool) (int, error) {
	buf := readBuffers.Get().(*[chunkUnits * UnitSize]byte)
	defer readBuffers.Put(buf)
	base := at - at%q.table.fileUnits
	start := at
	if at > base && at > q.min.Load() {
		start--
	}
	units := min(at-start+int64(len(dst)), chunkUnits, base+q.table.fileUnits-start)
	got, err := q.readUnits(buf[:units*UnitSize], start, wait)
	if err != nil {
		return 0, err
	}
	lead := int(at - start)
	if got <= lead {
		if wait {
			return 0, q.damaged(at) // the file ends here
		}
		return 0, ioengine.ErrCold
	}
	logEnd := q.table.logEnd()
	before := int64(-1)
	for i := range got {
		e := entryFrom(buf[i*UnitSize:])
		switch {
		case e.isFiller():
			e = Entry{}
		case e.Size <= 0 || e.PhysicalOffset < 0 || e.PhysicalOffset > logEnd-int64(e.Size):
			return max(i-lead, 0), q.damaged(start + int64(i))
		case e.PhysicalOffset <= before:
			// Which of the two is wrong can't be told.
			return max(i-lead-1, 0), q.damaged(start + int64(i) - 1)
		default:
			before = e.PhysicalOffset
		}
		if i >= lead {
			dst[i-lead] = e
		}
	}
	return got - lead, nil
}

// readUnits reads whole units into b and answers how many. The end of the file or a missing file is damage: the caller
// asks below Max only.
func (q *ConsumeQueue) readUnits(b []byte, at int64, wait bool) (int, error) {
	f, err := q.table.files.acquire(q, at-at%q.table.fileUnits, wait)
	if err != nil {
		if errors.Is(err, errNotFound) {
			return 0, q.damaged(at)
		}
		return 0, err
	}
	defer f.release()
	off := at % q.table.fileUnits * UnitSize
	var n int
	if wait {
		n, err = f.f.ReadAt(b, off)
	} else {
		n, err = f.f.ReadAtNoWait(b, off)
	}
	switch {
	case n >= UnitSize:
		return n / UnitSize, nil
	case err == nil || errors.Is(err, ioengine.ErrNoWaitUnsupported):
		return 0, ioengine.ErrCold
	case err == io.EOF:
		return 0, q.damaged(at)
	}
	return 0, err
}

// damaged tells the owner once, until EndRewrite, unless the entry went away by trimming or by deleting the topic.
func (q *ConsumeQueue) damaged(at int64) error {
	if at < q.min.Load() || q.deleted() {
		return errTrimmed
	}
	if q.state.Or(queueReported)&queueReported != 0 {
		return ErrDamaged
	}
	q.table.log.Error("consume queue is damaged and must be rebuilt from the commit log",
		"topic", q.Topic, "queueId", q.QueueID, "offset", at)
	if q.table.onDamage != nil {
		q.table.onDamage(q.Topic, q.QueueID, at)
	}
	return ErrDamaged
}

// Rewrite replaces the entry at offset, which must be visible already: what a rebuild found in the log. Entry{} makes
// it a hole; an offset that was trimmed meanwhile is left out. It may wait for the disk; call EndRewrite when the
// damaged span is done.
func (q *ConsumeQueue) Rewrite(offset int64, e Entry) error {
	t := q.table
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	if offset < q.min.Load() || q.deleted() {
		return nil
	}
	if offset >= q.max.Load() {
		return fmt.Errorf("rewrite consume queue %s-%d: offset %d is not below its end %d", q.Topic, q.QueueID, offset, q.max.Load())
	}
	if inFile := q.rewriteChunk(offset, e); !inFile {
		return nil
	}
	var unit [UnitSize]byte
	e.stored().put(unit[:])
	return q.writeUnits(offset, unit[:])
}

// rewriteChunk puts a changed copy of the chunk into the chain, because readers hold the old one. It tells whether the
// unit is in the file, too.
func (q *ConsumeQueue) rewriteChunk(offset int64, e Entry) (inFile bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.tail.Load()
	c, _ := q.findChunk(offset)
	if c == nil {
		return true
	}
	changed := &chunk{first: c.first, units: append([]byte(nil), c.units...)}
	e.stored().put(changed.slice(offset, offset+1))
	prev, next := c.prev.Load(), c.next.Load()
	changed.prev.Store(prev)
	changed.next.Store(next)
	if prev != nil {
		prev.next.Store(changed)
	} else {
		t.head.Store(changed)
	}
	if next != nil {
		next.prev.Store(changed)
	} else {
		t.last.Store(changed)
	}
	return offset < t.written
}

// EndRewrite says that a rebuild is done: damage met from now on is told again.
func (q *ConsumeQueue) EndRewrite() { q.state.And(^uint32(queueReported)) }

// writeBack carries what is unwritten to the file and lets go of what readers no longer need. After more than idlePasses passes that found
// nothing new the whole tail goes. It answers false when the queue has no tail any more. The caller holds table.writeMu.
func (q *ConsumeQueue) writeBack(idlePasses int) (active bool, err error) {
	t, end := q.tail.Load(), q.max.Load()
	if t == nil {
		return false, nil
	}
	if q.deleted() {
		q.dropTail(t)
		return false, nil
	}
	from := t.written
	for c := t.head.Load(); c != nil && t.written < end; c = c.next.Load() {
		to := min(end, c.end())
		if t.written >= to {
			continue
		}
		if err := q.writeUnits(t.written, c.slice(t.written, to)); err != nil {
			return true, err
		}
		if last := entryFrom(c.slice(to-1, to)); !last.isFiller() {
			t.writtenPhys = last.PhysicalOffset
		}
		q.table.unwritten.Add((t.written - to) * UnitSize)
		t.written = to
	}
	t.waited = 0
	if t.written > from {
		t.idle = 0
	} else {
		t.idle++
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if int(t.idle) > idlePasses && t.written == q.max.Load() {
		q.tail.Store(nil)
		q.table.letGo(t.head.Load(), nil)
		return false, nil
	}
	// Readers at the tail keep at least chunkUnits entries.
	old := t.head.Load()
	head := old
	for next := head.next.Load(); next != nil && next.first <= min(t.written, q.max.Load()-chunkUnits); next = head.next.Load() {
		next.prev.Store(nil)
		head = next
	}
	t.head.Store(head)
	q.table.letGo(old, head)
	return true, nil
}

// dropTail forgets what is unwritten, of a queue that is deleted or about to be cut.
func (q *ConsumeQueue) dropTail(t *queueTail) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.table.unwritten.Add((t.written - q.max.Load()) * UnitSize)
	q.table.letGo(t.head.Load(), nil)
	q.tail.Store(nil)
}

// writeUnits writes units that lie in one file. The caller holds table.writeMu.
func (q *ConsumeQueue) writeUnits(at int64, units []byte) error {
	base := at - at%q.table.fileUnits
	f, err := q.table.files.acquireForWrite(q, base)
	if err != nil {
		return err
	}
	defer f.release()
	if _, err := f.f.WriteAt(units, (at-base)*UnitSize); err != nil {
		return err
	}
	q.table.markDirty(f.key)
	return nil
}

func (q *ConsumeQueue) dir() string {
	return filepath.Join(q.table.dir, q.Topic, strconv.Itoa(int(q.QueueID)))
}

func (q *ConsumeQueue) fileName(base int64) string {
	return filepath.Join(q.dir(), fmt.Sprintf("%020d", base*UnitSize))
}
