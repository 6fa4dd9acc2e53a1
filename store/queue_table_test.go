package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
)

func TestTableFindsWhatWasMade(t *testing.T) {
	table := openTable(t, faultfs.New(), "/s")
	for _, id := range []int32{5, 0, 65535, 3, 1} {
		mustQueue(t, table, "T", id)
	}
	for _, id := range []int32{0, 1, 3, 5, 65535} {
		require.Equal(t, id, table.Get([]byte("T"), id).QueueID)
		require.Same(t, table.Get([]byte("T"), id), mustQueue(t, table, "T", id))
	}
	for _, id := range []int32{-1, 2, 4, 65536} {
		require.Nil(t, table.Get([]byte("T"), id))
	}
	require.Nil(t, table.Get([]byte("other"), 0))
	var ids []int32
	for _, q := range table.Queues([]byte("T")) {
		ids = append(ids, q.QueueID)
	}
	require.Equal(t, []int32{0, 1, 3, 5, 65535}, ids)
}

func TestTableRefuses(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s", func(o *QueueTableOptions) { o.MaxTopics = 2 })
	for _, name := range []string{"", ".", "..", "a/b", "../x", `a\b`, "a\x00b", "a\nb", string(make([]byte, 256))} {
		_, err := table.GetOrCreate(name, 0)
		require.Error(t, err, "%q", name)
		require.Error(t, table.Delete(name), "%q", name)
	}
	for _, id := range []int32{-1, MaxQueueID + 1} {
		_, err := table.GetOrCreate("T", id)
		require.Error(t, err)
	}
	mustQueue(t, table, "a", 0)
	mustQueue(t, table, "%RETRY%g", 0)
	_, err := table.GetOrCreate("c", 0)
	require.ErrorContains(t, err, "2 topics")
	require.NoError(t, table.Delete("a"))
	mustQueue(t, table, "c", 0)
	_, err = NewQueueTable(QueueTableOptions{FS: fsys, Root: "/s", FileUnits: maxFileUnits + 1})
	require.ErrorContains(t, err, "mappedFileSizeConsumeQueue")
}

func TestDeleteTopic(t *testing.T) {
	onBoth(t, func(t *testing.T, fsys ioengine.FS, root string) {
		table := openTable(t, fsys, root)
		gone, stays := mustQueue(t, table, "gone", 0), mustQueue(t, table, "stays", 0)
		appendRange(gone, 0, 70)
		appendRange(stays, 0, 70)
		require.NoError(t, table.WriteBack())
		appendRange(gone, 70, 80)
		require.NoError(t, table.Delete("gone"))
		require.NoError(t, table.Delete("gone"), "again is harmless")
		require.Nil(t, table.Get([]byte("gone"), 0))
		gone.Append(80, entryAt(80))
		require.NoError(t, table.WriteBack())
		n, err := gone.ReadWait(0, make([]Entry, 1))
		require.NoError(t, err, "a pull that still holds the queue finds nothing, and no damage")
		require.Zero(t, n)
		anew := mustQueue(t, table, "gone", 0)
		appendRange(anew, 0, 5)
		require.NoError(t, table.WriteBack())
		require.NoError(t, table.Sync())
		require.Zero(t, table.Backlog())
		table.Close()
		left, err := fsys.ReadDir(filepath.Join(root, "consumequeue.deleted"))
		require.NoError(t, err)
		require.Empty(t, left)
		requireEntries(t, scanTable(t, fsys, root).Get([]byte("gone"), 0), 0, 5)
	})
}

func TestOpenFilesAreBounded(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s", func(o *QueueTableOptions) { o.MaxOpenFiles = 4 })
	var all []*ConsumeQueue
	for i := range 10 {
		q := mustQueue(t, table, fmt.Sprint("T", i), 0)
		appendRange(q, 0, 120)
		all = append(all, q)
	}
	require.NoError(t, table.WriteBack())
	for range 2 {
		for _, q := range all {
			requireEntries(t, q, 0, 120)
			require.LessOrEqual(t, len(table.files.open), 4)
		}
	}
	inUse, err := table.files.acquire(all[0], 0, true)
	require.NoError(t, err)
	for _, q := range all {
		requireEntries(t, q, 0, 120)
	}
	_, err = inUse.f.Size()
	require.NoError(t, err, "a file in use stays open")
	inUse.release()
}

