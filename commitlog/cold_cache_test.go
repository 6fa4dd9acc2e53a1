package commitlog

import (
	"bytes"
	"errors"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
)

const coldSegment = 4 << 20

// coldLog is a log with a cold cache and segments that are in no memory.
type coldLog struct {
	*Log
	w    *writer
	fsys *faultfs.FS
}

// reads are the operations that read a file.
func (l *coldLog) reads() []faultfs.Op {
	return slices.DeleteFunc(l.fsys.Ops(), func(op faultfs.Op) bool { return op.Kind != faultfs.OpRead && op.Kind != faultfs.OpReadNoWait })
}

// openColdLog fills segments, and opens the log again: then nothing of them is hot.
func openColdLog(t testing.TB, segments int) *coldLog {
	t.Helper()
	fsys := faultfs.New()
	o := quiet(fsys, "log", coldSegment)
	o.Engine, o.TailSize, o.cacheAlways, o.ColdCacheSize = ioengine.EnginePwrite, 32<<20, true, minColdBlocks*coldBlockSize
	return fillCold(t, o, fsys, segments)
}

func fillCold(t testing.TB, o Options, fsys *faultfs.FS, segments int) *coldLog {
	t.Helper()
	l := openLog(t, o, 0, false)
	w := newWriter(l.Log)
	w.keep = []stored{}
	for l.Published() < int64(segments)*coldSegment+coldBlockSize/2 {
		w.append(t, 20<<10)
	}
	end := l.Published()
	closeLog(t, l.Log)
	l = openLog(t, o, end, true)
	w.log = l.Log
	if l.cold == nil {
		t.Fatal("the log has no cold cache")
	}
	return &coldLog{l.Log, w, fsys}
}

// part is one part for LoadBlocks.
func part(off int64, n int) iter.Seq2[int64, int] {
	return func(yield func(int64, int) bool) { yield(off, n) }
}

// sameAt checks that got is what was appended at off.
func (l *coldLog) sameAt(t testing.TB, got []byte, off int64) {
	t.Helper()
	i, found := slices.BinarySearchFunc(l.w.keep, off, func(r stored, off int64) int { return int(r.off - off) })
	if !found {
		i--
	}
	if at := off - l.w.keep[i].off; !bytes.Equal(got, l.w.keep[i].raw[at:at+int64(len(got))]) {
		t.Fatalf("the bytes at %d are not those that were appended", off)
	}
}

func (l *coldLog) mustRead(t testing.TB, read func([]byte, int64) error, r stored) {
	t.Helper()
	got := make([]byte, len(r.raw))
	if err := read(got, r.off); err != nil {
		t.Fatalf("read at %d: %v", r.off, err)
	}
	l.sameAt(t, got, r.off)
}

func TestColdCacheServesWhatWasLoaded(t *testing.T) {
	l := openColdLog(t, 2)
	defer closeLog(t, l.Log)
	first, b := l.w.keep[0], make([]byte, 100)
	if err := l.ReadNoWait(b, first.off); err != ioengine.ErrCold {
		t.Fatalf("before it is loaded: %v", err)
	}
	if !l.LoadBlocks(part(0, 200<<10)) {
		t.Fatal("not loaded")
	}
	l.fsys.ResetOps()
	l.mustRead(t, l.ReadNoWait, first)
	if ops := l.reads(); len(ops) > 0 {
		t.Errorf("a hit asked the file system: %v", ops)
	}
	// Over the end of a block into the next, which is not there.
	if err := l.ReadNoWait(make([]byte, 2000), coldBlockSize-1000); err != ioengine.ErrCold {
		t.Errorf("half of it is not there: %v", err)
	}
	i := slices.IndexFunc(l.w.keep, func(r stored) bool { return r.end() > coldBlockSize })
	l.mustRead(t, l.ReadWait, l.w.keep[i])
	l.mustRead(t, l.ReadNoWait, l.w.keep[i]) // the one before was there, so the next was loaded
	if s := l.ColdStats(); s.Hits == 0 || s.Misses == 0 || s.Loaded < 2 || s.Bytes != minColdBlocks*coldBlockSize {
		t.Errorf("%+v", s)
	}
}

