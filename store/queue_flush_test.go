package store

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine/faultfs"
)

// queueOps counts what was done to queue files and their folders.
func queueOps(fsys *faultfs.FS) (n int) {
	for _, op := range fsys.Ops() {
		if strings.Contains(op.Name, "consumequeue/") {
			n++
		}
	}
	return n
}

// manySmall gives many queues a few entries each: entry n of queue i is message i*each+n of the log.
func manySmall(t testing.TB, table *QueueTable, queues, each int64) []*ConsumeQueue {
	t.Helper()
	list := make([]*ConsumeQueue, queues)
	for i := range list {
		list[i] = mustQueue(t, table, fmt.Sprintf("T%d", i/8), int32(i%8))
		for n := range each {
			list[i].Append(n, entryAt(int64(i)*each+n))
		}
	}
	return list
}

func requireSmall(t testing.TB, table *QueueTable, queues, each int64) {
	t.Helper()
	for i := range queues {
		q := table.Get(fmt.Appendf(nil, "T%d", i/8), int32(i%8))
		require.Equal(t, each, q.Max())
		for n, e := range readAll(t, q, 0, each) {
			require.Equal(t, entryAt(i*each+int64(n)), e, "queue %d", i)
		}
	}
}

// A checkpoint of many queues with a few entries each touches no file of theirs, and neither does a start from it.
func TestSnapshotCarriesWhatIsInNoFile(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	const queues, each, end = 3000, 5, 3000 * 5 * 100
	list := manySmall(t, table, queues, each)
	list[7].Append(each, entryAt(end/100)) // behind the checkpoint
	stamp := CheckpointFields{PhysicMsgTimestamp: 1}
	require.Zero(t, table.InFiles(end))
	require.NoError(t, table.SaveSnapshot(end, stamp))
	require.Zero(t, queueOps(fsys))

	fsys = fsys.Crash(1, faultfs.LoseAll)
	table = openTable(t, fsys, "/s")
	at, err := table.LoadSnapshot(stamp)
	require.NoError(t, err)
	require.EqualValues(t, end, at)
	require.NoError(t, table.CutFrom(at))
	requireSmall(t, table, queues, each)
	table.All(func(q *ConsumeQueue) { require.Equal(t, q.Max(), q.Next) })
	require.Zero(t, queueOps(fsys))
	require.EqualValues(t, queues*each*UnitSize, table.Backlog())

	// What the snapshot brought is written like what was appended.
	require.NoError(t, table.WriteBack())
	require.Zero(t, table.Backlog())
	require.EqualValues(t, end, table.InFiles(end))
	requireSmall(t, scanTable(t, fsys, "/s"), queues, each)
}

// The first part of a queue in the files, the rest in the snapshot, over several chunks and files.
func TestSnapshotContinuesTheFiles(t *testing.T) {
	for _, inFiles := range []int64{1, 50, 77} {
		fsys := faultfs.New()
		table := openTable(t, fsys, "/s")
		q := mustQueue(t, table, "T", 0)
		appendRange(q, 0, inFiles)
		require.NoError(t, table.WriteBack())
		appendRange(q, inFiles, 400)
		stamp := CheckpointFields{PhysicMsgTimestamp: 1}
		require.Equal(t, inFiles*100, table.InFiles(30_000))
		require.NoError(t, table.SaveSnapshot(30_000, stamp))

		table = openTable(t, fsys.Crash(1, faultfs.LoseAll), "/s")
		at, err := table.LoadSnapshot(stamp)
		require.NoError(t, err)
		require.NoError(t, table.CutFrom(at))
		q = table.Get([]byte("T"), 0)
		require.EqualValues(t, 300, q.Max(), "what lies behind the checkpoint comes from the log")
		requireEntries(t, q, 0, 300)
		appendRange(q, 300, 420)
		requireEntries(t, q, 0, 420)
		require.NoError(t, table.SaveSnapshot(42_000, stamp))
		again := openTable(t, table.fs, "/s")
		_, err = again.LoadSnapshot(stamp)
		require.NoError(t, err)
		requireEntries(t, again.Get([]byte("T"), 0), 0, 420)
		require.NoError(t, table.WriteBack())
		requireEntries(t, scanTable(t, table.fs, "/s").Get([]byte("T"), 0), 0, 420)
	}
}

