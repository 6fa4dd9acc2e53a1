package ioengine

import (
	"fmt"
	"sync/atomic"
)

// Tail is the memory of a log's end for the engines that write with calls instead of through a mapping: a ring of one size, in which the
// byte at the log offset off lies at off modulo that size. Its pages are there once and are used again and again, where each page of a
// mapped segment is a new one that has to be found, filled with zeroes and faulted in (5 us each on a virtual machine that gives free
// pages back to its host, four fifths of what storing a message of 1 KiB cost there).
//
// The ring is mapped twice, back to back, so that a range that wraps is still one slice:
//
//	rw   | ring | ring |     Window: the owner of the log's tail stores here
//	ro   | ring | ring |     View: everybody else; a store faults
//
// A private tail ends with the process. A tail file is shared memory in the page cache: what was stored outlives a process that is killed,
// which is what ASYNC_FLUSH promises, and is written to the segments by the next start (see Replay).
type Tail struct {
	// rw and ro are the double mappings, 2*size bytes each.
	rw, ro []byte
	size   int64
	// header is the tail file's first page; nil for a private tail.
	header *tailHeader
	page   []byte
	name   string
	close  func() error
	// present tells of each cell of the ring that its pages are there. Warm's.
	present []bool
}

// tailCell is how much of a ring is brought into memory at once, bytes. The whole of it takes a good part of a second, for which a start must not wait.
const tailCell = 1 << 20

// tailHeader is the first page of a tail file. Numbers are in the machine's byte order: the file never leaves it, and means nothing after
// the machine was started anew.
//
//	Invariant: every byte of the log before written is in the segments; published-written <= size.
type tailHeader struct {
	magic     atomic.Uint64
	size      int64
	boot      [64]byte // the kernel's boot id
	written   atomic.Int64
	_         [64]byte
	published atomic.Int64
	sync      int64 // 1: nothing behind written was acknowledged
}

const (
	tailMagic = 0x316c696174716d72 // "rmqtail1"
	// TailBlock is what a tail is mapped in, and what O_DIRECT writes in, bytes.
	TailBlock = 4096
)

// Size is the bytes of the ring.
func (t *Tail) Size() int64 { return t.size }

// Window is the writable memory of n bytes of the log from off on.
func (t *Tail) Window(off, n int64) []byte {
	at := t.place(off, n)
	return t.rw[at : at+n : at+n]
}

// View is the read-only memory of the same bytes.
func (t *Tail) View(off, n int64) []byte {
	at := t.place(off, n)
	return t.ro[at : at+n : at+n]
}

func (t *Tail) place(off, n int64) int64 {
	if off < 0 || n < 0 || n > t.size {
		panic(fmt.Sprintf("BUG: range %d+%d of a tail of %d bytes", off, n, t.size))
	}
	return off % t.size
}

// Begin says that the log ends at end and is all in the segments. From then on a tail file counts.
func (t *Tail) Begin(end int64) {
	if t.header == nil {
		return
	}
	t.header.written.Store(end)
	t.header.published.Store(end)
	t.header.magic.Store(tailMagic)
}

// SetPublished notes the end of the log, for the next start after a kill. One store.
func (t *Tail) SetPublished(off int64) {
	if t.header != nil {
		t.header.published.Store(off)
	}
}

// SetWritten notes the log offset before which every byte is in the segments.
func (t *Tail) SetWritten(off int64) {
	if t.header != nil {
		t.header.written.Store(off)
	}
}

// Close unmaps the ring. Nobody may hold a Window or a View.
func (t *Tail) Close() error { return t.close() }

// bufferedSegment is a segment whose tail lies in a Tail: Window and View are memory of the ring, and the file has what was written to it.
// Everything else is the segment's.
type bufferedSegment struct {
	Segment
	tail *Tail
	base int64 // log offset of the segment
	size int64
	// direct: the file is written past the page cache, zeroes too.
	direct bool
	warmed atomic.Int32
}

// Buffered puts t before the file of s, which starts at the log offset base and is written by the writer of the engine kind.
//
// The segment's own mapping is dropped: nothing is stored through it.
func Buffered(s Segment, t *Tail, base, size int64, kind EngineKind) (Segment, error) {
	if err := s.Unmap(); err != nil {
		return nil, err
	}
	b := &bufferedSegment{Segment: s, tail: t, base: base, size: size, direct: kind >= EngineDirect}
	if f, ok := s.(dataFinder); ok { // not a method of all: recovery asks who can tell
		return &struct {
			*bufferedSegment
			dataFinder
		}{b, f}, nil
	}
	return b, nil
}

// dataFinder is what a segment has besides where the system tells which parts of its file were ever written.
type dataFinder interface {
	NextData(off int64) (from, to int64, err error)
}

// Zero writes zeroes past the page cache where records will be written so, too: else each of their writes would have to throw pages out.
func (s *bufferedSegment) Zero(from, to int64) error {
	if s.direct && from%TailBlock == 0 && to%TailBlock == 0 {
		return zeroDirect(s.Name(), from, to)
	}
	return s.Segment.Zero(from, to)
}

func (s *bufferedSegment) Window(off, n int64) []byte {
	s.check(off, n)
	return s.tail.Window(s.base+off, n)
}

func (s *bufferedSegment) View(off, n int64) []byte {
	s.check(off, n)
	return s.tail.View(s.base+off, n)
}

func (s *bufferedSegment) check(off, n int64) {
	if off < 0 || n < 0 || n > s.size-off {
		panicRange(s.Name(), off, n, int(s.size))
	}
}

// Warm empties the ring's memory for [from, to): it held an older part of the log. The first time round it brings its pages into memory. Later
// they are there; those of a tail file may have been written back since and would fault once more at the next store.
func (s *bufferedSegment) Warm(from, to int64) error {
	if err := checkRange("warm", s.Name(), from, to, s.size); err != nil || from == to {
		return err
	}
	kind, err := s.tail.warm(s.base+from, to-from)
	if err != nil {
		return fail("warm", s.tail.name, err)
	}
	clear(s.Window(from, to-from))
	s.warmed.Store(int32(kind))
	return nil
}

func (s *bufferedSegment) WarmKind() WarmKind { return WarmKind(s.warmed.Load()) }

// Cool has nothing to let go of: the ring goes round.
func (s *bufferedSegment) Cool(from, to int64) error {
	return checkRange("cool", s.Name(), from, to, s.size)
}