// A block is read for one of all who want it.
func TestColdCacheLoadsABlockOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openColdLog(t, 2)
		defer closeLog(t, l.Log)
		gate := l.fsys.Gate(faultfs.OpRead)
		defer gate.Open()
		l.fsys.ResetOps()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if i%2 == 0 {
					if !l.LoadBlocks(part(0, 100<<10)) {
						t.Error("not loaded")
					}
				} else if err := l.ReadWait(make([]byte, 100<<10), 0); err != nil {
					t.Error(err)
				}
			})
		}
		held := <-gate.Arrived
		synctest.Wait()
		if err := l.ReadNoWait(make([]byte, 10), 0); err != ioengine.ErrCold {
			t.Errorf("while it is on its way: %v", err)
		}
		held.Pass(nil)
		wg.Wait()
		if ops := l.reads(); len(ops) != 1 || ops[0].Len != coldBlockSize {
			t.Errorf("it was read by %v", ops)
		}
	})
}

// A pinned block stays, whatever is loaded; the memory stays within the budget, and what has no place is read all the same.
func TestColdCacheBudgetAndPins(t *testing.T) {
	l := openColdLog(t, 5)
	defer closeLog(t, l.Log)
	load := func(off int64) bool { return l.LoadBlocks(part(off, worthBytes)) }
	if !load(0) {
		t.Fatal("not loaded")
	}
	b := l.cold.visible(0)
	want := bytes.Clone(b.bytes)
	for off := int64(0); off < 5*coldSegment; off += coldBlockSize {
		if !load(off) {
			t.Errorf("%d is not loaded", off)
		}
	}
	if !bytes.Equal(b.bytes, want) {
		t.Error("the memory of a pinned block was used for another one")
	}
	if s := l.ColdStats(); s.Bytes != minColdBlocks*coldBlockSize {
		t.Errorf("%+v", s)
	}
	b.unpin()
	// All pinned: there is no place.
	c := l.cold
	var pinned []*coldBlock
	for off := int64(0); len(pinned) < minColdBlocks; off += coldBlockSize {
		load(off)
		if b := c.visible(off); b != nil {
			pinned = append(pinned, b)
		}
	}
	last := l.w.keep[slices.IndexFunc(l.w.keep, func(r stored) bool { return r.off > 4*coldSegment })]
	if load(last.off) {
		t.Error("loaded without a place")
	}
	l.mustRead(t, l.ReadWait, last)
	for _, b := range pinned {
		b.unpin()
	}
	if !load(last.off) {
		t.Error("there is a place again")
	}
}

// What nobody asked for for longest goes first.
func TestColdCacheDropsTheOldest(t *testing.T) {
	l := openColdLog(t, 4)
	defer closeLog(t, l.Log)
	place := func(i int) int64 { return int64(i) * coldBlockSize }
	at := func(i int) *coldBlock { return l.cold.visible(place(i)) }
	var b [10]byte
	for i := range minColdBlocks {
		// From the end, so that nothing is read ahead.
		if !l.LoadBlocks(part(place(13-i), worthBytes)) {
			t.Fatal("not loaded")
		}
	}
	if err := l.ReadNoWait(b[:], place(13)); err != nil {
		t.Fatal(err)
	}
	l.LoadBlocks(part(place(2), worthBytes))
	if at(13) == nil || at(12) != nil || at(2) == nil {
		t.Errorf("there are %v %v %v", at(13), at(12), at(2))
	}
}