// Entries wait for others of their queue, but not for ever, and not all at once.
func TestWriteBackDue(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s", func(o *QueueTableOptions) { o.FileUnits, o.IdlePasses, o.MaxPass = 1000, 3, time.Hour })
	const queues = 2*lateWrites + 10
	manySmall(t, table, queues, 2)
	appendRange(mustQueue(t, table, "busy", 0), 0, dueUnits)
	require.NoError(t, table.WriteBackDue())
	require.Len(t, table.dirty, 1, "only the queue with a chunk of entries is due")
	for range duePasses - 1 {
		require.NoError(t, table.WriteBackDue())
	}
	require.Len(t, table.dirty, 1)
	for _, written := range []int{1 + lateWrites, 1 + 2*lateWrites, 1 + queues} {
		require.NoError(t, table.WriteBackDue())
		require.Len(t, table.dirty, written)
	}
	require.Zero(t, table.Backlog())
	requireSmall(t, table, queues, 2)
	for range 4 {
		require.NoError(t, table.WriteBackDue())
	}
	require.Zero(t, table.held.Load(), "idle queues hold no memory")
	require.Empty(t, table.active)
	requireSmall(t, scanTable(t, fsys, "/s", func(o *QueueTableOptions) { o.FileUnits = 1000 }), queues, 2)
}

// A pass whose time is over leaves what can wait to the next one, but not a queue with a chunk of entries.
func TestPassIsBounded(t *testing.T) {
	table := openTable(t, faultfs.New(), "/s", func(o *QueueTableOptions) { o.MaxHeld, o.MaxPass = 100*pressedUnits*UnitSize, 1 })
	manySmall(t, table, 110, pressedUnits)
	appendRange(mustQueue(t, table, "busy", 0), 0, dueUnits)
	require.NoError(t, table.WriteBackDue())
	for key := range table.dirty {
		require.Equal(t, "busy", key.q.Topic)
	}
	require.NotEmpty(t, table.dirty)
	manySmall(t, table, 100, 3*pressedUnits) // as much again: now memory counts more than time
	require.NoError(t, table.WriteBackDue())
	require.LessOrEqual(t, table.held.Load(), int64(100*pressedUnits*UnitSize))
}

// Past MaxHeld memory is given back, fuller queues first, whatever their number.
func TestMemoryOfManyQueuesIsBounded(t *testing.T) {
	fsys := faultfs.New()
	const most = 64 * firstChunkUnits * UnitSize
	table := openTable(t, fsys, "/s", func(o *QueueTableOptions) { o.MaxHeld, o.MaxPass = most, time.Hour })
	manySmall(t, table, 60, 1)
	require.NoError(t, table.WriteBackDue())
	require.Empty(t, table.dirty, "below the limit nothing is written early")
	full := mustQueue(t, table, "full", 0)
	appendRange(full, 0, pressedUnits)
	for id := range int32(10) {
		mustQueue(t, table, "small", id).Append(0, entryAt(0))
	}
	require.NoError(t, table.WriteBackDue())
	require.LessOrEqual(t, table.held.Load(), int64(most))
	require.Nil(t, full.tail.Load(), "the fuller queue went first")
	for round := range int64(40) {
		for i := range int64(500) {
			q := mustQueue(t, table, fmt.Sprintf("U%d", i), 0)
			q.Append(round, entryAt(round))
		}
		require.NoError(t, table.WriteBackDue())
		require.LessOrEqual(t, table.held.Load(), int64(most))
	}
	for i := range int64(500) {
		requireEntries(t, mustQueue(t, table, fmt.Sprintf("U%d", i), 0), 0, 40)
	}
}

