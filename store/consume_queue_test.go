package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
)

const testUnits = 50

func openTable(t testing.TB, fsys ioengine.FS, root string, change ...func(*QueueTableOptions)) *QueueTable {
	t.Helper()
	o := QueueTableOptions{FS: fsys, Root: root, FileUnits: testUnits}
	for _, c := range change {
		c(&o)
	}
	require.NoError(t, fsys.MkdirAll(root, 0o755))
	table, err := NewQueueTable(o)
	require.NoError(t, err)
	t.Cleanup(func() { table.Close() })
	return table
}

func scanTable(t testing.TB, fsys ioengine.FS, root string, change ...func(*QueueTableOptions)) *QueueTable {
	t.Helper()
	table := openTable(t, fsys, root, change...)
	_, err := table.LoadScan(context.Background())
	require.NoError(t, err)
	return table
}

func mustQueue(t testing.TB, table *QueueTable, topic string, id int32) *ConsumeQueue {
	t.Helper()
	q, err := table.GetOrCreate(topic, id)
	require.NoError(t, err)
	return q
}

// entryAt is the entry that the tests give to queue offset n: 100 bytes of log each.
func entryAt(n int64) Entry { return Entry{PhysicalOffset: n * 100, Size: 100, TagsCode: ^n} }

func appendRange(q *ConsumeQueue, from, to int64) {
	for n := from; n < to; n++ {
		q.Append(n, entryAt(n))
	}
}

// readAll reads [from, to), waiting for the disk.
func readAll(t testing.TB, q *ConsumeQueue, from, to int64) []Entry {
	t.Helper()
	out := make([]Entry, 0, to-from)
	for at := from; at < to; {
		dst := make([]Entry, min(to-at, 7))
		n, err := q.ReadWait(at, dst)
		require.NoError(t, err)
		require.NotZero(t, n, "at %d", at)
		out, at = append(out, dst[:n]...), at+int64(n)
	}
	return out
}

func requireEntries(t testing.TB, q *ConsumeQueue, from, to int64) {
	t.Helper()
	for i, e := range readAll(t, q, from, to) {
		require.Equal(t, entryAt(from+int64(i)), e)
	}
}

func onBoth(t *testing.T, run func(t *testing.T, fsys ioengine.FS, root string)) {
	t.Run("faultfs", func(t *testing.T) { run(t, faultfs.New(), "/store") })
	t.Run("os", func(t *testing.T) { run(t, ioengine.OS(), t.TempDir()) })
}

func TestQueueKeepsEntries(t *testing.T) {
	onBoth(t, func(t *testing.T, fsys ioengine.FS, root string) {
		table := openTable(t, fsys, root)
		q := mustQueue(t, table, "T", 3)
		for step := int64(0); step < 700; step += 35 {
			appendRange(q, step, step+35)
			requireEntries(t, q, 0, step+35)
			require.NoError(t, table.WriteBack())
			requireEntries(t, q, 0, step+35)
		}
		require.Zero(t, table.Backlog())
		require.NoError(t, table.Sync())
		info, err := fsys.Stat(filepath.Join(root, "consumequeue", "T", "3", "00000000000000001000"))
		require.NoError(t, err)
		require.EqualValues(t, testUnits*UnitSize, info.Size(), "java opens a file of the exact size only")

		again := scanTable(t, fsys, root)
		q = again.Get([]byte("T"), 3)
		require.EqualValues(t, 0, q.Min())
		require.EqualValues(t, 700, q.Max())
		require.EqualValues(t, 700, q.Next)
		requireEntries(t, q, 0, 700)
	})
}

func TestReadBounds(t *testing.T) {
	table := openTable(t, faultfs.New(), "/s")
	q := mustQueue(t, table, "T", 0)
	dst := make([]Entry, 4)
	for _, from := range []int64{-1, 0, 1} {
		n, err := q.Read(from, dst)
		require.NoError(t, err)
		require.Zero(t, n)
	}
	q.Append(5, entryAt(5))
	require.EqualValues(t, 5, q.Min())
	require.EqualValues(t, 6, q.Max())
	for from, want := range map[int64]int{4: 0, 5: 1, 6: 0} {
		n, err := q.Read(from, dst)
		require.NoError(t, err)
		require.Equal(t, want, n, "from %d", from)
	}
}

