package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"sort"
	"sync"

	"github.com/ringmq/ringmq/ioengine"
)

// In the walk of one message: before this, indexer.go followed the log; after this, queries by key read it.

// IndexFile is one file of the key index: a hash table with chains, as the Java broker has it.
//
//	| at           | bytes        | field                                                                   |
//	|--------------|--------------|-------------------------------------------------------------------------|
//	| 0            | 8, 8         | store time of the first and the last message, ms                        |
//	| 16           | 8, 8         | log offset of the first and the last message                            |
//	| 32           | 4            | slots in use                                                            |
//	| 36           | 4            | number of the next entry; the first is 1                                |
//	| 40           | slots * 4    | number of the newest entry in the slot's chain, 0 = none                |
//	| 40 + slots*4 | entries * 20 | keyHash 4, log offset 8, seconds since the first 4, next older entry 4  |
//
// Java maps the file and stores at random places. Here nobody may take a page fault and there is no mapping for derived
// files: entries go through a buffer, slots through pages of 4 KiB in memory that flush writes back. A crash must not
// leave a chain broken, so flush keeps an order, each step synced: entries, then the slots that name them, then the
// header that counts them. A slot that names an entry the header does not count was written by a flush that a crash cut
// short: repair follows its chain down to a counted one.
//
//	Invariant: 1 <= written <= header.count; entries from written on are in buf. Pages that are nil are as on disk.
type IndexFile struct {
	name           string
	fs             ioengine.FS
	slots, entries int64

	// mu guards all below; not held across a sync. The writer is Index's, readers are queries.
	mu     sync.Mutex
	header indexHeader
	f      ioengine.File // nil while nobody writes
	// clean: slots name only counted entries.
	clean   bool
	written int64
	buf     []byte
	pages   []*indexPage
	dirty   []uint64 // bit set of pages
	changed bool     // something is not flushed
	idle    int      // flushes that found nothing to do
}

const (
	indexHeaderSize = 40
	indexEntrySize  = 20
	indexPageSize   = 4096
	// indexBuffer is how much of entries collects before it is written.
	indexBuffer = 1 << 20
)

// indexPage is one page of the file that holds slots. Pages are aligned with the file, so that writing one back costs
// the kernel one page, too.
type indexPage [indexPageSize]byte

type indexHeader struct {
	beginTime, endTime int64
	beginPhys, endPhys int64
	slotsUsed          int64
	count              int64
}

func (h *indexHeader) append(dst []byte) []byte {
	for _, v := range [...]int64{h.beginTime, h.endTime, h.beginPhys, h.endPhys} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(v))
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.slotsUsed))
	return binary.BigEndian.AppendUint32(dst, uint32(h.count))
}

func indexHeaderFrom(b []byte) (h indexHeader) {
	for i, v := range [...]*int64{&h.beginTime, &h.endTime, &h.beginPhys, &h.endPhys} {
		*v = int64(binary.BigEndian.Uint64(b[8*i:]))
	}
	h.slotsUsed = int64(int32(binary.BigEndian.Uint32(b[32:])))
	h.count = int64(int32(binary.BigEndian.Uint32(b[36:])))
	// A file that was made and never used has zeroes.
	if h.count == 0 {
		h.count = 1
	}
	return h
}

// indexEntry is one entry; prev < its own number.
type indexEntry struct {
	hash    int32
	phys    int64
	seconds int32
	prev    int64
}

func (e indexEntry) append(dst []byte) []byte {
	be := binary.BigEndian
	dst = be.AppendUint64(be.AppendUint32(dst, uint32(e.hash)), uint64(e.phys))
	return be.AppendUint32(be.AppendUint32(dst, uint32(e.seconds)), uint32(e.prev))
}

func indexEntryFrom(b []byte) indexEntry {
	be := binary.BigEndian
	return indexEntry{hash: int32(be.Uint32(b)), phys: int64(be.Uint64(b[4:])), seconds: int32(be.Uint32(b[12:])), prev: int64(int32(be.Uint32(b[16:])))}
}

// IndexDamage is an index file that can't be true.
type IndexDamage struct {
	File   string
	Reason string
}

func (e *IndexDamage) Error() string { return "index file " + e.File + " is damaged: " + e.Reason }

func (f *IndexFile) damage(format string, args ...any) error {
	return &IndexDamage{f.name, fmt.Sprintf(format, args...)}
}

