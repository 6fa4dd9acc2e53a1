package broker

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine"
)

// A pull of what is not in memory is loaded by the cold lane and then sent from the file. The records of another queue lie between its own.
func TestPullOfWhatIsNotInMemory(t *testing.T) {
	segments := func(c *config.Broker) {
		c.IoEngine, c.MappedFileSizeCommitLog = "mmap", 4<<20
		c.MaxTransferBytesOnMessageInMemory, c.MaxTransferBytesOnMessageInDisk = 1<<20, 1<<20
	}
	dir := t.TempDir()
	b := openTestBroker(t, brokerOptions{Dir: dir, Change: segments})
	c := b.client()
	var want []string
	for i := range 300 {
		body := strings.Repeat(string(rune('a'+i%26)), 40<<10)
		c.send("T", i%2, body)
		if i%2 == 0 {
			want = append(want, body)
		}
	}
	b.shutdown()

	b = openTestBroker(t, brokerOptions{Dir: dir, Change: segments})
	defer b.shutdown()
	c = b.client()
	c.pull("G", "T", 0, 140) // opens the queue's file, for which a pull waits, too
	for _, tt := range []struct {
		name, most string
		messages   int
	}{{"many records", "10", 10}, {"one", "1", 1}} {
		t.Run(tt.name, func(t *testing.T) {
			forget(t, filepath.Join(dir, "commitlog"))
			before := b.server.Stats()
			r, got := c.pull("G", "T", 0, 3, "maxMsgNums", tt.most, "maxMsgBytes", "1048576")
			require.Zero(t, r.Code, r.Remark)
			require.Equal(t, want[3:3+tt.messages], bodiesOf(got))
			eventually(t, "sent from the file", func() bool { return b.server.Stats().SendFiles > before.SendFiles })
		})
	}
}

// forget throws what a folder's files hold out of memory, as far as the system does that.
func forget(t *testing.T, dir string) {
	names, err := filepath.Glob(filepath.Join(dir, "0*"))
	require.NoError(t, err)
	require.Greater(t, len(names), 2, "segments of %s", dir)
	for _, name := range names {
		require.NoError(t, ioengine.Forget(name))
	}
}

// Where the log is written past the page cache, a pull of what is not in memory is answered from blocks that the log loads, whatever its size;
// with coldReadCacheBytes=0 it is not.
func TestPullFromBlocks(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int64
	}{{"blocks", 8 << 20}, {"no blocks", 0}} {
		t.Run(tt.name, func(t *testing.T) { pullFromBlocks(t, tt.size) })
	}
}

func pullFromBlocks(t *testing.T, size int64) {
	dir := t.TempDir()
	if err := ioengine.EngineWorks(ioengine.EngineDirect, dir, 4<<20); err != nil {
		t.Skip(err)
	}
	direct := func(c *config.Broker) {
		c.IoEngine, c.MappedFileSizeCommitLog, c.LogTailBytes, c.ColdReadCacheBytes = "direct", 4<<20, 32<<20, size
		c.MaxTransferBytesOnMessageInMemory, c.MaxTransferBytesOnMessageInDisk = 1<<20, 1<<20
		c.MaxTransferCountOnMessageInMemory, c.MaxTransferCountOnMessageInDisk = 1000, 1000
	}
	b := openTestBroker(t, brokerOptions{Dir: dir, Change: direct})
	c := b.client()
	var want []string
	for i := range 900 {
		body := strings.Repeat(string(rune('a'+i%26)), 16<<10)
		c.send("T", i%2, body)
		if i%2 == 0 {
			want = append(want, body)
		}
	}
	b.shutdown()
	b = openTestBroker(t, brokerOptions{Dir: dir, Change: direct})
	defer b.shutdown()
	c = b.client()
	forget(t, filepath.Join(dir, "commitlog"))
	for at, most := 0, "1"; at < len(want); most = "40" {
		r, got := c.pull("G", "T", 0, int64(at), "maxMsgNums", most, "maxMsgBytes", "1048576")
		require.Zero(t, r.Code, r.Remark)
		require.NotEmpty(t, got)
		require.Equal(t, want[at:at+len(got)], bodiesOf(got))
		at += len(got)
	}
	s, sent := b.store.Log().ColdStats(), b.server.Stats().SendFiles
	if size == 0 {
		require.Zero(t, s)
		return
	}
	require.Zero(t, sent, "a part went by sendfile")
	require.Greater(t, s.Loaded, int64(10))
	require.LessOrEqual(t, s.Loaded, int64(20), "14 MiB are in as many blocks; read once each")
	require.Equal(t, size, s.Bytes)
	require.Greater(t, s.Hits, 5*s.Misses)
}