func TestLoadScan(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	end, err := table.LoadScan(context.Background())
	require.NoError(t, err)
	require.Zero(t, end, "no folder yet")
	for i := range int32(40) {
		appendRange(mustQueue(t, table, "T", i), int64(i), int64(i)*7+1)
	}
	require.NoError(t, table.WriteBack())
	// The next file, made in advance; what else may lie around.
	for _, name := range []string{"T/3/00000000000000001000", "T/3/x", "T/3/00000000000000000007", "stray"} {
		f, err := fsys.Open("/s/consumequeue/"+name, 0x42, 0o644)
		require.NoError(t, err)
		require.NoError(t, f.Truncate(testUnits*UnitSize))
	}
	require.NoError(t, fsys.MkdirAll("/s/consumequeue/T/nan", 0o755))

	table = openTable(t, fsys, "/s")
	end, err = table.LoadScan(context.Background())
	require.NoError(t, err)
	require.EqualValues(t, 39*7*100+100, end)
	require.Len(t, table.Queues([]byte("T")), 40)
	for i := range int32(40) {
		q := table.Get([]byte("T"), i)
		require.EqualValues(t, i, q.Min())
		require.EqualValues(t, i*7+1, q.Max())
		requireEntries(t, q, int64(i), q.Max())
	}
	f, err := fsys.Open("/s/consumequeue/T/9/00000000000000000000", 2, 0)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(testUnits*UnitSize+1))
	_, err = openTable(t, fsys, "/s").LoadScan(context.Background())
	require.ErrorContains(t, err, "mappedFileSizeConsumeQueue")
}

func TestTruncateBeyond(t *testing.T) {
	onBoth(t, func(t *testing.T, fsys ioengine.FS, root string) {
		table := openTable(t, fsys, root)
		appendRange(mustQueue(t, table, "T", 0), 0, 130)
		appendRange(mustQueue(t, table, "T", 1), 0, 20)
		hole := mustQueue(t, table, "T", 2)
		appendRange(hole, 0, 20)
		appendRange(hole, 100, 120)
		require.NoError(t, table.WriteBack())

		table = scanTable(t, fsys, root, func(o *QueueTableOptions) { o.LogEnd = func() int64 { return 6000 } })
		require.NoError(t, table.TruncateBeyond(6000))
		table.background.Wait()
		for id, want := range []int64{60, 20, 20} {
			q := table.Get([]byte("T"), int32(id))
			require.Equal(t, want, q.Max(), "queue %d", id)
			require.Equal(t, want, q.Next)
			requireEntries(t, q, 0, want)
		}
		q := table.Get([]byte("T"), 0)
		require.EqualValues(t, 60, q.Max())
		appendRange(q, 60, 62)
		require.NoError(t, table.WriteBack())
		q = scanTable(t, fsys, root).Get([]byte("T"), 0)
		require.EqualValues(t, 62, q.Max(), "nothing of the lost messages is left in the files")
		requireEntries(t, q, 0, 62)
	})
}

// A snapshot start does not see entries behind the snapshot; a torn log must not leave them in the files.
func TestStaleUnitsAreCleared(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	q := mustQueue(t, table, "T", 0)
	appendRange(q, 0, 30)
	stamp := CheckpointFields{PhysicMsgTimestamp: 7}
	require.NoError(t, table.SaveSnapshot(3000, stamp))
	appendRange(q, 30, 140)
	require.NoError(t, table.WriteBack())

	table = openTable(t, fsys.Kill(), "/s")
	at, err := table.LoadSnapshot(stamp)
	require.NoError(t, err)
	require.EqualValues(t, 3000, at)
	q = table.Get([]byte("T"), 0)
	require.EqualValues(t, 30, q.Max())
	appendRange(q, 30, 35)
	require.NoError(t, table.TruncateBeyond(3500))
	table.background.Wait()
	q = scanTable(t, table.fs, "/s").Get([]byte("T"), 0)
	require.EqualValues(t, 35, q.Max())
	requireEntries(t, q, 0, 35)
}

// syncingFS counts the syncs of a whole file system.
type syncingFS struct {
	*faultfs.FS
	whole int
	fails error
}

func (s *syncingFS) OpenVolume(string) (ioengine.Volume, error) { return s, nil }
func (s *syncingFS) Sync() error                                { s.whole++; return s.fails }
func (s *syncingFS) Close() error                               { return nil }

