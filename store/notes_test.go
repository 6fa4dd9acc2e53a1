package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/message"
)

// batchOf is what a SEND_BATCH request has for these messages.
func batchOf(properties ...[]byte) (body []byte) {
	for _, p := range properties {
		m := binary.BigEndian.AppendUint32(make([]byte, 16), 1)
		m = append(m, 'x')
		m = binary.BigEndian.AppendUint16(m, uint16(len(p)))
		m = append(m, p...)
		binary.BigEndian.PutUint32(m, uint32(len(m)))
		body = append(body, m...)
	}
	return body
}

// Two stores get the same messages, one with notes where they can be and one without: entries and index are the same, and most records of the first
// were not read again.
func TestNotesSayWhatTheRecordsSay(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var noted, plain *Store
	for _, s := range []**Store{&noted, &plain} {
		o := testOptions(faultfs.New(), "store")
		o.HashSlots, o.IndexEntries = 5000, 100_000
		*s = openStore(t, o)
		defer func() { require.NoError(t, (*s).Close()) }()
	}
	plain.dispatch.notes.list, plain.dispatch.indexNotes.list = nil, nil
	properties := func(i int) (p []byte, keys []string) {
		add := func(name, value string) { p = message.AppendProperty(p, name, []byte(value)) }
		if rnd.IntN(8) > 0 {
			keys = append(keys, fmt.Sprint("uniq", i))
			add(message.PropertyUniqKey, keys[0])
		}
		if rnd.IntN(2) > 0 {
			add(message.PropertyTags, fmt.Sprint("tag", i%7))
		}
		switch rnd.IntN(6) {
		case 0:
			keys = append(keys, "all")
			add(message.PropertyKeys, "all")
		case 1:
			keys = append(keys, fmt.Sprint("a", i), fmt.Sprint("b", i), fmt.Sprint("c", i))
			add(message.PropertyKeys, fmt.Sprintf("a%d  b%d c%d", i, i, i))
		case 2:
			add(message.PropertyDelay, "3")
		case 3:
			add(message.PropertyPriority, "1")
		}
		return p, keys
	}
	var all []string
	var puts [2]Put
	now := testEpoch
	for i := range 3000 {
		topic, queueID, size := []byte("T"), int32(rnd.IntN(3)), rnd.IntN(400)
		if rnd.IntN(10) == 0 {
			topic = []byte(message.ScheduleTopic)
		}
		var sysFlag int32
		if rnd.IntN(10) == 0 {
			sysFlag = message.SysTransactionPrepared
		}
		text, keys := properties(i)
		all = append(all, keys...)
		draft := message.Draft{Topic: topic, Body: make([]byte, size), Properties: text, QueueID: queueID, SysFlag: sysFlag}
		batch := rnd.IntN(10) == 0
		if batch {
			more, keys := properties(i + 10_000)
			all = append(all, keys...)
			draft.Body, draft.Properties = batchOf(text, more), nil
		}
		for k, s := range []*Store{noted, plain} {
			q, err := s.EnsureQueue(string(topic), queueID)
			require.NoError(t, err)
			p := &puts[k]
			for {
				p.Draft = draft
				hot := message.ScanHot(text)
				p.Hot = &hot
				if batch {
					err = s.AppendBatch(p, q, now)
				} else {
					err = s.Append(p, q, now)
				}
				if err != commitlog.ErrNotReady {
					break
				}
				require.NoError(t, s.Log().WaitReady(t.Context()))
			}
			require.NoError(t, err)
		}
		now += int64(rnd.IntN(3))
		if rnd.IntN(50) == 0 {
			noted.Dispatch()
			plain.Dispatch()
		}
		if rnd.IntN(200) == 0 {
			noted.indexer.catchUp(noted)
		}
	}
	for _, s := range []*Store{noted, plain} {
		require.True(t, s.Dispatch())
		s.indexer.catchUp(s)
		require.Equal(t, s.Log().Published(), s.IndexedOffset())
	}
	require.Greater(t, noted.dispatch.notes.head.Load(), uint64(1000))
	require.Greater(t, noted.dispatch.indexNotes.head.Load(), uint64(1000))
	require.Equal(t, readQueues(t, plain), readQueues(t, noted))
	plain.Queues(func(q *ConsumeQueue) {
		want, got := make([]Entry, q.Max()), make([]Entry, q.Max())
		n, err := q.ReadWait(0, want)
		require.NoError(t, err)
		m, err := noted.Queue([]byte(q.Topic), q.QueueID).ReadWait(0, got)
		require.NoError(t, err)
		require.Equal(t, want[:n], got[:m])
	})
	for _, key := range append(all, "tag1") {
		want, err := plain.QueryByKey([]byte("T"), []byte(key), 10_000, 0, math.MaxInt64, 0)
		require.NoError(t, err)
		got, err := noted.QueryByKey([]byte("T"), []byte(key), 10_000, 0, math.MaxInt64, 0)
		require.NoError(t, err)
		require.Equal(t, want, got, key)
	}
}

// Who appends more than there is room for leaves the rest to be read.
func TestMoreThanTheNotes(t *testing.T) {
	o := testOptions(faultfs.New(), "store")
	o.SegmentSize = 16 << 20
	s := openStore(t, o)
	defer func() { require.NoError(t, s.Close()) }()
	q, err := s.EnsureQueue("T", 0)
	require.NoError(t, err)
	var p Put
	for round := range 3 {
		for i := range keptNotes + 100 {
			p.Draft = message.Draft{Topic: []byte("T"), Body: []byte("x"), Properties: message.AppendProperty(nil, message.PropertyUniqKey, fmt.Append(nil, round, "-", i))}
			hot := message.ScanHot(p.Draft.Properties)
			p.Hot = &hot
			err := s.Append(&p, q, testEpoch)
			for errors.Is(err, commitlog.ErrNotReady) {
				require.NoError(t, s.Log().WaitReady(t.Context()))
				p.Hot = &hot
				err = s.Append(&p, q, testEpoch)
			}
			require.NoError(t, err)
		}
		require.True(t, s.Dispatch())
		require.EqualValues(t, (round+1)*(keptNotes+100), q.Max())
		require.Nil(t, s.dispatch.notes.first())
		found, err := s.QueryByKey([]byte("T"), fmt.Append(nil, round, "-", keptNotes+50), 10, 0, math.MaxInt64, 0)
		require.NoError(t, err)
		require.Len(t, found.Offsets, 1)
	}
	readQueues(t, s)
}