func TestAppendSkipsWhatIsThere(t *testing.T) {
	table := openTable(t, faultfs.New(), "/s")
	q := mustQueue(t, table, "T", 0)
	appendRange(q, 0, 10)
	q.Append(4, Entry{PhysicalOffset: 1, Size: 1})
	require.EqualValues(t, 10, q.Max())
	requireEntries(t, q, 0, 10)
}

// A queue that does not start at 0 gets Java's filler in its first file; a file made later does not.
func TestFirstFileIsFilled(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	q := mustQueue(t, table, "T", 0)
	appendRange(q, 77, 160)
	require.NoError(t, table.WriteBack())
	b, err := fsys.ReadFile("/s/consumequeue/T/0/00000000000000001000")
	require.NoError(t, err)
	filler := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0}
	require.Equal(t, bytes.Repeat(filler, 27), b[:27*UnitSize])
	require.Equal(t, entryAt(77), entryFrom(b[27*UnitSize:]))

	q = scanTable(t, fsys, "/s").Get([]byte("T"), 0)
	require.EqualValues(t, 77, q.Min())
	require.EqualValues(t, 160, q.Max())
	requireEntries(t, q, 77, 160)
}

func TestHole(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	q := mustQueue(t, table, "T", 0)
	appendRange(q, 0, 20)
	appendRange(q, 130, 140)
	q.Append(140+maxHole+1, entryAt(1))
	require.EqualValues(t, 140, q.Max(), "an impossible offset is left out")
	check := func(q *ConsumeQueue) {
		requireEntries(t, q, 0, 20)
		requireEntries(t, q, 130, 140)
		for _, e := range readAll(t, q, 20, 130) {
			require.Equal(t, Entry{}, e)
		}
		at, err := q.OffsetByTime(2000, false, timeOf)
		require.NoError(t, err)
		require.EqualValues(t, 130, at, "holes are skipped")
		at, err = q.OffsetByTime(12000, true, timeOf)
		require.NoError(t, err)
		require.EqualValues(t, 19, at, "holes are skipped backwards")
	}
	check(q)
	require.NoError(t, table.WriteBack())
	check(q)
	q = scanTable(t, fsys, "/s").Get([]byte("T"), 0)
	require.EqualValues(t, 140, q.Max())
	check(q)
}

// timeOf gives the message of queue offset n the store time 100 n.
func timeOf(e Entry) (int64, error) { return e.PhysicalOffset, nil }

func TestOffsetByTime(t *testing.T) {
	table := openTable(t, faultfs.New(), "/s")
	q := mustQueue(t, table, "T", 0)
	// Three messages share each store time.
	same := func(e Entry) (int64, error) { return e.PhysicalOffset / 300 * 1000, nil }
	appendRange(q, 6, 126)
	require.NoError(t, table.WriteBack())
	for _, c := range []struct {
		name  string
		ts    int64
		upper bool
		want  int64
	}{
		{"before all", 1, false, 6},
		{"first of equals", 5000, false, 15},
		{"between", 5001, false, 18},
		{"last time", 41000, false, 123},
		{"after all", 41001, false, 126},
		{"upper before all", 1, true, 6},
		{"upper takes the last of equals", 5000, true, 17},
		{"upper between", 5999, true, 17},
		{"upper after all", 99000, true, 125},
	} {
		at, err := q.OffsetByTime(c.ts, c.upper, same)
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, at, c.name)
	}
	boom := errors.New("boom")
	_, err := q.OffsetByTime(5000, false, func(Entry) (int64, error) { return 0, boom })
	require.ErrorIs(t, err, boom)
	at, err := mustQueue(t, table, "empty", 0).OffsetByTime(5, false, same)
	require.NoError(t, err)
	require.Zero(t, at)
}

