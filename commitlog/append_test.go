package commitlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/message"
)

// stored is one record as it stands in the log.
type stored struct {
	off int64
	raw []byte
}

func (s stored) end() int64 { return s.off + int64(len(s.raw)) }

// writer is one appender. It writes records whose queue offset is their number in the log, which seq hands out.
type writer struct {
	log   *Log
	draft message.Draft
	seq   *int64 // under the tail's lock
	raw   []byte // what EncodeAt wrote last
	keep  []stored
}

func newWriter(l *Log) *writer {
	return &writer{log: l, seq: new(int64), draft: message.Draft{Topic: []byte("T"), Properties: []byte("KEYS\x01k\x02"), AppendCRC: true}}
}

func (w *writer) EncodeAt(dst []byte, at, storeTime int64) {
	w.draft.Encode(dst, *w.seq, at, storeTime)
	*w.seq++
	w.raw = dst
}

// overhead is the size of a record without body.
func (w *writer) overhead() int {
	d := w.draft
	d.Body = nil
	return d.Size()
}

func (w *writer) body(n int) {
	w.draft.Body = bytes.Repeat([]byte{byte('a' + *w.seq%26)}, n)
	w.draft.BodyCRC = message.BodyCRC(w.draft.Body)
}

func (w *writer) try(now int64) error {
	at, err := w.log.Append(w.draft.Size(), now, w)
	if err == nil && w.keep != nil {
		w.keep = append(w.keep, stored{at, bytes.Clone(w.raw)})
	}
	return err
}

