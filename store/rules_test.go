package store

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/ioengine/faultfs"
)

// Rules R2 and R4 to R7 of the store; R1, R2 and R4 of the log alone are in commitlog, R3 in broker/metadata_test.go, retention has a
// file of its own.

// storeWith makes a store with n messages and a checkpoint in the middle, then closes it or lets its process die.
func storeWith(t *testing.T, n int, clean bool) (fsys *faultfs.FS, all []sent) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fsys = faultfs.New()
		s := openStore(t, testOptions(fsys, "store"))
		p := &producer{s: s}
		for i := range n {
			p.send(t, 200)
			if i == n/4 {
				require.NoError(t, s.queues.WriteBack()) // the rest of the checkpoint's entries is in the snapshot
			}
			if i == n/2 {
				indexed(s)
				require.NoError(t, s.Checkpoint())
			}
		}
		indexed(s)
		all = p.sent
		left := fsys.Kill()
		require.NoError(t, s.Close())
		if !clean {
			fsys = left
		}
	})
	return fsys, all
}

// inBubble opens a store, runs check and closes it: everything in the background has come to rest where synctest.Wait returns.
func inBubble(t *testing.T, o Options, check func(t *testing.T, s *Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, o)
		defer func() { require.NoError(t, s.Close()) }()
		check(t, s)
	})
}

// indexed waits until the index has followed.
func indexed(s *Store) {
	<-time.After(2 * indexEvery)
	synctest.Wait()
}

func TestR2NothingAfterADeviceError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		failures := 0
		o := testOptions(fsys, "store")
		o.OnFail = func(error) { failures++ }
		s := openStore(t, o)
		p := &producer{s: s}
		for range 5 {
			p.send(t, 100)
		}
		flushStore(t, s)
		acked := p.sent
		p.send(t, 100)
		broken := true
		fsys.SetFault(func(op faultfs.Op) error {
			if op.Kind == faultfs.OpSyncRange && broken {
				broken = false // the kernel would answer the next one with success
				return syscall.EIO
			}
			return nil
		})
		var failure *commitlog.FailedError
		require.ErrorAs(t, s.Log().Flush(time.Minute), &failure)
		for range 3 {
			_, err := p.trySend(100)
			require.ErrorAs(t, err, &failure)
			require.ErrorAs(t, s.Writable(), &failure)
			require.ErrorAs(t, s.Log().Flush(time.Minute), &failure)
			require.ErrorAs(t, s.Checkpoint(), &failure)
			<-time.After(time.Minute)
		}
		require.Equal(t, 1, failures)
		requireSent(t, s, p.sent) // reading goes on
		require.Error(t, s.Close())
		_, err := fsys.Stat("store/abort")
		require.NoError(t, err, "after a failure it counts as stopped in order")

		again := openStore(t, testOptions(fsys.Crash(0, faultfs.LoseAll), "store"))
		found := readQueues(t, again)
		for _, m := range acked {
			require.Equal(t, m.body, found[place(m.topic, m.queueID, m.queueOffset)])
		}
		require.NoError(t, again.Close())
	})
}

func TestR2DiskFullAndFreeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		o := testOptions(fsys, "store")
		o.Retention = Retention{MaxUsed: 2, CleanForcibly: 2, WarningLevel: 2}
		s := openStore(t, o)
		p := &producer{s: s}
		p.send(t, 100)
		free, total, err := fsys.Usage("store")
		require.NoError(t, err)
		fsys.SetCapacity(total - free + testSegment/2)
		for err == nil {
			synctest.Wait()
			_, err = p.trySend(1000)
		}
		require.ErrorIs(t, err, commitlog.ErrDiskFull)
		require.ErrorIs(t, s.Writable(), commitlog.ErrDiskFull)
		flushStore(t, s)
		requireSent(t, s, p.sent)
		<-time.After(time.Minute) // queue entries and checkpoints don't fit either
		fsys.SetCapacity(1 << 30)
		<-time.After(2 * time.Second)
		require.NoError(t, s.Writable())
		for range 200 {
			synctest.Wait()
			p.send(t, 1000)
		}
		requireSent(t, s, p.sent)
		require.NoError(t, s.Close())
		again := openStore(t, testOptions(fsys, "store"))
		requireSent(t, again, p.sent)
		require.NoError(t, again.Close())
	})
}

