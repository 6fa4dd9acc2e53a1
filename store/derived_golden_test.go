package store

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
)

// The golden stores were written by the Java broker 5.5.0 with queue files of 50 units and index files of 101 slots and
// 400 entries. See e2e/golden/README.md.
const (
	goldenDir     = "../e2e/golden"
	goldenUnits   = 50
	goldenSlots   = 101
	goldenEntries = 400
)

// onGolden runs against a copy of each golden store, with the records of its log.
func onGolden(t *testing.T, run func(t *testing.T, root string, records []message.Record)) {
	for _, name := range []string{"store-clean", "store-killed"} {
		t.Run(name, func(t *testing.T) {
			from := filepath.Join(goldenDir, name)
			if _, err := os.Stat(from); err != nil {
				t.Skip("the golden store is not in this tree")
			}
			root := t.TempDir()
			require.NoError(t, os.CopyFS(root, os.DirFS(from)))
			run(t, root, goldenRecords(t, root))
		})
	}
}

func goldenRecords(t *testing.T, root string) (records []message.Record) {
	segments, err := os.ReadDir(filepath.Join(root, "commitlog"))
	require.NoError(t, err)
	for _, segment := range segments {
		b, err := os.ReadFile(filepath.Join(root, "commitlog", segment.Name()))
		require.NoError(t, err)
		for len(b) > 0 {
			var r message.Record
			if message.Decode(b, &r) != nil {
				break
			}
			records, b = append(records, r), b[r.Size:]
		}
	}
	require.NotEmpty(t, records)
	return records
}

func inQueue(r *message.Record) bool {
	kind := r.SysFlag & message.SysTransactionMask
	return kind != message.SysTransactionPrepared && kind != message.SysTransactionRollback
}

func TestJavaQueuesAreRead(t *testing.T) {
	onGolden(t, func(t *testing.T, root string, records []message.Record) {
		table, end := scanGolden(t, root)
		last := records[len(records)-1]
		require.Equal(t, last.PhysicalOffset+int64(last.Size), end)
		messages := map[*ConsumeQueue]int64{}
		for i := range records {
			r := &records[i]
			if !inQueue(r) {
				continue
			}
			q := table.Get(r.Topic, r.QueueID)
			require.NotNil(t, q, "%s-%d", r.Topic, r.QueueID)
			messages[q]++
			got := readAll(t, q, r.QueueOffset, r.QueueOffset+1)[0]
			want := Entry{r.PhysicalOffset, r.Size, message.TagsCode(message.ScanHot(r.Properties).Tags)}
			if string(r.Topic) == message.ScheduleTopic {
				require.Greater(t, got.TagsCode, r.StoreTimestamp, "when a delayed message is due")
				want.TagsCode = got.TagsCode
			}
			require.Equal(t, want, got)
		}
		table.All(func(q *ConsumeQueue) {
			require.Equal(t, messages[q], q.Max()-q.Min(), "%s-%d", q.Topic, q.QueueID)
		})
	})
}

func scanGolden(t *testing.T, root string) (*QueueTable, int64) {
	table := openTable(t, ioengine.OS(), root, func(o *QueueTableOptions) { o.FileUnits = goldenUnits })
	end, err := table.LoadScan(context.Background())
	require.NoError(t, err)
	return table, end
}

// What Java wrote for a log, we write for the same log, byte for byte.
func TestQueueFilesAreJavas(t *testing.T) {
	onGolden(t, func(t *testing.T, root string, records []message.Record) {
		java, _ := scanGolden(t, root)
		ours := t.TempDir()
		table := openTable(t, ioengine.OS(), ours, func(o *QueueTableOptions) { o.FileUnits = goldenUnits })
		for i := range records {
			r := &records[i]
			if !inQueue(r) {
				continue
			}
			e := Entry{r.PhysicalOffset, r.Size, message.TagsCode(message.ScanHot(r.Properties).Tags)}
			if string(r.Topic) == message.ScheduleTopic {
				e.TagsCode = readAll(t, java.Get(r.Topic, r.QueueID), r.QueueOffset, r.QueueOffset+1)[0].TagsCode
			}
			mustQueue(t, table, string(r.Topic), r.QueueID).Append(r.QueueOffset, e)
		}
		require.NoError(t, table.WriteBack())
		requireSameFiles(t, filepath.Join(root, "consumequeue"), filepath.Join(ours, "consumequeue"))
	})
}

