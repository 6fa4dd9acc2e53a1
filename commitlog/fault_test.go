package commitlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringmq/ringmq/ioengine/faultfs"
)

// Rules R1 and R2: what an acknowledgement is worth, and that there is none after the device has failed.

// A flush that was waited for covers the record and every byte before it, other segments included.
func TestR1FlushedMeansOnTheDevice(t *testing.T) {
	if os.Getenv("RINGMQ_TEST_SYNC") != "" {
		t.Skip("each write is durable by itself: what has been written first counts first")
	}
	synctest.Test(t, func(t *testing.T) {
		const segment = 16 << 10
		fsys := faultfs.New()
		l := openLog(t, quiet(fsys, "log", segment), 0, false)
		defer closeLog(t, l.Log)
		w := newWriter(l.Log)
		w.keep = []stored{}
		for range 10 {
			synctest.Wait()
			w.append(t, 6000)
		}
		gate := fsys.Gate(faultfs.OpSyncRange)
		defer gate.Open()
		end := w.keep[6].end()
		waited := make(chan error, 1)
		go func() { waited <- l.WaitFlushed(t.Context(), end) }()
		for range w.keep[9].off/segment + 1 { // one sync a segment
			held := <-gate.Arrived
			synctest.Wait()
			if len(waited) > 0 || l.Flushed() != 0 {
				t.Fatal("it is told flushed before all syncs are done")
			}
			held.Pass(nil)
		}
		if err := <-waited; err != nil {
			t.Fatal(err)
		}
		again := openLog(t, quiet(fsys.Crash(0, faultfs.LoseAll), "log", segment), 0, false)
		defer closeLog(t, again.Log)
		sameRecords(t, again.records, w.keep)
	})
}

// What comes while a group commit is on its way belongs to the next one.
func TestR1LateRecordsWaitForTheNextCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		l := openLog(t, quiet(fsys, "log", 16<<10), 0, false)
		defer closeLog(t, l.Log)
		w := newWriter(l.Log)
		w.keep = []stored{}
		w.append(t, 10)
		gate := fsys.Gate(faultfs.OpSyncRange)
		defer gate.Open()
		l.RequestFlush()
		first := <-gate.Arrived
		w.append(t, 10)
		waited := make(chan error, 1)
		go func() { waited <- l.WaitFlushed(t.Context(), w.keep[1].end()) }()
		synctest.Wait()
		first.Pass(nil)
		second := <-gate.Arrived
		synctest.Wait()
		if len(waited) > 0 || l.Flushed() != w.keep[0].end() {
			t.Fatalf("flushed up to %d after the first commit", l.Flushed())
		}
		second.Pass(nil)
		if err := <-waited; err != nil || l.Flushed() != w.keep[1].end() {
			t.Fatal(err)
		}
	})
}

// The device stands still: the age of the oldest unflushed byte is told, and bytes at risk stay below MaxUnflushed.
func TestR1BoundedAsyncWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		o := Options{FS: fsys, Dir: "log", SegmentSize: 64 << 10, FlushEvery: 500 * time.Millisecond, Window: time.Second, MaxUnflushed: 10_000}
		l := openLog(t, o, 0, false)
		defer closeLog(t, l.Log)
		w := newWriter(l.Log)
		w.body(100)
		gate := fsys.Gate(faultfs.OpSyncRange)
		defer gate.Open()
		began := time.Now()
		now := func() int64 { return time.Now().UnixMilli() }
		if err := w.try(now()); err != nil {
			t.Fatal(err)
		}
		held := <-gate.Arrived
		if age := time.Since(began); age > o.Window/2 {
			t.Errorf("the flusher came after %v", age)
		}
		for l.Flushed() == 0 {
			if behind := time.Since(began) > o.Window; l.Behind(now()) != behind || l.UnflushedAge(now()) != time.Since(began) {
				t.Fatalf("after %v: behind %t, age %v", time.Since(began), l.Behind(now()), l.UnflushedAge(now()))
			}
			if time.Since(began) > 3*time.Second {
				break
			}
			<-time.After(100 * time.Millisecond)
		}
		var err error
		for err == nil {
			err = w.try(now())
		}
		if !errors.Is(err, ErrNotReady) || l.Published() > o.MaxUnflushed {
			t.Fatalf("%d bytes are at risk: %v", l.Published(), err)
		}
		held.Pass(nil)
		gate.Open()
		if err := l.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := w.try(now()); err != nil {
			t.Fatal(err)
		}
		if err := l.Flush(time.Minute); err != nil || l.Behind(now()) || l.UnflushedAge(now()) != 0 {
			t.Errorf("all is flushed and yet it is behind by %v: %v", l.UnflushedAge(now()), err)
		}
	})
}

