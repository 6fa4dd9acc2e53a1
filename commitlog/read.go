package commitlog

import (
	"errors"
	"fmt"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
)

var errNoRecord = &message.InvalidError{Reason: "no record starts there"}

// ErrGone is a place before the first segment that is still there, or behind the end of the log.
var ErrGone = errors.New("this part of the commit log is not there")

// ReadNoWait copies len(dst) bytes at off, all of them published, without waiting for the disk: from the mapping where the page is held
// in memory, else from the blocks that the log keeps, or where it keeps none from the page cache. ioengine.ErrCold: the disk is needed, use ReadWait on a goroutine.
func (l *Log) ReadNoWait(dst []byte, off int64) error {
	s, err := l.hold(off, int64(len(dst)))
	if err != nil {
		return err
	}
	defer s.release()
	for at := off - s.base; len(dst) > 0; {
		if s.copyHot(dst, at) {
			return nil
		}
		n := s.inFile(at, len(dst))
		if l.cold != nil {
			if !l.cold.copy(s, dst[:n], at) {
				return ioengine.ErrCold
			}
			dst, at = dst[n:], at+int64(n)
			continue
		}
		n, err := s.file.ReadAtNoWait(dst[:n], at)
		if err != nil {
			if errors.Is(err, ioengine.ErrNoWaitUnsupported) {
				return ioengine.ErrCold
			}
			return err
		}
		dst, at = dst[n:], at+int64(n)
	}
	return nil
}

// inFile is how many of n bytes at the place at, which is before the hot mark, are read from the file: what lies behind the mark may not be there
// yet.
func (s *segment) inFile(at int64, n int) int {
	if hot := s.hot.Load(); hot > at {
		return int(min(int64(n), hot-at))
	}
	return n
}

// copyHot copies from the mapping what lies at or behind the segment's hot mark.
func (s *segment) copyHot(dst []byte, at int64) bool {
	if hot := s.hot.Load(); hot < 0 || at < hot {
		return false
	}
	s.viewers.Add(1)
	defer s.viewers.Add(-1)
	if hot := s.hot.Load(); hot < 0 || at < hot {
		return false
	}
	copy(dst, s.file.View(at, int64(len(dst))))
	return true
}

// ReadWait is ReadNoWait that may wait for the disk. Never on a reactor.
func (l *Log) ReadWait(dst []byte, off int64) error {
	s, err := l.hold(off, int64(len(dst)))
	if err != nil {
		return err
	}
	defer s.release()
	for at := off - s.base; len(dst) > 0; {
		if s.copyHot(dst, at) {
			return nil
		}
		n := s.inFile(at, len(dst))
		if err := l.readFile(s, dst[:n], at); err != nil {
			return err
		}
		dst, at = dst[n:], at+int64(n)
	}
	return nil
}

// readFile reads what is in the file of s, waiting for the disk.
func (l *Log) readFile(s *segment, dst []byte, at int64) error {
	if l.cold != nil {
		return l.cold.read(s, dst, at)
	}
	_, err := s.file.ReadAt(dst, at)
	return err
}

// ReadRecord reads the record at off, waiting for the disk if need be, and checks it. For queries and tools; the bytes are the
// caller's.
func (l *Log) ReadRecord(off int64) ([]byte, error) {
	var head [message.BlankSize]byte
	if err := l.ReadWait(head[:], off); err != nil {
		return nil, err
	}
	size, ok := recordSize(head[:], l.ToSegmentEnd(off))
	if !ok || off+size > l.published.Load() {
		return nil, fmt.Errorf("log offset %d: %w", off, errNoRecord)
	}
	b := make([]byte, size)
	if err := l.ReadWait(b, off); err != nil {
		return nil, err
	}
	var r message.Record
	if err := message.Decode(b, &r); err != nil {
		return nil, fmt.Errorf("log offset %d: %w", off, err)
	}
	if r.PhysicalOffset != off {
		return nil, fmt.Errorf("no record starts at the log offset %d", off)
	}
	if err := r.VerifyCRC(b); err != nil {
		return nil, fmt.Errorf("log offset %d: %w", off, err)
	}
	return b, nil
}

