//go:build linux

package uring

import (
	"bytes"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func newArena(t testing.TB, n int) *Arena {
	t.Helper()
	a, err := NewArena(n)
	require.NoError(t, err)
	t.Cleanup(func() { a.Free() })
	return a
}

func newFile(t testing.TB, flags int) (fd int) {
	t.Helper()
	fd, err := unix.Open(filepath.Join(t.TempDir(), "f"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|flags, 0o600)
	if err == unix.EINVAL && flags&unix.O_DIRECT != 0 {
		t.Skip("this file system has no O_DIRECT")
	}
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestReadsAtAndPastTheEnd(t *testing.T) {
	r, fd, p := newRing(t, Options{}), newFile(t, 0), make([]byte, 100)
	r.Next().Write(fd, []byte("0123456789"), 0)
	require.EqualValues(t, 10, next(t, r).Result)
	r.Next().Read(fd, p, 4)
	require.EqualValues(t, 6, next(t, r).Result, "across the end: short")
	require.Equal(t, "456789", string(p[:6]))
	r.Next().Read(fd, p, 10)
	require.EqualValues(t, 0, next(t, r).Result, "at the end")
	r.Next().Read(fd, p, 1<<40)
	require.EqualValues(t, 0, next(t, r).Result, "far past the end")
	r.Next().Read(fd, p, -5)
	require.ErrorIs(t, next(t, r).Err(), unix.EINVAL)
	r.Next().Read(fd, nil, 0)
	require.EqualValues(t, 0, next(t, r).Result, "no bytes asked for")
}

// The limit of a file's size stands for a full disk: it needs neither root nor a file system of its own.
func TestWritesAreShortAtTheSizeLimit(t *testing.T) {
	const limit = int64(1) << 36
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var before unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &before))
	if before.Cur < uint64(limit) {
		t.Skip("ulimit -f is set")
	}
	r, fd := newRing(t, Options{}), newFile(t, 0)
	a := newArena(t, 8192)
	require.NoError(t, r.RegisterBuffers(a.Bytes))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(limit), Max: before.Max}))
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &before)

	r.Next().Write(fd, a.Bytes, limit-100)
	require.EqualValues(t, 100, next(t, r).Result)
	r.Next().WriteFixed(fd, a.Bytes, limit-200, 0)
	require.EqualValues(t, 200, next(t, r).Result)
	r.Next().Write(fd, a.Bytes, limit)
	require.ErrorIs(t, next(t, r).Err(), unix.EFBIG)
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &st))
	require.EqualValues(t, limit, st.Size)
}