func TestR1WaitTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		l := openLog(t, quiet(fsys, "log", 16<<10), 0, false)
		defer closeLog(t, l.Log)
		w := newWriter(l.Log)
		w.append(t, 10)
		gate := fsys.Gate(faultfs.OpSyncRange)
		defer gate.Open()
		if err := l.Flush(5 * time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

// failing is a run whose device fails once, at the n-th operation of a kind, and is whole again afterwards.
type failing struct {
	mu     sync.Mutex
	kind   faultfs.Kind
	left   int
	err    error
	failed bool
	after  []faultfs.Op // operations on the log's files after the failure
}

func (f *failing) fault(op faultfs.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed {
		f.after = append(f.after, op)
		return nil
	}
	if op.Kind != f.kind {
		return nil
	}
	if f.left--; f.left >= 0 {
		return nil
	}
	f.failed = true
	return f.err
}

// After the first error of the device: no append, no acknowledgement, no second sync; reading goes on; and what was acknowledged before
// survives a loss of power.
func TestR2FirstErrorIsTheLast(t *testing.T) {
	const segment = 12 << 20 // write-back takes steps of 4 MiB
	for _, c := range []struct {
		kind faultfs.Kind
		nth  int
		err  error
	}{
		{faultfs.OpSyncRange, 0, syscall.EIO},
		{faultfs.OpSyncRange, 1, syscall.EIO},
		{faultfs.OpSyncRange, 2, syscall.ENOSPC}, // the blocks of bytes that were taken are not there: they are lost like by any other error
		{faultfs.OpWriteBack, 1, syscall.EIO},
		{faultfs.OpWaitWriteBack, 0, syscall.EIO},
		{faultfs.OpZero, 3, syscall.EIO},
		{faultfs.OpZero, 2, &faultfs.ShortWrite{N: 5000, Err: syscall.EIO}},
		{faultfs.OpWarm, 2, syscall.EIO},
		{faultfs.OpCreateSegment, 1, syscall.EIO},
		{faultfs.OpSync, 1, syscall.EIO}, // the new segment's size
	} {
		t.Run(fmt.Sprintf("%s %d %v", c.kind, c.nth, c.err), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { failOnce(t, segment, &failing{kind: c.kind, left: c.nth, err: c.err}) })
		})
	}
}