func TestTrimBefore(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	q := mustQueue(t, table, "T", 0)
	appendRange(q, 0, 220)
	require.NoError(t, table.WriteBack())
	files := func() int {
		names, err := fsys.ReadDir("/s/consumequeue/T/0")
		require.NoError(t, err)
		return len(names)
	}
	require.Equal(t, 5, files())
	q.TrimBefore(4950)
	require.EqualValues(t, 50, q.Min(), "the first record that starts at or behind")
	require.Equal(t, 4, files())
	n, err := q.ReadWait(49, make([]Entry, 1))
	require.NoError(t, err)
	require.Zero(t, n)
	requireEntries(t, q, 50, 220)
	before := fsys.Count()
	q.TrimBefore(4950)
	require.Equal(t, before, fsys.Count(), "nothing to do costs no file operation")
	q.TrimBefore(22000)
	require.EqualValues(t, 220, q.Min())
	require.Equal(t, 1, files(), "the last file stays")
	appendRange(q, 220, 230)
	require.NoError(t, table.WriteBack())
	requireEntries(t, q, 220, 230)
	q.TrimBefore(22500)
	require.EqualValues(t, 225, q.Min())
	again := scanTable(t, fsys, "/s").Get([]byte("T"), 0)
	require.EqualValues(t, 230, again.Max())
	again.TrimBefore(22500)
	require.EqualValues(t, 225, again.Min())
}

func TestDamageIsToldAndRewritten(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, fsys *faultfs.FS){
		"offset behind the log": func(t *testing.T, fsys *faultfs.FS) {
			require.NoError(t, fsys.Flip("/s/consumequeue/T/0/00000000000000000000", 30*UnitSize+1, 3))
		},
		"negative size": func(t *testing.T, fsys *faultfs.FS) {
			require.NoError(t, fsys.Flip("/s/consumequeue/T/0/00000000000000000000", 30*UnitSize+8, 7))
		},
		"elsewhere, to an older message": func(t *testing.T, fsys *faultfs.FS) {
			require.NoError(t, fsys.Flip("/s/consumequeue/T/0/00000000000000000000", 30*UnitSize+6, 3))
		},
		"elsewhere, to a younger message": func(t *testing.T, fsys *faultfs.FS) {
			require.NoError(t, fsys.Flip("/s/consumequeue/T/0/00000000000000000000", 29*UnitSize+6, 4))
		},
		"lost write": func(t *testing.T, fsys *faultfs.FS) {
			require.NoError(t, fsys.Mangle("/s/consumequeue/T/0/00000000000000000000", 30*UnitSize, make([]byte, 3*UnitSize)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := faultfs.New()
			table := openTable(t, fsys, "/s")
			appendRange(mustQueue(t, table, "T", 0), 0, 60)
			require.NoError(t, table.WriteBack())
			harm(t, fsys)
			var told []string
			table = scanTable(t, fsys, "/s", func(o *QueueTableOptions) {
				o.LogEnd = func() int64 { return 6000 }
				o.OnDamage = func(topic string, id int32, from int64) { told = append(told, fmt.Sprint(topic, id, " ", from)) }
			})
			q := table.Get([]byte("T"), 0)
			require.EqualValues(t, 60, q.Max())
			dst := make([]Entry, 64)
			n, err := q.ReadWait(0, dst)
			require.NoError(t, err)
			good := int64(30)
			if strings.HasPrefix(name, "elsewhere") {
				good = 29 // which of two neighbours is wrong can't be told
			}
			require.EqualValues(t, good, n, "what is good before is answered")
			for from := good; from < 31; from++ {
				_, err = q.ReadWait(from, dst)
				require.ErrorIs(t, err, ErrDamaged)
			}
			require.Equal(t, []string{fmt.Sprint("T0 ", good)}, told, "told once")
			for n := good; n < 33; n++ {
				require.NoError(t, q.Rewrite(n, entryAt(n)))
			}
			q.EndRewrite()
			requireEntries(t, q, 0, 60)
		})
	}
}