// A device that fails a block fails who reads what is bad, and nobody else; it is not asked for the whole block again and again.
func TestColdCacheOfADeviceThatFails(t *testing.T) {
	l := openColdLog(t, 2)
	defer closeLog(t, l.Log)
	bad := l.w.keep[5]
	l.fsys.SetFault(func(op faultfs.Op) error {
		if op.Kind == faultfs.OpRead && op.Off < bad.end() && op.Off+op.Len > bad.off && op.Off < coldSegment && op.Name == segmentName("log", 0) {
			return syscall.EIO
		}
		return nil
	})
	l.fsys.ResetOps()
	for range 3 {
		if l.LoadBlocks(part(0, worthBytes)) {
			t.Error("loaded")
		}
	}
	if n := len(l.reads()); n != 1 {
		t.Errorf("%d reads", n)
	}
	if err := l.ReadWait(make([]byte, 100), bad.off); !errors.Is(err, syscall.EIO) {
		t.Errorf("what is bad: %v", err)
	}
	l.mustRead(t, l.ReadWait, l.w.keep[0])
	if err := l.ReadNoWait(make([]byte, 100), bad.off); err != ioengine.ErrCold {
		t.Errorf("without waiting: %v", err)
	}
	l.fsys.SetFault(nil)
	l.mustRead(t, l.ReadWait, bad)
}

func TestColdCacheForgetsDroppedSegments(t *testing.T) {
	l := openColdLog(t, 3)
	defer closeLog(t, l.Log)
	for off := int64(0); off < 2*coldSegment; off += 2 * coldBlockSize {
		l.LoadBlocks(part(off, worthBytes))
	}
	if err := l.DropOldest(); err != nil {
		t.Fatal(err)
	}
	if err := l.ReadNoWait(make([]byte, 10), 0); !errors.Is(err, ErrGone) {
		t.Errorf("what was dropped: %v", err)
	}
	if l.LoadBlocks(part(0, worthBytes)) {
		t.Error("what was dropped is loaded")
	}
	l.cold.mu.Lock()
	defer l.cold.mu.Unlock()
	for _, b := range l.cold.blocks {
		if b.start < coldSegment {
			t.Errorf("the block at %d is still there", b.start)
		}
	}
	if b := l.cold.visible(coldSegment); b == nil {
		t.Error("a block of the next segment is gone, too")
	}
}

// A block that was loaded when it was not full yet holds no more than what was there, and gives way when more is asked for.
func TestColdCacheOfABlockThatIsBeingWritten(t *testing.T) {
	l := openColdLog(t, 1)
	defer closeLog(t, l.Log)
	s := l.find(coldSegment)
	begun := l.written.Load()
	b := l.cold.get(s, coldSegment, begun)
	if b == nil || b.end != begun {
		t.Fatalf("%+v, written %d", b, begun)
	}
	if b.copy(make([]byte, 2), begun-1) {
		t.Error("bytes that were not written come from the block")
	}
	for range 5 {
		l.w.append(t, 20<<10)
	}
	if err := l.WaitFlushed(t.Context(), l.Published()); err != nil {
		t.Fatal(err)
	}
	now := l.written.Load()
	again := l.cold.get(s, coldSegment, now)
	if again == b || again == nil || again.end != now || b.end != begun {
		t.Fatalf("%+v, then %+v", b, again)
	}
	last := l.w.keep[len(l.w.keep)-1]
	got := make([]byte, len(last.raw))
	if !again.copy(got, last.off) {
		t.Fatal("what was written meanwhile is not there")
	}
	l.sameAt(t, got, last.off)
	b.unpin()
	again.unpin()
}

// Who reads one block after the other finds the next ones there; memory that nobody reads from is given back.
func TestColdCacheReadsAheadAndGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openColdLog(t, 3)
		defer closeLog(t, l.Log)
		l.LoadBlocks(part(0, worthBytes))
		synctest.Wait()
		if s := l.ColdStats(); s.Loaded != 1 {
			t.Errorf("one block is no order: %+v", s)
		}
		l.LoadBlocks(part(coldBlockSize, worthBytes))
		for i := range 4 {
			synctest.Wait()
			if err := l.ReadNoWait(make([]byte, 10), int64(2+i)*coldBlockSize); err != nil {
				t.Errorf("block %d: %v", 2+i, err)
			}
		}
		if n := l.cold.unread.Load(); n == 0 || n > minColdBlocks/2 {
			t.Errorf("%d blocks were read ahead", n)
		}
		<-time.After((coldIdle + 3) * time.Second)
		if s := l.ColdStats(); s.Bytes != 0 || l.cold.unread.Load() != 0 {
			t.Errorf("not given back: %+v", s)
		}
		l.mustRead(t, l.ReadWait, l.w.keep[0])
	})
}