func failOnce(t *testing.T, segment int64, f *failing) {
	fsys := faultfs.New()
	fsys.SetFault(f.fault)
	failures := 0
	o := quiet(fsys, "log", segment)
	o.OnFail = func(error) { failures++ }
	l := openLog(t, o, 0, false)
	if l.memory != nil && (f.kind == faultfs.OpWaitWriteBack || f.kind == faultfs.OpWarm || f.kind == faultfs.OpWriteBack && l.opt.Sync) {
		closeLog(t, l.Log)
		t.Skip("this engine does not do that")
	}
	w := newWriter(l.Log)
	w.keep = []stored{}
	w.body(600_000)
	every := 8
	if f.kind == faultfs.OpWaitWriteBack {
		every = 40 // a group commit leaves nothing to wait for
	}
	var acked int64
	var err error
	for n := 0; err == nil && n < 100; n++ {
		synctest.Wait()
		if err = w.try(1000); err == nil && n%every == every-1 {
			end := l.Published()
			if err = l.WaitFlushed(t.Context(), end); err == nil {
				acked = end
			}
		}
		if errors.Is(err, ErrNotReady) {
			err = l.WaitReady(t.Context())
		}
	}
	var failure *FailedError
	if !errors.As(err, &failure) || !errors.Is(err, f.err) || failures != 1 {
		t.Fatalf("%v; OnFail was called %d times", err, failures)
	}
	flushed := l.Flushed()
	for range 3 {
		l.RequestFlush()
		synctest.Wait()
		if err := w.try(1000); !errors.As(err, &failure) {
			t.Errorf("an append after the failure: %v", err)
		}
		if err := l.WaitFlushed(t.Context(), flushed+1); !errors.As(err, &failure) {
			t.Errorf("an acknowledgement after the failure: %v", err)
		}
		if err := l.WaitReady(t.Context()); !errors.As(err, &failure) {
			t.Errorf("WaitReady after the failure: %v", err)
		}
	}
	sameRecords(t, walk(t, l.Log), w.keep)
	if err := l.Close(); !errors.As(err, &failure) || l.Flushed() != flushed {
		t.Errorf("Close answers %v, flushed up to %d, then %d", err, flushed, l.Flushed())
	}
	for _, op := range f.after {
		switch op.Kind {
		case faultfs.OpSync, faultfs.OpSyncRange, faultfs.OpWriteBack, faultfs.OpWaitWriteBack:
			t.Errorf("after the failure: %v", op)
		}
	}
	for seed := range int64(1 + 2/sampleEvery) {
		again := openLog(t, quiet(fsys.Crash(seed, faultfs.Random), "log", segment), 0, false)
		found := map[int64]bool{}
		for _, s := range again.records {
			found[s.off] = true
		}
		for _, s := range w.keep {
			if s.end() <= acked && !found[s.off] {
				t.Errorf("seed %d: the record at %d was acknowledged before the failure and is lost", seed, s.off)
			}
		}
		closeLog(t, again.Log)
	}
}

// A sync that is on its way when the log fails elsewhere acknowledges nothing any more, even if it succeeds.
func TestR2FailureOvertakesASync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		l := openLog(t, quiet(fsys, "log", 64<<20), 0, false)
		w := newWriter(l.Log)
		w.append(t, 1<<20)
		gate := fsys.Gate(faultfs.OpSyncRange)
		waited := make(chan error, 1)
		go func() { waited <- l.WaitFlushed(t.Context(), l.Published()) }()
		held := <-gate.Arrived
		l.fail(syscall.EIO)
		if err := <-waited; !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		held.Pass(nil)
		synctest.Wait()
		if l.Flushed() != 0 {
			t.Errorf("flushed up to %d after the failure", l.Flushed())
		}
		if err := l.Close(); !errors.Is(err, syscall.EIO) {
			t.Error(err)
		}
	})
}

// A log that can't be read or mended is not opened, and what is there stays as it is.
func TestR2ErrorsWhileOpening(t *testing.T) {
	const segment = 16 << 10
	image, kept := writtenLog(t, segment, 6000, 6000, 6000, 300)
	mangle(t, image, segment, kept[1].off+100, make([]byte, 300))
	mangle(t, image, segment, kept[3].off+100, make([]byte, 300))
	whole := image.Kill()
	l := openLog(t, quiet(whole, "log", segment), 0, false)
	want := l.records
	closeLog(t, l.Log)
	for n := int64(1); ; n++ {
		fsys := image.Kill()
		fsys.FailAt(n, &fsError{n})
		l, err := tryOpen(quiet(fsys, "log", segment), 0, false)
		if err == nil {
			closeLogAnyway(l.Log)
			if fsys.Count() < n {
				return
			}
			continue // a failure of the keeper, after Open
		}
		fsErr := new(fsError)
		if !errors.As(err, &fsErr) || fsErr.n != n {
			t.Fatalf("operation %d: %v", n, err)
		}
		again := openLog(t, quiet(fsys.Kill(), "log", segment), 0, false)
		sameRecords(t, again.records, want)
		closeLog(t, again.Log)
	}
}

type fsError struct{ n int64 }

func (e *fsError) Error() string { return fmt.Sprintf("injected at %d", e.n) }

func closeLogAnyway(l io.Closer) { _ = l.Close() }