// append appends a record with a body of n bytes, waiting for memory where needed.
func (w *writer) append(t testing.TB, n int) {
	t.Helper()
	w.body(n)
	for {
		err := w.try(1000)
		if err == nil {
			return
		}
		if !errors.Is(err, ErrNotReady) {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err = w.log.WaitReady(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// quiet are options with which nothing is flushed unless asked for.
func quiet(fsys ioengine.FS, dir string, segment int64) Options {
	return Options{FS: fsys, Dir: dir, SegmentSize: segment, FlushEvery: time.Hour, Window: 2 * time.Hour}
}

type found struct {
	*Log
	rep     *Report
	records []stored
	fillers int
}

// openLog opens a log and collects what recovery visits.
func openLog(t testing.TB, o Options, from int64, clean bool) *found {
	t.Helper()
	f, err := tryOpen(o, from, clean)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func tryOpen(o Options, from int64, clean bool) (*found, error) {
	f := new(found)
	underTest(&o)
	var err error
	f.Log, f.rep, err = Open(o, from, clean, filepath.Join(filepath.Dir(o.Dir), "quarantine"), func(raw []byte, r *message.Record) error {
		if r.SysFlag&message.SysTransactionMask == message.SysTransactionRollback {
			f.fillers++
			return nil
		}
		f.records = append(f.records, stored{r.PhysicalOffset, bytes.Clone(raw)})
		return nil
	})
	return f, err
}

// mappedOnly skips what is about the memory of mapped segments.
func mappedOnly(t *testing.T) {
	if name := os.Getenv("RINGMQ_TEST_IO_ENGINE"); name != "" && name != "mmap" {
		t.Skip("this engine's memory is its Tail")
	}
}

// underTest applies RINGMQ_TEST_IO_ENGINE, with which make test-engines runs these tests for each engine, and RINGMQ_TEST_SYNC. Past the page
// cache go only real files.
func underTest(o *Options) {
	name := os.Getenv("RINGMQ_TEST_IO_ENGINE")
	if name == "" || o.Engine != ioengine.EngineMmap || o.TailFile != "" {
		return
	}
	kind, err := ioengine.ParseEngine(name)
	if err != nil {
		panic(err)
	}
	if o.FS != ioengine.OS() && kind != ioengine.EngineMmap {
		kind = ioengine.EnginePwrite
	}
	o.Engine, o.TailSize, o.Sync = kind, min(32<<20, max(16*o.SegmentSize, 128<<10)), os.Getenv("RINGMQ_TEST_SYNC") != ""
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func sameRecords(t testing.TB, got, want []stored) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i].off != want[i].off || !bytes.Equal(got[i].raw, want[i].raw) {
			t.Fatalf("record %d: found one of %d bytes at %d, want one of %d at %d", i, len(got[i].raw), got[i].off, len(want[i].raw), want[i].off)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
}

// walk reads the log with ReadNext.
func walk(t testing.TB, l *Log) (all []stored) {
	t.Helper()
	for at := l.MinOffset(); at < l.Published(); {
		raw, next, err := l.ReadNext(at, nil)
		if err != nil || next <= at {
			t.Fatalf("at %d: next %d, %v", at, next, err)
		}
		if len(raw) > 0 {
			all = append(all, stored{at, raw})
		}
		at = next
	}
	return all
}

// A record goes to the next segment when it would leave less than a blank; every room, to the byte.
func TestRollAtEveryRoom(t *testing.T) {
	const segment = 4096
	for room := range int64(65) {
		fsys := faultfs.New()
		l := openLog(t, quiet(fsys, "log", segment), 0, false)
		w := newWriter(l.Log)
		w.keep = []stored{}
		size := w.overhead() + 10
		w.append(t, int(segment-room)-size-w.overhead()) // leaves room for one more of size bytes and room behind it
		w.append(t, 10)
		fits := room >= message.BlankSize
		if at := w.keep[1].off; fits != (at < segment) || !fits && at != segment {
			t.Fatalf("room %d: the second record is at %d", room, at)
		}
		w.append(t, 10)
		if at := w.keep[2].off; at < segment {
			t.Fatalf("room %d: the third record is at %d", room, at)
		}
		blankAt := segment - room
		if !fits {
			blankAt -= int64(size)
		}
		var blank [8]byte
		if err := l.ReadWait(blank[:], blankAt); err != nil {
			t.Fatal(err)
		}
		if n, magic := message.PeekSize(blank[:]); int64(n) != segment-blankAt || magic != message.MagicBlank {
			t.Fatalf("room %d: a blank of %d bytes with magic %x at %d", room, n, magic, blankAt)
		}
		sameRecords(t, walk(t, l.Log), w.keep)
		closeLog(t, l.Log)
		again := openLog(t, quiet(fsys, "log", segment), 0, false)
		sameRecords(t, again.records, w.keep)
		if again.Published() != w.keep[2].end() {
			t.Fatalf("room %d: the log ends at %d", room, again.Published())
		}
		closeLog(t, again.Log)
	}
}

func TestBatchNeverSpansSegments(t *testing.T) {
	const segment = 64 << 10
	l := openLog(t, quiet(faultfs.New(), "log", segment), 0, false)
	defer closeLog(t, l.Log)
	dice := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		n := 1 + dice.IntN(segment/2)
		at, err := l.Append(n, 1, fill{})
		for errors.Is(err, ErrNotReady) {
			if err = l.WaitReady(t.Context()); err == nil {
				at, err = l.Append(n, 1, fill{})
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if at/segment != (at+int64(n)+message.BlankSize-1)/segment {
			t.Fatalf("%d bytes at %d, with a blank, span two segments", n, at)
		}
	}
}

// fill writes bytes that are no record.
type fill struct{}

func (fill) EncodeAt(dst []byte, _, _ int64) { dst[0] = 1 }

func TestAppendTooLarge(t *testing.T) {
	for _, c := range []struct {
		name  string
		o     Options
		limit int
	}{
		{"segment", Options{SegmentSize: 4096}, 4096 - 8},
		{"memory kept ready", Options{SegmentSize: 64 << 20, WarmAhead: 1}, 2*warmStep - 8},
		{"bytes at risk", Options{SegmentSize: 64 << 10, MaxUnflushed: 1000}, 1000 - 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.FS, c.o.Dir = faultfs.New(), "log"
			l := openLog(t, c.o, 0, false)
			defer closeLog(t, l.Log)
			var tooLarge *TooLargeError
			if _, err := l.Append(c.limit+1, 1, fill{}); !errors.As(err, &tooLarge) || tooLarge.Limit != int64(c.limit) {
				t.Fatal(err)
			}
			_, err := l.Append(c.limit, 1, fill{})
			for errors.Is(err, ErrNotReady) {
				if err = l.WaitReady(t.Context()); err == nil {
					_, err = l.Append(c.limit, 1, fill{})
				}
			}
			if err != nil {
				t.Fatalf("what just fits is never taken: %v", err)
			}
		})
	}
}

// published checks from within an append that nobody sees the record before it is whole.
type publishedCheck struct {
	t *testing.T
	l *Log
}

func (p publishedCheck) EncodeAt(dst []byte, at, _ int64) {
	if p.l.Published() > at {
		p.t.Errorf("%d is published while the record at %d is written", p.l.Published(), at)
	}
}

func TestPublishedAfterEncoding(t *testing.T) {
	l := openLog(t, quiet(faultfs.New(), "log", 4096), 0, false)
	defer closeLog(t, l.Log)
	for range 100 {
		at, err := l.Append(100, 1, publishedCheck{t, l.Log})
		if errors.Is(err, ErrNotReady) {
			if err := l.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil || l.Published() != at+100 {
			t.Fatalf("published %d after an append at %d: %v", l.Published(), at, err)
		}
	}
}

func TestStoreTimeNeverRunsBackwards(t *testing.T) {
	fsys := faultfs.New()
	l := openLog(t, quiet(fsys, "log", 4096), 0, false)
	w := newWriter(l.Log)
	var last int64
	for _, now := range []int64{100, 50, 200, 199, 0, 201} {
		if err := w.try(now); err != nil {
			t.Fatal(err)
		}
		if at := message.StoreTimestampOf(w.raw); at != max(last, now) {
			t.Errorf("store time %d at %d after %d", at, now, last)
		}
		last = max(last, now)
	}
	closeLog(t, l.Log)
	again := openLog(t, quiet(fsys, "log", 4096), 0, false)
	defer closeLog(t, again.Log)
	w.log = again.Log
	if err := w.try(7); err != nil || message.StoreTimestampOf(w.raw) != 201 {
		t.Errorf("store time %d after a start, %v", message.StoreTimestampOf(w.raw), err)
	}
}

// Appenders, a follower in memory and a reader of files at work at once, with the tail rolling under them.
func TestConcurrentAppendersAndFollowers(t *testing.T) {
	for name, o := range map[string]Options{
		"faultfs": {FS: faultfs.New(), Dir: "log", SegmentSize: 32 << 10, KeepBehind: 8 << 10},
		"os":      {FS: ioengine.OS(), Dir: t.TempDir(), SegmentSize: 256 << 10, KeepBehind: 64 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			const appenders, each = 4, 1500
			o.FlushEvery = 2 * time.Millisecond
			l := openLog(t, o, 0, false)
			defer closeLog(t, l.Log)
			var seq int64
			var writers, readers sync.WaitGroup
			for n := range appenders {
				w := newWriter(l.Log)
				w.seq = &seq
				dice := rand.New(rand.NewPCG(uint64(n), 7))
				writers.Go(func() {
					for range each {
						w.draft.Body = bytes.Repeat([]byte{byte(n)}, dice.IntN(600))
						w.draft.BodyCRC = message.BodyCRC(w.draft.Body)
						for err := w.try(dice.Int64N(1e6)); err != nil; err = w.try(dice.Int64N(1e6)) {
							if !errors.Is(err, ErrNotReady) || l.WaitReady(t.Context()) != nil {
								t.Error(err)
								return
							}
						}
					}
				})
			}
			const total = appenders * each
			readers.Go(func() { follow(t, l.Log, total) })
			readers.Go(func() { peek(t, l.Log, total) })
			writers.Wait()
			readers.Wait()
			if n := checkOrder(t, l.Log); n != total {
				t.Errorf("%d records in the log, want %d", n, total)
			}
		})
	}
}

// follow reads the log as the dispatcher does: in memory, behind the appenders, from the file where memory was let go.
func follow(t *testing.T, l *Log, total int64) {
	var r message.Record
	var buf []byte
	for at, n := int64(0), int64(0); n < total; {
		v, ok := l.ViewHot(at)
		if !ok {
			if at >= l.Published() {
				continue
			}
			raw, next, err := l.ReadNext(at, buf)
			if err != nil || len(raw) > 0 && message.Decode(raw, &r) != nil {
				t.Errorf("at %d: %v", at, err)
				return
			}
			if len(raw) > 0 {
				n++
			}
			buf, at = raw, next
			continue
		}
		err := message.Decode(v.Bytes, &r)
		switch {
		case err == nil && (r.PhysicalOffset != at || r.QueueOffset != n || r.VerifyCRC(v.Bytes) != nil):
			t.Errorf("record %d at %d is %+v", n, at, r)
			v.Done()
			return
		case err == nil:
			at, n = at+int64(r.Size), n+1
		case errors.Is(err, message.ErrBlank), len(v.Bytes) < message.BlankSize:
			at += l.ToSegmentEnd(at)
		default:
			t.Errorf("at %d: %v", at, err)
			v.Done()
			return
		}
		v.Done()
	}
}

// peek reads single records at places that it has seen, by every way there is.
func peek(t *testing.T, l *Log, total int64) {
	dice := rand.New(rand.NewPCG(3, 4))
	var places []int64
	var buf []byte
	for at := int64(0); int64(len(places)) < total; {
		if at >= l.Published() {
			continue
		}
		raw, next, err := l.ReadNext(at, buf)
		if err != nil {
			t.Error(err)
			return
		}
		if len(raw) > 0 {
			places = append(places, at)
		}
		buf, at = raw, next
		if len(places) == 0 {
			continue
		}
		was := places[dice.IntN(len(places))]
		var head [message.PeekBytes]byte
		if err := l.ReadNoWait(head[:], was); err != nil && !errors.Is(err, ioengine.ErrCold) {
			t.Errorf("at %d: %v", was, err)
			return
		} else if err == nil && message.PhysicalOffsetOf(head[:]) != was {
			t.Errorf("at %d: found %x", was, head)
			return
		}
		if _, err := l.ReadRecord(was); err != nil {
			t.Error(err)
			return
		}
	}
}

// checkOrder holds the log against its numbers: queue offsets in order, store times never backwards, no gap.
func checkOrder(t *testing.T, l *Log) (n int64) {
	t.Helper()
	var last int64
	var r message.Record
	for _, s := range walk(t, l) {
		if err := errors.Join(message.Decode(s.raw, &r), r.VerifyCRC(s.raw)); err != nil {
			t.Fatalf("at %d: %v", s.off, err)
		}
		if r.QueueOffset != n || r.StoreTimestamp < last || r.PhysicalOffset != s.off {
			t.Fatalf("at %d: number %d, want %d; store time %d after %d", s.off, r.QueueOffset, n, r.StoreTimestamp, last)
		}
		last, n = r.StoreTimestamp, n+1
	}
	return n
}

func TestAppendTakesNoMemory(t *testing.T) {
	l := openLog(t, quiet(ioengine.OS(), t.TempDir(), 64<<20), 0, false)
	defer closeLog(t, l.Log)
	w := newWriter(l.Log)
	// More than is ready at the start: the keeper has come further when it is taken.
	for l.Published() < firstWarm {
		w.append(t, 64<<10)
	}
	w.body(1024)
	if n := testing.AllocsPerRun(1000, func() {
		if err := w.try(1); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("an append allocates %v times", n)
	}
	var buf [64]byte
	if n := testing.AllocsPerRun(1000, func() {
		if v, ok := l.ViewHot(0); ok {
			v.Done()
		}
		if err := l.ReadNoWait(buf[:], 0); err != nil {
			t.Fatal(err)
		}
		rg, err := l.Hold(0, 64)
		if err != nil {
			t.Fatal(err)
		}
		rg.Releaser().Release()
	}); n != 0 {
		t.Errorf("a read allocates %v times", n)
	}
}

func TestWaiters(t *testing.T) {
	w := NewWaiters[string](2)
	if !w.Add(10, 100, "a") || !w.Add(20, 50, "b") || w.Add(30, 1, "c") || !w.Full() || w.Len() != 2 {
		t.Fatal("two have room, a third has not")
	}
	steps := []struct {
		reached, now int64
		value        string
		timedOut, ok bool
	}{
		{9, 60, "", false, false}, // b's time is over, but a is in front of it
		{10, 60, "a", false, true},
		{10, 49, "", false, false},
		{10, 50, "b", true, true},
		{99, 99, "", false, false},
	}
	for i, s := range steps {
		if value, timedOut, ok := w.Next(s.reached, s.now); value != s.value || timedOut != s.timedOut || ok != s.ok {
			t.Errorf("step %d: %q %t %t", i, value, timedOut, ok)
		}
	}
	// Reached wins over a deadline that is over.
	w.Add(5, 1, "late")
	if value, timedOut, ok := w.Next(5, 2); value != "late" || timedOut || !ok {
		t.Error("a record that is on the device is no timeout")
	}
	if n := testing.AllocsPerRun(1000, func() {
		w.Add(1, 1, "x")
		w.Next(1, 0)
	}); n != 0 {
		t.Errorf("allocates %v times", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{128, 1024} {
		for _, appenders := range []int{1, 2} {
			b.Run(fmt.Sprintf("%dB/appenders-%d", size, appenders), func(b *testing.B) { benchAppend(b, size, appenders) })
		}
	}
}

// benchAppend at its full speed is bound by the zeroing of the disk ahead of it; -benchtime 20000x stays in memory that is ready.
func benchAppend(b *testing.B, size, appenders int) {
	l := openLog(b, Options{FS: ioengine.OS(), Dir: b.TempDir(), SegmentSize: 256 << 20}, 0, false)
	defer closeLog(b, l.Log)
	var waits, kicks atomic.Int64
	var wg sync.WaitGroup
	var seq int64
	// Long enough for the keeper to have its first memory ready.
	for l.Log.kickAt.Load() == 0 {
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := range appenders {
		w := newWriter(l.Log)
		w.draft.AppendCRC = false
		w.body(size)
		w.seq = &seq
		wg.Go(func() {
			for range b.N/appenders + n {
				for w.try(1) != nil {
					waits.Add(1)
					if err := l.WaitReady(context.Background()); err != nil {
						b.Error(err)
						return
					}
				}
				if l.Published() >= l.kickAt.Load() {
					kicks.Add(1)
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(waits.Load()), "waits")
	b.ReportMetric(float64(kicks.Load())/float64(b.N), "kicks/op")
}
