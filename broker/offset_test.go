package broker

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/remoting"
	"github.com/ringmq/ringmq/store"
)

func (b *testBroker) entry(q *store.ConsumeQueue, offset int64) store.Entry {
	b.t.Helper()
	var e [1]store.Entry
	n, err := q.ReadWait(offset, e[:])
	require.NoError(b.t, err)
	require.Equal(b.t, 1, n)
	return e[0]
}

func ofQueue(topic string, queueID int, more ...string) fields {
	return fields{"topic": topic, "queueId": strconv.Itoa(queueID)}.with(more...)
}

func TestConsumerOffsets(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	c.send("T", 0, "x")
	commit := func(group, topic string, offset int64) (int32, string) {
		r := c.ask(remoting.ReqUpdateConsumerOffset, ofQueue(topic, 0, "consumerGroup", group, "commitOffset", strconv.FormatInt(offset, 10)), nil)
		return r.Code, r.Remark
	}
	query := func(group, topic string, queueID int, more ...string) string {
		r := c.ask(remoting.ReqQueryConsumerOffset, ofQueue(topic, queueID, "consumerGroup", group).with(more...), nil)
		if r.Code == remoting.RespQueryNotFound {
			require.Equal(t, "Not found, maybe this group consumer boot first", r.Remark)
			return "none"
		}
		require.NoError(t, r.Err())
		return r.Fields["offset"]
	}
	require.Equal(t, "0", query("G", "T", 0), "a new group begins with a young queue's first message")
	require.Equal(t, "0", query("G", "T", 1), "also where there is none yet")
	require.Equal(t, "none", query("G", "T", 0, "setZeroIfNotFound", "false"))
	for _, offset := range []int64{5, 3, 0, 1 << 60} {
		code, remark := commit("G", "T", offset)
		require.Zero(t, code, remark)
		require.Equal(t, strconv.FormatInt(offset, 10), query("G", "T", 0), "any value, also backwards")
	}
	require.Equal(t, "none", query("G", "T", 1, "setZeroIfNotFound", "false"), "another queue")
	require.Equal(t, "none", query("G2", "T", 0, "setZeroIfNotFound", "false"), "another group")
	code, remark := commit("G", "none", 1)
	require.EqualValues(t, remoting.RespTopicNotExist, code, remark)
	b.set("autoCreateSubscriptionGroup", "false")
	code, remark = commit("nobody", "T", 1)
	require.EqualValues(t, remoting.RespSubscriptionGroupNotExist, code, remark)

	q := b.store.Queue([]byte("T"), 0)
	for range 9 {
		c.send("T", 0, "x")
	}
	q.TrimBefore(b.entry(q, 5).PhysicalOffset)
	require.Equal(t, "none", query("late", "T", 0), "the queue's first messages are gone: the client decides where to begin")

	for _, missing := range []string{"consumerGroup", "topic", "queueId", "commitOffset"} {
		r := c.ask(remoting.ReqUpdateConsumerOffset, ofQueue("T", 0, "consumerGroup", "G", "commitOffset", "1").with(missing, absent), nil)
		require.EqualValues(t, remoting.RespSystemError, r.Code)
		require.Contains(t, r.Remark, missing)
	}
}

func TestConsumerOffsetsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	b := openTestBroker(t, brokerOptions{Dir: dir})
	c := b.client()
	c.createTopic("T")
	c.createGroup("G", nil)
	c.must(remoting.ReqUpdateConsumerOffset, ofQueue("T", 2, "consumerGroup", "G", "commitOffset", "77"), nil)
	c.send("T", 0, "x")
	b.shutdown()
	b = newTestBroker(t, brokerOptions{Dir: dir})
	c = b.client()
	r := c.must(remoting.ReqQueryConsumerOffset, ofQueue("T", 2, "consumerGroup", "G"), nil)
	require.Equal(t, "77", r.Fields["offset"])
	require.EqualValues(t, 1, c.send("T", 0, "y"), "queue offsets go on, too")
	_, got := c.pull("G", "T", 0, 0)
	require.Equal(t, []string{"x", "y"}, bodiesOf(got))
}

