package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/message"
)

const testSegment = 64 << 10

// testOptions are those of a small store that flushes and makes checkpoints only when told.
func testOptions(fsys ioengine.FS, root string) Options {
	return Options{FS: fsys, Root: root, SegmentSize: testSegment, QueueFileUnits: testUnits, HashSlots: testSlots, IndexEntries: testEntries,
		IndexEnable: true, AppendCRC: true, FlushEvery: time.Hour, Window: 2 * time.Hour, CheckpointEvery: time.Hour, BootID: "first boot"}
}

// underTest applies RINGMQ_TEST_IO_ENGINE, with which make test-engines runs these tests for each engine: to real files, because what a killed
// process leaves in its tail file is no file of the double.
func underTest(o *Options) {
	name := os.Getenv("RINGMQ_TEST_IO_ENGINE")
	if name == "" || o.FS != ioengine.OS() {
		return
	}
	if name == "portable" { // that is other means to reach the files, not another engine
		o.FS = ioengine.Portable()
		return
	}
	kind, err := ioengine.ParseEngine(name)
	if err != nil {
		panic(err)
	}
	o.Engine.Engine, o.Engine.TailSize = kind, 32<<20
}

func openStore(t testing.TB, o Options) *Store {
	t.Helper()
	underTest(&o)
	s, err := Open(o)
	require.NoError(t, err)
	return s
}

// sent is a message that a test stored.
type sent struct {
	topic            string
	queueID          int32
	queueOffset, end int64
	body, key        string
}

// producer stores messages of its own numbering.
type producer struct {
	s    *Store
	put  Put
	n    int
	sent []sent
}

// send stores the next message: over three queues of two topics, with a key.
func (p *producer) send(t testing.TB, size int) sent {
	t.Helper()
	m, err := p.trySend(size)
	for errors.Is(err, commitlog.ErrNotReady) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err = p.s.Log().WaitReady(ctx)
		cancel()
		if err == nil {
			m, err = p.trySend(size)
		}
	}
	require.NoError(t, err)
	return m
}

func (p *producer) trySend(size int) (sent, error) {
	m := sent{topic: fmt.Sprintf("T%d", p.n%2), queueID: int32(p.n % 3), key: fmt.Sprintf("key%d", p.n)}
	m.body = fmt.Sprintf("%d ", p.n)
	m.body += string(bytes.Repeat([]byte{'x'}, max(0, size-len(m.body))))
	q, err := p.s.EnsureQueue(m.topic, m.queueID)
	if err != nil {
		return m, err
	}
	p.put.Draft = message.Draft{QueueID: m.queueID, Topic: []byte(m.topic), Body: []byte(m.body),
		Properties: message.AppendProperty(nil, message.PropertyKeys, []byte(m.key))}
	hot := message.ScanHot(p.put.Draft.Properties)
	if p.put.Hot = &hot; p.n%5 == 0 {
		p.put.Hot = nil // some have no note
	}
	if err := p.s.Append(&p.put, q, time.Now().UnixMilli()); err != nil {
		return m, err
	}
	p.s.Dispatch()
	m.queueOffset, m.end = p.put.QueueOffset, p.put.End
	p.n++
	p.sent = append(p.sent, m)
	return m, nil
}

// readQueues reads every queue from its start and checks what it finds against the log: order, places, contents. It returns the bodies
// by queue and queue offset; a hole is not among them.
func readQueues(t testing.TB, s *Store) map[string]string {
	t.Helper()
	found := map[string]string{}
	s.Queues(func(q *ConsumeQueue) {
		before := int64(-1)
		for at := q.Min(); at < q.Max(); {
			var entries [7]Entry
			n, err := q.ReadWait(at, entries[:])
			require.NoError(t, err, "%s-%d at %d", q.Topic, q.QueueID, at)
			require.NotZero(t, n)
			for _, e := range entries[:n] {
				if e.Size > 0 {
					require.Greater(t, e.PhysicalOffset, before, "%s-%d at %d", q.Topic, q.QueueID, at)
					before = e.PhysicalOffset
					var r message.Record
					_, err := s.ReadMessage(e.PhysicalOffset, &r)
					require.NoError(t, err, "%s-%d at %d", q.Topic, q.QueueID, at)
					require.True(t, string(r.Topic) == q.Topic && r.QueueID == q.QueueID && r.QueueOffset == at && r.Size == e.Size,
						"%s-%d at %d leads to %s-%d at %d", q.Topic, q.QueueID, at, r.Topic, r.QueueID, r.QueueOffset)
					found[place(q.Topic, q.QueueID, at)] = string(r.Body)
				}
				at++
			}
		}
		require.Equal(t, q.Max(), q.Next, "%s-%d goes on elsewhere", q.Topic, q.QueueID)
	})
	return found
}

func place(topic string, queueID int32, offset int64) string {
	return fmt.Sprintf("%s-%d:%d", topic, queueID, offset)
}