// Whoever goes by the checkpoint alone, as the Java broker does, is told to read the log from the first message that is in no queue file.
func TestCheckpointForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, testOptions(faultfs.New(), "store"))
		p := &producer{s: s}
		first := time.Now().UnixMilli()
		p.send(t, 100)
		require.NoError(t, s.queues.WriteBack())
		<-time.After(time.Second)
		second := time.Now().UnixMilli()
		from := s.Log().Published()
		p.send(t, 100)
		<-time.After(time.Second)
		p.send(t, 100)
		require.NoError(t, s.Checkpoint())
		fields, ok := s.checkpoint.Load()
		require.True(t, ok)
		require.Equal(t, from, fields.LogicsPhysicalOffset)
		require.Equal(t, second, fields.LogicsMsgTimestamp)
		require.Greater(t, second, first)
		require.Equal(t, s.Dispatched(), fields.ConfirmPhyOffset)
		end := s.Dispatched()
		require.NoError(t, s.Close())
		fsys := s.opt.FS.(*faultfs.FS)
		again := openStore(t, testOptions(fsys, "store"))
		fields, _ = again.checkpoint.Load()
		require.Equal(t, end, fields.LogicsPhysicalOffset, "a stop in order leaves everything in the files")
		require.NoError(t, again.Close())
	})
}

// The index is flushed with one checkpoint of several, by bytes or by time.
func TestCheckpointsShareTheIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(faultfs.New(), "store")
		o.CheckpointBytes, o.CheckpointEvery = 10_000, 10*time.Second
		s := openStore(t, o)
		p := &producer{s: s}
		due := func() string {
			checkpoint, index := s.checkpointDue()
			return fmt.Sprint(checkpoint, index)
		}
		fill := func(bytes int64) {
			for end := s.Dispatched() + bytes; s.Dispatched() < end; {
				synctest.Wait()
				p.send(t, 500)
			}
		}
		step := max(o.CheckpointBytes, snapshotShare*s.queues.SnapshotBytes())
		require.Equal(t, "false false", due())
		fill(step)
		require.Equal(t, "true false", due())
		require.NoError(t, s.makeCheckpoint(false))
		require.Equal(t, "false false", due())
		step = max(o.CheckpointBytes, snapshotShare*s.queues.SnapshotBytes())
		fill(indexShare * step)
		require.Equal(t, "true true", due())
		require.NoError(t, s.Checkpoint())
		before, _ := s.checkpoint.Load()
		p.send(t, 100)
		require.Equal(t, "false false", due())
		require.NoError(t, s.makeCheckpoint(false))
		fields, _ := s.checkpoint.Load()
		require.Equal(t, before.IndexMsgTimestamp, fields.IndexMsgTimestamp, "the index is told as flushed as far as it was")
		<-time.After(o.CheckpointEvery + 2*writeBackEvery)
		synctest.Wait()
		require.Equal(t, "false false", due(), "by time the flusher made one, with the index")
		require.Equal(t, s.last.at, s.last.indexAt)
		require.NoError(t, s.Close())
	})
}

// The indexer rests while nothing comes, and what comes then is in the index soon, or as soon as somebody asks.
func TestIndexerRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, testOptions(faultfs.New(), "store"))
		p := &producer{s: s}
		<-time.After(time.Minute + indexRest/3)
		p.send(t, 100)
		synctest.Wait()
		require.Less(t, s.IndexedOffset(), s.Dispatched(), "an idle indexer looks seldom")
		<-time.After(indexRest * 5 / 4)
		synctest.Wait()
		require.Equal(t, s.Dispatched(), s.IndexedOffset())
		<-time.After(time.Minute + indexRest/3)
		p.send(t, 100)
		s.indexer.catchUp(s)
		require.Equal(t, s.Dispatched(), s.IndexedOffset())
		require.NoError(t, s.Close())
	})
}
