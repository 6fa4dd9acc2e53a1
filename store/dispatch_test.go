package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/message"
)

// Topics that are deleted while messages come: what belongs to the old queue stays out of the new one.

// putInto stores a message in queue 0 of T, or in q where that is given, and does not dispatch it.
func putInto(s *Store, p *Put, q *ConsumeQueue, body string) error {
	for {
		at := q
		if at == nil {
			var err error
			if at, err = s.EnsureQueue("T", 0); err != nil {
				return err
			}
		}
		p.Draft = message.Draft{Topic: []byte("T"), Body: []byte(body)}
		err := s.Append(p, at, time.Now().UnixMilli())
		if !errors.Is(err, commitlog.ErrNotReady) {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err = s.Log().WaitReady(ctx)
		cancel()
		if err != nil {
			return err
		}
	}
}

// putBodies stores bodies from to to-1.
func putBodies(t *testing.T, s *Store, q *ConsumeQueue, from, to int) {
	t.Helper()
	var p Put
	for i := from; i < to; i++ {
		require.NoError(t, putInto(s, &p, q, fmt.Sprint(i)))
	}
}

// requireBodies checks that queue 0 of T holds exactly the bodies from to to-1, from queue offset 0 on.
func requireBodies(t *testing.T, s *Store, from, to int) {
	t.Helper()
	found := readQueues(t, s)
	for i := from; i < to; i++ {
		require.Equal(t, fmt.Sprint(i), found[place("T", 0, int64(i-from))])
	}
	require.Len(t, found, to-from)
	require.Zero(t, s.Queue([]byte("T"), 0).Min())
}

func TestDeleteBeforeDispatch(t *testing.T) {
	s := openStore(t, testOptions(faultfs.New(), "store"))
	putBodies(t, s, nil, 0, 20)
	s.Dispatch()
	putBodies(t, s, nil, 20, 25)
	require.NoError(t, s.DeleteTopic("T"))
	s.Dispatch()
	require.Nil(t, s.Queue([]byte("T"), 0), "a late record does not bring the queue back")

	putBodies(t, s, nil, 0, 5)
	require.NoError(t, s.DeleteTopic("T"))
	putBodies(t, s, nil, 100, 103)
	s.Dispatch()
	requireBodies(t, s, 100, 103)
	require.NoError(t, s.Close())
}

// A start numbers the queues that it found anew from where they are.
func TestDispatchAfterAStart(t *testing.T) {
	fsys := faultfs.New()
	for round := range 3 {
		s := openStore(t, testOptions(fsys, "store"))
		putBodies(t, s, nil, 10*round, 10*round+10)
		s.Dispatch()
		requireBodies(t, s, 0, 10*round+10)
		require.NoError(t, s.Close())
	}
}

func TestPutIntoADeletedQueue(t *testing.T) {
	s := openStore(t, testOptions(faultfs.New(), "store"))
	putBodies(t, s, nil, 0, 20)
	s.Dispatch()
	old := s.Queue([]byte("T"), 0)
	require.NoError(t, s.DeleteTopic("T"))
	putBodies(t, s, old, 100, 103)
	require.NotSame(t, old, s.Queue([]byte("T"), 0))
	putBodies(t, s, nil, 103, 105)
	putBodies(t, s, old, 105, 107)
	s.Dispatch()
	requireBodies(t, s, 100, 107)
	require.NoError(t, s.Close())
}

// The deletion comes between the look at the queue and the tail of the log: the place is taken, but by nothing that a queue takes in.
func TestPlaceOfADeletedQueue(t *testing.T) {
	fsys := faultfs.New()
	s := openStore(t, testOptions(fsys, "store"))
	putBodies(t, s, nil, 0, 20)
	p := Put{Draft: message.Draft{Topic: []byte("T"), Body: []byte("void")}, queue: s.Queue([]byte("T"), 0)}
	require.NoError(t, s.DeleteTopic("T"))
	s.prepare(&p.Draft)
	_, err := s.log.Append(p.Draft.Size(), time.Now().UnixMilli(), &p)
	require.NoError(t, err)
	require.True(t, p.void)
	putBodies(t, s, nil, 100, 103)
	s.Dispatch()
	requireBodies(t, s, 100, 103)
	left := fsys.Kill()
	require.NoError(t, s.Close())
	s = openStore(t, testOptions(left, "store"))
	requireBodies(t, s, 100, 103)
	require.NoError(t, s.Close())
}

// The process dies after the topic was deleted and made again, and before a checkpoint: the log alone tells where the queue began anew.
func TestKillAfterDelete(t *testing.T) {
	for _, checkpoint := range []string{"none", "of the old queue", "of the old queue, half", "of the new queue"} {
		t.Run("checkpoint "+checkpoint, func(t *testing.T) {
			fsys := faultfs.New()
			s := openStore(t, testOptions(fsys, "store"))
			putBodies(t, s, nil, 0, 70)
			s.Dispatch()
			if checkpoint == "of the old queue, half" {
				require.NoError(t, s.Checkpoint())
				putBodies(t, s, nil, 70, 140)
				s.Dispatch()
			}
			if checkpoint == "of the old queue" {
				require.NoError(t, s.Checkpoint())
			}
			putBodies(t, s, nil, 140, 145)
			require.NoError(t, s.DeleteTopic("T"))
			putBodies(t, s, nil, 200, 210)
			s.Dispatch()
			if checkpoint == "of the new queue" {
				require.NoError(t, s.Checkpoint())
			}
			putBodies(t, s, nil, 210, 220)
			s.Dispatch()
			require.NoError(t, s.queues.WriteBack())
			left := fsys.Kill()
			require.NoError(t, s.Close())

			s = openStore(t, testOptions(left, "store"))
			requireBodies(t, s, 200, 220)
			putBodies(t, s, nil, 220, 230)
			s.Dispatch()
			requireBodies(t, s, 200, 230)
			require.NoError(t, s.Close())
			// Neither does a scan of the files find anything of the old queue.
			require.NoError(t, left.Remove("store/"+snapshotName))
			s = openStore(t, testOptions(left, "store"))
			requireBodies(t, s, 200, 230)
			require.NoError(t, s.Close())
		})
	}
}

// acked is a message whose storing was told.
type acked struct {
	deletions, offset int64 // deletions that were over when it was begun; its queue offset
	body              string
}

// Whoever begins to send when a deletion is over finds the message where the answer said, unless another deletion came.
func TestDeleteWhileMessagesCome(t *testing.T) {
	const rounds, senders, deletions, after, mostAhead = 10, 4, 8, 25, 64 << 10
	o := testOptions(ioengine.OS(), t.TempDir())
	o.SegmentSize, o.QueueFileUnits = 4<<20, 300_000
	s := openStore(t, o)
	var wg sync.WaitGroup
	defer wg.Wait() // of a test that has failed the senders end, too: what fails behind its end is a panic that hides why
	for round := range rounds {
		var over, stored atomic.Int64
		told := make([][]acked, senders)
		for id := range senders {
			wg.Go(func() {
				var p Put
				for n, left := 0, after; left > 0 && !t.Failed(); n++ {
					// On a busy machine they would outrun the one that dispatches, who goes on to the end of the log: it would never come.
					for s.Log().Published()-s.Dispatched() > mostAhead && !t.Failed() {
						s.Dispatch()
						runtime.Gosched()
					}
					m := acked{deletions: over.Load(), body: fmt.Sprintf("%d %d %d", round, id, n)}
					if err := putInto(s, &p, nil, m.body); err != nil {
						t.Error(err)
						return
					}
					if n%3 == 0 { // others dispatch it, before or behind a deletion
						s.Dispatch()
					}
					m.offset = p.QueueOffset
					told[id] = append(told[id], m)
					stored.Add(1)
					if m.deletions == deletions {
						left--
					}
				}
			})
		}
		for range deletions {
			seen := stored.Load()
			for stored.Load() < seen+20 && !t.Failed() {
				s.Dispatch()
			}
			require.NoError(t, s.DeleteTopic("T"))
			over.Add(1)
		}
		wg.Wait()
		s.Dispatch()
		found := readQueues(t, s)
		q := s.Queue([]byte("T"), 0)
		require.Zero(t, q.Min())
		require.Len(t, found, int(q.Max()), "no offset is left out")
		for _, list := range told {
			for _, m := range list {
				if m.deletions == deletions {
					require.Equal(t, m.body, found[place("T", 0, m.offset)])
				}
			}
		}
	}
	require.NoError(t, s.Close())
}