func TestMissingFileIsDamage(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	appendRange(mustQueue(t, table, "T", 0), 0, 120)
	require.NoError(t, table.WriteBack())
	require.NoError(t, table.SaveSnapshot(12000, CheckpointFields{PhysicMsgTimestamp: 1}))
	require.NoError(t, fsys.Remove("/s/consumequeue/T/0/00000000000000001000"))
	var told int64 = -1
	table = openTable(t, fsys, "/s", func(o *QueueTableOptions) {
		o.OnDamage = func(_ string, _ int32, from int64) { told = from }
	})
	_, err := table.LoadSnapshot(CheckpointFields{PhysicMsgTimestamp: 1})
	require.NoError(t, err)
	q := table.Get([]byte("T"), 0)
	_, err = q.ReadWait(60, make([]Entry, 1))
	require.ErrorIs(t, err, ErrDamaged)
	require.EqualValues(t, 59, told, "read along with its neighbour")
	for n := int64(50); n < 100; n++ {
		require.NoError(t, q.Rewrite(n, entryAt(n)))
	}
	q.EndRewrite()
	requireEntries(t, q, 0, 120)
	require.Error(t, q.Rewrite(120, entryAt(1)), "behind the end nothing can be rewritten")
}

func TestRewriteInTheTail(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	q := mustQueue(t, table, "T", 0)
	appendRange(q, 0, 30)
	require.NoError(t, table.WriteBack())
	appendRange(q, 30, 45)
	other := Entry{PhysicalOffset: 3, Size: 4, TagsCode: 5}
	for _, n := range []int64{0, 20, 29, 40, 44} {
		require.NoError(t, q.Rewrite(n, other))
		require.Equal(t, []Entry{other}, readAll(t, q, n, n+1))
		require.NoError(t, q.Rewrite(n, Entry{}))
		require.Equal(t, []Entry{{}}, readAll(t, q, n, n+1))
		require.NoError(t, q.Rewrite(n, entryAt(n)))
	}
	appendRange(q, 45, 120)
	requireEntries(t, q, 0, 120)
	require.NoError(t, table.WriteBack())
	requireEntries(t, scanTable(t, fsys, "/s").Get([]byte("T"), 0), 0, 120)
}

func TestReadNeverWaits(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s", func(o *QueueTableOptions) { o.IdlePasses = 1 })
	q := mustQueue(t, table, "T", 0)
	appendRange(q, 0, 40)
	for range 3 {
		require.NoError(t, table.WriteBack())
	}
	require.Nil(t, q.tail.Load(), "an idle queue holds no memory")
	require.NoError(t, table.Sync())
	require.NoError(t, fsys.Evict("/s/consumequeue/T/0/00000000000000000000"))
	dst := make([]Entry, 8)
	_, err := q.Read(0, dst)
	require.ErrorIs(t, err, ioengine.ErrCold)
	n, err := q.ReadWait(0, dst)
	require.NoError(t, err)
	require.Equal(t, 8, n)
	n, err = q.Read(0, dst)
	require.NoError(t, err)
	require.Equal(t, 8, n)

	table.files.forget(func(fileKey) bool { return true })
	_, err = q.Read(0, dst)
	require.ErrorIs(t, err, ioengine.ErrCold, "opening a file may wait, too")

	fsys.SetNoWait(false)
	_, err = q.ReadWait(0, dst)
	require.NoError(t, err)
	_, err = q.Read(0, dst)
	require.ErrorIs(t, err, ioengine.ErrCold, "a file system that can't tell is read by the pool")
}

func TestQueueCostsLittle(t *testing.T) {
	require.LessOrEqual(t, reflect.TypeFor[ConsumeQueue]().Size(), uintptr(200))
}

