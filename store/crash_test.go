package store

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine/faultfs"
)

// Rule R8 at work: the power goes before each operation of a scripted run of the whole store, in every way that the double can express.

// storeMoment is the machine at one point of a run, and how far it was acknowledged by then.
type storeMoment struct {
	what    string
	fs      *faultfs.FS
	flushed int64
}

// storeRun plays a run that has sends, group commits, checkpoints, a stop and a start, and collects its moments.
func storeRun(t *testing.T) (moments []storeMoment, all []sent) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		fsys := faultfs.New()
		o := testOptions(fsys, "store")
		o.SegmentSize, o.QueueFileUnits = 8<<10, 8
		var s *Store
		see := func(what string) {
			m := storeMoment{what: fmt.Sprintf("%d: %s", len(moments), what), fs: fsys.Kill()}
			if s != nil {
				m.flushed = s.Log().Flushed()
			}
			moments = append(moments, m)
		}
		fsys.SetFault(func(op faultfs.Op) error {
			if op.Kind == faultfs.OpRead || op.Kind == faultfs.OpReadNoWait || op.Kind == faultfs.OpStat {
				return nil // nothing changes by it
			}
			mu.Lock()
			defer mu.Unlock()
			see(op.String())
			return nil
		})
		p := &producer{}
		start := func() {
			opened := openStore(t, o)
			mu.Lock()
			s, p.s = opened, opened
			mu.Unlock()
		}
		send := func(n int) {
			for range n {
				synctest.Wait()
				p.send(t, 150)
			}
			synctest.Wait()
		}
		start()
		send(20)
		flushStore(t, s)
		send(10)
		require.NoError(t, s.queues.WriteBack())
		require.NoError(t, s.Checkpoint())
		send(25)
		flushStore(t, s)
		indexed(s)
		require.NoError(t, s.Close())
		start()
		send(10)
		require.NoError(t, s.Checkpoint())
		flushStore(t, s)
		send(5)
		require.NoError(t, s.queues.WriteBack())
		require.NoError(t, s.queues.Sync())
		synctest.Wait()
		see("at the end")
		fsys.SetFault(nil)
		require.NoError(t, s.Close())
		all = p.sent
	})
	return moments, all
}

func TestCrashOfTheStoreAnywhere(t *testing.T) {
	moments, all := storeRun(t)
	states := 0
	for i, m := range moments {
		try := func(name string, state *faultfs.FS, boot string) {
			states++
			o := testOptions(state, "store")
			o.SegmentSize, o.QueueFileUnits, o.BootID = 8<<10, 8, boot
			synctest.Test(t, func(t *testing.T) {
				defer func() {
					if t.Failed() {
						t.Logf("%s, %s", m.what, name)
					}
				}()
				survivesCrash(t, o, m.flushed, all)
			})
		}
		try("kill", m.fs.Kill(), "first boot")
		try("nothing kept", m.fs.Crash(0, faultfs.LoseAll), "second boot")
		for seed := range crashSeeds {
			mode := faultfs.Random
			if seed%2 == 1 {
				mode = faultfs.Torn
			}
			try(fmt.Sprintf("%v by seed %d", mode, seed), m.fs.Crash(int64(i)<<8+int64(seed), mode), "second boot")
		}
	}
	t.Logf("%d moments, %d states", len(moments), states)
}

// survivesCrash opens what a crash left: what was acknowledged is there, whatever else is there is whole and in its place, keys lead to
// it, messages go on, and the next start finds the same.
func survivesCrash(t *testing.T, o Options, flushed int64, all []sent) {
	s, err := Open(o)
	require.NoError(t, err)
	synctest.Wait()
	readOrRebuild(t, s)
	found := readQueues(t, s)
	var there []sent
	for _, m := range all {
		body, ok := found[place(m.topic, m.queueID, m.queueOffset)]
		if ok {
			require.Equal(t, m.body, body)
			there = append(there, m)
		} else if m.end <= flushed {
			require.Failf(t, "lost", "message %s was acknowledged: %s-%d:%d", m.key, m.topic, m.queueID, m.queueOffset)
		}
	}
	require.Len(t, found, len(there), "messages that nobody sent")
	p := &producer{s: s, n: len(all), sent: there}
	for range 3 {
		p.send(t, 150)
		synctest.Wait()
	}
	requireSent(t, s, p.sent)
	indexed(s)
	requireKeys(t, s, p.sent)
	require.NoError(t, s.Log().Flush(time.Minute))
	o.FS = o.FS.(*faultfs.FS).Crash(0, faultfs.LoseAll)
	require.NoError(t, s.Close())
	o.BootID = "third boot"
	s, err = Open(o)
	require.NoError(t, err)
	readOrRebuild(t, s)
	requireSent(t, s, p.sent)
	require.NoError(t, s.Close())
}
