package ioengine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linuxFS adds to Portable what linux can do: reading without waiting, asking the
// page cache, fallocate, fdatasync, locked pages and paced write-back.
type linuxFS struct{ plainFS }

// OS is the best FS that this system has.
func OS() FS { return linuxFS{} }

// OpenVolume holds the file system open that dir lies on. Before linux 5.8 syncfs tells no errors: there it answers an error that is
// errors.ErrUnsupported.
func (linuxFS) OpenVolume(dir string) (Volume, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fail("ask the kernel for its release for", dir, err)
	}
	if release := unix.ByteSliceToString(name.Release[:]); !syncfsTells(release) {
		return nil, fail("sync the file system of", dir, fmt.Errorf("linux %s does not tell errors, 5.8 does: %w", release, errors.ErrUnsupported))
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, fail("open folder", dir, err)
	}
	return &linuxVolume{d}, nil
}

// syncfsTells knows the kernels whose syncfs tells errors by their release.
func syncfsTells(release string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor)
	return n == 2 && (major > 5 || major == 5 && minor >= 8)
}

type linuxVolume struct{ dir *os.File }

func (v *linuxVolume) Sync() error {
	return fail("sync the file system of", v.dir.Name(), again(func() error { return unix.Syncfs(int(v.dir.Fd())) }))
}

func (v *linuxVolume) Close() error { return fail("close", v.dir.Name(), v.dir.Close()) }

// AwaitWrites waits until writes of the file that a process left to the kernel when it was killed are over: io_uring carries them out, whoever
// has the file by then. Allocating what is allocated already does, on ext4 and xfs; a sync does not wait for them.
func (linuxFS) AwaitWrites(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return fail("open", name, err)
	}
	err = again(func() error { return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, TailBlock) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOSPC) {
		err = nil
	}
	return errors.Join(fail("wait for writes of", name, err), f.Close())
}

func (linuxFS) Open(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := openPlain(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return newLinuxFile(f), nil
}

// linuxFile is a plainFile with its descriptor at hand.
type linuxFile struct {
	plainFile
	// descriptor is the os.File's; Close makes it -1, so that a late call gets an
	// error and not another file. A call that runs while Close does is a bug.
	descriptor atomic.Int32
	// noNoWait is set once, by the first ReadAtNoWait that the file system refuses.
	noNoWait atomic.Bool
}

func newLinuxFile(f *plainFile) *linuxFile {
	l := &linuxFile{plainFile: *f}
	l.descriptor.Store(int32(f.f.Fd()))
	return l
}

func (f *linuxFile) Fd() int { return int(f.descriptor.Load()) }

func (f *linuxFile) Close() error {
	f.descriptor.Store(-1)
	return f.plainFile.Close()
}

// failed is fail for calls on the descriptor.
func (f *linuxFile) failed(op string, err error) error {
	if err == unix.EBADF && f.Fd() < 0 {
		err = os.ErrClosed
	}
	return fail(op, f.name, err)
}

// ReadAtNoWait calls preadv2 itself: the wrapper in x/sys allocates the vector.
func (f *linuxFile) ReadAtNoWait(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if off < 0 { // preadv2 takes -1 for "where the last read ended"
		return 0, fail("read without waiting", f.name, unix.EINVAL)
	}
	if f.noNoWait.Load() {
		return 0, ErrNoWaitUnsupported
	}
	iov := unix.Iovec{Base: &p[0]}
	iov.SetLen(len(p))
	for {
		n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(f.Fd()), uintptr(unsafe.Pointer(&iov)), 1,
			uintptr(off), uintptr(uint64(off)>>32), unix.RWF_NOWAIT)
		switch errno {
		case 0:
			if n == 0 {
				return 0, io.EOF
			}
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, ErrCold
		case unix.EOPNOTSUPP, unix.ENOSYS, unix.EPERM:
			// EPERM: a container's filter refuses the call.
			f.noNoWait.Store(true)
			return 0, ErrNoWaitUnsupported
		default:
			return 0, f.failed("read without waiting", errno)
		}
	}
}

// noCachestat is set once, by the first cachestat that the kernel (below 6.5) or
// a container's filter refuses.
var noCachestat atomic.Bool

func (f *linuxFile) Resident(off int64, n int) bool {
	if resident, known := f.askCachestat(off, n); known {
		return resident
	}
	return f.askMincore(off, n)
}

// askCachestat answers known=false where the call is missing. It costs a third of
// a mincore with a temporary mapping and touches no lock of the address space.
func (f *linuxFile) askCachestat(off int64, n int) (resident, known bool) {
	if off < 0 || n <= 0 {
		return n == 0, true
	}
	if noCachestat.Load() {
		return false, false
	}
	ask := unix.CachestatRange{Off: uint64(off), Len: uint64(n)}
	var stat unix.Cachestat_t
	switch err := unix.Cachestat(uint(f.Fd()), &ask, &stat, 0); err {
	case nil:
		first, last := off/pageSize, (off+int64(n)-1)/pageSize
		return stat.Cache >= uint64(last-first+1), true
	case unix.ENOSYS, unix.EPERM:
		noCachestat.Store(true)
		return false, false
	default:
		return false, false
	}
}

// askMincore maps the range for a moment. Nothing is read by that.
func (f *linuxFile) askMincore(off int64, n int) bool {
	start := off - off%pageSize
	b, err := unix.Mmap(f.Fd(), start, int(off-start)+n, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return false
	}
	defer unix.Munmap(b)
	return allInCore(b)
}

// allInCore says whether all pages beneath b, which starts on a page, are in the
// page cache.
func allInCore(b []byte) bool {
	const pagesAtOnce = 256
	var present [pagesAtOnce]byte
	for len(b) > 0 {
		n := min(len(b), pagesAtOnce*int(pageSize))
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(n), uintptr(unsafe.Pointer(&present)))
		if errno != 0 {
			return false
		}
		pages := (n + int(pageSize) - 1) / int(pageSize)
		for _, p := range present[:pages] {
			if p&1 == 0 {
				return false
			}
		}
		b = b[n:]
	}
	return true
}

func (f *linuxFile) Allocate(off, n int64) error {
	if err := checkAllocate(f.name, off, n); err != nil {
		return err
	}
	err := again(func() error { return unix.Fallocate(f.Fd(), 0, off, n) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.plainFile.Allocate(off, n)
	}
	return f.failed("allocate", err)
}

// Sync is fdatasync: the size goes with the bytes, the time of the last change
// does not.
func (f *linuxFile) Sync() error {
	return f.failed("sync", again(func() error { return unix.Fdatasync(f.Fd()) }))
}

// NextData is the next part of the segment's file from off on that was written, or stored to, or read into the page cache; from is the
// file's size where there is none. What is only allocated reads as zeroes and does not count.
func (s *linuxSegment) NextData(off int64) (from, to int64, err error) {
	if off < 0 || off >= s.size {
		return s.size, s.size, nil
	}
	from, err = unix.Seek(s.Fd(), off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return s.size, s.size, nil
	}
	if err == nil {
		to, err = unix.Seek(s.Fd(), from, unix.SEEK_HOLE)
	}
	switch err {
	case nil:
		if to <= from { // pages that were read only count as data, until they are needed elsewhere
			return off, s.size, nil
		}
		return from, to, nil
	case unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS, unix.EPERM:
		return off, s.size, nil // nobody can tell
	}
	return 0, 0, s.file.failed("look for data in", err)
}

// again repeats a call that a signal cut short. The calls it is used for either
// did nothing by then or go on where they were.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
