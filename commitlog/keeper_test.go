package commitlog

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
)

// countOps counts operations of a kind whose file name contains part.
func countOps(f *faultfs.FS, kind faultfs.Kind, part string) (n int) {
	for _, op := range f.Ops() {
		if op.Kind == kind && strings.Contains(op.Name, part) {
			n++
		}
	}
	return n
}

// The tail never passes the memory that is ready, however slow the device; and goes on as soon as there is more.
func TestTailNeverPassesWarmMemory(t *testing.T) {
	mappedOnly(t)
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		gate := fsys.Gate(faultfs.OpWarm)
		opened := make(chan *found)
		go func() { opened <- openLog(t, quiet(fsys, "log", 64<<20), 0, false) }()
		(<-gate.Arrived).Pass(nil) // the first step of the first segment is Open's
		l := <-opened
		defer closeLog(t, l.Log)
		defer gate.Open()
		w := newWriter(l.Log)
		w.body(1 << 20)
		for step := int64(1); step <= 4; step++ {
			for w.try(1) == nil {
			}
			if at, warm := l.Published(), l.tail.warm.Load(); at+8 > warm || warm != firstWarm+(step-1)*warmStep || at < warm-2<<20 {
				t.Fatalf("step %d: the log ends at %d, %d are ready", step, at, warm)
			}
			if err := w.try(1); !errors.Is(err, ErrNotReady) || l.Err() != nil {
				t.Fatal(err)
			}
			waited := make(chan error)
			go func() { waited <- l.WaitReady(t.Context()) }()
			(<-gate.Arrived).Pass(nil)
			if err := <-waited; err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What was ready before somebody began to wait for it must not be waited for.
func TestWaitReadyMissesNoWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openLog(t, quiet(faultfs.New(), "log", 1<<20), 0, false)
		defer closeLog(t, l.Log)
		synctest.Wait() // the keeper has nothing left to do
		began := time.Now()
		if err := l.WaitReady(t.Context()); err != nil || time.Since(began) != 0 {
			t.Errorf("waited %v although all is ready: %v", time.Since(began), err)
		}
	})
}

