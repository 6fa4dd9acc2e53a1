package store

import (
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
)

const (
	testSlots   = 2000
	testEntries = 100
	testEpoch   = int64(1_700_000_000_000)
)

// testClock gives index files names in the order they are made.
func testClock() func() time.Time {
	var n atomic.Int64
	return func() time.Time { return time.UnixMilli(testEpoch + n.Add(1)) }
}

func openIndex(t testing.TB, fsys ioengine.FS, dir string, change ...func(*IndexOptions)) *Index {
	t.Helper()
	o := IndexOptions{FS: fsys, Dir: dir, HashSlots: testSlots, Entries: testEntries, Now: testClock()}
	for _, c := range change {
		c(&o)
	}
	x, err := OpenIndex(o)
	require.NoError(t, err)
	return x
}

// putMessage indexes message n: its unique key, two keys (one that all share) and a tag.
func putMessage(x *Index, n int64) error {
	return x.Put(n*100, testEpoch+n*1000, []byte("T"), fmt.Appendf(nil, "uniq%d", n), fmt.Appendf(nil, "key%d  all", n), []byte("tag"))
}

func mustPut(t testing.TB, x *Index, from, to int64) {
	t.Helper()
	for n := from; n < to; n++ {
		require.NoError(t, putMessage(x, n))
	}
}

func find(t testing.TB, x *Index, key string, maxNum int) []int64 {
	t.Helper()
	phys, _, _, err := x.Query([]byte("T"), []byte(key), maxNum, 0, math.MaxInt64, 0)
	require.NoError(t, err)
	return phys
}

func requireIndexed(t testing.TB, x *Index, from, to int64, msg ...any) {
	t.Helper()
	for n := from; n < to; n++ {
		require.Equal(t, []int64{n * 100}, find(t, x, fmt.Sprint("uniq", n), 10), msg...)
		require.Equal(t, []int64{n * 100}, find(t, x, fmt.Sprint("key", n), 10), msg...)
	}
	all := find(t, x, "all", int(to-from))
	require.Len(t, all, int(to-from), msg...)
	for i, phys := range all {
		require.EqualValues(t, (to-1-int64(i))*100, phys, msg...)
	}
}

func TestIndexAnswers(t *testing.T) {
	onBoth(t, func(t *testing.T, fsys ioengine.FS, root string) {
		x := openIndex(t, fsys, root)
		for step := int64(0); step < 200; step += 20 {
			mustPut(t, x, step, step+20)
			requireIndexed(t, x, 0, step+20)
			require.NoError(t, x.Flush())
		}
		require.EqualValues(t, 19900, x.Progress())
		require.Greater(t, len(x.files), 7, "files roll when they are full")
		require.NoError(t, x.Close())
		require.Error(t, putMessage(x, 200))

		x = openIndex(t, fsys, root)
		require.EqualValues(t, 19900, x.Progress())
		mustPut(t, x, 150, 230) // the log is read again from somewhere before
		requireIndexed(t, x, 0, 230)
		require.NoError(t, x.Close())
	})
}

func TestIndexQueryByTimeTagAndCount(t *testing.T) {
	x := openIndex(t, faultfs.New(), "/i")
	mustPut(t, x, 0, 100)
	ask := func(topic, key string, maxNum int, from, to int64, kind byte) []int64 {
		phys, lastTime, lastPhys, err := x.Query([]byte(topic), []byte(key), maxNum, testEpoch+from*1000, testEpoch+to*1000, kind)
		require.NoError(t, err)
		require.EqualValues(t, testEpoch+99_000, lastTime)
		require.EqualValues(t, 9900, lastPhys)
		return phys
	}
	require.Equal(t, []int64{3200, 3100, 3000}, ask("T", "all", 9, 30, 32, 0), "both ends count")
	require.Equal(t, []int64{9900, 9800}, ask("T", "all", 2, 0, 99, 0), "newest first")
	require.Equal(t, []int64{5000}, ask("T", "tag", 9, 50, 50, IndexTypeTag))
	require.Empty(t, ask("T", "tag", 9, 50, 50, 0), "tags are no keys")
	require.Empty(t, ask("T", "key50", 9, 50, 50, IndexTypeTag))
	require.Empty(t, ask("other", "key50", 9, 0, 99, 0))
	require.Empty(t, ask("T", "key50", 9, 51, 99, 0))
	require.Empty(t, ask("T", "key50", 9, 200, 300, 0))
	require.Empty(t, ask("T", "all", 0, 0, 99, 0))
	phys, _, _, err := openIndex(t, faultfs.New(), "/i").Query([]byte("T"), []byte("k"), 3, 0, 1, 0)
	require.NoError(t, err)
	require.Empty(t, phys)
}