func (f *IndexFile) size() int64        { return f.entriesAt() + f.entries*indexEntrySize }
func (f *IndexFile) entriesAt() int64   { return indexHeaderSize + f.slots*4 }
func (f *IndexFile) at(n int64) int64   { return f.entriesAt() + n*indexEntrySize }
func slotAt(slot int64) int64           { return indexHeaderSize + slot*4 }
func (f *IndexFile) full() bool         { return f.header.count >= f.entries }
func (f *IndexFile) empty() bool        { return f.header.count <= 1 }
func (f *IndexFile) slot(h int32) int64 { return int64(h) % f.slots }

// loadIndexFile reads the header of an existing file and checks it.
func loadIndexFile(fsys ioengine.FS, name string, slots, entries int64) (*IndexFile, error) {
	f := &IndexFile{name: name, fs: fsys, slots: slots, entries: entries}
	file, err := fsys.Open(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	if size != f.size() {
		return nil, f.damage("%d bytes instead of %d; or maxHashSlotNum and maxIndexNum are not what it was written with", size, f.size())
	}
	var b [indexHeaderSize]byte
	if _, err := file.ReadAt(b[:], 0); err != nil {
		return nil, err
	}
	f.header = indexHeaderFrom(b[:])
	f.written = f.header.count
	return f, f.check(file)
}

func (f *IndexFile) check(file ioengine.File) error {
	h := &f.header
	switch {
	case h.count < 1 || h.count > f.entries:
		return f.damage("it counts %d entries of %d", h.count, f.entries)
	case h.slotsUsed < 0 || h.slotsUsed > f.slots || h.slotsUsed >= h.count:
		return f.damage("it counts %d slots for %d entries", h.slotsUsed, h.count-1)
	case h.beginTime < 0 || h.endTime < 0 || h.beginPhys < 0 || h.endPhys < h.beginPhys:
		return f.damage("impossible bounds in its header")
	case f.empty():
		return nil
	}
	var b [indexEntrySize]byte
	if _, err := file.ReadAt(b[:], f.at(h.count-1)); err != nil {
		return err
	}
	if last := indexEntryFrom(b[:]); last.phys != h.endPhys {
		return f.damage("its last entry is of log offset %d, its header says %d", last.phys, h.endPhys)
	}
	return nil
}

// createIndexFile makes a file that goes on where another ended.
func createIndexFile(fsys ioengine.FS, name string, slots, entries int64, before indexHeader) (*IndexFile, error) {
	f := &IndexFile{name: name, fs: fsys, slots: slots, entries: entries, written: 1, clean: true,
		header: indexHeader{beginTime: before.endTime, endTime: before.endTime, beginPhys: before.endPhys, endPhys: before.endPhys, count: 1}}
	file, err := fsys.Open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	if err := file.Truncate(f.size()); err != nil {
		return nil, errors.Join(err, file.Close(), fsys.Remove(name))
	}
	f.f = file
	return f, nil
}

// openForWrite opens the file and mends the slots, once each. The writer's.
func (f *IndexFile) openForWrite() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		file, err := f.fs.Open(f.name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		f.f = file
	}
	if f.clean {
		return nil
	}
	if err := f.repairLocked(); err != nil {
		return err
	}
	f.clean = true
	return nil
}

// repairLocked lets every slot name a counted entry, and counts the slots in use anew.
func (f *IndexFile) repairLocked() error {
	used, mended := int64(0), false
	block := make([]byte, 256<<10)
	for at := int64(0); at < f.slots*4; at += int64(len(block)) {
		b := block[:min(int64(len(block)), f.slots*4-at)]
		if _, err := f.f.ReadAt(b, indexHeaderSize+at); err != nil {
			return err
		}
		for i := 0; i < len(b); i += 4 {
			v := int64(int32(binary.BigEndian.Uint32(b[i:])))
			if v == 0 {
				continue
			}
			if v < 0 || v >= f.header.count {
				slot := (at + int64(i)) / 4
				good, err := f.countedLocked(slot, v)
				if err != nil {
					return err
				}
				if v, mended = good, true; v == 0 {
					err = f.setSlotLocked(slot, 0)
				} else {
					err = f.setSlotLocked(slot, v)
				}
				if err != nil {
					return err
				}
			}
			if v > 0 {
				used++
			}
		}
	}
	if mended || used != f.header.slotsUsed {
		f.header.slotsUsed = used
		f.changed = true
	}
	return nil
}