// One record here and one there are read by themselves.
func TestColdCacheLoadsNoBlockForOneRecord(t *testing.T) {
	l := openColdLog(t, 3)
	defer closeLog(t, l.Log)
	for i := 0; i < len(l.w.keep); i += 80 {
		l.mustRead(t, l.ReadWait, l.w.keep[i])
		if l.LoadBlocks(part(l.w.keep[i].off, 100)) {
			t.Errorf("record %d", i)
		}
	}
	if s := l.ColdStats(); s.Loaded != 0 {
		t.Errorf("%+v", s)
	}
	for range worthParts {
		l.mustRead(t, l.ReadWait, l.w.keep[0])
	}
	l.mustRead(t, l.ReadNoWait, l.w.keep[0])
}

// Where most blocks go before they were of use, what is asked for is read alone; and no longer, when readers are fewer.
func TestColdCacheOfTooManyReaders(t *testing.T) {
	l := openColdLog(t, 5)
	defer closeLog(t, l.Log)
	rnd, b := rand.New(rand.NewPCG(1, 2)), make([]byte, 100)
	loads := func(rounds, blocks, reads int) int64 {
		before := l.ColdStats().Loaded
		for range rounds {
			off := rnd.Int64N(int64(blocks)) * coldBlockSize
			l.LoadBlocks(part(off, worthBytes))
			for range reads {
				if err := l.ReadWait(b, off); err != nil {
					t.Fatal(err)
				}
			}
		}
		return l.ColdStats().Loaded - before
	}
	if n := loads(100, 20, 1); n < 40 {
		t.Errorf("%d blocks were loaded before anybody could know", n)
	}
	if n := loads(100, 20, 1); n > 10 {
		t.Errorf("%d blocks were loaded in vain", n)
	}
	for range 3 {
		l.cold.beat()
	}
	b = make([]byte, 10<<10)
	if loads(100, 5, 10); loads(10, 5, 10) > 0 || l.cold.visible(0) == nil {
		t.Error("blocks are not loaded although they are of use by now")
	}
}

// Whoever reads what, while the log grows and its oldest segments go, reads what was appended.
func TestColdCacheEqualsTheLog(t *testing.T) {
	l := openColdLog(t, 5)
	defer closeLog(t, l.Log)
	equalsTheLog(t, l, 3000)
}

// The same past the page cache.
func TestColdCacheEqualsTheLogDirect(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if err := ioengine.OS().MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := ioengine.EngineWorks(ioengine.EngineDirect, dir, coldSegment); err != nil {
		t.Skip(err)
	}
	o := quiet(ioengine.OS(), dir, coldSegment)
	o.Engine, o.TailSize, o.ColdCacheSize = ioengine.EngineDirect, 8<<20, minColdBlocks*coldBlockSize
	equalsTheLog(t, fillCold(t, o, nil, 5), 1000)
}

