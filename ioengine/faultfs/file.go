package faultfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/ioengine"
)

// file is one handle.
type file struct {
	fs     *FS
	node   *inode
	name   string
	access int  // O_RDONLY, O_WRONLY or O_RDWR
	closed bool // under fs.mu
}

func (h *file) op(kind Kind, off, n int64) Op {
	return Op{Kind: kind, Name: h.name, Off: off, Len: n}
}

// readyLocked checks what the kernel checks before it does anything.
func (h *file) readyLocked(kind Kind, off int64, refusedAccess int) error {
	switch {
	case h.closed:
		return fail(kind, h.name, os.ErrClosed)
	case off < 0:
		return fail(kind, h.name, syscall.EINVAL)
	case h.access == refusedAccess:
		return fail(kind, h.name, syscall.EBADF)
	}
	return nil
}

const anyAccess = -1

func (h *file) ReadAt(p []byte, off int64) (int, error) {
	if err := h.fs.start(h.op(OpRead, off, int64(len(p)))); err != nil {
		return 0, err
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.readyLocked(OpRead, off, os.O_WRONLY); err != nil {
		return 0, err
	}
	n := 0
	if off < int64(len(h.node.cache)) {
		n = copy(p, h.node.cache[off:])
		h.node.warmPages(off, off+int64(n))
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *file) WriteAt(p []byte, off int64) (int, error) {
	return h.write(OpWrite, p, off)
}

func (h *file) write(kind Kind, p []byte, off int64) (int, error) {
	cut := h.fs.start(h.op(kind, off, int64(len(p))))
	if cut != nil {
		var short *ShortWrite
		if !errors.As(cut, &short) {
			return 0, cut
		}
		p = p[:min(max(short.N, 0), int64(len(p)))]
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.readyLocked(kind, off, os.O_RDONLY); err != nil {
		return 0, err
	}
	n, err := h.storeLocked(p, off)
	if err != nil {
		return n, fail(kind, h.name, err)
	}
	return n, cut
}

// storeLocked writes as many bytes as there is room for, like a real one.
func (h *file) storeLocked(p []byte, off int64) (int, error) {
	var full error
	if end := off + int64(len(p)); end > int64(len(h.node.cache)) && len(p) > 0 {
		room := int64(len(h.node.cache)) + max(0, h.fs.capacity-h.fs.used)
		if end > room && h.node.maps == 0 {
			full = syscall.ENOSPC
			if room <= off {
				return 0, full
			}
			p, end = p[:room-off], room
		}
		if err := h.fs.resizeLocked(h.node, end); err != nil {
			return 0, err
		}
	}
	n := copy(h.node.cache[min(off, int64(len(h.node.cache))):], p)
	h.node.warmPages(off, off+int64(n))
	h.node.redirty(off, off+int64(n))
	h.node.modTime = time.Now()
	return n, full
}

func (h *file) ReadAtNoWait(p []byte, off int64) (int, error) {
	if err := h.fs.start(h.op(OpReadNoWait, off, int64(len(p)))); err != nil {
		return 0, err
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.fs.noWaitOff {
		return 0, ioengine.ErrNoWaitUnsupported
	}
	if err := h.readyLocked(OpReadNoWait, off, os.O_WRONLY); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if off >= int64(len(h.node.cache)) {
		return 0, io.EOF
	}
	end := h.node.warmUntil(off, min(off+int64(len(p)), int64(len(h.node.cache))))
	if end == off {
		return 0, ioengine.ErrCold
	}
	return copy(p, h.node.cache[off:end]), nil
}

func (h *file) Resident(off int64, n int) bool {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	end := off + int64(n)
	if off < 0 || n < 0 || h.fs.noWaitOff || end > int64(len(h.node.cache)) {
		return false
	}
	return h.node.warmUntil(off, end) == end
}

// warmUntil says how far [off, end) is in the page cache without a gap.
func (n *inode) warmUntil(off, end int64) int64 {
	for at := off; at < end; at = at - at%pageSize + pageSize {
		if n.cold[at/pageSize] {
			return at
		}
	}
	return end
}

func (n *inode) warmPages(from, to int64) {
	if len(n.cold) == 0 {
		return
	}
	for p := from / pageSize; p*pageSize < to; p++ {
		delete(n.cold, p)
	}
}

func (n *inode) chill() {
	n.cold = map[int64]bool{}
	for p := int64(0); p*pageSize < int64(len(n.cache)); p++ {
		n.cold[p] = true
	}
}

func (h *file) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.readyLocked(OpStat, 0, anyAccess); err != nil {
		return 0, err
	}
	return int64(len(h.node.cache)), nil
}

func (h *file) Truncate(size int64) error {
	if err := h.fs.start(h.op(OpTruncate, 0, size)); err != nil {
		return err
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.readyLocked(OpTruncate, size, os.O_RDONLY); err != nil {
		return err
	}
	if h.node.maps > 0 {
		return fail(OpTruncate, h.name, errMapped)
	}
	if err := h.fs.resizeLocked(h.node, size); err != nil {
		return fail(OpTruncate, h.name, err)
	}
	return nil
}

var errMapped = fmt.Errorf("segment is mapped and keeps its size: unmap it first: %w", syscall.EBUSY)

func (h *file) Allocate(off, n int64) error {
	if err := h.fs.start(h.op(OpAllocate, off, n)); err != nil {
		return err
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.readyLocked(OpAllocate, off, os.O_RDONLY); err != nil {
		return err
	}
	if n <= 0 || off+n < off {
		return fail(OpAllocate, h.name, syscall.EINVAL)
	}
	if off+n <= int64(len(h.node.cache)) {
		return nil
	}
	if h.node.maps > 0 {
		return fail(OpAllocate, h.name, errMapped)
	}
	if err := h.fs.resizeLocked(h.node, off+n); err != nil {
		return fail(OpAllocate, h.name, err)
	}
	return nil
}

func (h *file) Sync() error {
	return h.sync(OpSync, 0, -1)
}

func (h *file) Fd() int      { return -1 }
func (h *file) Name() string { return h.name }

// Close closes even when an injected error says that it did not, as close(2) does.
func (h *file) Close() error {
	err := h.fs.start(h.op(OpClose, 0, 0))
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return fail(OpClose, h.name, os.ErrClosed)
	}
	h.closed = true
	h.node.handles--
	h.fs.releaseLocked(h.node)
	return err
}

// segment is a handle with the file's cached image as its window.
type segment struct {
	file
	size int64
	// mem points at the cached image; nil after Unmap. The image does not move
	// while it is mapped.
	mem    atomic.Pointer[[]byte]
	warmed atomic.Bool
}

func (s *segment) WarmKind() ioengine.WarmKind {
	if s.warmed.Load() {
		return ioengine.WarmLocked
	}
	return ioengine.WarmNone
}

func (s *segment) Window(off, n int64) []byte {
	mem := s.mem.Load()
	if mem == nil || off < 0 || n < 0 || off > s.size || n > s.size-off {
		panic(fmt.Sprintf("BUG: range %d+%d of segment %s, which has %d bytes (mapped: %t)", off, n, s.name, s.size, mem != nil))
	}
	return (*mem)[off : off+n : off+n]
}

// View is the same memory: a stray store is found by the linux implementation.
func (s *segment) View(off, n int64) []byte { return s.Window(off, n) }

func (s *segment) Zero(from, to int64) error {
	if err := s.checkRange(OpZero, from, to); err != nil {
		return err
	}
	_, err := s.write(OpZero, make([]byte, to-from), from)
	return err
}

// Warm also brings the pages into the page cache.
func (s *segment) Warm(from, to int64) error {
	if err := s.advise(OpWarm, from, to); err != nil {
		return err
	}
	s.fs.mu.Lock()
	defer s.fs.mu.Unlock()
	s.node.warmPages(from, to)
	s.warmed.Store(true)
	return nil
}

func (s *segment) Cool(from, to int64) error { return s.advise(OpCool, from, to) }

func (s *segment) advise(kind Kind, from, to int64) error {
	if err := s.fs.start(s.op(kind, from, to-from)); err != nil {
		return err
	}
	if s.mem.Load() == nil {
		return fail(kind, s.name, errors.New("segment is not mapped any more"))
	}
	return s.checkRange(kind, from, to)
}

func (s *segment) WriteBack(from, to int64) error { return s.writeBack(OpWriteBack, from, to) }

func (s *segment) WaitWriteBack(from, to int64) error {
	return s.writeBack(OpWaitWriteBack, from, to)
}

// writeBack makes nothing durable; whether the device has the bytes is decided by
// the crash. A failure loses them as a failed sync does.
func (s *segment) writeBack(kind Kind, from, to int64) error {
	if err := s.checkRange(kind, from, to); err != nil {
		return err
	}
	err := s.fs.start(s.op(kind, from, to-from))
	if err != nil {
		s.fs.mu.Lock()
		defer s.fs.mu.Unlock()
		s.node.lose(from, s.node.cache[from:to])
	}
	return err
}

func (s *segment) SyncRange(from, to int64) error {
	if err := s.checkRange(OpSyncRange, from, to); err != nil {
		return err
	}
	return s.sync(OpSyncRange, from, to)
}

func (s *segment) checkRange(kind Kind, from, to int64) error {
	if from < 0 || from > to || to > s.size {
		return fail(kind, s.name, fmt.Errorf("range [%d, %d) of a segment of %d bytes: %w", from, to, s.size, syscall.EINVAL))
	}
	return nil
}

func (s *segment) Unmap() error {
	if s.mem.Load() == nil {
		return nil
	}
	err := s.fs.start(s.op(OpUnmap, 0, 0))
	s.fs.mu.Lock()
	defer s.fs.mu.Unlock()
	if s.mem.Swap(nil) != nil {
		s.node.maps--
	}
	return err
}

func (s *segment) Close() error { return errors.Join(s.Unmap(), s.file.Close()) }