func TestWritesToAPipeAreShort(t *testing.T) {
	r := newRing(t, Options{})
	var pipe [2]int
	require.NoError(t, unix.Pipe2(pipe[:], unix.O_NONBLOCK|unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	size, err := unix.FcntlInt(uintptr(pipe[1]), unix.F_SETPIPE_SZ, 4096)
	require.NoError(t, err)
	data := bytes.Repeat([]byte("x"), size+1000)
	r.Next().Write(pipe[1], data, 0)
	require.EqualValues(t, size, next(t, r).Result)
	// O_NONBLOCK or not, io_uring waits for room: the full pipe is no EAGAIN.
	r.Next().Write(pipe[1], data, 0)
	require.NoError(t, r.Submit())
	require.Zero(t, r.Ready())
	p := make([]byte, size)
	_, err = unix.Read(pipe[0], p)
	require.NoError(t, err)
	require.EqualValues(t, size, next(t, r).Result)
}

func TestSyncs(t *testing.T) {
	r, fd := newRing(t, Options{}), newFile(t, 0)
	r.Next().Write(fd, make([]byte, 1<<20), 0)
	require.EqualValues(t, 1<<20, next(t, r).Result)
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	for _, n := range []int64{4096, 0, 1 << 20, 1 << 32, 1<<62 - 1} {
		r.Next().SyncFileRange(fd, 4096, n, all)
		require.NoError(t, next(t, r).Err(), "%d bytes", n)
	}
	r.Next().SyncFileRange(fd, 0, 4096, 1<<20)
	require.ErrorIs(t, next(t, r).Err(), unix.EINVAL, "unknown flag")
	r.Next().Fdatasync(fd)
	require.NoError(t, next(t, r).Err())

	var pipe [2]int
	require.NoError(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	r.Next().Fdatasync(pipe[1])
	require.ErrorIs(t, next(t, r).Err(), unix.EINVAL, "a pipe has nothing to sync")
	r.Next().SyncFileRange(pipe[1], 0, 4096, all)
	require.ErrorIs(t, next(t, r).Err(), unix.ESPIPE)
}

// 32 bits hold the length of an entry: one of 4 GiB must not become none.
func TestLengthsBeyond32Bits(t *testing.T) {
	require.EqualValues(t, maxLength, length(int64(1<<32)))
	require.EqualValues(t, maxLength, length(int64(1<<32+1)))
	require.EqualValues(t, 4096, length(4096))
	for n, want := range map[int64]uint32{4096: 4096, math.MaxUint32: math.MaxUint32, 1 << 32: 0, 1<<32 + 4096: 0} {
		var e Entry
		e.SyncFileRange(1, 0, n, 0)
		require.Equal(t, want, *(*uint32)(unsafe.Add(unsafe.Pointer(&e), 24)), "%d bytes: 0 means all the rest", n)
	}
	r := newRing(t, Options{})
	f, err := os.Open("/dev/zero")
	require.NoError(t, err)
	defer f.Close()
	size := int64(1) << 32
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		t.Skip("no 4 GiB of address space:", err)
	}
	defer unix.Munmap(b)
	r.Next().Read(int(f.Fd()), b, 0)
	require.ErrorIs(t, next(t, r).Err(), unix.EFAULT, "0 would mean that 0 bytes were asked for")
}

func TestDirect(t *testing.T) {
	r, fd := newRing(t, Options{}), newFile(t, unix.O_DIRECT)
	const block = 4096
	a := newArena(t, 4*block)
	require.NoError(t, r.RegisterBuffers(a.Bytes))
	copy(a.Bytes, bytes.Repeat([]byte("direct"), block))
	r.Next().Write(fd, a.Bytes[:2*block], 0)
	require.EqualValues(t, 2*block, next(t, r).Result)
	e := r.Next()
	e.WriteFixed(fd, a.Bytes[:block], 2*block, 0)
	e.DSync()
	require.EqualValues(t, block, next(t, r).Result)
	r.Next().ReadFixed(fd, a.Bytes[3*block:], 2*block, 0)
	require.EqualValues(t, block, next(t, r).Result)
	require.Equal(t, a.Bytes[:block], a.Bytes[3*block:])

	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 || st.Dio_mem_align < 2 || st.Dio_offset_align < 2 {
		t.Skip("the kernel does not say what this file's O_DIRECT wants: misaligned writes are not tried")
	}
	r.Next().Write(fd, a.Bytes[1:1+block], 0)
	require.ErrorIs(t, next(t, r).Err(), unix.EINVAL, "misaligned memory")
	r.Next().Write(fd, a.Bytes[:block], 1)
	require.ErrorIs(t, next(t, r).Err(), unix.EINVAL, "misaligned offset")
	r.Next().Write(fd, a.Bytes[:block-1], 0)
	require.ErrorIs(t, next(t, r).Err(), unix.EINVAL, "misaligned length")
}

func TestRegisteredBuffers(t *testing.T) {
	r, fd := newRing(t, Options{}), newFile(t, 0)
	a, b := newArena(t, 8192), newArena(t, 4096)
	require.ErrorIs(t, r.RegisterBuffers(), unix.EINVAL)
	require.NoError(t, r.RegisterBuffers(a.Bytes[:4096], b.Bytes))
	require.ErrorIs(t, r.RegisterBuffers(a.Bytes), unix.EBUSY, "there are some already")
	copy(b.Bytes, "second")
	r.Next().WriteFixed(fd, b.Bytes[:6], 0, 1)
	require.EqualValues(t, 6, next(t, r).Result)
	r.Next().ReadFixed(fd, a.Bytes[10:16], 0, 0)
	require.EqualValues(t, 6, next(t, r).Result)
	require.Equal(t, "second", string(a.Bytes[10:16]))
	for name, try := range map[string]func(e *Entry){
		"another buffer's memory":      func(e *Entry) { e.ReadFixed(fd, b.Bytes[:6], 0, 0) },
		"across the end of the buffer": func(e *Entry) { e.ReadFixed(fd, a.Bytes[4093:4099], 0, 0) },
		"a buffer that is not there":   func(e *Entry) { e.ReadFixed(fd, a.Bytes[:6], 0, 2) },
	} {
		try(r.Next())
		require.ErrorIs(t, next(t, r).Err(), unix.EFAULT, name)
	}
	require.NoError(t, r.UnregisterBuffers())
	require.ErrorIs(t, r.UnregisterBuffers(), unix.ENXIO)
	r.Next().ReadFixed(fd, a.Bytes[:6], 0, 0)
	require.ErrorIs(t, next(t, r).Err(), unix.EFAULT, "unregistered")
}

func TestRegisteredFiles(t *testing.T) {
	r, one, two := newRing(t, Options{}), newFile(t, 0), newFile(t, 0)
	require.ErrorIs(t, r.RegisterFiles(0), unix.EINVAL)
	require.ErrorIs(t, r.SetFile(0, one), unix.ENXIO, "no table yet")
	require.NoError(t, r.RegisterFiles(3))
	for _, fd := range []int{one, two} {
		_, err := unix.Pwrite(fd, []byte(map[int]string{one: "one", two: "two"}[fd]), 0)
		require.NoError(t, err)
	}
	p := make([]byte, 3)
	read := func(index int) Completion {
		clear(p)
		e := r.Next()
		e.Read(index, p, 0)
		e.FixedFile(index)
		return next(t, r)
	}
	require.ErrorIs(t, read(1).Err(), unix.EBADF, "empty place")
	require.NoError(t, r.SetFile(1, one))
	require.EqualValues(t, 3, read(1).Result)
	require.Equal(t, "one", string(p))
	require.NoError(t, r.SetFile(1, two), "a place is filled anew")
	require.EqualValues(t, 3, read(1).Result)
	require.Equal(t, "two", string(p))
	require.ErrorIs(t, read(0).Err(), unix.EBADF, "the other places are still empty")
	require.NoError(t, r.SetFile(1, -2), "every number below 0 empties")
	require.ErrorIs(t, read(1).Err(), unix.EBADF)
	require.ErrorIs(t, read(3).Err(), unix.EBADF, "no such place")
	require.ErrorIs(t, r.SetFile(3, one), unix.EINVAL)
	require.ErrorIs(t, r.SetFile(-1, one), unix.EINVAL)
	require.ErrorIs(t, r.SetFile(0, 1<<20), unix.EBADF, "no such descriptor")
}

func TestArena(t *testing.T) {
	a, err := NewArena(hugePage + 5000)
	require.NoError(t, err)
	require.Len(t, a.Bytes, hugePage+5000)
	require.Zero(t, addr(a.Bytes)%4096)
	a.Bytes[4096] = 7
	a.Populate()
	require.EqualValues(t, 7, a.Bytes[4096], "what is there stays")
	var present [514]byte
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(addr(a.Bytes)), uintptr(len(a.Bytes)), uintptr(unsafe.Pointer(&present)))
	require.Zero(t, errno)
	for i, p := range present {
		require.EqualValues(t, 1, p&1, "page %d", i)
	}
	require.NoError(t, a.Free())
	require.NoError(t, a.Free(), "twice")
	_, err = NewArena(0)
	require.Error(t, err)
}