// One flipped bit in the log: one message is lost, its place in its queue is a hole, everything behind is there.
func TestR4BitFlipInTheLogCostsOneMessage(t *testing.T) {
	image, all := storeWith(t, 200, false)
	dice := rand.New(rand.NewPCG(1, 4))
	for range 20 {
		n := 110 + dice.IntN(80) // behind the checkpoint: a start reads it
		size := all[n].end - all[n-1].end
		at := all[n-1].end + dice.Int64N(size-40)
		if at/testSegment != all[n-1].end/testSegment || (all[n].end-1)/testSegment != at/testSegment {
			continue
		}
		fsys := image.Kill()
		require.NoError(t, fsys.Flip(filepath.Join("store/commitlog", logName(at/testSegment*testSegment)), at%testSegment, uint(dice.IntN(8))))
		inBubble(t, testOptions(fsys, "store"), func(t *testing.T, s *Store) {
			require.Len(t, s.Recovery().Quarantined, 1)
			requireSent(t, s, append(append([]sent{}, all[:n]...), all[n+1:]...))
			aside, err := fsys.ReadDir("store/quarantine")
			require.NoError(t, err)
			require.Len(t, aside, 1)
			p := &producer{s: s, n: len(all)}
			p.send(t, 100) // its queue offset goes on behind what was lost
			indexed(s)
			requireKeys(t, s, append(append([]sent{}, all[:n]...), all[n+1:]...))
		})
	}
}

func logName(base int64) string { return strings.Repeat("0", 20-len(decimal(base))) + decimal(base) }

func decimal(n int64) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return decimal(n/10) + string(rune('0'+n%10))
}

// damages of a derived file.
var damages = map[string]func(t *testing.T, fsys *faultfs.FS, name string){
	"removed":   func(t *testing.T, fsys *faultfs.FS, name string) { require.NoError(t, fsys.Remove(name)) },
	"empty":     func(t *testing.T, fsys *faultfs.FS, name string) { resize(t, fsys, name, 0) },
	"cut short": func(t *testing.T, fsys *faultfs.FS, name string) { resize(t, fsys, name, 30) },
	"zeroes": func(t *testing.T, fsys *faultfs.FS, name string) {
		overwrite(t, fsys, name, func(int) byte { return 0 })
	},
	"ones": func(t *testing.T, fsys *faultfs.FS, name string) {
		overwrite(t, fsys, name, func(int) byte { return 0xFF })
	},
	"noise": func(t *testing.T, fsys *faultfs.FS, name string) {
		overwrite(t, fsys, name, func(i int) byte { return byte(i*i>>3 + 1) })
	},
}

func resize(t *testing.T, fsys *faultfs.FS, name string, size int64) {
	t.Helper()
	f, err := fsys.Open(name, 2, 0)
	require.NoError(t, err)
	require.NoError(t, errors.Join(f.Truncate(size), f.Close()))
}

func overwrite(t *testing.T, fsys *faultfs.FS, name string, b func(i int) byte) {
	t.Helper()
	info, err := fsys.Stat(name)
	require.NoError(t, err)
	data := make([]byte, info.Size())
	for i := range data {
		data[i] = b(i)
	}
	require.NoError(t, fsys.Mangle(name, 0, data))
}

func filesUnder(t *testing.T, fsys *faultfs.FS, dir string) (names []string) {
	t.Helper()
	entries, err := fsys.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if name := filepath.Join(dir, e.Name()); e.IsDir() {
			names = append(names, filesUnder(t, fsys, name)...)
		} else {
			names = append(names, name)
		}
	}
	return names
}

// readOrRebuild reads every queue; where one is damaged it waits for the rebuild and reads again, once.
func readOrRebuild(t *testing.T, s *Store) (damaged int) {
	t.Helper()
	s.Queues(func(q *ConsumeQueue) {
		for at := q.Min(); at < q.Max(); {
			var entries [1]Entry // more would answer those before a damaged one, and it could be rebuilt before it is asked for
			n, err := q.ReadWait(at, entries[:])
			if errors.Is(err, ErrDamaged) {
				damaged++
				synctest.Wait()
				n, err = q.ReadWait(at, entries[:])
			}
			require.NoError(t, err, "%s-%d at %d after it was rebuilt", q.Topic, q.QueueID, at)
			require.NotZero(t, n)
			at += int64(n)
		}
	})
	return damaged
}