func TestManyDirtyFilesAreSyncedAtOnce(t *testing.T) {
	fsys := &syncingFS{FS: faultfs.New()}
	table := openTable(t, fsys, "/s")
	for i := range int32(manyDirty + 1) {
		mustQueue(t, table, "T", i).Append(0, entryAt(0))
	}
	require.NoError(t, table.WriteBack())
	require.NoError(t, table.Sync())
	require.Equal(t, 1, fsys.whole)
	mustQueue(t, table, "T", 0).Append(1, entryAt(1))
	require.NoError(t, table.WriteBack())
	require.NoError(t, table.Sync())
	require.Equal(t, 1, fsys.whole, "few files are synced one by one")
	synced := 0
	for _, op := range fsys.Ops() {
		if op.Kind == faultfs.OpSync {
			synced++
		}
	}
	require.Equal(t, 1, synced)
	for i := range int32(manyDirty + 1) {
		mustQueue(t, table, "T", i).Append(2, entryAt(2))
	}
	require.NoError(t, table.WriteBack())
	fsys.fails = errors.New("the disk is gone")
	require.ErrorIs(t, table.Sync(), fsys.fails)
	fsys.fails = nil
	require.Error(t, table.Sync(), "what a sync that failed lost stays lost")
}

// Names of new folders and files are durable after a Sync, whoever made them: a process that was killed before its Sync, too.
func TestSyncMakesNamesDurable(t *testing.T) {
	for _, killed := range []bool{false, true} {
		fsys := faultfs.New()
		table := openTable(t, fsys, "/s")
		write := func() {
			for i := range int32(3) {
				mustQueue(t, table, "T", i).Append(0, entryAt(0))
			}
			require.NoError(t, table.WriteBack())
		}
		write()
		require.Empty(t, lsAfterCrash(t, fsys), "nothing is synced by writing")
		if killed {
			fsys = fsys.Kill()
			table = openTable(t, fsys, "/s")
			write()
		}
		require.NoError(t, table.Sync())
		require.Len(t, lsAfterCrash(t, fsys), 3, "killed %t", killed)
	}
}

// lsAfterCrash lists the queue folders with a file that a loss of power leaves.
func lsAfterCrash(t *testing.T, fsys *faultfs.FS) (found []string) {
	t.Helper()
	left := fsys.Crash(0, faultfs.LoseAll)
	queues, _ := left.ReadDir("/s/consumequeue/T")
	for _, q := range queues {
		if files, _ := left.ReadDir("/s/consumequeue/T/" + q.Name()); len(files) > 0 {
			found = append(found, q.Name())
		}
	}
	return found
}

// The whole life under power loss: work, snapshots, a crash at a random operation, a start as the store does it. After
// the log was read again from where the start said, every queue is as it was told to be.
func TestCrash(t *testing.T) {
	for _, mode := range []faultfs.CrashMode{faultfs.KeepAll, faultfs.LoseAll, faultfs.Random, faultfs.Torn} {
		t.Run(mode.String(), func(t *testing.T) {
			for seed := range int64(25) {
				crashOnce(t, seed, mode)
			}
		})
	}
}

func crashOnce(t *testing.T, seed int64, mode faultfs.CrashMode) {
	const queues, total = 3, 400
	fsys := faultfs.New()
	life := func(fsys *faultfs.FS) {
		table := openTable(t, fsys, "/s")
		cp, err := OpenCheckpoint(fsys, "/s", table.log)
		require.NoError(t, err)
		for n := int64(0); n < total; n++ {
			for id := range int32(queues) {
				mustQueue(t, table, "T", id).Append(n, entryAt(n*queues+int64(id)))
			}
			if n%17 == 0 {
				require.NoError(t, table.WriteBack())
			}
			if n%50 == 49 {
				next := CheckpointFields{PhysicMsgTimestamp: n, LogicsPhysicalOffset: (n + 1) * queues * 100}
				require.NoError(t, table.SaveSnapshot(next.LogicsPhysicalOffset, next))
				require.NoError(t, cp.Save(next))
			}
		}
	}
	dry := faultfs.New()
	life(dry)
	at := 1 + (seed*7919)%dry.Count()
	var crashed *faultfs.FS
	fsys.SetFault(func(op faultfs.Op) error {
		if op.N == at {
			crashed = fsys.Crash(seed, mode)
		}
		return nil
	})
	life(fsys)
	require.NotNil(t, crashed)
	restart(t, crashed, queues, total, fmt.Sprintf("%s seed %d operation %d", mode, seed, at))
}