// An append refused for what is not flushed yet waits for the flusher, and does not go round with the keeper until the next tick.
func TestWaitReadyWaitsForTheFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		o := quiet(fsys, "log", 64<<10)
		o.MaxUnflushed = 1000
		l := openLog(t, o, 0, false)
		defer closeLog(t, l.Log)
		if _, err := l.Append(400, 1, fill{}); err != nil {
			t.Fatal(err)
		}
		gate := fsys.Gate(faultfs.OpSyncRange)
		defer gate.Open()
		if _, err := l.Append(900, 1, fill{}); !errors.Is(err, ErrNotReady) {
			t.Fatal(err)
		}
		waited := make(chan error, 1)
		go func() { waited <- l.WaitReady(t.Context()) }()
		held := <-gate.Arrived // WaitReady asked for the flush
		synctest.Wait()
		if len(waited) > 0 {
			t.Fatal("it did not wait for the flush")
		}
		held.Pass(nil)
		if err := <-waited; err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(900, 1, fill{}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestNextSegmentIsReadyBeforeItIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const segment = 1 << 20
		fsys := faultfs.New()
		l := openLog(t, quiet(fsys, "log", segment), 0, false)
		defer closeLog(t, l.Log)
		w := newWriter(l.Log)
		w.body(1000)
		for l.Published() < 5*segment {
			synctest.Wait()
			if l.next == nil || l.next.warm.Load() != segment {
				t.Fatalf("at %d the next segment is not ready", l.Published())
			}
			// The size and the name of a segment are durable before the tail gets there.
			if dev, ok := fsys.OnDevice(segmentName("log", l.next.base)); !ok || len(dev) != segment {
				t.Fatalf("a power loss leaves %d bytes of segment %d", len(dev), l.next.base)
			}
			for at := l.Published(); l.Published()/segment == at/segment; {
				if err := w.try(1); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// The memory kept ready reaches into the next segment, so that rolling finds no less of it.
func TestReadyMemoryCrossesSegments(t *testing.T) {
	mappedOnly(t)
	synctest.Test(t, func(t *testing.T) {
		const segment = 32 << 20
		o := quiet(faultfs.New(), "log", segment)
		o.WarmAhead = 24 << 20
		l := openLog(t, o, 0, false)
		defer closeLog(t, l.Log)
		w := newWriter(l.Log)
		w.body(1 << 20)
		for l.Published() < 3*segment {
			synctest.Wait()
			ready := l.tail.base + l.tail.warm.Load()
			if ready == l.tail.end() && l.next != nil {
				ready += l.next.warm.Load()
			}
			if ahead := ready - l.Published(); ahead < o.WarmAhead/2 {
				t.Fatalf("at %d only %d bytes are ready", l.Published(), ahead)
			}
			if err := w.try(1); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// In steady state an append does not wake the keeper: once a step of memory, not once a message.
func TestKeeperIsWokenOncePerStep(t *testing.T) {
	mappedOnly(t)
	synctest.Test(t, func(t *testing.T) {
		o := quiet(faultfs.New(), "log", 128<<20)
		o.WarmAhead = 2 * warmStep
		l := openLog(t, o, 0, false)
		defer closeLog(t, l.Log)
		w := newWriter(l.Log)
		w.body(64 << 10)
		kicks, appends := 0, 0
		for ; l.Published() < 3*128<<20/2; appends++ {
			synctest.Wait()
			if err := w.try(1); err != nil {
				t.Fatal(err)
			}
			if l.Published() >= l.kickAt.Load() {
				kicks++
			}
		}
		if steps := 3 * (128 << 20) / 2 / warmStep; kicks > steps+4 {
			t.Errorf("%d of %d appends woke the keeper, %d steps were needed", kicks, appends, steps)
		}
	})
}

func TestDiskFullAndFreeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const segment = 64 << 10
		fsys := faultfs.New()
		fsys.SetCapacity(2*segment + 100)
		l := openLog(t, quiet(fsys, "log", segment), 0, false)
		defer closeLog(t, l.Log)
		w := newWriter(l.Log)
		w.keep = []stored{}
		w.body(1000)
		var err error
		for err == nil {
			synctest.Wait()
			err = w.try(1)
		}
		if !errors.Is(err, ErrDiskFull) || !errors.Is(l.Err(), ErrDiskFull) || l.Failed() != nil || l.Published() < segment {
			t.Fatalf("at %d: %v, %v", l.Published(), err, l.Failed())
		}
		sameRecords(t, walk(t, l.Log), w.keep)
		if err := l.Flush(time.Minute); err != nil {
			t.Fatalf("what was taken is flushed on a full disk, too: %v", err)
		}
		fsys.ResetOps()
		for range 1000 {
			if err := w.try(1); !errors.Is(err, ErrDiskFull) {
				t.Fatal(err)
			}
		}
		<-time.After(10 * time.Second)
		if n := countOps(fsys, faultfs.OpCreateSegment, ""); n < 8 || n > 12 {
			t.Errorf("the keeper tried %d times in ten seconds and 1000 refused appends", n)
		}
		fsys.SetCapacity(1 << 30)
		<-time.After(time.Second)
		synctest.Wait()
		if err := w.try(1); err != nil || l.Err() != nil {
			t.Fatalf("space is back: %v, %v", err, l.Err())
		}
		sameRecords(t, walk(t, l.Log), w.keep)
	})
}

// A full disk met by the zeroes of a segment that exists already (a sparse file, a copy-on-write file system) is no other.
func TestDiskFullWhileZeroing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const segment = 64 << 10
		fsys := faultfs.New()
		l := openLog(t, quiet(fsys, "log", segment), 0, false)
		defer closeLog(t, l.Log)
		synctest.Wait()
		fsys.SetFault(func(op faultfs.Op) error {
			if op.Kind == faultfs.OpZero {
				return syscall.ENOSPC
			}
			return nil
		})
		w := newWriter(l.Log)
		w.body(1000)
		var err error
		for err == nil {
			err = w.try(1)
			synctest.Wait()
		}
		<-time.After(5 * time.Second)
		if err := w.try(1); !errors.Is(err, ErrDiskFull) || l.Failed() != nil {
			t.Fatalf("%v, %v", err, l.Failed())
		}
		fsys.SetFault(nil)
		<-time.After(time.Second)
		synctest.Wait()
		if err := w.try(1); err != nil || l.Err() != nil {
			t.Fatalf("space is back: %v, %v", err, l.Err())
		}
	})
}

// A log is opened on a full disk: reading goes on.
func TestOpenOnFullDisk(t *testing.T) {
	for _, full := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			const segment = 16 << 10
			fsys := faultfs.New()
			l := openLog(t, quiet(fsys, "log", segment), 0, false)
			w := newWriter(l.Log)
			w.keep = []stored{}
			w.append(t, 1000)
			if full { // up to the last byte, blank included
				w.append(t, segment-int(l.Published())-w.overhead()-8)
			}
			closeLog(t, l.Log)
			if full {
				// Java's broker ends a full segment like this.
				f, err := fsys.Open("log/00000000000000000000", 2, 0)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.WriteAt([]byte{0, 0, 0, 8, 0xCB, 0xD4, 0x31, 0x94}, segment-8); err != nil {
					t.Fatal(err)
				}
			}
			fsys.SetCapacity(segment)
			fsys.SetFault(func(op faultfs.Op) error {
				if op.Kind == faultfs.OpZero {
					return syscall.ENOSPC
				}
				return nil
			})
			l = openLog(t, quiet(fsys, "log", segment), 0, false)
			defer closeLog(t, l.Log)
			sameRecords(t, walk(t, l.Log), w.keep)
			w.log = l.Log
			if err := w.try(1); !errors.Is(err, ErrDiskFull) || l.Failed() != nil {
				t.Fatalf("full %t: %v, %v", full, err, l.Failed())
			}
			fsys.SetCapacity(1 << 30)
			fsys.SetFault(nil)
			<-time.After(time.Second)
			synctest.Wait()
			if err := w.try(1); err != nil {
				t.Fatalf("full %t: %v", full, err)
			}
			sameRecords(t, walk(t, l.Log), w.keep)
		})
	}
}