// countedLocked follows a slot's chain from entry n, which is not counted, to one that is.
func (f *IndexFile) countedLocked(slot, n int64) (int64, error) {
	for n >= f.header.count {
		if n >= f.entries {
			return 0, nil
		}
		var b [indexEntrySize]byte
		if _, err := f.f.ReadAt(b[:], f.at(n)); err != nil {
			return 0, err
		}
		e := indexEntryFrom(b[:])
		if e.hash < 0 || f.slot(e.hash) != slot || e.prev >= n {
			return 0, nil
		}
		n = e.prev
	}
	return max(n, 0), nil
}

// pageLocked answers the page that holds byte off of the file, from the disk when it is not in memory.
func (f *IndexFile) pageLocked(off int64) (*indexPage, error) {
	if f.pages == nil {
		n := (f.entriesAt() + indexPageSize - 1) / indexPageSize
		f.pages, f.dirty = make([]*indexPage, n), make([]uint64, (n+63)/64)
	}
	n := off / indexPageSize
	if f.pages[n] == nil {
		p := new(indexPage)
		if _, err := f.f.ReadAt(p[:], n*indexPageSize); err != nil && err != io.EOF {
			return nil, err
		}
		f.pages[n] = p
	}
	return f.pages[n], nil
}

func (f *IndexFile) setSlotLocked(slot, n int64) error {
	off := slotAt(slot)
	p, err := f.pageLocked(off)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(p[off%indexPageSize:], uint32(n))
	f.dirty[off/indexPageSize/64] |= 1 << (off / indexPageSize % 64)
	f.changed = true
	return nil
}

// put adds one entry. The writer's; the file is open for writing and not full.
func (f *IndexFile) put(hash int32, phys, storeTime int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.buf) >= indexBuffer {
		if err := f.writeEntriesLocked(); err != nil {
			return err
		}
	}
	slot := f.slot(hash)
	p, err := f.pageLocked(slotAt(slot))
	if err != nil {
		return err
	}
	h := &f.header
	prev := int64(int32(binary.BigEndian.Uint32(p[slotAt(slot)%indexPageSize:])))
	if prev < 0 || prev >= h.count {
		prev = 0
	}
	if err := f.setSlotLocked(slot, h.count); err != nil {
		return err
	}
	if f.buf == nil {
		f.buf = make([]byte, 0, 4096)
	}
	f.buf = indexEntry{hash, phys, h.seconds(storeTime), prev}.append(f.buf)
	if h.count <= 1 {
		h.beginPhys, h.beginTime = phys, storeTime
	}
	if prev == 0 {
		h.slotsUsed++
	}
	h.count++
	h.endPhys, h.endTime = phys, storeTime
	return nil
}

// seconds since the first message, as entries hold it.
func (h *indexHeader) seconds(storeTime int64) int32 {
	if h.beginTime <= 0 {
		return 0
	}
	return int32(min(max((storeTime-h.beginTime)/1000, 0), math.MaxInt32))
}

func (f *IndexFile) writeEntriesLocked() error {
	if len(f.buf) == 0 {
		return nil
	}
	if _, err := f.f.WriteAt(f.buf, f.at(f.written)); err != nil {
		return err
	}
	f.written, f.buf = f.header.count, f.buf[:0]
	return nil
}

func (f *IndexFile) writeSlotsLocked() error {
	for i, word := range f.dirty {
		for ; word != 0; word &= word - 1 {
			n := int64(i*64 + bits.TrailingZeros64(word))
			from, to := max(n*indexPageSize, indexHeaderSize), min((n+1)*indexPageSize, f.entriesAt())
			if _, err := f.f.WriteAt(f.pages[n][from-n*indexPageSize:to-n*indexPageSize], from); err != nil {
				return err
			}
		}
		f.dirty[i] = 0
	}
	return nil
}

// idleFlushes is after how many flushes without a new entry the memory is given back.
const idleFlushes = 2

// flush makes all entries durable. The writer's: nothing is put meanwhile.
func (f *IndexFile) flush() error {
	if f.f == nil || !f.changed {
		if f.idle++; f.idle >= idleFlushes {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.pages, f.dirty, f.buf = nil, nil, nil
		}
		return nil
	}
	f.idle = 0
	for _, step := range [...]func() error{f.writeEntriesLocked, f.writeSlotsLocked, f.writeHeaderLocked} {
		f.mu.Lock()
		err := step()
		f.mu.Unlock()
		if err != nil {
			return err
		}
		if err := f.f.Sync(); err != nil {
			return err
		}
	}
	f.changed = false
	return nil
}

