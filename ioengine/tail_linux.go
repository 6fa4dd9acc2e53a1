package ioengine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NewTail makes a private tail of at least size bytes, which a ring can register.
func NewTail(size int64) (*Tail, error) {
	size = tailSize(size)
	fd, err := unix.MemfdCreate("ringmq-tail", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fail("create", "tail memory", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, size); err != nil {
		return nil, fail("size", "tail memory", err)
	}
	t := &Tail{size: size, name: "tail memory"}
	return t, t.mapRing(fd, 0)
}

// NewTailFile makes the tail file name, over whatever is there: Replay comes first. sync: nothing will be acknowledged that is not in the
// segments. The error wraps ErrDiskFull where there is no space for it.
func NewTailFile(name string, size int64, sync bool) (*Tail, error) {
	size = tailSize(size)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fail("open", name, err)
	}
	defer f.Close()
	if err := again(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, TailBlock+size) }); err != nil {
		return nil, errors.Join(fail("allocate", name, err), os.Remove(name))
	}
	t := &Tail{size: size, name: name}
	if t.page, err = unix.Mmap(int(f.Fd()), 0, TailBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fail("map", name, err)
	}
	t.header = (*tailHeader)(unsafe.Pointer(&t.page[0]))
	if err := t.mapRing(int(f.Fd()), TailBlock); err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	t.header.size = size
	if sync {
		t.header.sync = 1
	}
	copy(t.header.boot[:], boot)
	return t, nil
}

func tailSize(size int64) int64 { return max((size+pageSize-1)/pageSize*pageSize, pageSize) }

// mapRing maps the ring of fd, which starts at off there, twice for writing and twice for reading.
func (t *Tail) mapRing(fd int, off int64) error {
	var err error
	if t.rw, err = mapTwice(fd, off, int(t.size), unix.PROT_READ|unix.PROT_WRITE); err == nil {
		t.ro, err = mapTwice(fd, off, int(t.size), unix.PROT_READ)
	}
	t.close, t.present = t.unmap, make([]bool, (t.size+tailCell-1)/tailCell)
	if err != nil {
		return errors.Join(fail("map", t.name, err), t.unmap())
	}
	return nil
}

// mapTwice maps the same n bytes at two addresses next to each other.
func mapTwice(fd int, off int64, n, prot int) ([]byte, error) {
	at, err := unix.MmapPtr(-1, 0, nil, uintptr(2*n), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	for i := range 2 {
		if _, err := unix.MmapPtr(fd, off, unsafe.Add(at, i*n), uintptr(n), prot, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
			return nil, errors.Join(err, unix.MunmapPtr(at, uintptr(2*n)))
		}
	}
	return unsafe.Slice((*byte)(at), 2*n), nil
}

func (t *Tail) unmap() error {
	var err error
	for _, m := range [][]byte{t.rw, t.ro} {
		if m != nil {
			err = errors.Join(err, unix.MunmapPtr(unsafe.Pointer(&m[0]), uintptr(len(m))))
		}
	}
	if t.page != nil {
		err = errors.Join(err, unix.Munmap(t.page))
	}
	t.rw, t.ro, t.page, t.header = nil, nil, nil, nil
	return fail("unmap", t.name, err)
}

// warm makes the memory of n bytes of the log from off on fit for storing without a wait.
func (t *Tail) warm(off, n int64) (WarmKind, error) {
	at := t.place(off, n)
	kind, err := t.bringIn(at, min(at+n, t.size))
	if around := at + n - t.size; err == nil && around > 0 {
		var k WarmKind
		k, err = t.bringIn(0, around)
		kind = min(kind, k)
	}
	if err == nil && t.header != nil {
		err = populateAgain(t.rw[at : at+n])
	}
	return kind, err
}

// bringIn has the pages of the ring from the place from to the place to in memory, for good where this process may do that.
func (t *Tail) bringIn(from, to int64) (WarmKind, error) {
	kind := WarmLocked
	for cell := from / tailCell; cell*tailCell < to; cell++ {
		if t.present[cell] {
			continue
		}
		k, err := warmPages(t.rw[cell*tailCell : min((cell+1)*tailCell, t.size)])
		if err != nil {
			return WarmNone, err
		}
		t.present[cell], kind = true, min(kind, k)
	}
	return kind, nil
}

// populateAgain makes pages writable that write-back made clean.
func populateAgain(b []byte) error {
	at := uintptr(unsafe.Pointer(&b[0])) % uintptr(pageSize)
	whole := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(&b[0]), -int(at))), len(b)+int(at))
	switch err := again(func() error { return unix.Madvise(whole, unix.MADV_POPULATE_WRITE) }); err {
	case nil, unix.EINVAL, unix.ENOSYS, unix.EPERM:
		return nil // the stores that follow touch each page
	default:
		return err
	}
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fail("read", "boot id", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// TailRest is what a tail file has and the segments may not: the log from From on.
type TailRest struct {
	From int64
	Data []byte
	Sync bool // nothing of it was acknowledged
}

// ReadTail reads what a process that was killed left in the tail file name. Nil: there is no such file, it is of another start of the
// machine (then the page cache that it was in is gone), or everything had been written.
func ReadTail(name string) (*TailRest, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fail("open", name, err)
	}
	defer f.Close()
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fail("stat", name, err)
	}
	// As numbers, not as bytes: the header is aligned.
	var page [TailBlock / 8]uint64
	size := info.Size() - TailBlock
	if _, err := f.ReadAt(unsafe.Slice((*byte)(unsafe.Pointer(&page)), TailBlock), 0); err != nil && size >= 0 {
		return nil, fail("read", name, err)
	}
	h := (*tailHeader)(unsafe.Pointer(&page))
	if size < 0 || h.magic.Load() != tailMagic || strings.TrimRight(string(h.boot[:]), "\x00") != boot || h.size != size {
		return nil, nil
	}
	from, end := h.written.Load(), h.published.Load()
	if from < 0 || end < from || end-from > h.size {
		return nil, fmt.Errorf("tail file %s says that the log from %d to %d is in a ring of %d bytes: it is damaged; move it away to start without what it holds", name, from, end, h.size)
	}
	if from == end {
		return nil, nil
	}
	rest := &TailRest{From: from, Data: make([]byte, end-from), Sync: h.sync != 0}
	first := rest.Data[:min(end-from, h.size-from%h.size)]
	for _, piece := range []struct {
		data []byte
		at   int64
	}{{first, from % h.size}, {rest.Data[len(first):], 0}} {
		if _, err := f.ReadAt(piece.data, TailBlock+piece.at); err != nil {
			return nil, fail("read", name, err)
		}
	}
	return rest, nil
}