// requireSent checks that all of these messages are there and no others.
func requireSent(t testing.TB, s *Store, want []sent) {
	t.Helper()
	found := readQueues(t, s)
	for _, m := range want {
		at := place(m.topic, m.queueID, m.queueOffset)
		require.Equal(t, m.body, found[at], "message %s at %s", m.key, at)
	}
	require.Len(t, found, len(want))
}

// requireKeys checks that each message is found by its key; the index has been followed to the end.
func requireKeys(t testing.TB, s *Store, want []sent) {
	t.Helper()
	for _, m := range want {
		res, err := s.QueryByKey([]byte(m.topic), []byte(m.key), 10, 0, math.MaxInt64, 0)
		require.NoError(t, err)
		require.Len(t, res.Offsets, 1, "messages with key %s", m.key)
		var r message.Record
		_, err = s.ReadMessage(res.Offsets[0], &r)
		require.NoError(t, err)
		require.Equal(t, m.body, string(r.Body), "message with key %s", m.key)
	}
}

func flushStore(t testing.TB, s *Store) {
	t.Helper()
	require.NoError(t, s.Log().Flush(time.Minute))
}

// batchBody is n messages as a client sends them in one request.
func batchBody(n, size int) (b []byte) {
	body := bytes.Repeat([]byte{'b'}, size)
	for range n {
		at := len(b)
		b = append(b, make([]byte, 20)...)
		b[at+19], b[at+18] = byte(size), byte(size>>8)
		b = append(append(b, body...), 0, 0)
	}
	return b
}

// Whoever was refused for the moment tries again with the same draft.
func TestBatchCanBeTriedAgain(t *testing.T) {
	s := openStore(t, testOptions(faultfs.New(), "store"))
	defer s.Close()
	q, err := s.EnsureQueue("T", 0)
	require.NoError(t, err)
	p := Put{Draft: message.Draft{Topic: []byte("T"), Body: batchBody(3, 20)}}
	before := p.Draft
	for n := range int64(3) {
		require.NoError(t, s.AppendBatch(&p, q, 1))
		require.Equal(t, before.Body, p.Draft.Body)
		require.Equal(t, 3*n, p.QueueOffset)
		require.Len(t, p.BatchOffsets(), 3)
	}
	s.Dispatch()
	require.EqualValues(t, 9, q.Max())
}

func TestAppendAllocatesNothing(t *testing.T) {
	o := testOptions(ioengine.OS(), t.TempDir())
	o.SegmentSize, o.QueueFileUnits, o.IndexEnable = 64<<20, 300_000, false
	s := openStore(t, o)
	defer s.Close()
	q, err := s.EnsureQueue("T", 0)
	require.NoError(t, err)
	var p Put
	body, batch := bytes.Repeat([]byte{'x'}, 1024), batchBody(16, 128)
	single := message.Draft{Topic: []byte("T"), Body: body, Properties: []byte("KEYS\x01k\x02")}
	together := message.Draft{Topic: []byte("T"), Body: batch}
	// A store begins with little memory ready: once that is used, its keeper has come further.
	for s.Log().Published() < 2<<20 {
		p.Draft = single
		if err := s.Append(&p, q, 1); errors.Is(err, commitlog.ErrNotReady) {
			err = s.Log().WaitReady(t.Context())
			require.NoError(t, err)
		} else {
			require.NoError(t, err)
		}
	}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		p.Draft = single
		if err := s.Append(&p, q, 1); err != nil {
			t.Fatal(err)
		}
	}), "an append allocates")
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		p.Draft = together
		if err := s.AppendBatch(&p, q, 1); err != nil {
			t.Fatal(err)
		}
	}), "a batch append allocates")
	require.Len(t, p.BatchOffsets(), 16)
	// Dispatching has memory for a queue's tail to make now and then: 256 entries at a time.
	s.Dispatch()
	per := testing.AllocsPerRun(2000, func() {
		p.Draft = single
		if err := s.Append(&p, q, 1); err != nil {
			t.Fatal(err)
		}
		s.Dispatch()
	})
	require.Zero(t, per, "dispatching allocates")
}

func BenchmarkStoreAppend(b *testing.B) {
	for _, size := range []int{128, 1024} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			o := testOptions(ioengine.OS(), b.TempDir())
			o.SegmentSize, o.QueueFileUnits, o.IndexEnable = 256<<20, 300_000, false
			s := openStore(b, o)
			defer s.Close()
			q, err := s.EnsureQueue("T", 0)
			require.NoError(b, err)
			var p Put
			draft := message.Draft{Topic: []byte("T"), Body: make([]byte, size), Properties: []byte("KEYS\x01k\x02")}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				p.Draft = draft
				for err := s.Append(&p, q, 1); err != nil; err = s.Append(&p, q, 1) {
					if s.Log().WaitReady(context.Background()) != nil {
						b.Fatal(err)
					}
				}
				s.Dispatch()
			}
		})
	}
}
