package commitlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine"
)

func trialOf(dir string, kind ioengine.EngineKind, sync bool) TrialOptions {
	return TrialOptions{Dir: filepath.Join(dir, "trial.tmp"), SegmentSize: 4 << 20, EngineOptions: EngineOptions{Engine: kind, TailSize: 32 << 20, Sync: sync}}
}

// openTrial skips a test for an engine that is refused here.
func openTrial(t *testing.T, o TrialOptions) *Trial {
	t.Helper()
	trial, err := OpenTrial(o)
	if errors.Is(err, ioengine.ErrEngineRefused) {
		t.Skip(err)
	}
	require.NoError(t, err)
	return trial
}

func requireGone(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestTrialOfEachEngine(t *testing.T) {
	for kind := ioengine.EngineMmap; kind <= ioengine.EngineUring; kind++ {
		for _, sync := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/sync-%t", kind, sync), func(t *testing.T) {
				dir := t.TempDir()
				trial := openTrial(t, trialOf(dir, kind, sync))
				var measured []*TrialFigures
				if sync {
					for _, inFlight := range []int{1, 8} {
						f, err := trial.Commits(t.Context(), inFlight, 20*time.Millisecond)
						require.NoError(t, err)
						require.LessOrEqual(t, f.Groups, f.Messages+1, "a group has a message at least")
						measured = append(measured, f)
					}
				} else {
					for _, rate := range []int64{10_000_000, 0} {
						f, err := trial.Appends(t.Context(), rate, 20*time.Millisecond)
						require.NoError(t, err)
						if rate > 0 {
							require.LessOrEqual(t, f.Messages, 1+rate*int64(f.Elapsed)/int64(time.Second)/TrialMessage, "no faster than asked")
						}
						measured = append(measured, f)
					}
				}
				total := int64(0)
				for _, f := range measured {
					require.Positive(t, f.Messages)
					require.GreaterOrEqual(t, f.Elapsed, 20*time.Millisecond)
					require.True(t, f.Groups > 0 || !sync)
					require.Positive(t, f.P50)
					require.LessOrEqual(t, f.P50, f.P996)
					require.True(t, f.CPUKnown)
					total += f.Messages
				}
				require.GreaterOrEqual(t, trial.log.Published(), total*TrialMessage, "what was counted was appended")
				require.NoError(t, trial.Close())
				requireGone(t, dir)
			})
		}
	}
}

// However long a trial appends, its log stays within its space.
func TestTrialSpaceIsBounded(t *testing.T) {
	dir := t.TempDir()
	o := trialOf(dir, ioengine.EngineMmap, false)
	o.SegmentSize = 1 << 20
	trial := openTrial(t, o)
	most := int64(0)
	for trial.log.MinOffset() < 20<<20 {
		_, err := trial.Appends(t.Context(), 0, 10*time.Millisecond)
		require.NoError(t, err)
		require.LessOrEqual(t, trial.log.Published()-trial.log.MinOffset(), int64(trialKept<<20))
		used := int64(0)
		require.NoError(t, filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return nil // it was removed meanwhile
			}
			if info, err := e.Info(); err == nil {
				used += info.Size()
			}
			return nil
		}))
		most = max(most, used)
	}
	require.LessOrEqual(t, most, o.Space())
	require.NoError(t, trial.Close())
	requireGone(t, dir)
}

func TestTrialThatIsInterruptedLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	trial := openTrial(t, trialOf(dir, ioengine.EngineMmap, true))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := trial.Commits(ctx, 4, time.Hour)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = trial.Appends(ctx, 0, time.Hour)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, trial.Close())
	requireGone(t, dir)
}

func TestTrialRemovesWhatAKilledOneLeft(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "trial.tmp", "log")
	require.NoError(t, os.MkdirAll(left, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(left, "00000000000000000000"), []byte("cut short"), 0o644))
	trial := openTrial(t, trialOf(dir, ioengine.EngineMmap, true))
	require.NoError(t, trial.Close())
	requireGone(t, dir)
}

// An engine that is refused is said to be, and no other is measured in its name.
func TestTrialOfARefusedEngine(t *testing.T) {
	dir := t.TempDir()
	o := trialOf(dir, ioengine.EngineDirect, true)
	o.SegmentSize = 4<<20 + 512 // no multiple of the block
	_, err := OpenTrial(o)
	require.ErrorIs(t, err, ioengine.ErrEngineRefused)
	require.ErrorContains(t, err, "direct")
	requireGone(t, dir)
}

// smallDisk is a file system with little space left.
type smallDisk struct{ ioengine.FS }

func (smallDisk) Usage(string) (free, total int64, err error) { return 10 << 20, 1 << 30, nil }

func TestTrialWithoutSpace(t *testing.T) {
	dir := t.TempDir()
	o := trialOf(dir, ioengine.EngineMmap, true)
	o.FS = smallDisk{ioengine.OS()}
	_, err := OpenTrial(o)
	require.ErrorIs(t, err, ioengine.ErrDiskFull)
	require.ErrorContains(t, err, "has 10 MiB")
	requireGone(t, dir)
}

func TestTrialRefusesAFolderThatIsNotItsOwn(t *testing.T) {
	dir := t.TempDir()
	require.Panics(t, func() { _, _ = OpenTrial(TrialOptions{Dir: filepath.Join(dir, "store")}) })
	require.DirExists(t, dir)
}