// Any damage of any queue file: what it held is read from the log again, whichever way the store was stopped.
func TestR5DamagedQueueFiles(t *testing.T) {
	for _, clean := range []bool{true, false} {
		image, all := storeWith(t, 700, clean)
		for _, name := range filesUnder(t, image, "store/consumequeue") {
			for what, damage := range damages {
				fsys := image.Kill()
				damage(t, fsys, name)
				inBubble(t, testOptions(fsys, "store"), func(t *testing.T, s *Store) {
					readOrRebuild(t, s)
					requireSent(t, s, all)
					require.Zero(t, readOrRebuild(t, s), "%s, %s: damaged again", name, what)
				})
			}
		}
	}
}

// A queue whose files and snapshot are damaged together is scanned, and damage met then is not forgotten.
func TestR5DamageMetByTheScan(t *testing.T) {
	image, all := storeWith(t, 700, true)
	require.NoError(t, image.Remove("store/queues.snapshot"))
	for _, name := range filesUnder(t, image, "store/consumequeue") {
		data, err := image.ReadFile(name)
		require.NoError(t, err)
		last := len(data) / UnitSize
		for last > 0 && entryFrom(data[(last-1)*UnitSize:]).Size == 0 {
			last--
		}
		fsys := image.Kill()
		require.NoError(t, fsys.Flip(name, int64(last-1)*UnitSize, 7)) // a negative log offset
		inBubble(t, testOptions(fsys, "store"), func(t *testing.T, s *Store) {
			synctest.Wait()
			readOrRebuild(t, s)
			requireSent(t, s, all)
		})
	}
}

// An entry whose message is lost from the log, too: a hole, and no rebuild at each look.
func TestR5DamagedEntryOfALostMessage(t *testing.T) {
	fsys, all := storeWith(t, 300, true)
	m := all[100]
	from := all[99].end
	require.NoError(t, fsys.Mangle(filepath.Join("store/commitlog", logName(0)), from, make([]byte, m.end-from)))
	name := filepath.Join("store/consumequeue", m.topic, decimal(int64(m.queueID)), logName(m.queueOffset/testUnits*testUnits*UnitSize))
	require.NoError(t, fsys.Mangle(name, m.queueOffset%testUnits*UnitSize, make([]byte, UnitSize)))
	inBubble(t, testOptions(fsys, "store"), func(t *testing.T, s *Store) {
		require.Equal(t, 1, readOrRebuild(t, s))
		requireSent(t, s, append(append([]sent{}, all[:100]...), all[101:]...))
		fsys.ResetOps()
		require.Zero(t, readOrRebuild(t, s))
		synctest.Wait()
		for _, op := range fsys.Ops() {
			require.False(t, op.Kind == faultfs.OpRead && strings.Contains(op.Name, "commitlog"), "the log is read again: %v", op)
		}
	})
}

// A damaged newest index file is built again. Of an older one the keys are lost, which is said; nothing else is.
func TestR5DamagedIndex(t *testing.T) {
	for _, clean := range []bool{true, false} {
		image, all := storeWith(t, 250, clean)
		files := filesUnder(t, image, "store/index")
		require.Greater(t, len(files), 1)
		for _, damage := range damages {
			fsys := image.Kill()
			damage(t, fsys, files[len(files)-1])
			inBubble(t, testOptions(fsys, "store"), func(t *testing.T, s *Store) {
				indexed(s)
				requireSent(t, s, all)
				requireKeys(t, s, all)
			})
		}
		fsys := image.Kill()
		require.NoError(t, fsys.RemoveAll("store/index"))
		inBubble(t, testOptions(fsys, "store"), func(t *testing.T, s *Store) {
			indexed(s)
			requireKeys(t, s, all)
		})
	}
}

// checkpoint, queues.snapshot and abort, damaged alone and together: more of the log is read, nothing is lost.
func TestR5DamagedCheckpointAndSnapshot(t *testing.T) {
	for _, clean := range []bool{true, false} {
		image, all := storeWith(t, 300, clean)
		names := [][]string{{"checkpoint"}, {"queues.snapshot"}, {"checkpoint", "queues.snapshot"}}
		if !clean {
			names = append(names, []string{"abort"}, []string{"abort", "checkpoint", "queues.snapshot"})
		}
		for _, together := range names {
			for what, damage := range damages {
				if what == "removed" && together[0] == "abort" {
					continue // it says then that the stop was in order
				}
				fsys := image.Kill()
				for _, name := range together {
					damage(t, fsys, filepath.Join("store", name))
				}
				inBubble(t, testOptions(fsys, "store"), func(t *testing.T, s *Store) {
					readOrRebuild(t, s)
					requireSent(t, s, all)
					indexed(s)
					requireKeys(t, s, all)
					p := &producer{s: s, n: len(all), sent: all}
					p.send(t, 10)
					requireSent(t, s, p.sent)
				})
			}
		}
	}
}