func equalsTheLog(t *testing.T, l *coldLog, rounds int) {
	old := slices.Clone(l.w.keep)
	var gone, lent atomic.Int64
	var wg sync.WaitGroup
	for reader := range 6 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(reader), 7))
			at := rnd.IntN(len(old))
			for range rounds {
				if at++; at >= len(old) || rnd.IntN(40) == 0 {
					at = rnd.IntN(len(old))
				}
				r := old[at]
				from := rnd.IntN(len(r.raw))
				got := make([]byte, 1+rnd.IntN(len(r.raw)-from))
				off, err := r.off+int64(from), error(nil)
				switch rnd.IntN(5) {
				case 0:
					if !l.LoadBlocks(part(off, len(got))) {
						continue
					}
					fallthrough
				case 1:
					err = l.ReadNoWait(got, off)
				case 2:
					var loan Loan
					if pieces, there := loan.Add(l.Log, nil, off, len(got)); there {
						lent.Add(1)
						runtime.Gosched()
						copy(got, bytes.Join(pieces, nil))
					} else {
						err = ioengine.ErrCold
					}
					loan.Release()
				default:
					err = l.ReadWait(got, off)
				}
				switch {
				case err == nil && !bytes.Equal(got, r.raw[from:from+len(got)]):
					t.Errorf("reader %d: other bytes at %d", reader, off)
					return
				case errors.Is(err, ErrGone) && off < gone.Load(), err == ioengine.ErrCold:
				case err != nil:
					t.Errorf("reader %d at %d: %v", reader, off, err)
					return
				}
			}
		})
	}
	for i := range 300 {
		l.w.append(t, 20<<10)
		if i%100 == 50 {
			gone.Add(coldSegment)
			if err := l.DropOldest(); err != nil {
				t.Error(err)
			}
		}
	}
	wg.Wait()
	if lent.Load() == 0 {
		t.Error("nothing was lent")
	}
	l.cold.mu.Lock()
	defer l.cold.mu.Unlock()
	for _, b := range l.cold.blocks {
		if n := b.pins.Load(); n != 1 && !b.unread.Load() {
			t.Errorf("the block at %d has %d pins", b.start, n)
		}
	}
}

func TestColdCacheHitAllocatesNothing(t *testing.T) {
	l := openColdLog(t, 1)
	defer closeLog(t, l.Log)
	l.LoadBlocks(part(0, worthBytes))
	var b [1200]byte
	if n := testing.AllocsPerRun(1000, func() {
		if err := l.ReadNoWait(b[:], 4000); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a hit allocates %v times", n)
	}
	var loan Loan
	var pieces [][]byte
	if n := testing.AllocsPerRun(1000, func() {
		var there bool
		if pieces, there = loan.Add(l.Log, pieces[:0], 4000, 1200); !there || len(pieces) != 1 || !bytes.Equal(pieces[0], b[:]) {
			t.Fatal("not lent")
		}
		loan.Release()
	}); n != 0 {
		t.Errorf("a loan allocates %v times", n)
	}
}

// What lies in two blocks is lent in two pieces, and a block that is lent keeps its place.
func TestLoanKeepsBlocks(t *testing.T) {
	l := openColdLog(t, 5)
	defer closeLog(t, l.Log)
	var loan Loan
	if !l.LoadBlocks(part(0, 2*coldBlockSize)) {
		t.Fatal("not loaded")
	}
	i := slices.IndexFunc(l.w.keep, func(r stored) bool { return r.end() > coldBlockSize })
	r := l.w.keep[i]
	pieces, there := loan.Add(l.Log, nil, r.off, len(r.raw))
	if !there || len(pieces) != 2 {
		t.Fatalf("%v, %d pieces", there, len(pieces))
	}
	if more, there := loan.Add(l.Log, pieces, coldSegment*4, 1000); there || len(more) != 2 {
		t.Fatal("lent what is not there")
	}
	if more, there := loan.Add(l.Log, pieces, l.Published()-1000, 1000); there || len(more) != 2 {
		t.Fatal("lent what is in the log's own memory")
	}
	for at := int64(2 * coldBlockSize); at < 5*coldSegment; at += coldBlockSize {
		l.LoadBlocks(part(at, coldBlockSize))
	}
	l.sameAt(t, bytes.Join(pieces, nil), r.off)
	if b := l.cold.visible(0); b == nil || b.pins.Load() != 3 {
		t.Fatal("a block that is lent has gone")
	} else {
		b.unpin()
	}
	loan.Release()
	if b := l.cold.visible(0); b.pins.Load() != 2 {
		t.Error("it is still lent")
	} else {
		b.unpin()
	}
}

func BenchmarkColdCacheHit(b *testing.B) {
	l := openColdLog(b, 1)
	defer closeLog(b, l.Log)
	l.LoadBlocks(part(0, worthBytes))
	buf := make([]byte, 1200)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if err := l.ReadNoWait(buf, 4000); err != nil {
			b.Fatal(err)
		}
	}
}