func TestWriteErrorKeepsEntries(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s", func(o *QueueTableOptions) { o.MaxUnwritten = 100 * UnitSize })
	a, b := mustQueue(t, table, "A", 0), mustQueue(t, table, "B", 0)
	fsys.SetFault(func(op faultfs.Op) error {
		if op.Kind == faultfs.OpWrite && filepath.Base(filepath.Dir(filepath.Dir(op.Name))) == "A" {
			return syscall.ENOSPC
		}
		return nil
	})
	appendRange(a, 0, 170)
	appendRange(b, 0, 10)
	require.ErrorIs(t, table.WriteBack(), syscall.ENOSPC)
	require.EqualValues(t, 170*UnitSize, table.Backlog(), "the other queue is written all the same")
	requireEntries(t, a, 0, 170)
	fsys.SetFault(nil)
	require.NoError(t, table.WriteBack())
	require.Zero(t, table.Backlog())
	appendRange(a, 170, 470)
	require.LessOrEqual(t, table.Backlog(), int64(101*UnitSize), "past the limit the dispatcher writes itself")
	requireEntries(t, a, 0, 470)
}

func TestFailedSyncIsFinal(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	q := mustQueue(t, table, "A", 0)
	appendRange(q, 0, 10)
	require.NoError(t, table.WriteBack())
	fsys.SetFault(func(op faultfs.Op) error {
		if op.Kind == faultfs.OpSync {
			return syscall.EIO
		}
		return nil
	})
	require.ErrorIs(t, table.Sync(), syscall.EIO)
	fsys.SetFault(nil)
	require.ErrorIs(t, table.Sync(), syscall.EIO, "the bytes may be lost: no later sync makes up for it")
	require.ErrorIs(t, table.SaveSnapshot(1000, CheckpointFields{}), syscall.EIO)
}