func (f *IndexFile) writeHeaderLocked() error {
	_, err := f.f.WriteAt(f.header.append(nil), 0)
	return err
}

// close gives memory and descriptor back; what was not flushed is lost.
func (f *IndexFile) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pages, f.dirty, f.buf, f.clean = nil, nil, nil, false
	if f.f == nil {
		return nil
	}
	file := f.f
	f.f = nil
	return file.Close()
}

// cut drops the entries of log offsets from phys on. The writer's, before the first put.
func (f *IndexFile) cut(phys int64) error {
	if err := f.openForWrite(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	keep := 1 + int64(sort.Search(int(f.header.count-1), func(i int) bool {
		e, readErr := f.readEntry(f.f, 1+int64(i))
		err = errors.Join(err, readErr)
		return e.phys >= phys
	}))
	if err != nil {
		return err
	}
	h := &f.header
	if h.count, f.written, f.changed = keep, keep, true; keep == 1 {
		*h = indexHeader{count: 1}
	} else {
		last, err := f.readEntry(f.f, keep-1)
		if err != nil {
			return err
		}
		h.endPhys, h.endTime = last.phys, h.beginTime+int64(last.seconds)*1000
	}
	return f.repairLocked()
}

func (f *IndexFile) readEntry(file ioengine.File, n int64) (indexEntry, error) {
	var b [indexEntrySize]byte
	_, err := file.ReadAt(b[:], f.at(n))
	return indexEntryFrom(b[:]), err
}

// indexQuery is one question to the files, newest first.
type indexQuery struct {
	hash       int32
	begin, end int64 // store time, ms, both included
	maxNum     int
	steps      int // entries that may still be looked at
	found      []int64
}

// overlaps tells whether the file has messages of the query's time.
func (h *indexHeader) overlaps(q *indexQuery) bool {
	return q.begin <= h.endTime && q.end >= h.beginTime
}

// query follows one chain. It opens the file unless it is the one being written. May wait for the disk.
func (f *IndexFile) query(q *indexQuery) error {
	f.mu.Lock()
	file, h := f.f, f.header
	f.mu.Unlock()
	if h.count <= 1 || !h.overlaps(q) {
		return nil
	}
	if file == nil {
		var err error
		if file, err = f.fs.Open(f.name, os.O_RDONLY, 0); err != nil {
			return err
		}
		defer file.Close()
	}
	n, err := f.newest(file, q.hash)
	for before := int64(math.MaxInt64); err == nil && n > 0 && len(q.found) < q.maxNum && q.steps > 0; q.steps-- {
		if n >= before || n >= f.entries {
			return f.damage("the chain of key hash %d turns back at entry %d", q.hash, n)
		}
		before = n
		var e indexEntry
		if e, err = f.entry(file, n); err != nil {
			break
		}
		time := h.beginTime + int64(e.seconds)*1000
		// An entry that is not counted is left by a crash: not true, but its chain is.
		if n < h.count && e.hash == q.hash && e.seconds >= 0 && time >= q.begin && time <= q.end {
			q.found = append(q.found, e.phys)
		}
		if e.seconds < 0 || n < h.count && time < q.begin {
			break
		}
		n = e.prev
	}
	return err
}

// newest is the number of the newest entry in the chain of hash.
func (f *IndexFile) newest(file ioengine.File, hash int32) (int64, error) {
	off := slotAt(f.slot(hash))
	f.mu.Lock()
	if f.pages != nil && f.pages[off/indexPageSize] != nil {
		defer f.mu.Unlock()
		return int64(int32(binary.BigEndian.Uint32(f.pages[off/indexPageSize][off%indexPageSize:]))), nil
	}
	f.mu.Unlock()
	var b [4]byte
	_, err := file.ReadAt(b[:], off)
	return int64(int32(binary.BigEndian.Uint32(b[:]))), err
}

// entry reads entry n from the buffer or the file.
func (f *IndexFile) entry(file ioengine.File, n int64) (indexEntry, error) {
	f.mu.Lock()
	if at := (n - f.written) * indexEntrySize; at >= 0 && at < int64(len(f.buf)) {
		defer f.mu.Unlock()
		return indexEntryFrom(f.buf[at:]), nil
	}
	f.mu.Unlock()
	return f.readEntry(file, n)
}
