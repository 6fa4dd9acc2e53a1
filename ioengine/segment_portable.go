package ioengine

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// portableSegment is a file mapped twice: rw for the tail owner, ro for everybody
// else. The linux segment is this one plus the calls that linux has.
type portableSegment struct {
	plainFile
	// size is the length of file and mappings, set by mapAll.
	size int64
	// rw and ro are the mappings; nil after Unmap. Invariant: len(rw) == len(ro) == size while mapped.
	rw, ro []byte
	warm   atomic.Int32 // a WarmKind, written by Warm
}

func (s *portableSegment) mapAll(size int64) (err error) {
	s.size = size
	if s.rw, err = mapFile(s.f, size, true); err != nil {
		return fail("map", s.name, err)
	}
	if s.ro, err = mapFile(s.f, size, false); err != nil {
		return errors.Join(fail("map", s.name, err), s.Unmap())
	}
	return nil
}

func (s *portableSegment) Window(off, n int64) []byte {
	if uint64(off) > uint64(len(s.rw)) || uint64(n) > uint64(len(s.rw))-uint64(off) {
		panicRange(s.name, off, n, len(s.rw))
	}
	return s.rw[off : off+n : off+n]
}

func (s *portableSegment) View(off, n int64) []byte {
	if uint64(off) > uint64(len(s.ro)) || uint64(n) > uint64(len(s.ro))-uint64(off) {
		panicRange(s.name, off, n, len(s.ro))
	}
	return s.ro[off : off+n : off+n]
}

//go:noinline
func panicRange(name string, off, n int64, mapped int) {
	panic(fmt.Sprintf("BUG: range %d+%d of segment %s, which has %d bytes mapped", off, n, name, mapped))
}

func (s *portableSegment) mapped() bool { return s.rw != nil }

func (s *portableSegment) Size() (int64, error) {
	if s.mapped() {
		return s.size, nil
	}
	return s.plainFile.Size()
}

var errMapped = errors.New("segment is mapped and keeps its size: unmap it first")

func (s *portableSegment) Truncate(size int64) error {
	if s.mapped() {
		return fail("truncate", s.name, errMapped)
	}
	return s.plainFile.Truncate(size)
}

func (s *portableSegment) Allocate(off, n int64) error {
	if err := s.checkGrow("allocate", off, n); err != nil {
		return err
	}
	return s.plainFile.Allocate(off, n)
}

func (s *portableSegment) WriteAt(p []byte, off int64) (int, error) {
	if err := s.checkGrow("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	return s.plainFile.WriteAt(p, off)
}

func (s *portableSegment) checkGrow(op string, off, n int64) error {
	if s.mapped() && (off > s.size || n > s.size-off) {
		return fail(op, s.name, errMapped)
	}
	return nil
}

// Zero syncs every 64 MiB: without paced write-back that is what bounds the
// dirty pages.
func (s *portableSegment) Zero(from, to int64) error {
	const step = 64 << 20
	if err := s.checkRange("zero", from, to); err != nil {
		return err
	}
	for from < to {
		end := min(from+step, to)
		if err := writeZeroes(s, from, end); err != nil {
			return err
		}
		if from = end; from < to {
			if err := s.Sync(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *portableSegment) Warm(from, to int64) error {
	if err := s.checkMapped("warm", from, to); err != nil {
		return err
	}
	touch(s.rw[from-from%pageSize : to])
	s.warm.Store(int32(WarmTouched))
	return nil
}

// touch makes each page of b writable without changing it. The atomic OR of
// nothing is a store that can't undo one of the tail owner's.
func touch(b []byte) {
	for len(b) >= 4 {
		atomic.OrUint32((*uint32)(unsafe.Pointer(&b[0])), 0)
		b = b[min(len(b), int(pageSize)):]
	}
}

func (s *portableSegment) WarmKind() WarmKind { return WarmKind(s.warm.Load()) }

func (s *portableSegment) Cool(from, to int64) error {
	if err := s.checkMapped("cool", from, to); err != nil {
		return err
	}
	from, to = s.wholePages(from, to)
	if from >= to {
		return nil
	}
	err := dropMapping(s.rw[from:to])
	return fail("cool", s.name, errors.Join(err, dropMapping(s.ro[from:to])))
}

// wholePages is the part of [from, to) made of whole pages. The segment's last
// page counts as whole.
func (s *portableSegment) wholePages(from, to int64) (int64, int64) {
	from = (from + pageSize - 1) / pageSize * pageSize
	if to != s.size {
		to -= to % pageSize
	}
	return from, to
}

// WriteBack leaves the moment to the system: it is advice, and there is no
// portable way to give it.
func (s *portableSegment) WriteBack(from, to int64) error {
	return s.checkRange("write back", from, to)
}

// WaitWriteBack has nothing to wait for, since WriteBack starts nothing.
func (s *portableSegment) WaitWriteBack(from, to int64) error {
	return s.checkRange("wait for write-back of", from, to)
}

// SyncRange flushes the mapping first: elsewhere than on linux a sync of the file
// need not see what was stored through one.
func (s *portableSegment) SyncRange(from, to int64) error {
	if err := s.checkRange("sync", from, to); err != nil {
		return err
	}
	if s.mapped() && from < to {
		if err := flushMapping(s.rw[from-from%pageSize : to]); err != nil {
			return fail("sync", s.name, err)
		}
	}
	return s.plainFile.Sync()
}

func (s *portableSegment) Sync() error { return s.SyncRange(0, s.size) }

func (s *portableSegment) Unmap() error {
	var err error
	if s.rw != nil {
		err = unmapFile(s.rw)
	}
	if s.ro != nil {
		err = errors.Join(err, unmapFile(s.ro))
	}
	s.rw, s.ro = nil, nil
	return fail("unmap", s.name, err)
}

func (s *portableSegment) Close() error {
	return errors.Join(s.Unmap(), s.plainFile.Close())
}

func (s *portableSegment) checkRange(op string, from, to int64) error {
	return checkRange(op, s.name, from, to, s.size)
}

func (s *portableSegment) checkMapped(op string, from, to int64) error {
	if !s.mapped() {
		return fail(op, s.name, errors.New("segment is not mapped any more"))
	}
	return s.checkRange(op, from, to)
}

// pageSize is a variable because arm64 kernels have 4, 16 or 64 KiB.
var pageSize = int64(os.Getpagesize())

func checkRange(op, name string, from, to, size int64) error {
	if from < 0 || from > to || to > size {
		return fail(op, name, fmt.Errorf("range [%d, %d) of a segment of %d bytes: %w", from, to, size, syscall.EINVAL))
	}
	return nil
}