func TestRangeOfAQueue(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	ask := func(code int32, key, topic string, queueID int) int64 {
		return intField(t, c.must(code, ofQueue(topic, queueID), nil), key)
	}
	began := time.Now().UnixMilli()
	for range 10 {
		c.send("T", 0, "x")
	}
	_, got := c.pull("G", "T", 0, 0)
	for _, tt := range []struct {
		rule          string
		topic         string
		queue         int
		min, max, age int64
	}{
		{"with messages", "T", 0, 0, 10, got[0].StoreTimestamp},
		{"without messages", "T", 1, 0, 0, -1},
		{"that is not there", "T", 99, 0, 0, -1},
		{"of an unknown topic", "none", 0, 0, 0, -1},
		{"with a negative number", "T", -1, 0, 0, -1},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			require.Equal(t, [3]int64{tt.min, tt.max, tt.age}, [3]int64{ask(remoting.ReqGetMinOffset, "offset", tt.topic, tt.queue),
				ask(remoting.ReqGetMaxOffset, "offset", tt.topic, tt.queue), ask(remoting.ReqGetEarliestMsgStoretime, "timestamp", tt.topic, tt.queue)})
		})
	}
	require.GreaterOrEqual(t, got[0].StoreTimestamp, began)
	q := b.store.Queue([]byte("T"), 0)
	q.TrimBefore(got[4].PhysicalOffset)
	require.EqualValues(t, 4, ask(remoting.ReqGetMinOffset, "offset", "T", 0))
	require.Equal(t, got[4].StoreTimestamp, ask(remoting.ReqGetEarliestMsgStoretime, "timestamp", "T", 0))
}

func TestSearchOffsetByTime(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	// Store times come from the log's own clock: messages of one millisecond share theirs.
	const n = 30
	for i := range n {
		c.send("T", 0, fmt.Sprint(i))
		last := b.storeTimeAt(b.store.Queue([]byte("T"), 0), int64(i))
		eventually(t, "the clock goes on", func() bool { return i%3 != 0 || time.Now().UnixMilli() > last })
	}
	_, got := c.pull("G", "T", 0, 0)
	require.Len(t, got, n)
	search := func(at int64, boundary string) int64 {
		return intField(t, c.must(remoting.ReqSearchOffsetByTimestamp, ofQueue("T", 0, "timestamp", strconv.FormatInt(at, 10), "boundaryType", boundary), nil), "offset")
	}
	first, last := got[0].StoreTimestamp, got[n-1].StoreTimestamp
	require.Zero(t, search(first-1000, absent), "before all: the first")
	require.EqualValues(t, n, search(last+1000, absent), "behind all: the end")
	require.Zero(t, search(0, absent))
	for at := first; at <= last; at++ {
		lower, upper := int64(n), int64(0)
		for i := n - 1; i >= 0; i-- {
			if got[i].StoreTimestamp >= at {
				lower = int64(i)
			}
		}
		for i := range n {
			if got[i].StoreTimestamp <= at {
				upper = int64(i)
			}
		}
		require.Equal(t, lower, search(at, absent), "the first with a time of %d or later", at)
		require.Equal(t, lower, search(at, "LOWER"))
		require.Equal(t, upper, search(at, "UPPER"), "the last with a time of %d or earlier", at)
	}
	r := c.must(remoting.ReqSearchOffsetByTimestamp, ofQueue("none", 0, "timestamp", "5"), nil)
	require.Equal(t, "0", r.Fields["offset"])
	r = c.ask(remoting.ReqSearchOffsetByTimestamp, ofQueue("T", 0), nil)
	require.EqualValues(t, remoting.RespSystemError, r.Code)
	require.Contains(t, r.Remark, "timestamp")
}