func TestIndexHashOverflow(t *testing.T) {
	require.EqualValues(t, 0, indexHash(math.MinInt32))
	require.EqualValues(t, 5, indexHash(-5))
	require.EqualValues(t, math.MaxInt32, indexHash(math.MaxInt32))
}

func TestIndexFileSizeAndName(t *testing.T) {
	fsys := faultfs.New()
	now := time.Date(2026, 11, 21, 12, 9, 26, 562e6, time.Local)
	x := openIndex(t, fsys, "/i", func(o *IndexOptions) { o.Now = func() time.Time { return now } })
	mustPut(t, x, 0, 60)
	names, err := fsys.ReadDir("/i")
	require.NoError(t, err)
	require.Equal(t, "20261121120926562", names[0].Name())
	require.Equal(t, "20261121120926563", names[1].Name(), "a clock that stands still gives no name twice")
	info, err := fsys.Stat("/i/20261121120926562")
	require.NoError(t, err)
	require.EqualValues(t, 40+testSlots*4+testEntries*20, info.Size())
	require.Equal(t, "20261121120926564", nextIndexName(now.Add(-time.Hour), "20261121120926563"), "nor does one that goes back")
	require.Greater(t, nextIndexName(now, "99999999999999998"), "99999999999999998")
}

func TestIndexTrimAndTruncate(t *testing.T) {
	fsys := faultfs.New()
	x := openIndex(t, fsys, "/i")
	mustPut(t, x, 0, 200)
	require.NoError(t, x.Flush())
	before := len(x.files)
	require.NoError(t, x.TrimBefore(10_000))
	require.Less(t, len(x.files), before)
	require.Empty(t, find(t, x, "key3", 1))
	requireKeys := func(x *Index, from, to int64) {
		for n := from; n < to; n++ {
			require.Equal(t, []int64{n * 100}, find(t, x, fmt.Sprint("key", n), 10))
		}
	}
	requireKeys(x, 100, 200)
	require.NoError(t, x.TrimBefore(math.MaxInt64))
	require.Len(t, x.files, 1, "the last one stays")
	require.NoError(t, x.Close())

	x = openIndex(t, fsys, "/i2")
	mustPut(t, x, 0, 200)
	require.NoError(t, x.Flush())
	require.NoError(t, x.Close())
	for _, cut := range []int64{20000, 19950, 12345, 5000, 100, 0} {
		x = openIndex(t, fsys, "/i2")
		require.NoError(t, x.TruncateBeyond(cut))
		left := (cut + 99) / 100
		require.EqualValues(t, max(left-1, 0)*100, x.Progress(), "cut %d", cut)
		if left > 0 {
			requireIndexed(t, x, 0, min(left, 200))
		}
		require.Empty(t, find(t, x, fmt.Sprint("key", left), 1))
		require.NoError(t, x.Close())
	}
	x = openIndex(t, fsys, "/i2")
	mustPut(t, x, 0, 50)
	requireIndexed(t, x, 0, 50)
}

