package store

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine/faultfs"
)

// retentionStore runs a test on a store of ten full segments and one that is written to, with the clock at the full hour.
func retentionStore(t *testing.T, ret Retention, run func(t *testing.T, fsys *faultfs.FS, s *Store, p *producer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		o := testOptions(fsys, "store")
		o.Retention = ret
		s := openStore(t, o)
		p := &producer{s: s}
		for s.Log().Published() < 10*testSegment+testSegment/2 {
			synctest.Wait()
			p.send(t, 500)
		}
		flushStore(t, s)
		run(t, fsys, s, p)
		require.NoError(t, s.Close())
		again := openStore(t, testOptions(fsys, "store"))
		requireSent(t, again, left(again, p))
		require.NoError(t, again.Close())
	})
}

// left are the messages that retention has left.
func left(s *Store, p *producer) []sent {
	for i, m := range p.sent {
		if m.end > s.Log().MinOffset() {
			return p.sent[i:]
		}
	}
	return nil
}

// at is a time of this day or the next one, at the given hour.
func at(hours float64) { <-time.After(time.Duration(hours * float64(time.Hour))) }

func TestRetentionByTime(t *testing.T) {
	var hour int
	synctest.Test(t, func(*testing.T) { hour = time.Now().Hour() }) // a bubble begins at the same time each time
	ret := Retention{Reserved: time.Hour, DeleteWhen: []int{(hour + 3) % 24}}
	retentionStore(t, ret, func(t *testing.T, fsys *faultfs.FS, s *Store, p *producer) {
		at(2.9)
		require.Zero(t, s.Log().MinOffset(), "deleted outside of the hour")
		at(0.2)
		require.EqualValues(t, 10*testSegment, s.Log().MinOffset(), "not deleted in the hour, or the segment that is written to was")
		requireSent(t, s, left(s, p))
		s.Queues(func(q *ConsumeQueue) {
			if q.Max() > 0 {
				require.Positive(t, q.Min(), "%s-%d", q.Topic, q.QueueID)
			}
		})
		p.send(t, 100)
		indexed(s)
		requireKeys(t, s, left(s, p))
	})
}

func TestRetentionKeepsWhatIsYoung(t *testing.T) {
	var all []int
	for hour := range 24 {
		all = append(all, hour)
	}
	ret := Retention{Reserved: 2 * time.Hour, DeleteWhen: all}
	retentionStore(t, ret, func(t *testing.T, fsys *faultfs.FS, s *Store, p *producer) {
		at(1.9)
		require.Zero(t, s.Log().MinOffset())
		for s.Log().Published() < 13*testSegment { // the tail and more, written now
			synctest.Wait()
			p.send(t, 500)
		}
		at(1.9)
		require.EqualValues(t, 10*testSegment, s.Log().MinOffset())
		at(0.3)
		require.EqualValues(t, 13*testSegment, s.Log().MinOffset())
	})
}

func TestRetentionWhenAsked(t *testing.T) {
	var hour int
	synctest.Test(t, func(*testing.T) { hour = time.Now().Hour() })
	ret := Retention{Reserved: time.Hour, DeleteWhen: []int{(hour + 12) % 24}}
	retentionStore(t, ret, func(t *testing.T, fsys *faultfs.FS, s *Store, p *producer) {
		at(1.5)
		require.Zero(t, s.Log().MinOffset())
		s.DeleteExpired()
		at(0.1)
		require.EqualValues(t, 10*testSegment, s.Log().MinOffset())
	})
}

// use makes the used share of the disk what is given.
func use(t *testing.T, fsys *faultfs.FS, share float64) {
	t.Helper()
	<-time.After((duePasses + 2) * writeBackEvery) // queue entries take space, too, and are written late
	free, total, err := fsys.Usage("store")
	require.NoError(t, err)
	fsys.SetCapacity(int64(float64(total-free) / share))
}

func TestRetentionByDisk(t *testing.T) {
	var hour int
	synctest.Test(t, func(*testing.T) { hour = time.Now().Hour() })
	ret := Retention{Reserved: time.Hour, DeleteWhen: []int{(hour + 12) % 24}}
	retentionStore(t, ret, func(t *testing.T, fsys *faultfs.FS, s *Store, p *producer) {
		use(t, fsys, 0.80) // above MaxUsed: what is old goes at any hour, what is young stays
		at(0.9)
		require.Zero(t, s.Log().MinOffset())
		require.NoError(t, s.Writable())
		at(0.2)
		require.EqualValues(t, 10*testSegment, s.Log().MinOffset())
	})
	retentionStore(t, ret, func(t *testing.T, fsys *faultfs.FS, s *Store, p *producer) {
		use(t, fsys, 0.88) // above CleanForcibly: whatever its age, and no more than needed
		<-time.After(5 * time.Minute)
		used, err := s.DiskUsed()
		require.NoError(t, err)
		require.LessOrEqual(t, used, 0.85)
		require.Greater(t, used, 0.70)
		require.Positive(t, s.Log().MinOffset())
		requireSent(t, s, left(s, p))
	})
}