// Mappings go behind the tail while readers copy from them.
func TestCoolAndUnmapUnderReaders(t *testing.T) {
	const segment = 256 << 10
	l := openLog(t, Options{FS: ioengine.OS(), Dir: t.TempDir(), SegmentSize: segment, KeepBehind: segment, FlushEvery: time.Millisecond}, 0, false)
	defer closeLog(t, l.Log)
	w := newWriter(l.Log)
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for n := int64(0); ctx.Err() == nil; n++ {
				end := l.Published()
				at := max(end-3*segment, 0) + n*4099%max(min(end, 3*segment), 1)
				if v, ok := l.ViewHot(at); ok {
					var sum byte
					for i := 0; i < len(v.Bytes); i += 512 {
						sum += v.Bytes[i]
					}
					v.Done()
					_ = sum
				}
				var b [200]byte
				if err := l.ReadWait(b[:], at); err != nil && !errors.Is(err, ErrGone) {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 * segment / 2000 {
		w.append(t, 2000-w.overhead())
	}
	stop()
	readers.Wait()
	if err := l.Flush(time.Minute); err != nil {
		t.Fatal(err)
	}
	for range 2 * segment / 2000 { // rolls once more, so the keeper looks again
		w.append(t, 2000-w.overhead())
	}
	if err := l.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.list()[0].hot.Load() >= 0 {
		t.Error("the first segment is mapped after twenty more")
	}
	if _, ok := l.ViewHot(0); ok {
		t.Error("a view of memory that was let go")
	}
	if n := checkOrder(t, l.Log); n != 20*segment/2000+2*segment/2000 {
		t.Errorf("%d records", n)
	}
}

// threeSegments is a log whose first two segments are past and flushed.
func threeSegments(t *testing.T, fsys ioengine.FS, dir string) (*found, *writer) {
	l := openLog(t, quiet(fsys, dir, 16<<10), 0, false)
	w := newWriter(l.Log)
	w.keep = []stored{}
	for l.Published() < 33<<10 {
		w.append(t, 1000)
	}
	if err := l.Flush(time.Minute); err != nil {
		t.Fatal(err)
	}
	return l, w
}

func TestDropOldestWaitsForReaders(t *testing.T) {
	fsys := faultfs.New()
	l, w := threeSegments(t, fsys, "log")
	defer closeLog(t, l.Log)
	first := l.Segments()[0]
	rg, err := l.Hold(w.keep[0].off, len(w.keep[0].raw))
	if err != nil {
		t.Fatal(err)
	}
	dropped := make(chan error)
	go func() { dropped <- l.DropOldest() }()
	for l.MinOffset() != first.End {
		select {
		case err := <-dropped:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
	}
	if _, err := l.Hold(0, 10); !errors.Is(err, ErrGone) {
		t.Errorf("a new reader gets in: %v", err)
	}
	if err := l.ReadWait(make([]byte, 10), 0); !errors.Is(err, ErrGone) {
		t.Errorf("a new reader gets in: %v", err)
	}
	if _, err := fsys.Stat(first.Name); err != nil {
		t.Errorf("the file went under its reader: %v", err)
	}
	got := make([]byte, rg.N)
	if _, err := rg.seg.file.ReadAt(got, rg.Off); err != nil || !bytes.Equal(got, w.keep[0].raw) {
		t.Errorf("the held range: %v", err)
	}
	rg.Releaser().Release()
	if err := <-dropped; err != nil {
		t.Fatal(err)
	}
	if entries, _ := fsys.ReadDir("log"); len(entries) == 0 || entries[0].Name() == filepath.Base(first.Name) {
		t.Errorf("the file is still there: %v", entries)
	}
	if err := l.DropOldest(); err != nil {
		t.Fatal(err)
	}
	if err := l.DropOldest(); err == nil || l.MinOffset() != 32<<10 {
		t.Errorf("the tail's segment went: %v, the log begins at %d", err, l.MinOffset())
	}
}

// A removal that fails is tried again before the next segment goes: else the next start would find a hole.
func TestDropOldestThatFails(t *testing.T) {
	fsys := faultfs.New()
	l, w := threeSegments(t, fsys, "log")
	fsys.SetFault(func(op faultfs.Op) error {
		if op.Kind == faultfs.OpRename {
			return syscall.EIO
		}
		return nil
	})
	for range 2 {
		if err := l.DropOldest(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
	}
	if l.MinOffset() != 16<<10 {
		t.Fatalf("the log begins at %d", l.MinOffset())
	}
	crashed := fsys.Kill()
	if again := openLog(t, quiet(crashed, "log", 16<<10), 0, false); again.MinOffset() != 0 {
		t.Errorf("the log begins at %d", again.MinOffset())
	} else {
		sameRecords(t, again.records, w.keep)
		closeLog(t, again.Log)
	}
	fsys.SetFault(nil)
	if err := l.DropOldest(); err != nil || l.MinOffset() != 32<<10 {
		t.Fatalf("the log begins at %d: %v", l.MinOffset(), err)
	}
	closeLog(t, l.Log)
	again := openLog(t, quiet(fsys, "log", 16<<10), 0, false)
	defer closeLog(t, again.Log)
	if again.MinOffset() != 32<<10 {
		t.Errorf("the log begins at %d", again.MinOffset())
	}
}

// A crash at each operation of a removal leaves a log that opens, with the segment or without it, and no leftovers.
func TestCrashWhileDropping(t *testing.T) {
	base, w := threeSegments(t, faultfs.New(), "log")
	closeLog(t, base.Log)
	image := base.opt.FS.(*faultfs.FS)
	for at := int64(0); ; at++ {
		fsys := image.Kill()
		l := openLog(t, quiet(fsys, "log", 16<<10), 0, true)
		var states []*faultfs.FS
		var mu sync.Mutex
		n := int64(-1)
		fsys.SetFault(func(op faultfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if op.Name != "log" && !strings.Contains(op.Name, "00000000000000000000") {
				return nil // the keeper's
			}
			if n++; n == at {
				for seed, mode := range []faultfs.CrashMode{faultfs.KeepAll, faultfs.LoseAll, faultfs.Random, faultfs.Torn} {
					states = append(states, fsys.Crash(int64(seed), mode))
				}
			}
			return nil
		})
		if err := l.DropOldest(); err != nil {
			t.Fatal(err)
		}
		closeLog(t, l.Log)
		for _, state := range states {
			again := openLog(t, quiet(state, "log", 16<<10), 0, false)
			from := again.MinOffset()
			if from != 0 && from != 16<<10 {
				t.Fatalf("operation %d: the log begins at %d", at, from)
			}
			want := w.keep
			for want[0].off < from {
				want = want[1:]
			}
			sameRecords(t, again.records, want)
			closeLog(t, again.Log)
			if n := countFiles(t, state, ioengine.RemovingSuffix); n != 0 {
				t.Errorf("operation %d: %d leftovers", at, n)
			}
		}
		if states == nil {
			return
		}
	}
}

func countFiles(t *testing.T, fsys ioengine.FS, suffix string) (n int) {
	t.Helper()
	entries, err := fsys.ReadDir("log")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			n++
		}
	}
	return n
}

// Close removes the segment made ahead, and refuses what comes after it.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		l := openLog(t, quiet(fsys, "log", 16<<10), 0, false)
		w := newWriter(l.Log)
		w.append(t, 100)
		synctest.Wait()
		waiting := make(chan error, 2)
		gate := fsys.Gate(faultfs.OpSyncRange)
		go func() { waiting <- l.WaitFlushed(t.Context(), 1<<40) }()
		held := <-gate.Arrived
		closed := make(chan error)
		go func() { closed <- l.Close() }()
		synctest.Wait()
		held.Pass(nil)
		gate.Open()
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		if err := <-waiting; !errors.Is(err, ErrClosed) {
			t.Errorf("who waits for what never comes: %v", err)
		}
		if err := w.try(1); !errors.Is(err, ErrClosed) || !errors.Is(l.Err(), ErrClosed) {
			t.Error(err)
		}
		if err := l.WaitReady(t.Context()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if n := countFiles(t, fsys, ""); n != 1 {
			t.Errorf("%d files", n)
		}
		if dev, _ := fsys.OnDevice("log/00000000000000000000"); !bytes.Contains(dev, w.draft.Body) {
			t.Error("Close did not flush")
		}
		closeLog(t, l.Log)
	})
}
