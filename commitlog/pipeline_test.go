package commitlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
)

// device takes several operations at a time and does them in any order: it reads the memory of a write at any moment between its start and
// its end, and a sync covers what had ended when the sync began. It checks what the pipeline promises it.
type device struct {
	block, depth int64

	mu     sync.Mutex
	fail   int // so many operations succeed
	rng    *rand.Rand
	flying []shuffled
	most   int
	broken []string
}

// shuffledWriter is one of the writers of a device.
type shuffledWriter struct {
	*device
	wake chan struct{}
}

type shuffled struct {
	by      *shuffledWriter
	seg     ioengine.Segment
	off     int64
	data    []byte
	read    []byte // data at the moment when the device read it
	durable bool
	ticket  uint64
}

func (d *device) writer() *shuffledWriter { return &shuffledWriter{d, make(chan struct{}, 1)} }

func (w *shuffledWriter) Block() int64 { return w.block }

func (w *shuffledWriter) Depth() int { return int(w.depth) }

func (w *shuffledWriter) FD() int { return -1 }

func (w *shuffledWriter) Await(time.Duration) error { return nil }

// Ready is now and then late, as it is for a thread that another one's look came before.
func (w *shuffledWriter) Ready() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(2) == 0 && slices.ContainsFunc(w.flying, func(f shuffled) bool { return f.by == w })
}

func (w *shuffledWriter) Write(s ioengine.Segment, off int64, data []byte, durable bool, ticket uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if size, err := s.Size(); err != nil || off%w.block != 0 || (off+int64(len(data)))%w.block != 0 && off+int64(len(data)) != size {
		w.broken = append(w.broken, fmt.Sprintf("a write of %d+%d is no whole blocks (%v)", off, len(data), err))
	}
	for _, f := range w.flying {
		if f.seg == s && f.off < off+int64(len(data)) && off < f.off+int64(len(f.data)) {
			w.broken = append(w.broken, fmt.Sprintf("%d+%d is written while %d+%d is", off, len(data), f.off, len(f.data)))
		}
	}
	f := shuffled{by: w, seg: s, off: off, data: data, durable: durable, ticket: ticket}
	if w.rng.IntN(2) == 0 {
		f.read = readByDevice(data)
	}
	w.add(f)
	return nil
}

func (w *shuffledWriter) Sync(s ioengine.Segment, ticket uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.add(shuffled{by: w, seg: s, ticket: ticket})
	return nil
}

func (w *shuffledWriter) add(f shuffled) {
	w.flying = append(w.flying, f)
	w.most = max(w.most, len(w.flying))
	if len(w.flying) > int(w.depth) {
		w.broken = append(w.broken, fmt.Sprintf("%d operations in flight", len(w.flying)))
	}
}

// Next ends a random operation, or none for the moment.
func (w *shuffledWriter) Next(d time.Duration) (ioengine.Done, bool) {
	for range 2 {
		done, own, ok := w.endOne()
		if ok || d == 0 {
			return done, ok
		}
		timeout := time.After(d)
		if own > 0 || d < 0 {
			timeout = time.After(time.Microsecond)
		}
		select {
		case <-w.wake:
			return ioengine.Done{}, false
		case <-timeout:
		}
	}
	return ioengine.Done{}, false
}

// endOne ends one of the writer's own operations, or none; own is how many it has.
func (w *shuffledWriter) endOne() (done ioengine.Done, own int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var places []int
	for i, f := range w.flying {
		if f.by == w {
			places = append(places, i)
		}
	}
	if len(places) == 0 || w.rng.IntN(3) > 0 {
		return done, len(places), false
	}
	i := places[w.rng.IntN(len(places))]
	f := w.flying[i]
	w.flying = slices.Delete(w.flying, i, i+1)
	return ioengine.Done{Ticket: f.ticket, Err: w.carryOut(f)}, len(places), true
}

func (w *shuffledWriter) carryOut(f shuffled) error {
	if w.fail--; w.fail < 0 {
		return syscall.EIO
	}
	if f.data == nil {
		size, err := f.seg.Size()
		return errors.Join(err, f.seg.SyncRange(0, size))
	}
	if f.read == nil {
		f.read = readByDevice(f.data)
	}
	_, err := f.seg.WriteAt(f.read, f.off)
	if err == nil && f.durable {
		err = f.seg.SyncRange(f.off, f.off+int64(len(f.read)))
	}
	return err
}

func (w *shuffledWriter) Wake() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *shuffledWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.flying {
		if f.by == w {
			w.broken = append(w.broken, fmt.Sprintf("a writer is closed with %d+%d in flight", f.off, len(f.data)))
		}
	}
	return nil
}

// readByDevice reads as a device does: also those bytes of the last block that an append is storing at this moment. They count when their own
// write is done.
//
//go:norace
func readByDevice(data []byte) []byte {
	read := make([]byte, len(data))
	//lint:ignore S1001 copy would tell the race detector
	for i := range data {
		read[i] = data[i]
	}
	return read
}