// recordSize is the size that a record with this head has; false where there is none, or one that is larger than room.
func recordSize(head []byte, room int64) (size int64, ok bool) {
	n, magic := message.PeekSize(head)
	size = int64(n)
	return size, (magic == message.MagicV1 || magic == message.MagicV2) && size >= message.FixedSize && size <= min(room, maxRecord)
}

// Range is a part of one segment that is there until Release: sendfile reads it.
type Range struct {
	seg *segment
	// Off is where the range starts in the file.
	Off int64
	N   int
	// memory: it is in memory only, not in the file.
	memory bool
}

// Hold holds n published bytes at off, which lie in one segment.
func (l *Log) Hold(off int64, n int) (Range, error) {
	s, err := l.hold(off, int64(n))
	if err != nil {
		return Range{}, err
	}
	r := Range{seg: s, Off: off - s.base, N: n}
	if l.memory != nil {
		hot := s.hot.Load()
		r.memory = hot >= 0 && r.Off+int64(n) > hot
	}
	return r, nil
}

// Fd is the descriptor to read from, -1 where there is none, or where the range is not in the file yet: then ReadNoWait has it.
func (r Range) Fd() int {
	if r.memory {
		return -1
	}
	return r.seg.file.Fd()
}

// Resident tells whether the range is in the page cache by now. What the log holds through its mapping is, without asking.
func (r Range) Resident() bool {
	if hot := r.seg.hot.Load(); hot >= 0 && r.Off >= hot {
		return true
	}
	return r.seg.file.Resident(r.Off, r.N)
}

// Resident tells whether all of [off, end) is in the page cache by now, or held in the log's memory: one question for many ranges that lie close
// together.
func (l *Log) Resident(off, end int64) bool {
	for off < end {
		n, there := min(end-off, l.ToSegmentEnd(off)), true
		err := l.inSegment(off, n, func(f ioengine.File, at int64, n int) error {
			there = f.Resident(at, n)
			return nil
		})
		if err != nil || !there {
			return false
		}
		off += n
	}
	return true
}

