//go:build linux

package uring

import (
	"math"
	"sync/atomic"
	"unsafe"

	raw "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"
)

// Entry is one operation to be submitted. The methods that name an operation come first, SetData and the modifiers after.
//
// Memory that an operation reads or writes is the kernel's until its completion: an Arena, a mapping, or heap memory that the caller keeps
// reachable. What is handed over here never lies on a goroutine's stack, which moves: see heap. Of more than 1 GiB an operation takes the
// first GiB, and its completion is short.
type Entry struct{ sqe raw.SubmissionQueueEntry64 }

// maxLength is below what the kernel would cut the length to (2 GiB less a page), and keeps alignment. A length of 4 GiB would become 0 in
// the entry's 32 bits.
const maxLength = 1 << 30

func addr(p []byte) uint64 { return heap(unsafe.Pointer(unsafe.SliceData(p))) }

func length[T int | int64](n T) uint32 { return uint32(min(n, maxLength)) }

// escaped is never set: that stack memory may end up in it is what the compiler must think.
var escaped struct {
	never   bool
	pointer atomic.Pointer[byte]
}

// heap is p as the kernel wants it. The compiler does not see that a pointer lives on in an integer, and would leave a buffer that only the
// kernel knows on the stack.
func heap(p unsafe.Pointer) uint64 {
	if escaped.never {
		escaped.pointer.Store((*byte)(p))
	}
	return uint64(uintptr(p))
}

// Nop does nothing.
func (e *Entry) Nop() { e.sqe.PrepOperation(raw.IORING_OP_NOP, -1, 0, 0, 0) }

// Read reads into p from the file offset off; eventfds and pipes take 0.
func (e *Entry) Read(fd int, p []byte, off int64) {
	e.sqe.PrepOperation(raw.IORING_OP_READ, int32(fd), addr(p), length(len(p)), uint64(off))
}

// Write writes p at the file offset off. It may be short.
func (e *Entry) Write(fd int, p []byte, off int64) {
	e.sqe.PrepOperation(raw.IORING_OP_WRITE, int32(fd), addr(p), length(len(p)), uint64(off))
}

// ReadFixed is Read into a part of the registered buffer index.
func (e *Entry) ReadFixed(fd int, p []byte, off int64, index int) {
	e.sqe.PrepOperation(raw.IORING_OP_READ_FIXED, int32(fd), addr(p), length(len(p)), uint64(off))
	e.sqe.SetBufIndex(uint16(index))
}

// WriteFixed is Write from a part of the registered buffer index.
func (e *Entry) WriteFixed(fd int, p []byte, off int64, index int) {
	e.sqe.PrepOperation(raw.IORING_OP_WRITE_FIXED, int32(fd), addr(p), length(len(p)), uint64(off))
	e.sqe.SetBufIndex(uint16(index))
}

// DSync makes a Write or WriteFixed complete when its bytes are on the device (RWF_DSYNC).
func (e *Entry) DSync() { e.sqe.SetOpFlags(unix.RWF_DSYNC) }

// Fdatasync makes what was written before durable; operations in flight are not part of it.
func (e *Entry) Fdatasync(fd int) {
	e.sqe.PrepOperation(raw.IORING_OP_FSYNC, int32(fd), 0, 0, 0)
	e.sqe.SetOpFlags(uint32(raw.IOSQE_SYNC_DATASYNC))
}

// SyncFileRange starts or awaits write-back of [off, off+n), see unix.SYNC_FILE_RANGE_WRITE and its kin. n of 0, or more than 32 bits hold,
// means to the end of the file.
func (e *Entry) SyncFileRange(fd int, off, n int64, flags uint32) {
	if n > math.MaxUint32 {
		n = 0
	}
	e.sqe.PrepOperation(raw.IORING_OP_SYNC_FILE_RANGE, int32(fd), 0, uint32(n), uint64(off))
	e.sqe.SetOpFlags(flags)
}

// AcceptMultishot accepts connections on a listener until it fails: a completion for each, its result the descriptor (linux 5.19). One
// without CompletionMore ends it.
func (e *Entry) AcceptMultishot(fd int) {
	e.sqe.PrepOperation(raw.IORING_OP_ACCEPT, int32(fd), 0, 0, 0)
	e.sqe.SetOpFlags(unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC)
	e.sqe.SetIoprio(acceptMultishot)
}

const (
	recvMultishot   = 1 << 1
	acceptMultishot = 1 << 0
	pollMultishot   = 1 << 0
)

// RecvMultishot receives until the peer closes, an error, or the group has no buffer left (ENOBUFS): a completion for each piece, in a buffer
// of the group (linux 6.0).
func (e *Entry) RecvMultishot(fd int, group uint16) {
	e.sqe.PrepOperation(raw.IORING_OP_RECV, int32(fd), 0, 0, 0)
	e.sqe.SetIoprio(recvMultishot)
	e.sqe.SetFlags(raw.IOSQE_FLAGS_BUFFER_SELECT)
	e.sqe.SetBufGroup(group)
}

// Recv receives once into p.
func (e *Entry) Recv(fd int, p []byte, flags uint32) {
	e.sqe.PrepOperation(raw.IORING_OP_RECV, int32(fd), addr(p), length(len(p)), 0)
	e.sqe.SetOpFlags(flags)
}

// Send sends p, and waits for room: O_NONBLOCK does not make it answer EAGAIN, only MSG_DONTWAIT does. With MSG_WAITALL in flags the kernel
// goes on after a short send (linux 5.19).
func (e *Entry) Send(fd int, p []byte, flags uint32) {
	e.sqe.PrepOperation(raw.IORING_OP_SEND, int32(fd), addr(p), length(len(p)), 0)
	e.sqe.SetOpFlags(flags)
}

// SendMsg is sendmsg. m and what it points to must stay in place until the completion.
func (e *Entry) SendMsg(fd int, m *unix.Msghdr, flags uint32) {
	e.sqe.PrepOperation(raw.IORING_OP_SENDMSG, int32(fd), heap(unsafe.Pointer(m)), 1, 0)
	e.sqe.SetOpFlags(flags)
}

// PollMultishot tells each time events are there.
func (e *Entry) PollMultishot(fd int, events uint32) {
	e.sqe.PrepOperation(raw.IORING_OP_POLL_ADD, int32(fd), 0, pollMultishot, 0)
	e.sqe.SetOpFlags(events)
}

// Poll tells once that events are there.
func (e *Entry) Poll(fd int, events uint32) {
	e.sqe.PrepOperation(raw.IORING_OP_POLL_ADD, int32(fd), 0, 0, 0)
	e.sqe.SetOpFlags(events)
}

// Cancel ends the operation whose data is d: its completion says ECANCELED, or what it came to meanwhile. Cancel's own says 0, ENOENT for
// none found, or EALREADY for one that runs and can't be stopped.
func (e *Entry) Cancel(d uint64) { e.sqe.PrepOperation(raw.IORING_OP_ASYNC_CANCEL, -1, d, 0, 0) }

// SetData is what the completion carries. All ones is the ring's own.
func (e *Entry) SetData(d uint64) { e.sqe.SetUserData(d) }

// FixedFile makes the operation take the registered file index in place of a descriptor.
func (e *Entry) FixedFile(index int) { e.sqe.SetFdIndex(int32(index)) }

// Async makes a worker thread of the kernel run the operation from the start: for those that are known to wait.
func (e *Entry) Async() { e.sqe.SetFlags(raw.IOSQE_FLAGS_ASYNC) }