// Whatever order the device ends writes in: a block is in one write at a time, what counts as flushed survives a loss of power, whole and in order,
// and nothing is flushed after an error.
func TestPipelineKeepsTheOrderOfTheLog(t *testing.T) {
	deepest := 0
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		sync, fails := seed%2 == 0, seed%3 == 0
		w := (&device{block: 4096, depth: 1 + int64(rng.IntN(8)), fail: 1 << 30, rng: rand.New(rand.NewPCG(seed, 2))}).writer()
		if fails {
			w.fail = 5 + rng.IntN(60)
		}
		fsys := faultfs.New()
		o := quiet(fsys, "log", 64<<10)
		o.EngineOptions = EngineOptions{Engine: ioengine.EnginePwrite, TailSize: 1 << 20, Sync: sync}
		o.newWriter = func(ioengine.EngineKind, int) (ioengine.LogWriter, error) { return w, nil }
		l := openLog(t, o, 0, false)
		ask, stop := l.RequestFlush, func() {}
		if sync && seed%4 == 0 {
			ask, stop = hostCommits(t, l.Log, w.device)
		}
		appended := newWriter(l.Log)
		appended.keep = []stored{}
		var failure *FailedError
		for range 300 {
			appended.body(1 + rng.IntN(9000)*rng.IntN(2))
			err := appended.try(1000)
			if errors.Is(err, ErrNotReady) {
				err = l.WaitReady(t.Context())
			}
			if errors.As(err, &failure) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if rng.IntN(3) > 0 {
				ask()
			}
			if rng.IntN(40) == 0 {
				if err := l.WaitFlushed(t.Context(), l.Published()); err != nil && !errors.As(err, &failure) {
					t.Fatal(err)
				}
			}
		}
		err := l.WaitFlushed(t.Context(), l.Published())
		if fails != errors.As(err, &failure) && err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		flushed := l.Flushed()
		if err == nil && flushed != l.Published() {
			t.Fatalf("seed %d: flushed up to %d of %d", seed, flushed, l.Published())
		}
		crashed := fsys.Crash(int64(seed), faultfs.LoseAll)
		stop()
		l.Close()
		for _, broken := range w.broken {
			t.Errorf("seed %d: %s", seed, broken)
		}
		deepest = max(deepest, w.most)
		again, err := tryOpen(quiet(crashed, "log", 64<<10), 0, false)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		n := 0
		for n < len(appended.keep) && appended.keep[n].end() <= flushed {
			n++
		}
		if len(again.records) < n {
			t.Fatalf("seed %d: %d records of %d that were flushed", seed, len(again.records), n)
		}
		sameRecords(t, again.records[:n], appended.keep[:n])
		closeLog(t, again.Log)
	}
	if deepest < 3 {
		t.Fatalf("at most %d operations were in flight", deepest)
	}
}

// hostCommits has two goroutines do what reactors do with their Committers until stop is called; ask is a reactor's own wish.
func hostCommits(t *testing.T, l *Log, d *device) (ask, stop func()) {
	var over atomic.Bool
	var turns sync.WaitGroup
	wishes := make(chan struct{}, 1)
	for range 2 {
		c, err := l.host(d.writer())
		if err != nil {
			t.Fatal(err)
		}
		turns.Go(func() {
			for !over.Load() {
				select {
				case <-wishes:
					c.Commit()
				default:
					c.Look()
					runtime.Gosched()
				}
			}
		})
	}
	return func() {
			select {
			case wishes <- struct{}{}:
			default:
			}
		}, func() {
			over.Store(true)
			turns.Wait()
		}
}

// lateWriter ends an operation when Next is called for the third time since it was started.
type lateWriter struct {
	*shuffledWriter
	calls []int
}

func (w *lateWriter) Next(time.Duration) (ioengine.Done, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.calls {
		w.calls[i]++
	}
	if len(w.calls) == 0 || w.calls[0] < 3 {
		return ioengine.Done{}, false
	}
	f := w.flying[0]
	w.calls, w.flying = w.calls[1:], w.flying[1:]
	return ioengine.Done{Ticket: f.ticket, Err: w.carryOut(f)}, true
}

func (w *lateWriter) Write(s ioengine.Segment, off int64, data []byte, durable bool, ticket uint64) error {
	w.calls = append(w.calls, 0)
	return w.shuffledWriter.Write(s, off, data, durable, ticket)
}

// What ends while a turn submits makes room for what the same turn could not start: nobody else would come for that.
func TestCommitBehindAnotherIsStarted(t *testing.T) {
	fsys := faultfs.New()
	o := quiet(fsys, "log", 64<<10) // the flusher looks once an hour
	o.EngineOptions = EngineOptions{Engine: ioengine.EnginePwrite, TailSize: 1 << 20, Sync: true}
	l := openLog(t, o, 0, false)
	defer closeLog(t, l.Log)
	d := &device{block: 4096, depth: 8, fail: 1 << 30, rng: rand.New(rand.NewPCG(1, 1))}
	c, err := l.host(&lateWriter{shuffledWriter: d.writer()})
	if err != nil {
		t.Fatal(err)
	}
	w := newWriter(l.Log)
	for range 2 {
		// The second lies in the block that the first is writing.
		w.append(t, 100)
		c.Commit()
	}
	for range 2 {
		d.mu.Lock()
		flying := len(d.flying)
		d.mu.Unlock()
		if flying == 0 && l.Flushed() < l.Published() {
			t.Fatalf("flushed up to %d of %d, and nothing is in flight", l.Flushed(), l.Published())
		}
		c.p.drive(c.w) // a completion that is reported
	}
	for l.Flushed() < l.Published() {
		c.p.drive(c.w)
	}
}