func TestIndexGivesMemoryBack(t *testing.T) {
	x := openIndex(t, faultfs.New(), "/i")
	mustPut(t, x, 0, 10)
	require.NoError(t, x.Flush())
	require.NotNil(t, x.files[0].pages)
	for range idleFlushes {
		require.NoError(t, x.Flush())
	}
	require.Nil(t, x.files[0].pages)
	require.Nil(t, x.files[0].buf)
	requireIndexed(t, x, 0, 10)
	mustPut(t, x, 10, 60)
	requireIndexed(t, x, 0, 60)
}

func TestIndexDamage(t *testing.T) {
	build := func(t *testing.T) (*faultfs.FS, []string) {
		fsys := faultfs.New()
		x := openIndex(t, fsys, "/i")
		mustPut(t, x, 0, 60)
		require.NoError(t, x.Close())
		var names []string
		for _, f := range x.files {
			names = append(names, f.name)
		}
		require.Len(t, names, 3)
		return fsys, names
	}
	for name, harm := range map[string]func(t *testing.T, fsys *faultfs.FS, file string){
		"count": func(t *testing.T, fsys *faultfs.FS, file string) { require.NoError(t, fsys.Flip(file, 36, 7)) },
		"too many": func(t *testing.T, fsys *faultfs.FS, file string) {
			require.NoError(t, fsys.Mangle(file, 36, []byte{0, 0, 1, 0}))
		},
		"slots":      func(t *testing.T, fsys *faultfs.FS, file string) { require.NoError(t, fsys.Flip(file, 33, 2)) },
		"offset":     func(t *testing.T, fsys *faultfs.FS, file string) { require.NoError(t, fsys.Flip(file, 24, 7)) },
		"last entry": func(t *testing.T, fsys *faultfs.FS, file string) { require.NoError(t, fsys.Flip(file, 31, 0)) },
		"short": func(t *testing.T, fsys *faultfs.FS, file string) {
			f, err := fsys.Open(file, 2, 0)
			require.NoError(t, err)
			require.NoError(t, f.Truncate(100))
		},
	} {
		t.Run(name, func(t *testing.T) {
			fsys, names := build(t)
			harm(t, fsys, names[2])
			x := openIndex(t, fsys, "/i")
			require.Len(t, x.files, 2)
			require.Less(t, x.Progress(), int64(5900), "the log is read again from what is left")
			mustPut(t, x, x.Progress()/100, 60)
			requireIndexed(t, x, 0, 60)
		})
	}
	t.Run("old file", func(t *testing.T) {
		fsys, names := build(t)
		require.NoError(t, fsys.Flip(names[1], 36, 7))
		x := openIndex(t, fsys, "/i")
		require.EqualValues(t, 5900, x.Progress())
		require.Equal(t, []int64{100}, find(t, x, "key1", 1))
		require.Equal(t, []int64{5800}, find(t, x, "key58", 1))
	})
	t.Run("chain that turns back", func(t *testing.T) {
		fsys, names := build(t)
		b := make([]byte, 4)
		binary.BigEndian.PutUint32(b, testEntries-1)
		for n := range int64(testEntries) {
			require.NoError(t, fsys.Mangle(names[0], 40+testSlots*4+n*20+16, b))
		}
		x := openIndex(t, fsys, "/i")
		find(t, x, "all", 1000)
		for n := range 25 {
			find(t, x, fmt.Sprint("key", n), 10)
		}
	})
	t.Run("java's unflushed file", func(t *testing.T) {
		fsys, _ := build(t)
		x := openIndex(t, fsys, "/i", func(o *IndexOptions) { o.DropAfter = testEpoch + 30_000 })
		require.Len(t, x.files, 1)
		mustPut(t, x, x.Progress()/100, 60)
		requireIndexed(t, x, 0, 60)
	})
}

