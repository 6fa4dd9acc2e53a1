package ioengine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"
)

func linuxSegmentOf(t *testing.T, size int64) *linuxSegment {
	t.Helper()
	s, err := OS().OpenSegment(filepath.Join(t.TempDir(), "s"), size, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*linuxSegment)
}

// evict drops a synced file from the page cache, or skips where the file system
// keeps it there whatever one says (tmpfs).
func evict(t *testing.T, f File) {
	t.Helper()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	size, _ := f.Size()
	for range 100 {
		if err := unix.Fadvise(f.Fd(), 0, size, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		if !anyResident(f, size) {
			return
		}
		// Pages on a per-CPU list are passed over; a sync of everything drains it.
		unix.Sync()
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.Fd(), &st); err == nil && st.Type == unix.TMPFS_MAGIC {
		t.Skip("tmpfs keeps its pages")
	}
	t.Fatal("the pages stay in the page cache")
}

func anyResident(f File, size int64) bool {
	for off := int64(0); off < size; off += pageSize {
		if f.Resident(off, 1) {
			return true
		}
	}
	return false
}

func TestReadAtNoWaitIsColdAfterEviction(t *testing.T) {
	f, err := OS().Open(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := bytes.Repeat([]byte("cold"), 1<<18)
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 16<<10)
	for try := 1; ; try++ {
		evict(t, f)
		n, err := f.ReadAtNoWait(got, 512<<10)
		if err == ErrNoWaitUnsupported {
			t.Skip("the file system has no RWF_NOWAIT, and says so")
		}
		if err == ErrCold {
			break
		}
		// The attempt starts reading ahead, and a fast device is sometimes done
		// before the kernel looks again: often, where the thread has to wait for a processor in between. Then the bytes must be right.
		if err != nil || !bytes.Equal(got[:n], data[:n]) || try == 1000 {
			t.Fatalf("try %d: got %d, %v, want ErrCold", try, n, err)
		}
	}
	if _, err := f.ReadAt(got, 512<<10); err != nil {
		t.Fatal(err)
	}
	clear(got)
	if n, err := f.ReadAtNoWait(got, 512<<10); n != len(got) || err != nil || !bytes.Equal(got, data[:len(got)]) {
		t.Fatal(n, err)
	}
}

// Each way of asking must tell cold from warm, whichever the kernel has.
func TestResidentByEachWay(t *testing.T) {
	s := linuxSegmentOf(t, 1<<20)
	if err := s.Zero(0, 1<<20); err != nil {
		t.Fatal(err)
	}
	ways := map[string]func(off int64, n int) bool{
		"segment": s.Resident,
		"mincore": s.file.askMincore,
		"mincore of the view": func(off int64, n int) bool {
			return allInCore(s.ro[off : off+int64(n)])
		},
	}
	if _, known := s.file.askCachestat(0, 1); known {
		ways["cachestat"] = func(off int64, n int) bool {
			resident, _ := s.file.askCachestat(off, n)
			return resident
		}
	}
	for way, resident := range ways {
		if !resident(0, 1<<20) {
			t.Errorf("%s: written pages are not resident", way)
		}
	}
	if err := s.Cool(0, 1<<20); err != nil {
		t.Fatal(err)
	}
	evict(t, s)
	for way, resident := range ways {
		if resident(512<<10, 4096) {
			t.Errorf("%s: evicted pages are resident", way)
		}
	}
}

func TestSegmentResidentWithoutCachestat(t *testing.T) {
	was := noCachestat.Load()
	noCachestat.Store(true)
	defer noCachestat.Store(was)
	s := linuxSegmentOf(t, 1<<20)
	if err := s.Zero(0, 1<<20); err != nil {
		t.Fatal(err)
	}
	if !s.Resident(100, 1<<19) || s.Resident(-1, 5) || s.Resident(1<<20, 1) || s.Resident(0, 2<<20) {
		t.Fatal("residence is wrong")
	}
	done := make(chan bool)
	go func() { // the keeper unmaps while readers ask
		defer close(done)
		for range 100 {
			s.Resident(0, 1<<20)
		}
	}()
	if err := s.Unmap(); err != nil {
		t.Fatal(err)
	}
	<-done
	if !s.Resident(0, 1<<20) {
		t.Fatal("the pages stay when the mapping goes")
	}
}

func TestStoreThroughViewFaults(t *testing.T) {
	for _, fsys := range []FS{OS(), Portable()} {
		s, err := fsys.OpenSegment(filepath.Join(t.TempDir(), "s"), 8192, true)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		faulted := func() (did bool) {
			defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
			defer func() { did = recover() != nil }()
			s.View(0, 8192)[100] = 1
			return false
		}()
		if !faulted || s.Window(0, 8192)[100] != 0 {
			t.Fatal("a stray store came through")
		}
	}
}

// mappedKiB is what the kernel counts of file pages in this process; those of
// tmpfs go by another name.
func mappedKiB(t *testing.T) (sum int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("no /proc:", err)
	}
	for _, key := range []string{"RssFile:", "RssShmem:"} {
		var kib int
		_, after, _ := bytes.Cut(status, []byte(key))
		if _, err := fmt.Sscan(string(after), &kib); err != nil {
			t.Skip("the kernel does not say", key, err)
		}
		sum += kib
	}
	return sum
}