func TestViewMessageByID(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	for i := range 3 {
		c.send("T", 0, fmt.Sprint(i))
	}
	_, got := c.pull("G", "T", 0, 0)
	for i := range got {
		r := c.must(remoting.ReqViewMessageByID, fields{"offset": strconv.FormatInt(got[i].PhysicalOffset, 10)}, nil)
		require.Equal(t, got[i:i+1], recordsOf(t, r.Body))
	}
	for _, offset := range []string{"-1", "1", strconv.FormatInt(b.store.Log().Published(), 10), "1048577", strconv.FormatInt(1<<63-1, 10)} {
		r := c.ask(remoting.ReqViewMessageByID, fields{"offset": offset}, nil)
		require.EqualValues(t, remoting.RespSystemError, r.Code, offset)
		require.Contains(t, r.Remark, "can not find message by the offset, "+offset)
		require.Empty(t, r.Body)
	}
	r := c.ask(remoting.ReqViewMessageByID, fields{"offset": "x"}, nil)
	require.EqualValues(t, remoting.RespSystemError, r.Code)
}

func TestQueryMessage(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.DefaultQueryMaxNum = 3 }})
	c := b.client()
	for i := range 10 {
		c.send("T", i%2, fmt.Sprint(i), "properties", properties("KEYS", fmt.Sprintf("order all k%d", i%3), "UNIQ_KEY", fmt.Sprintf("U%d", i)))
	}
	c.send("other", 0, "other", "properties", properties("KEYS", "order", "UNIQ_KEY", "U3"))
	begin, end := time.Now().Add(-time.Hour).UnixMilli(), time.Now().Add(time.Hour).UnixMilli()
	query := func(topic, key string, more ...string) []string {
		f := fields{"topic": topic, "key": key, "maxNum": "32", "beginTimestamp": strconv.FormatInt(begin, 10), "endTimestamp": strconv.FormatInt(end, 10)}
		r := c.ask(remoting.ReqQueryMessage, f.with(more...), nil)
		if r.Code == remoting.RespQueryNotFound {
			require.Equal(t, "can not find message, maybe time range not correct", r.Remark)
			require.Empty(t, r.Body)
			return nil
		}
		require.NoError(t, r.Err())
		require.Positive(t, intField(t, r, "indexLastUpdatePhyoffset"))
		require.GreaterOrEqual(t, intField(t, r, "indexLastUpdateTimestamp"), begin)
		return bodiesOf(recordsOf(t, r.Body))
	}
	unique := []string{"_UNIQUE_KEY_QUERY", "true"}
	eventually(t, "the index has followed", func() bool { return len(query("other", "U3", unique...)) == 1 })
	require.ElementsMatch(t, []string{"0", "3", "6", "9"}, query("T", "k0"))
	require.ElementsMatch(t, []string{"1", "4", "7"}, query("T", "k1"))
	require.Len(t, query("T", "order"), 10)
	require.Len(t, query("T", "all"), 10)
	require.Len(t, query("T", "order", "maxNum", "4"), 4)
	require.Equal(t, []string{"other"}, query("other", "order"))
	require.Equal(t, []string{"3"}, query("T", "U3", unique...))
	require.Equal(t, []string{"3"}, query("T", "U3", "indexType", "U"))
	require.Nil(t, query("T", "U99", unique...))
	require.Nil(t, query("T", "none"))
	require.Nil(t, query("none", "order"))
	require.Nil(t, query("T", "order", "beginTimestamp", strconv.FormatInt(end, 10), "endTimestamp", strconv.FormatInt(end+1, 10)), "after all")
	require.Nil(t, query("T", "order", "beginTimestamp", "0", "endTimestamp", strconv.FormatInt(begin, 10)), "before all")
	for _, most := range []string{"0", "-1", "-2147483648"} {
		r := c.ask(remoting.ReqQueryMessage, fields{"topic": "T", "key": "order", "maxNum": most, "beginTimestamp": "0", "endTimestamp": strconv.FormatInt(end, 10)}, nil)
		require.NotZero(t, r.Code, "maxNum %s", most)
		require.Empty(t, r.Body)
	}
	for _, missing := range []string{"topic", "key"} {
		r := c.ask(remoting.ReqQueryMessage, fields{"topic": "T", "key": "order", "maxNum": "1"}.with(missing, absent), nil)
		require.EqualValues(t, remoting.RespSystemError, r.Code)
	}
}