// After a crash of what may have been a Java broker, index files that its checkpoint does not cover are not trusted.
func TestR5IndexAfterAnUnknownEnd(t *testing.T) {
	image, all := storeWith(t, 250, false)
	files := filesUnder(t, image, "store/index")
	for _, unknown := range []bool{false, true} {
		fsys := image.Kill()
		if unknown {
			resize(t, fsys, "store/abort", 0) // as the Java broker leaves it
			require.NoError(t, fsys.Mangle("store/checkpoint", 16, make([]byte, 8)))
			require.NoError(t, fsys.Remove("store/queues.snapshot"))
		}
		inBubble(t, testOptions(fsys, "store"), func(t *testing.T, s *Store) {
			_, err := fsys.Stat(files[0])
			require.Equal(t, unknown, err != nil, "unknown end %t: %v", unknown, err)
			indexed(s)
			requireKeys(t, s, all)
		})
	}
}

// A start takes time by what came after the last checkpoint: it reads that part of the log, and opens no queue file.
func TestR6StartReadsWhatIsNew(t *testing.T) {
	for _, clean := range []bool{true, false} {
		fsys := faultfs.New()
		s := openStore(t, testOptions(fsys, "store"))
		p := &producer{s: s}
		for range 3000 {
			p.send(t, 300)
		}
		require.NoError(t, s.Checkpoint())
		for range 10 {
			p.send(t, 300)
		}
		left := fsys.Kill()
		require.NoError(t, s.Close())
		if clean {
			left = fsys
		}
		left.ResetOps()
		inBubble(t, testOptions(left, "store"), func(t *testing.T, s *Store) {
			synctest.Wait()
			read := int64(0)
			for _, op := range left.Ops() {
				require.False(t, strings.Contains(op.Name, "consumequeue") && op.Kind != faultfs.OpStat, "clean %t: %v", clean, op)
				if op.Kind == faultfs.OpRead && strings.Contains(op.Name, "commitlog") {
					read += op.Len
				}
			}
			if clean {
				require.Zero(t, s.Recovery().Records)
			} else {
				require.EqualValues(t, 10, s.Recovery().Records)
			}
			require.Less(t, read, int64(6*testSegment), "%d bytes of the log were read", read)
			requireSent(t, s, p.sent)
		})
	}
}

// Queue entries that a machine kept while it lost their records are taken back.
func TestR5QueueEntriesWithoutRecords(t *testing.T) {
	fsys := faultfs.New()
	s := openStore(t, testOptions(fsys, "store"))
	p := &producer{s: s}
	for range 100 {
		p.send(t, 200)
	}
	require.NoError(t, s.Checkpoint())
	for range 100 {
		p.send(t, 200)
	}
	require.NoError(t, s.queues.WriteBack())
	require.NoError(t, s.queues.Sync())
	left := fsys.Crash(0, faultfs.LoseAll)
	require.NoError(t, s.Close())
	for _, snapshot := range []bool{true, false} {
		state := left.Kill()
		if !snapshot {
			require.NoError(t, state.Remove("store/queues.snapshot"))
		}
		o := testOptions(state, "store")
		o.BootID = "second boot"
		inBubble(t, o, func(t *testing.T, s *Store) {
			synctest.Wait()
			requireSent(t, s, p.sent[:100])
		})
		// Java, or a start without snapshot, must not see them either.
		require.NoError(t, state.Remove("store/queues.snapshot"))
		inBubble(t, o, func(t *testing.T, s *Store) { requireSent(t, s, p.sent[:100]) })
	}
}

func TestBacklogOfQueuesRefusesMessages(t *testing.T) {
	s := openStore(t, testOptions(faultfs.New(), "store"))
	p := &producer{s: s}
	p.send(t, 10)
	require.NoError(t, s.Writable())
	s.queues.unwritten.Add(maxBacklog)
	require.ErrorIs(t, s.Writable(), ErrQueuesBehind)
	require.ErrorIs(t, s.Writable(), commitlog.ErrNotReady)
	s.queues.unwritten.Add(-maxBacklog)
	require.NoError(t, s.Writable())
	require.NoError(t, s.Close())
}
