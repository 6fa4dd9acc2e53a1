package store

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
)

var quiet = slog.New(slog.DiscardHandler)

func TestCheckpoint(t *testing.T) {
	onBoth(t, func(t *testing.T, fsys ioengine.FS, root string) {
		require.NoError(t, fsys.MkdirAll(root, 0o755))
		c, err := OpenCheckpoint(fsys, root, quiet)
		require.NoError(t, err)
		_, known := c.Load()
		require.False(t, known)
		want := CheckpointFields{1, 2, 3, 4, 5, 6}
		require.NoError(t, c.Save(CheckpointFields{PhysicMsgTimestamp: 9}))
		require.NoError(t, c.Save(want))
		require.NoError(t, c.Close())
		b, err := fsys.ReadFile(filepath.Join(root, "checkpoint"))
		require.NoError(t, err)
		require.Len(t, b, 4096)
		for i := range 6 {
			require.EqualValues(t, i+1, b[8*i+7], "field %d", i)
		}
		if double, ok := fsys.(*faultfs.FS); ok {
			fsys = double.Crash(1, faultfs.LoseAll)
		}
		c, err = OpenCheckpoint(fsys, root, quiet)
		require.NoError(t, err)
		got, known := c.Load()
		require.True(t, known)
		require.Equal(t, want, got)
		require.NoError(t, c.Close())
	})
}

func TestDamagedCheckpointCountsAsNone(t *testing.T) {
	good := CheckpointFields{1, 2, 3, 4, 5, 6}.append(nil)
	negative := CheckpointFields{1, 2, 3, 4, 5, -6}.append(nil)
	absurd := CheckpointFields{1 << 60, 2, 3, 4, 5, 6}.append(nil)
	for name, c := range map[string]struct {
		bytes []byte
		known bool
	}{
		"whole": {good, true}, "short": {good[:47], false}, "empty": {nil, false}, "negative": {negative, false},
		"absurd time": {absurd, false}, "all zero": {make([]byte, 4096), false},
	} {
		fsys := faultfs.New()
		require.NoError(t, fsys.MkdirAll("/s", 0o755))
		require.NoError(t, ioengine.WriteFileAtomic(fsys, "/s/checkpoint", c.bytes))
		cp, err := OpenCheckpoint(fsys, "/s", quiet)
		require.NoError(t, err)
		_, known := cp.Load()
		require.Equal(t, c.known, known, name)
		require.NoError(t, cp.Save(CheckpointFields{ConfirmPhyOffset: 8}), "%s is mended by the next one", name)
		got, known := cp.Load()
		require.True(t, known)
		require.EqualValues(t, 8, got.ConfirmPhyOffset)
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add(CheckpointFields{1, 2, 3, 4, 5, 6}.append(nil))
	f.Add(make([]byte, 4096))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := checkpointFrom(b)
		if err == nil {
			require.Equal(t, b[:checkpointBytes], c.append(nil))
		}
	})
}

func TestRunFiles(t *testing.T) {
	onBoth(t, func(t *testing.T, fsys ioengine.FS, root string) {
		require.NoError(t, fsys.MkdirAll(root, 0o755))
		run := func(boot string) *RunFiles {
			r, err := openRunFiles(fsys, root, quiet, boot)
			require.NoError(t, err)
			return r
		}
		r := run("boot-1")
		require.Equal(t, EndedClean, r.Last)
		_, err := openRunFiles(fsys, root, quiet, "boot-1")
		require.Error(t, err, "one broker at a time")
		require.NoError(t, r.Close(true))
		r = run("boot-1")
		require.True(t, r.Clean())
		require.NoError(t, r.Close(false))
		r = run("boot-1")
		require.Equal(t, EndedKilled, r.Last)
		require.NoError(t, r.Close(false))
		r = run("boot-2")
		require.Equal(t, EndedCrash, r.Last)
		require.NoError(t, r.Close(false))
		for _, mark := range []string{"", "4711", "4711\n\n", string(make([]byte, 1000))} {
			require.NoError(t, ioengine.WriteFileAtomic(fsys, filepath.Join(root, "abort"), []byte(mark)))
			r = run("boot-2")
			require.Equal(t, EndedUnknown, r.Last, "%q", mark)
			require.NoError(t, r.Close(false))
		}
		r = run("")
		require.Equal(t, EndedUnknown, r.Last, "a system without boot id")
		require.NoError(t, r.Close(true))
	})
}

func TestRunMarkIsDurable(t *testing.T) {
	fsys := faultfs.New()
	require.NoError(t, fsys.MkdirAll("/s", 0o755))
	_, err := openRunFiles(fsys, "/s", quiet, "boot-1")
	require.NoError(t, err)
	after := fsys.Crash(1, faultfs.LoseAll)
	r, err := openRunFiles(after, "/s", quiet, "boot-2")
	require.NoError(t, err)
	require.Equal(t, EndedCrash, r.Last)
}