func TestIndexGoesOnAfterAnError(t *testing.T) {
	fsys := faultfs.New()
	x := openIndex(t, fsys, "/i")
	full := false
	fsys.SetFault(func(op faultfs.Op) error {
		if full && (op.Kind == faultfs.OpWrite || op.Kind == faultfs.OpCreate) {
			return syscall.ENOSPC
		}
		return nil
	})
	for n := int64(0); n < 100; n++ {
		full = n%7 == 3
		err := putMessage(x, n)
		if n%7 == 4 {
			require.NoError(t, err)
		}
		if err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC)
			full = false
			require.NoError(t, putMessage(x, n), "the same message again")
		}
	}
	requireIndexed(t, x, 0, 100)
	full = true
	require.ErrorIs(t, x.Flush(), syscall.ENOSPC)
	full = false
	require.NoError(t, x.Flush())
	x = openIndex(t, fsys.Crash(1, faultfs.LoseAll), "/i")
	requireIndexed(t, x, 0, 100)
}

// A crash at any operation: what was flushed is there, and after the log was read again from Progress all is, once.
func TestIndexCrash(t *testing.T) {
	const total = 120
	life := func(fsys *faultfs.FS, flushed *int64) {
		x := openIndex(t, fsys, "/i")
		for n := int64(0); n < total; n++ {
			require.NoError(t, putMessage(x, n))
			if n%13 == 12 {
				require.NoError(t, x.Flush())
				*flushed = n + 1
			}
		}
	}
	var flushed int64
	dry := faultfs.New()
	life(dry, &flushed)
	for _, mode := range []faultfs.CrashMode{faultfs.KeepAll, faultfs.LoseAll, faultfs.Random, faultfs.Torn} {
		for at := int64(1); at <= dry.Count(); at += 2 {
			msg := fmt.Sprintf("%s at operation %d", mode, at)
			fsys := faultfs.New()
			var crashed *faultfs.FS
			var safe int64
			flushed = 0
			fsys.SetFault(func(op faultfs.Op) error {
				if op.N == at {
					crashed, safe = fsys.Crash(at, mode), flushed
				}
				return nil
			})
			life(fsys, &flushed)
			x := openIndex(t, crashed, "/i")
			for n := range safe {
				require.Equal(t, []int64{n * 100}, find(t, x, fmt.Sprint("key", n), 10), msg)
			}
			if safe > 0 {
				require.GreaterOrEqual(t, x.Progress(), (safe-1)*100, msg)
			}
			for n := x.Progress() / 100; n < total; n++ {
				require.NoError(t, putMessage(x, n), msg)
			}
			requireIndexed(t, x, 0, total, msg)
			require.NoError(t, x.Close())
		}
	}
}