func restart(t *testing.T, fsys *faultfs.FS, queues, total int64, msg string) {
	damaged := map[int32]int64{}
	table := openTable(t, fsys, "/s", func(o *QueueTableOptions) {
		o.OnDamage = func(_ string, id int32, from int64) { damaged[id] = from }
	})
	cp, err := OpenCheckpoint(fsys, "/s", table.log)
	require.NoError(t, err)
	fields, known := cp.Load()
	from := int64(0)
	if known {
		from, err = table.LoadSnapshot(fields)
		require.NoError(t, err, msg)
	} else {
		_, err = table.LoadScan(context.Background())
		require.NoError(t, err, msg)
	}
	put := func(i int64) (int32, int64, Entry) { return int32(i % queues), i / queues, entryAt(i) }
	for i := from / 100; i < total*queues; i++ {
		id, n, e := put(i)
		mustQueue(t, table, "T", id).Append(n, e)
	}
	require.NoError(t, table.TruncateBeyond(total*queues*100))
	table.background.Wait()
	for id := range int32(queues) {
		q := table.Get([]byte("T"), id)
		require.EqualValues(t, total, q.Max(), msg)
		for n := q.Min(); n < q.Max(); n++ {
			var one [1]Entry
			if _, err := q.ReadWait(n, one[:]); err != nil {
				require.ErrorIs(t, err, ErrDamaged, msg)
				require.False(t, known, "%s: what a snapshot tells is whole", msg)
				for m := damaged[id]; m < q.Max(); m++ {
					require.NoError(t, q.Rewrite(m, entryAt(m*queues+int64(id))))
				}
				q.EndRewrite()
				_, err = q.ReadWait(n, one[:])
				require.NoError(t, err, msg)
			}
			require.Equal(t, entryAt(n*queues+int64(id)), one[0], msg)
		}
	}
}

func TestAllVisitsEveryQueue(t *testing.T) {
	table := openTable(t, faultfs.New(), "/s")
	want := map[string]bool{}
	for i := range 300 {
		q := mustQueue(t, table, fmt.Sprint("T", i), int32(i%3))
		want[fmt.Sprint(q.Topic, q.QueueID)] = true
	}
	got := map[string]bool{}
	table.All(func(q *ConsumeQueue) { got[fmt.Sprint(q.Topic, q.QueueID)] = true })
	require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
}

func manyQueues(b *testing.B, topics int) (root string, stamp CheckpointFields) {
	root, stamp = b.TempDir(), CheckpointFields{PhysicMsgTimestamp: 1}
	table := openTable(b, ioengine.OS(), root)
	for i := range topics {
		for id := range int32(8) {
			q := mustQueue(b, table, fmt.Sprintf("topic-%06d", i), id)
			q.min.Store(5)
			q.max.Store(1000)
		}
	}
	require.NoError(b, table.SaveSnapshot(1<<30, stamp))
	return root, stamp
}

func BenchmarkLoadSnapshot100kQueues(b *testing.B) {
	root, stamp := manyQueues(b, 12_500)
	b.ReportAllocs()
	for b.Loop() {
		_, err := openTable(b, ioengine.OS(), root).LoadSnapshot(stamp)
		require.NoError(b, err)
	}
}

func BenchmarkSaveSnapshot100kQueues(b *testing.B) {
	root, stamp := manyQueues(b, 12_500)
	table := openTable(b, ioengine.OS(), root)
	_, err := table.LoadSnapshot(stamp)
	require.NoError(b, err)
	for b.Loop() {
		require.NoError(b, table.SaveSnapshot(1<<30, stamp))
	}
}

func BenchmarkLoadScan1000Queues(b *testing.B) {
	root := b.TempDir()
	table := openTable(b, ioengine.OS(), root, func(o *QueueTableOptions) { o.FileUnits = 300_000 })
	for id := range int32(1000) {
		appendRange(mustQueue(b, table, "T", id), 0, 100)
	}
	require.NoError(b, table.WriteBack())
	for b.Loop() {
		scanTable(b, ioengine.OS(), root, func(o *QueueTableOptions) { o.FileUnits = 300_000 })
	}
}

// volumesFS notes which folder's file system is held open.
type volumesFS struct {
	ioengine.FS
	opened string
}

type noVolume struct{}

func (noVolume) Sync() error  { return nil }
func (noVolume) Close() error { return nil }

func (f *volumesFS) OpenVolume(dir string) (ioengine.Volume, error) {
	if _, err := f.Stat(dir); err != nil {
		return nil, err
	}
	f.opened = dir
	return noVolume{}, nil
}

// The queues' folder may be a mount of its own: it is that one's file system that is synced.
func TestVolumeIsTheQueuesOwn(t *testing.T) {
	for _, there := range []bool{false, true} {
		fsys, root := &volumesFS{FS: ioengine.OS()}, t.TempDir()
		want := root
		if there {
			want = filepath.Join(root, "consumequeue")
			require.NoError(t, fsys.MkdirAll(want, 0o755))
		}
		table, err := NewQueueTable(QueueTableOptions{FS: fsys, Root: root})
		require.NoError(t, err)
		require.Equal(t, want, fsys.opened)
		require.NoError(t, table.Close())
	}
}