func requireSameFiles(t *testing.T, want, got string) {
	t.Helper()
	require.Equal(t, filesBelow(t, want), filesBelow(t, got))
	for _, name := range filesBelow(t, want) {
		w, err := os.ReadFile(filepath.Join(want, name))
		require.NoError(t, err)
		g, err := os.ReadFile(filepath.Join(got, name))
		require.NoError(t, err)
		require.Equal(t, w, g, name)
	}
}

func filesBelow(t *testing.T, root string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			path, err = filepath.Rel(root, path)
			names = append(names, path)
		}
		return err
	})
	require.NoError(t, err)
	sort.Strings(names)
	return names
}

func openGoldenIndex(t *testing.T, dir string) *Index {
	x, err := OpenIndex(IndexOptions{FS: ioengine.OS(), Dir: dir, HashSlots: goldenSlots, Entries: goldenEntries, Logger: quiet})
	require.NoError(t, err)
	return x
}

func putRecord(t *testing.T, x *Index, r *message.Record) {
	t.Helper()
	if r.SysFlag&message.SysTransactionMask == message.SysTransactionRollback {
		return
	}
	hot := message.ScanHot(r.Properties)
	require.NoError(t, x.Put(r.PhysicalOffset, r.StoreTimestamp, r.Topic, hot.UniqKey, hot.Keys, hot.Tags))
}

func TestJavaIndexIsRead(t *testing.T) {
	onGolden(t, func(t *testing.T, root string, records []message.Record) {
		dir := filepath.Join(root, "index")
		before, err := os.ReadFile(filepath.Join(dir, filesBelow(t, dir)[0]))
		require.NoError(t, err)
		x := openGoldenIndex(t, dir)
		for i := range records {
			r := &records[i]
			hot := message.ScanHot(r.Properties)
			requireFound(t, x, r, hot.UniqKey, 0)
			requireFound(t, x, r, hot.Tags, IndexTypeTag)
		}
		// The log read again from its start adds nothing: Java's entries are known to be there.
		for i := range records {
			putRecord(t, x, &records[i])
		}
		require.NoError(t, x.Close())
		after, err := os.ReadFile(filepath.Join(dir, filesBelow(t, dir)[0]))
		require.NoError(t, err)
		require.Equal(t, before, after)
	})
}

func requireFound(t *testing.T, x *Index, r *message.Record, key []byte, kind byte) {
	t.Helper()
	if len(key) == 0 {
		return
	}
	phys, _, _, err := x.Query(r.Topic, key, 1000, r.StoreTimestamp-1000, r.StoreTimestamp+1000, kind)
	require.NoError(t, err)
	require.Contains(t, phys, r.PhysicalOffset, "%s of %s", key, r.Topic)
}

func TestIndexFilesAreJavas(t *testing.T) {
	onGolden(t, func(t *testing.T, root string, records []message.Record) {
		javas, ours := filepath.Join(root, "index"), t.TempDir()
		x := openGoldenIndex(t, ours)
		for i := range records {
			putRecord(t, x, &records[i])
		}
		require.NoError(t, x.Close())
		j, o := filesBelow(t, javas), filesBelow(t, ours)
		require.Len(t, o, len(j))
		for i := range j {
			want, err := os.ReadFile(filepath.Join(javas, j[i]))
			require.NoError(t, err)
			got, err := os.ReadFile(filepath.Join(ours, o[i]))
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	})
}

func TestJavaCheckpointIsRead(t *testing.T) {
	onGolden(t, func(t *testing.T, root string, records []message.Record) {
		c, err := OpenCheckpoint(ioengine.OS(), root, quiet)
		require.NoError(t, err)
		defer c.Close()
		before, err := os.ReadFile(filepath.Join(root, "checkpoint"))
		require.NoError(t, err)
		fields, known := c.Load()
		require.True(t, known)
		last := records[len(records)-1]
		require.LessOrEqual(t, fields.PhysicMsgTimestamp, last.StoreTimestamp)
		require.LessOrEqual(t, fields.LogicsPhysicalOffset, last.PhysicalOffset+int64(last.Size))
		require.NoError(t, c.Save(fields))
		after, err := os.ReadFile(filepath.Join(root, "checkpoint"))
		require.NoError(t, err)
		require.Equal(t, before, after)
		r, err := OpenRunFiles(ioengine.OS(), root, quiet)
		require.NoError(t, err)
		if filepath.Base(t.Name()) == "store-killed" {
			require.Equal(t, EndedUnknown, r.Last)
		} else {
			require.Equal(t, EndedClean, r.Last)
		}
		require.NoError(t, r.Close(true))
	})
}