func TestWarmMapsAndCoolUnmapsPages(t *testing.T) {
	const size = 64 << 20
	s := linuxSegmentOf(t, size)
	if err := s.Zero(0, size); err != nil {
		t.Fatal(err)
	}
	before := mappedKiB(t)
	if err := s.Warm(0, size); err != nil {
		t.Fatal(err)
	}
	warm := mappedKiB(t)
	if err := s.Cool(0, size); err != nil {
		t.Fatal(err)
	}
	cool := mappedKiB(t)
	t.Logf("file pages mapped: %d KiB, warm (%v) %d, cool %d", before, s.WarmKind(), warm, cool)
	if warm-before < size/1024*3/4 || warm-cool < size/1024*3/4 {
		t.Fatal("warming or cooling did nothing")
	}
	if !s.Resident(0, size) {
		t.Log("some pages left the page cache") // allowed: memory may be short
	}
}

// A store to a warm page must find it writable: no fault, so no page_mkwrite that
// could wait for the disk. The kernel counts the faults of the thread.
func TestStoreToWarmPageDoesNotFault(t *testing.T) {
	const size = 4 << 20
	s := linuxSegmentOf(t, size)
	if err := errors.Join(s.Zero(0, size), s.Sync()); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	store := func(from, to int64) int64 {
		before := threadFaults(t)
		w := s.Window(from, to-from)
		for i := 0; i < len(w); i += int(pageSize) {
			w[i] = 1
		}
		return threadFaults(t) - before
	}
	if err := s.Warm(0, size/2); err != nil {
		t.Fatal(err)
	}
	warm, cold := store(0, size/2), store(size/2, size)
	t.Logf("faults: warm (%v) %d, cold %d", s.WarmKind(), warm, cold)
	if warm > 8 || cold <= warm { // a few are the runtime's own
		t.Fatal("warming saved no faults")
	}
}

func threadFaults(t *testing.T) int64 {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
		t.Fatal(err)
	}
	return int64(usage.Minflt) + int64(usage.Majflt)
}

// The weaker forms must also work where the stronger ones are refused.
func TestTouchKeepsBytes(t *testing.T) {
	s := linuxSegmentOf(t, 1<<20)
	w := s.Window(0, 1<<20)
	for i := range w {
		w[i] = byte(i * 7)
	}
	touch(s.rw)
	for i := range w {
		if w[i] != byte(i*7) {
			t.Fatal("byte changed at", i)
		}
	}
	touch(w[:3])
	touch(nil)
}

func TestDiskFullIsTold(t *testing.T) {
	for _, cause := range []error{unix.ENOSPC, unix.EDQUOT} {
		err := fail("write", "f", &os.PathError{Op: "write", Path: "f", Err: cause})
		if !errors.Is(err, ErrDiskFull) || !errors.Is(err, cause) {
			t.Errorf("%v", err)
		}
	}
	if errors.Is(fail("write", "f", unix.EIO), ErrDiskFull) {
		t.Error("EIO is no full disk")
	}
}

// Really filling a disk would harm whoever shares it, so the refusal is played.
func TestSegmentThatFindsNoRoomLeavesNothingBehind(t *testing.T) {
	name := filepath.Join(t.TempDir(), "s")
	_, err := openSegmentFile(name, 8192, true, func(f *plainFile) error {
		return newLinuxFile(f).failed("allocate", unix.ENOSPC)
	})
	if !errors.Is(err, ErrDiskFull) {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("left behind:", err)
	}
}

// What is only allocated is no data; what was written, or stored through the mapping, is.
func TestNextDataSkipsWhatIsOnlyAllocated(t *testing.T) {
	const size = 4 << 20
	s := linuxSegmentOf(t, size)
	next := func(off int64) (from, to int64) {
		t.Helper()
		from, to, err := s.NextData(off)
		if err != nil {
			t.Fatal(err)
		}
		return from, to
	}
	if from, to := next(0); from == 0 && to == size {
		t.Skip("this file system does not tell")
	} else if from != size {
		t.Fatalf("an allocated file has data from %d to %d", from, to)
	}
	if _, err := s.WriteAt([]byte("written"), 1<<20+100); err != nil {
		t.Fatal(err)
	}
	if from, to := next(0); from > 1<<20 || from < 1<<20-64<<10 || to <= 1<<20+100 || to > 2<<20 {
		t.Fatalf("data from %d to %d", from, to)
	}
	if from, to := next(1<<20 + 100); from != 1<<20+100 || to <= from {
		t.Fatalf("in the middle of data: from %d to %d", from, to)
	}
	s.Window(3<<20, 1)[0] = 1 // the fault may read more of the file
	if from, to := next(3 << 20); from != 3<<20 || to <= from {
		t.Fatalf("stored through the mapping: from %d to %d", from, to)
	}
	for _, off := range []int64{-1, size, size + 1} {
		if from, _ := next(off); from != size {
			t.Fatalf("data at %d for %d", from, off)
		}
	}
}
