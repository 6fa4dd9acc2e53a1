package store

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine/faultfs"
)

// A tail of a few entries is one chunk that is no larger than it has to be; what grew reads as before.
func TestSmallTailIsOneChunk(t *testing.T) {
	table := openTable(t, faultfs.New(), "/s", func(o *QueueTableOptions) { o.FileUnits = 1000 })
	q := mustQueue(t, table, "T", 0)
	for n := range int64(wholeUnits) {
		q.Append(n, entryAt(n))
		c := q.tail.Load().last.Load()
		require.Same(t, c, q.tail.Load().head.Load())
		require.Zero(t, c.first)
		require.LessOrEqual(t, c.end(), max(firstChunkUnits, (n+1)*3/2+firstChunkUnits))
		require.Equal(t, int64(len(c.units)), table.held.Load())
		requireEntries(t, q, 0, n+1)
	}
	appendRange(q, wholeUnits, 950)
	require.NotSame(t, q.tail.Load().last.Load(), q.tail.Load().head.Load())
	requireEntries(t, q, 0, 950)
	require.NoError(t, q.writeOut())
	require.Zero(t, table.held.Load())
	require.Zero(t, table.unwritten.Load())
	requireEntries(t, q, 0, 950)
	appendRange(q, 950, 1100) // a chunk ends where its file does
	requireEntries(t, q, 0, 1100)
	require.NoError(t, table.WriteBack())
	requireEntries(t, q, 0, 1100)
}

// Whoever goes along a chain holds the old head while it is replaced by a larger copy, and meets its units twice.
func TestChainWithReplacedHead(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	q := mustQueue(t, table, "T", 0)
	appendRange(q, 0, firstChunkUnits)
	old := q.tail.Load().head.Load()
	appendRange(q, firstChunkUnits, 40)
	last := q.tail.Load().head.Load()
	require.NotSame(t, old, last)
	asBefore := func() { q.tail.Load().head.Store(old) }

	asBefore()
	require.Equal(t, entryAt(0).PhysicalOffset, q.firstUnwritten(q.tail.Load()))
	require.NoError(t, table.SaveSnapshot(2000, CheckpointFields{}))
	other := openTable(t, fsys, "/s")
	_, err := other.LoadSnapshot(CheckpointFields{})
	require.NoError(t, err)
	requireEntries(t, other.Get([]byte("T"), 0), 0, 20) // those before the log offset

	held := table.held.Load()
	asBefore()
	_, err = q.writeBack(1)
	require.NoError(t, err)
	require.EqualValues(t, 40, q.tail.Load().written)
	require.Zero(t, table.unwritten.Load())
	require.Equal(t, held, table.held.Load())
	q.tail.Load().head.Store(last)
	require.NoError(t, q.writeOut())
	requireEntries(t, q, 0, 40)
}

// Many queues are written by several goroutines, while others are appended to.
func TestManyQueuesAreWrittenSideBySide(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	const queues = 3 * sharedPass
	list := manySmall(t, table, queues, 3)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, id := range []int32{0, 1, 2} {
			mustQueue(t, table, "late", id).Append(0, entryAt(0))
		}
	}()
	require.NoError(t, table.WriteBack())
	<-done
	require.NoError(t, table.WriteBack())
	require.Zero(t, table.Backlog())
	requireSmall(t, table, queues, 3)
	for _, q := range list {
		require.NoError(t, q.writeOut())
	}
	requireSmall(t, table, queues, 3)

	// One that fails keeps its entries, the others are written.
	for i, q := range list {
		q.Append(3, entryAt(queues*3+int64(i)))
	}
	fsys.SetFault(func(op faultfs.Op) error {
		if op.Kind == faultfs.OpWrite && strings.Contains(op.Name, "consumequeue/T7/3/") {
			return syscall.ENOSPC
		}
		return nil
	})
	require.ErrorContains(t, table.WriteBack(), "T7-3")
	require.EqualValues(t, UnitSize, table.Backlog())
	fsys.SetFault(nil)
	require.NoError(t, table.WriteBack())
	require.Zero(t, table.Backlog())
}