// Above the warning level no message is taken, from the first moment on, until space is back.
func TestRetentionWarningLevel(t *testing.T) {
	ret := Retention{Reserved: time.Hour, CleanForcibly: 2, MaxUsed: 2}
	retentionStore(t, ret, func(t *testing.T, fsys *faultfs.FS, s *Store, p *producer) {
		use(t, fsys, 0.99)
		<-time.After(time.Minute)
		require.ErrorIs(t, s.Writable(), ErrDiskUsed)
		o := testOptions(fsys.Kill(), "store")
		full := openStore(t, o)
		require.ErrorIs(t, full.Writable(), ErrDiskUsed)
		require.NoError(t, full.Close())
		use(t, fsys, 0.50)
		<-time.After(time.Minute)
		require.NoError(t, s.Writable())
	})
}

// The file system takes its time over a removal: sends go on, and wait for nothing.
func TestRetentionNeverStallsASend(t *testing.T) {
	var hour int
	synctest.Test(t, func(*testing.T) { hour = time.Now().Hour() })
	ret := Retention{Reserved: time.Hour, DeleteWhen: []int{hour + 1}}
	retentionStore(t, ret, func(t *testing.T, fsys *faultfs.FS, s *Store, p *producer) {
		gate := fsys.Gate(faultfs.OpRename, faultfs.OpTruncate, faultfs.OpRemove, faultfs.OpUnmap, faultfs.OpClose)
		defer gate.Open()
		held := <-gate.Arrived // it is time to delete
		for range 30 {
			for range 40 {
				began := time.Now()
				_, err := p.trySend(300)
				require.NoError(t, err, "a send waits for %v", held.Op)
				require.Zero(t, time.Since(began))
			}
			synctest.Wait() // the keeper has gone on
			flushStore(t, s)
			held.Pass(nil)
			held = <-gate.Arrived
		}
		held.Pass(nil)
	})
}

// The wall clock jumps by a year, forwards or back: nothing is deleted for it (R7).
func TestR7RetentionIgnoresTheJumpOfAClock(t *testing.T) {
	for _, jump := range []time.Duration{365 * 24 * time.Hour, -365 * 24 * time.Hour, 2 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			var offset atomic.Int64
			fsys := faultfs.New()
			o := testOptions(fsys, "store")
			o.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
			for hour := range 24 {
				o.Retention.DeleteWhen = append(o.Retention.DeleteWhen, hour)
			}
			o.Retention.Reserved = time.Hour
			s := openStore(t, o)
			p := &producer{s: s}
			for s.Log().Published() < 3*testSegment {
				synctest.Wait()
				p.send(t, 500)
			}
			flushStore(t, s)
			offset.Store(int64(jump))
			at(0.9)
			require.Zero(t, s.Log().MinOffset(), "a jump of %v deleted messages", jump)
			if jump > 0 {
				at(0.3)
				require.EqualValues(t, 3*testSegment, s.Log().MinOffset(), "after a jump of %v nothing is deleted any more", jump)
			}
			require.NoError(t, s.Close())
		})
	}
}

// Offsets and order come from the log, not from the clock.
func TestR7OrderWithoutAClock(t *testing.T) {
	fsys := faultfs.New()
	o := testOptions(fsys, "store")
	s := openStore(t, o)
	q, err := s.EnsureQueue("T", 0)
	require.NoError(t, err)
	var p Put
	before := int64(0)
	for i, now := range []int64{5000, 100, 9000, 0, 8999} {
		p.Draft.Topic, p.Draft.Body = []byte("T"), []byte("x")
		require.NoError(t, s.Append(&p, q, now))
		require.EqualValues(t, i, p.QueueOffset)
		require.GreaterOrEqual(t, p.StoreTimestamp, before)
		before = p.StoreTimestamp
	}
	s.Dispatch()
	require.EqualValues(t, 5, q.Max())
	require.NoError(t, s.Close())
}