// Load brings [off, end), all published, into the page cache and waits for the disk: what it passes over can be sent without waiting. Never
// on a reactor.
func (l *Log) Load(off, end int64) error {
	for off < end {
		n := min(end-off, l.ToSegmentEnd(off))
		err := l.inSegment(off, n, ioengine.Load)
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

// ReadAhead begins to bring n bytes at off into the page cache. It waits for nothing and promises nothing.
func (l *Log) ReadAhead(off int64, n int) {
	if l.cold != nil && l.cold.isThere(off) {
		return
	}
	_ = l.inSegment(off, int64(n), func(f ioengine.File, at int64, n int) error {
		ioengine.ReadAhead(f, at, n)
		return nil
	})
}

// inSegment calls do for what is in the file, and not in the log's memory, of n bytes at off, which lie in one segment.
func (l *Log) inSegment(off, n int64, do func(f ioengine.File, at int64, n int) error) error {
	if n <= 0 {
		return ErrGone
	}
	s, err := l.hold(off, n)
	if err != nil {
		return err
	}
	defer s.release()
	at := off - s.base
	if hot := s.hot.Load(); hot >= 0 && at >= hot {
		return nil
	}
	return do(s.file, at, s.inFile(at, int(n)))
}

// Release lets go of the range. Once.
func (r Range) Release() { r.seg.release() }

// Releaser is what is to be released when the range has been sent: one pointer, so that handing it on takes no memory.
func (r Range) Releaser() *SegmentHold { return (*SegmentHold)(r.seg) }

// SegmentHold is the hold of one Range.
type SegmentHold segment

// Release lets go of the range. Once.
func (h *SegmentHold) Release() { (*segment)(h).release() }

// hold finds the segment of [off, off+n) and counts the caller among its readers.
func (l *Log) hold(off, n int64) (*segment, error) {
	if off < l.minOffset.Load() || n < 0 || off > l.published.Load()-n {
		return nil, ErrGone
	}
	s := l.find(off)
	if s == nil || off+n > s.end() || !s.acquire() {
		return nil, ErrGone
	}
	return s, nil
}

// release ends one reader's hold. The last one of a dropped segment wakes whoever removes the file.
func (s *segment) release() {
	if s.refs.Add(-1) == 0 {
		close(s.unused)
	}
}

// View is a look at published bytes in the log's own memory, until Done.
type View struct {
	Bytes []byte
	seg   *segment
}

// ViewHot returns what is published from off on to the end of its segment, without copying; ok is false where the memory was let go.
// The caller is done in microseconds: the keeper waits for it.
func (l *Log) ViewHot(off int64) (v View, ok bool) {
	end := l.published.Load()
	s := l.find(off)
	if s == nil || off >= end {
		return View{}, false
	}
	s.viewers.Add(1)
	if hot := s.hot.Load(); hot < 0 || off-s.base < hot {
		s.viewers.Add(-1)
		return View{}, false
	}
	return View{s.file.View(off-s.base, min(end, s.end())-off), s}, true
}

// Done ends the look.
func (v View) Done() { v.seg.viewers.Add(-1) }

// ToSegmentEnd is how many bytes lie between off and the end of its segment.
func (l *Log) ToSegmentEnd(off int64) int64 {
	if s := l.find(off); s != nil {
		return s.end() - off
	}
	return 0
}

// firstReadBuffer holds most records, in bytes.
const firstReadBuffer = 4 << 10

// ReadNext reads the record at off into buf, which grows if need be, and tells where the next one starts. At a blank raw is empty and
// next is the start of the next segment; at a place that holds no record, next is where one may follow. It may wait for the disk.
//
// The checksums are not looked at, but what is no record by its lengths is damage and stepped over: recovery has not seen what lies
// before the checkpoint, and a size that rotted must not lead into the middle of other records.
func (l *Log) ReadNext(off int64, buf []byte) (raw []byte, next int64, err error) {
	toEnd := l.ToSegmentEnd(off)
	if toEnd < message.BlankSize {
		return buf[:0], off + toEnd, nil
	}
	room := min(toEnd, l.published.Load()-off)
	if cap(buf) < message.PeekBytes {
		buf = make([]byte, firstReadBuffer)
	}
	head := buf[:min(message.PeekBytes, max(room, message.BlankSize))]
	if err := l.ReadWait(head, off); err != nil {
		return nil, 0, err
	}
	size, ok := recordSize(head, room)
	switch {
	case ok && message.PhysicalOffsetOf(head) == off:
		if int64(cap(buf)) < size {
			buf = make([]byte, size)
		}
		buf = buf[:size]
		if err := l.ReadWait(buf, off); err != nil {
			return nil, 0, err
		}
		var r message.Record
		if message.Decode(buf, &r) == nil {
			return buf, off + size, nil
		}
	case !ok:
		if _, magic := message.PeekSize(head); magic == message.MagicBlank {
			return buf[:0], off + toEnd, nil
		}
	}
	next, err = l.skipDamage(off)
	return buf[:0], next, err
}

// skipDamage finds the next place behind off that looks like the start of a record, up to the end of the segment or of the log.
func (l *Log) skipDamage(off int64) (int64, error) {
	end := min(off+l.ToSegmentEnd(off), l.published.Load())
	buf := make([]byte, min(end-off, scanBuffer))
	for at := off + 1; at+message.PeekBytes <= end; {
		b := buf[:min(int64(len(buf)), end-at)]
		if err := l.ReadWait(b, at); err != nil {
			return 0, err
		}
		i := indexMagic(b)
		switch {
		case i < 0:
			at += int64(len(b) - message.BlankSize + 1)
		case i > 0:
			at += int64(i)
		case len(b) >= message.PeekBytes && message.PhysicalOffsetOf(b) == at:
			return at, nil
		default:
			at++
		}
	}
	return end, nil
}
