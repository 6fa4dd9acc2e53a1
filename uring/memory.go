//go:build linux

package uring

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"unsafe"

	raw "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"
)

// Arena is memory off Go's heap, zeroed, aligned to a page: the collector neither moves nor frees it, and O_DIRECT takes it.
type Arena struct{ Bytes []byte }

const hugePage = 2 << 20

// NewArena maps n bytes, in huge pages where that makes sense and the system gives them.
func NewArena(n int) (*Arena, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", n, err)
	}
	if n >= hugePage {
		// Advice: where it is not taken, the pages are small ones.
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	}
	return &Arena{b}, nil
}

// Populate makes all pages present, with what they hold.
func (a *Arena) Populate() {
	for i := 0; i < len(a.Bytes); i += 4096 {
		// A store of its own value that the compiler keeps.
		atomic.OrUint32((*uint32)(unsafe.Pointer(&a.Bytes[i])), 0)
	}
}

// Free unmaps the arena; no operation may be in flight on it.
func (a *Arena) Free() error {
	b := a.Bytes
	a.Bytes = nil
	if b == nil {
		return nil
	}
	return unix.Munmap(b)
}

// RegisterBuffers makes the slices the registered buffers 0, 1, …: their pages are pinned once and not for each operation. It counts against
// RLIMIT_MEMLOCK. The kernel takes 1 GiB a buffer at most.
func (r *Ring) RegisterBuffers(buffers ...[]byte) error {
	if len(buffers) == 0 {
		return fmt.Errorf("register no buffers with io_uring: %w", unix.EINVAL)
	}
	iov := make([]unix.Iovec, len(buffers))
	for i, b := range buffers {
		iov[i].Base = unsafe.SliceData(b)
		iov[i].SetLen(len(b))
	}
	return r.register("register buffers with io_uring (ulimit -l bounds them)", raw.IORING_REGISTER_BUFFERS, unsafe.Pointer(&iov[0]), len(iov))
}

// UnregisterBuffers undoes RegisterBuffers.
func (r *Ring) UnregisterBuffers() error {
	return r.register("unregister buffers", raw.IORING_UNREGISTER_BUFFERS, nil, 0)
}

// RegisterFiles makes a table of n registered files, all empty: see SetFile.
func (r *Ring) RegisterFiles(n int) error {
	if n <= 0 {
		return fmt.Errorf("register %d files with io_uring: %w", n, unix.EINVAL)
	}
	fds := make([]int32, n)
	for i := range fds {
		fds[i] = -1
	}
	return r.register("register files with io_uring (ulimit -n bounds them)", raw.IORING_REGISTER_FILES, unsafe.Pointer(&fds[0]), n)
}

// SetFile puts fd into the table of registered files; below 0 empties the place. Operations in flight keep the file that they began with.
func (r *Ring) SetFile(index, fd int) error {
	if index < 0 || index > math.MaxInt32 {
		return fmt.Errorf("register a file at place %d: %w", index, unix.EINVAL)
	}
	v := int32(max(fd, -1)) // -2 would mean to the kernel: leave the place as it is
	update := raw.IOURingFilesUpdate{Offset: uint32(index), Fds: &v}
	return r.register("register a file", raw.IORING_REGISTER_FILES_UPDATE, unsafe.Pointer(&update), 1)
}

// BufferRing is a group of buffers of one size that the kernel takes from, one for each completion of a RecvMultishot, and that the owner of
// the ring gives back.
type BufferRing struct {
	ring    *Ring
	group   uint16
	entries []bufferEntry
	arena   *Arena // entries, then the buffers
	bufs    []byte
	size    int
	tail    uint16
}

// bufferEntry is struct io_uring_buf. The tail of the ring lies in the first one's last field.
type bufferEntry struct {
	addr uint64
	len  uint32
	id   uint16
	tail uint16
}

type bufferRingSetup struct {
	ringAddr uint64
	entries  uint32
	group    uint16
	flags    uint16
	_        [3]uint64
}

// NewBufferRing registers count buffers (a power of two, 32,768 at most) of size bytes as a group.
func (r *Ring) NewBufferRing(group uint16, count, size int) (*BufferRing, error) {
	if count <= 0 || count > 1<<15 || count&(count-1) != 0 || size <= 0 || size > math.MaxInt32 {
		return nil, fmt.Errorf("buffer ring of %d buffers of %d bytes: %w", count, size, unix.EINVAL)
	}
	head := count * int(unsafe.Sizeof(bufferEntry{}))
	head = (head + 4095) &^ 4095
	arena, err := NewArena(head + count*size)
	if err != nil {
		return nil, err
	}
	b := &BufferRing{ring: r, group: group, arena: arena, bufs: arena.Bytes[head:], size: size,
		entries: unsafe.Slice((*bufferEntry)(unsafe.Pointer(&arena.Bytes[0])), count)}
	setup := bufferRingSetup{ringAddr: addr(arena.Bytes), entries: uint32(count), group: group}
	if err := r.register("register a buffer ring (linux 5.19; its group must be free and the thread the owner)", registerBufRing, unsafe.Pointer(&setup), 1); err != nil {
		return nil, errors.Join(err, arena.Free())
	}
	for id := range count {
		b.put(uint16(id))
	}
	b.publish()
	return b, nil
}

// Bytes is what a completion received, until GiveBack. Errors, and the end of the stream, come without a buffer: nil.
func (b *BufferRing) Bytes(c Completion) []byte {
	if c.Flags&CompletionBuffer == 0 || c.Result < 0 {
		return nil
	}
	id := int(c.Flags >> 16)
	return b.bufs[id*b.size : id*b.size+int(c.Result)]
}

// GiveBack returns the completion's buffer to the kernel, if it came with one. Once for each completion, in any order: a buffer that is given
// back twice will be received into twice.
func (b *BufferRing) GiveBack(c Completion) {
	if c.Flags&CompletionBuffer == 0 {
		return
	}
	b.put(uint16(c.Flags >> 16))
	b.publish()
}

func (b *BufferRing) put(id uint16) {
	e := &b.entries[int(b.tail)&(len(b.entries)-1)]
	e.addr, e.len, e.id = addr(b.bufs[int(id)*b.size:]), uint32(b.size), id
	b.tail++
}

// publish makes the buffers known: a store of the tail after those of the entries. The tail is 16 bits wide and shares its word with the
// first entry's number, which does not change between put and here.
func (b *BufferRing) publish() {
	word := (*uint32)(unsafe.Pointer(&b.entries[0].id))
	atomic.StoreUint32(word, uint32(b.entries[0].id)|uint32(b.tail)<<16)
}

// Free takes the group back from the kernel and unmaps it. No receive of the group may be in flight. After the ring's Close it unmaps only.
func (b *BufferRing) Free() error {
	if b.ring.fd >= 0 && b.arena.Bytes != nil {
		setup := bufferRingSetup{group: b.group}
		if err := b.ring.register("unregister a buffer ring", unregisterBufRing, unsafe.Pointer(&setup), 1); err != nil {
			return err
		}
	}
	return b.arena.Free()
}
