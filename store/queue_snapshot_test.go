package store

import (
	"hash/crc32"
	"testing"

	"encoding/binary"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine/faultfs"
)

func TestSnapshotOpensNoQueueFile(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	for i := range int32(20) {
		appendRange(mustQueue(t, table, "T", i), int64(i), int64(i)+60)
	}
	mustQueue(t, table, "empty", 4)
	stamp := CheckpointFields{PhysicMsgTimestamp: 1, LogicsPhysicalOffset: 7900}
	require.NoError(t, table.SaveSnapshot(7900, stamp))

	fsys = fsys.Crash(1, faultfs.LoseAll)
	table = openTable(t, fsys, "/s")
	before := fsys.Count()
	at, err := table.LoadSnapshot(stamp)
	require.NoError(t, err)
	require.EqualValues(t, 7900, at)
	require.Less(t, fsys.Count()-before, int64(5), "file operations of a start")
	for i := range int32(20) {
		q := table.Get([]byte("T"), i)
		require.EqualValues(t, i, q.Min())
		require.EqualValues(t, i+60, q.Max())
		require.EqualValues(t, i+60, q.Next)
		requireEntries(t, q, q.Min(), q.Max())
	}
	require.Zero(t, table.Get([]byte("empty"), 4).Max())
	before = fsys.Count()
	table.Get([]byte("T"), 3).TrimBefore(300)
	require.Equal(t, before, fsys.Count(), "the snapshot knows where each queue starts in the log")
	_, err = table.LoadSnapshot(stamp)
	require.ErrorIs(t, err, ErrNoSnapshot, "the table must be empty")
}

func TestSnapshotStamps(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	mustQueue(t, table, "T", 0).Append(0, entryAt(0))
	a, b, c := CheckpointFields{PhysicMsgTimestamp: 1}, CheckpointFields{PhysicMsgTimestamp: 2}, CheckpointFields{PhysicMsgTimestamp: 3}
	require.NoError(t, table.SaveSnapshot(1, a))
	require.NoError(t, table.SaveSnapshot(2, b))
	load := func(on CheckpointFields) error {
		_, err := openTable(t, fsys, "/s").LoadSnapshot(on)
		return err
	}
	require.NoError(t, load(a), "a crash came before the checkpoint was saved")
	require.NoError(t, load(b))
	require.ErrorIs(t, load(c), ErrNoSnapshot, "another broker wrote the checkpoint")
	_, err := openTable(t, fsys, "/s", func(o *QueueTableOptions) { o.FileUnits = testUnits + 1 }).LoadSnapshot(b)
	require.ErrorContains(t, err, "mappedFileSizeConsumeQueue")
	_, err = openTable(t, faultfs.New(), "/s").LoadSnapshot(b)
	require.ErrorIs(t, err, ErrNoSnapshot)
}

func TestDamagedSnapshotIsNotUsed(t *testing.T) {
	fsys := faultfs.New()
	table := openTable(t, fsys, "/s")
	appendRange(mustQueue(t, table, "T", 0), 0, 10)
	stamp := CheckpointFields{PhysicMsgTimestamp: 1}
	require.NoError(t, table.SaveSnapshot(1000, stamp))
	b, err := fsys.ReadFile("/s/queues.snapshot")
	require.NoError(t, err)
	for bit := range uint(len(b) * 8) {
		again := fsys.Kill()
		require.NoError(t, again.Flip("/s/queues.snapshot", int64(bit/8), bit%8))
		table := openTable(t, again, "/s")
		_, err := table.LoadSnapshot(stamp)
		require.ErrorIs(t, err, ErrNoSnapshot, "bit %d", bit)
		require.Nil(t, table.Get([]byte("T"), 0), "the table stays empty")
	}
}

// FuzzSnapshot: any bytes with a right checksum are refused or are a snapshot that says the same when written again.
func FuzzSnapshot(f *testing.F) {
	fsys := faultfs.New()
	table := openTable(f, fsys, "/s")
	for i := range int32(3) {
		appendRange(mustQueue(f, table, "T", i*5), 3, 10)
		mustQueue(f, table, "U", i)
	}
	stamps := [2]CheckpointFields{{PhysicMsgTimestamp: 1}, {ConfirmPhyOffset: 9}}
	require.NoError(f, table.WriteBack())
	appendRange(mustQueue(f, table, "T", 5), 10, 40)
	table.stamp = stamps[0]
	require.NoError(f, table.SaveSnapshot(77, stamps[1]))
	saved, err := fsys.ReadFile("/s/" + snapshotName)
	require.NoError(f, err)
	f.Add(saved)
	f.Add(encodeSnapshot(&snapshot{fileUnits: testUnits, stamps: stamps}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 {
			binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli))
		}
		s, err := decodeSnapshot(b)
		if err != nil {
			return
		}
		again, err := decodeSnapshot(encodeSnapshot(&s))
		require.NoError(t, err)
		require.Equal(t, s, again)
		table := openTable(t, faultfs.New(), "/s")
		if table.install(s.topics) != nil {
			table.All(func(*ConsumeQueue) { t.Fatal("refused, but not empty") })
		}
	})
}

// encodeSnapshot writes a snapshot as it was decoded.
func encodeSnapshot(s *snapshot) []byte {
	var w snapshotWriter
	w.header(s.fileUnits, s.logOffset, s.stamps)
	for _, tb := range s.topics {
		w.topic(tb.name, len(tb.queues))
		for i := range tb.queues {
			q := &tb.queues[i]
			w.queue(q, int64(len(q.tail)/UnitSize))
			w.units(q.tail)
		}
	}
	_ = w.end()
	return w.buf
}