func TestIndexConcurrentQueries(t *testing.T) {
	x := openIndex(t, ioengine.OS(), t.TempDir())
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		defer done.Store(true)
		for n := int64(0); n < 2000; n++ {
			if err := putMessage(x, n); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for !done.Load() {
			if err := x.Flush(); err != nil {
				t.Error(err)
			}
			if err := x.TrimBefore(x.Progress() - 50_000); err != nil {
				t.Error(err)
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			for !done.Load() {
				n := x.Progress()/100 - 1
				if n < 0 {
					continue
				}
				phys, _, _, err := x.Query([]byte("T"), fmt.Appendf(nil, "uniq%d", n), 10, 0, math.MaxInt64, 0)
				if err != nil || len(phys) != 1 || phys[0] != n*100 {
					t.Errorf("message %d: %v, %v", n, phys, err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, x.Close())
}

func TestIndexPutAllocatesNothing(t *testing.T) {
	x := openIndex(t, ioengine.OS(), t.TempDir(), func(o *IndexOptions) { o.HashSlots, o.Entries = 100, 1_000_000 })
	n := int64(0)
	topic, uniq, keys, tags := []byte("T"), []byte("uniq"), []byte("a b"), []byte("tag")
	put := func() {
		n++
		if err := x.Put(n*100, testEpoch+n, topic, uniq, keys, tags); err != nil {
			t.Fatal(err)
		}
	}
	for range 20_000 {
		put()
	}
	require.Zero(t, testing.AllocsPerRun(2000, put))
}

// FuzzIndexFile: whatever an index file holds, opening, asking, putting and closing neither panics nor runs for ever.
func FuzzIndexFile(f *testing.F) {
	fsys := faultfs.New()
	x := openIndex(f, fsys, "/i", func(o *IndexOptions) { o.HashSlots, o.Entries = 7, 60 })
	mustPut(f, x, 0, 12)
	require.NoError(f, x.Close())
	b, err := fsys.ReadFile(x.files[0].name)
	require.NoError(f, err)
	f.Add(b)
	f.Add(make([]byte, len(b)))
	f.Fuzz(func(t *testing.T, b []byte) {
		fsys := faultfs.New()
		require.NoError(t, fsys.MkdirAll("/i", 0o755))
		require.NoError(t, ioengine.WriteFileAtomic(fsys, "/i/20260101000000000", b))
		x := openIndex(t, fsys, "/i", func(o *IndexOptions) { o.HashSlots, o.Entries = 7, 60 })
		for _, key := range []string{"all", "key3", "uniq7"} {
			_, _, _, err := x.Query([]byte("T"), []byte(key), 100, 0, math.MaxInt64, 0)
			require.NoError(t, err)
		}
		from := x.Progress()/100 + 1
		if from < math.MaxInt64/1000-30 {
			mustPut(t, x, from, from+20)
			require.Equal(t, []int64{(from + 19) * 100}, find(t, x, fmt.Sprint("uniq", from+19), 1))
		}
		require.NoError(t, x.TruncateBeyond(1000))
		require.NoError(t, x.Close())
	})
}

func BenchmarkIndexPut(b *testing.B) {
	x := openIndex(b, ioengine.OS(), b.TempDir(), func(o *IndexOptions) { o.HashSlots, o.Entries = 5_000_000, 20_000_000 })
	topic, uniq, tags := []byte("some-topic"), []byte("7F00000100002A9F0000000000000000"), []byte("tag")
	b.ReportAllocs()
	for n := range int64(b.N) {
		binary.BigEndian.PutUint64(uniq, uint64(n))
		if err := x.Put(n*100, testEpoch+n, topic, uniq, nil, tags); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	require.NoError(b, x.Close())
}

func TestIndexLeavesUnknownFilesAlone(t *testing.T) {
	fsys := faultfs.New()
	require.NoError(t, fsys.MkdirAll("/i", 0o755))
	for _, name := range []string{"readme", "2026112112092656", "2026112112092656x"} {
		require.False(t, isIndexName(name))
		require.NoError(t, ioengine.WriteFileAtomic(fsys, filepath.Join("/i", name), []byte("x")))
	}
	require.True(t, isIndexName(strings.Repeat("1", 17)))
	openIndex(t, fsys, "/i")
	names, err := fsys.ReadDir("/i")
	require.NoError(t, err)
	require.Len(t, names, 3)
	for _, o := range []IndexOptions{{HashSlots: -1}, {Entries: 1}, {HashSlots: math.MaxInt32}, {Entries: math.MaxInt32}} {
		o.FS, o.Dir = fsys, "/i"
		_, err := OpenIndex(o)
		require.ErrorContains(t, err, "maxIndexNum")
	}
}

// A key can be asked for as soon as its message is acknowledged: a query does not wait for the index goroutine's next look.
func TestQueryFindsWhatWasJustStored(t *testing.T) {
	s := openStore(t, testOptions(faultfs.New(), "store"))
	p := &producer{s: s}
	for range 200 {
		last := p.send(t, 10)
		found, err := s.QueryByKey([]byte(last.topic), []byte(last.key), 10, 0, math.MaxInt64, 0)
		require.NoError(t, err)
		require.NotEmpty(t, found.Offsets, "the message with the key %s", last.key)
	}
	require.NoError(t, s.Close())
}