// Readers, one dispatcher, a flusher and a rewriter at once: every read gives the entries that were appended.
func TestConcurrentReaders(t *testing.T) {
	table := openTable(t, ioengine.OS(), t.TempDir(), func(o *QueueTableOptions) {
		o.FileUnits, o.MaxOpenFiles, o.IdlePasses = 1000, 2, 1
	})
	const queues, total = 3, 20_000
	var done atomic.Bool
	var wg sync.WaitGroup
	all := make([]*ConsumeQueue, queues)
	for i := range all {
		all[i] = mustQueue(t, table, "T", int32(i))
	}
	wg.Go(func() {
		defer done.Store(true)
		for n := int64(0); n < total; n++ {
			for _, q := range all {
				q.Append(n, entryAt(n))
			}
		}
	})
	wg.Go(func() {
		for !done.Load() {
			if err := table.WriteBack(); err != nil {
				t.Error(err)
			}
			q := all[rand.IntN(queues)]
			if end := q.Max(); end > q.Min() {
				n := q.Min() + rand.Int64N(end-q.Min())
				if err := q.Rewrite(n, entryAt(n)); err != nil {
					t.Error(err)
				}
			}
			all[0].TrimBefore(all[0].Max() * 50)
		}
	})
	for i := range 4 {
		wg.Go(func() {
			dst := make([]Entry, 40)
			for !done.Load() {
				q := all[i%queues]
				from, end := q.Min(), q.Max()
				if from == end {
					continue
				}
				if i%2 == 0 {
					from = max(from, end-40)
				} else {
					from += rand.Int64N(end - from)
				}
				n, err := q.ReadWait(from, dst)
				if err != nil {
					t.Error(err)
				}
				for j, e := range dst[:n] {
					if e != entryAt(from+int64(j)) {
						t.Errorf("offset %d: %v", from+int64(j), e)
					}
				}
				if n == 0 && from >= q.Min() {
					t.Errorf("nothing at %d of [%d, %d)", from, q.Min(), q.Max())
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, table.WriteBack())
	for _, q := range all {
		require.EqualValues(t, total, q.Max())
		requireEntries(t, q, q.Min(), total)
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	table := openTable(t, ioengine.OS(), t.TempDir(), func(o *QueueTableOptions) { o.FileUnits = 300_000 })
	q := mustQueue(t, table, "T", 7)
	appendRange(q, 0, 1000)
	require.NoError(t, table.WriteBack())
	next, topic, dst := q.Max(), []byte("T"), make([]Entry, 32)
	require.Zero(t, testing.AllocsPerRun(2000, func() { q.Append(next, entryAt(next)); next++ }), "append")
	require.Zero(t, testing.AllocsPerRun(2000, func() { q.Read(q.Max()-32, dst) }), "read from the tail")
	require.Zero(t, testing.AllocsPerRun(2000, func() { table.Get(topic, 7) }), "get")
	if n, err := q.Read(0, dst); err != nil || n != 32 {
		t.Skipf("reading without waiting: %d, %v", n, err)
	}
	require.Zero(t, testing.AllocsPerRun(2000, func() { q.Read(0, dst) }), "read from the file")
}

func BenchmarkQueueAppend(b *testing.B) {
	table := openTable(b, ioengine.OS(), b.TempDir(), func(o *QueueTableOptions) { o.FileUnits = 300_000 })
	q := mustQueue(b, table, "T", 0)
	b.ReportAllocs()
	for n := range int64(b.N) {
		q.Append(n, entryAt(n))
		if n%100_000 == 99_999 {
			require.NoError(b, table.WriteBack())
		}
	}
}

func benchmarkRead(b *testing.B, from int64) {
	table := openTable(b, ioengine.OS(), b.TempDir(), func(o *QueueTableOptions) { o.FileUnits = 300_000 })
	q := mustQueue(b, table, "T", 0)
	appendRange(q, 0, 10_000)
	require.NoError(b, table.WriteBack())
	dst := make([]Entry, 32)
	b.ReportAllocs()
	for b.Loop() {
		if n, err := q.Read(from, dst); n != 32 || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkQueueRead32Tail(b *testing.B) { benchmarkRead(b, 10_000-40) }
func BenchmarkQueueRead32File(b *testing.B) { benchmarkRead(b, 1000) }

func BenchmarkQueueGet(b *testing.B) {
	table := openTable(b, ioengine.OS(), b.TempDir(), func(o *QueueTableOptions) { o.FileUnits = 300_000 })
	for i := range 1000 {
		mustQueue(b, table, fmt.Sprintf("topic-%d", i), 0)
	}
	topic := []byte("topic-77")
	b.ReportAllocs()
	for b.Loop() {
		if table.Get(topic, 0) == nil {
			b.Fatal()
		}
	}
}

// See ConsumeQueue: Go aligns what has 128 bytes to 128 bytes.
func TestConsumeQueueIsTwoCacheLines(t *testing.T) {
	if strconv.IntSize != 64 {
		t.Skip("laid out for 64 bits")
	}
	q := reflect.TypeFor[ConsumeQueue]()
	require.EqualValues(t, 128, q.Size())
	first, _ := q.FieldByName("lastPhys")
	require.EqualValues(t, 64, first.Offset)
}

func BenchmarkAppendToManyQueues(b *testing.B) {
	table := openTable(b, ioengine.OS(), b.TempDir(), func(o *QueueTableOptions) { o.FileUnits = 300_000 })
	queues := make([]*ConsumeQueue, 100_000)
	for i := range queues {
		queues[i] = mustQueue(b, table, fmt.Sprint("T", i%100), int32(i/100))
	}
	dice := rand.New(rand.NewPCG(1, 2))
	n := int64(0)
	for b.Loop() {
		if n++; n%1_000_000 == 0 {
			b.StopTimer()
			for _, q := range queues {
				if tail := q.tail.Load(); tail != nil {
					q.dropTail(tail)
				}
			}
			b.StartTimer()
		}
		q := queues[dice.IntN(len(queues))]
		q.Append(q.Max(), Entry{PhysicalOffset: n, Size: 100})
	}
}
