package broker

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// commitTo is UPDATE_CONSUMER_OFFSET.
func (c *testClient) commitTo(group, topic string, queueID int, offset int64) {
	c.t.Helper()
	c.must(remoting.ReqUpdateConsumerOffset, fields{"consumerGroup": group, "topic": topic, "queueId": strconv.Itoa(queueID),
		"commitOffset": strconv.FormatInt(offset, 10)}, nil)
}

// consumed is a broker with two topics of four queues: three messages in T's queue 1, of which group g has consumed two, and one in U's queue
// 0, of which it has consumed none. times are the store times of the three, all different, in milliseconds.
func consumed(t *testing.T) (b *testBroker, c *testClient, clock *testClock, times [3]int64) {
	clock = newTestClock()
	b = newTestBroker(t, brokerOptions{Now: clock.now})
	c = b.client()
	c.createTopic("T")
	c.createTopic("U", "order", "true")
	for i := range times {
		c.send("T", 1, "x")
		_, got := c.pull("reader", "T", 1, int64(i))
		times[i] = got[0].StoreTimestamp
		eventually(t, "the next millisecond", func() bool { return time.Now().UnixMilli() > times[i] })
	}
	c.send("U", 0, "y")
	c.commitTo("g", "T", 1, 2)
	c.commitTo("g", "U", 0, 0)
	return b, c, clock, times
}

func TestConsumeStats(t *testing.T) {
	_, c, _, times := consumed(t)
	stats := func(more ...string) map[remoting.MessageQueue]remoting.OffsetWrapper {
		f := fields{"consumerGroup": "g"}
		return decoded[remoting.ConsumeStats](t, c.ask(remoting.ReqGetConsumeStats, f.with(more...), nil)).OffsetTable
	}
	t1 := remoting.MessageQueue{BrokerName: "broker-a", QueueID: 1, Topic: "T"}
	u0 := remoting.MessageQueue{BrokerName: "broker-a", QueueID: 0, Topic: "U"}
	want := remoting.OffsetWrapper{BrokerOffset: 3, ConsumerOffset: 2, PullOffset: 2, LastTimestamp: times[1]}
	all := stats()
	require.Len(t, all, 8)
	require.Equal(t, want, all[t1])
	require.Equal(t, remoting.OffsetWrapper{BrokerOffset: 1}, all[u0])
	require.Len(t, stats("topic", "U"), 4)
	require.Empty(t, stats("topic", "none"))

	// Once the group is online, topics that it does not subscribe to are left out, unless they are named in a list.
	c.beat("me", "g", 1, map[string]string{"U": "*"})
	require.Len(t, stats(), 4)
	require.Contains(t, stats(), u0)
	require.Empty(t, stats("topic", "T"))
	require.Equal(t, want, stats("topicList", "T;none")[t1])
}

func TestConsumeStatsOfAllGroups(t *testing.T) {
	b, c, _, _ := consumed(t)
	ask := func(order string) (remoting.ConsumeStatsList, []remoting.ConsumeStats) {
		all := decoded[remoting.ConsumeStatsList](t, c.ask(remoting.ReqGetBrokerConsumeStats, fields{"isOrder": order}, nil))
		for _, byGroup := range all.ConsumeStatsList {
			if list, ok := byGroup["g"]; ok {
				return all, list
			}
		}
		t.Fatal("the group is missing")
		return all, nil
	}
	all, list := ask("false")
	require.Len(t, list, 2)
	require.Equal(t, int64(2), all.TotalDiff)
	require.Zero(t, all.TotalInflightDiff)
	require.Equal(t, b.Addr(), all.BrokerAddr)
	all, list = ask("true")
	require.Len(t, list, 1)
	require.Equal(t, int64(1), all.TotalDiff)
}

func TestConsumeTimeSpan(t *testing.T) {
	_, c, clock, times := consumed(t)
	clock.millis.Store(times[2] + 60_000)
	spans := decoded[remoting.ConsumeTimeSpans](t, c.ask(remoting.ReqQueryConsumeTimeSpan, fields{"topic": "T", "group": "g"}, nil)).ConsumeTimeSpanSet
	require.Len(t, spans, 4)
	require.Equal(t, remoting.NewQueueTimeSpan(remoting.MessageQueue{BrokerName: "broker-a", QueueID: 1, Topic: "T"}, times[0], times[2], times[1], 60_000), spans[1])
	require.Equal(t, remoting.NewQueueTimeSpan(remoting.MessageQueue{BrokerName: "broker-a", QueueID: 0, Topic: "T"}, -1, -1, -1, 0), spans[0])
	require.Equal(t, remoting.RespTopicNotExist, c.ask(remoting.ReqQueryConsumeTimeSpan, fields{"topic": "none", "group": "g"}, nil).Code)
}

func TestCorrectionOffsets(t *testing.T) {
	_, c, _, _ := consumed(t)
	c.commitTo("h", "T", 1, 1)
	ask := func(f fields) map[int32]int64 {
		return decoded[remoting.CorrectionOffsets](t, c.ask(remoting.ReqQueryCorrectionOffset, f.with("topic", "T"), nil)).CorrectionOffsets
	}
	require.Equal(t, map[int32]int64{1: 1}, ask(fields{"compareGroup": "none"}))
	require.Equal(t, map[int32]int64{1: 2}, ask(fields{"compareGroup": "none", "filterGroups": "h,x"}))
	require.Equal(t, map[int32]int64{1: 1<<63 - 1}, ask(fields{"compareGroup": "h", "filterGroups": "h"}))
}

func TestCloneGroupOffset(t *testing.T) {
	_, c, _, _ := consumed(t)
	clone := func(to string, more ...string) []string {
		f := fields{"srcGroup": "g", "destGroup": to, "offline": "false"}
		c.must(remoting.ReqCloneGroupOffset, f.with(more...), nil)
		return decoded[remoting.TopicList](t, c.ask(remoting.ReqQueryTopicsByConsumer, fields{"group": to}, nil)).TopicList
	}
	require.Equal(t, []string{"T"}, clone("one", "topic", "T"))
	require.Equal(t, []string{"T", "U"}, clone("all"))
	r := c.must(remoting.ReqQueryConsumerOffset, fields{"consumerGroup": "all", "topic": "T", "queueId": "1"}, nil)
	require.Equal(t, int64(2), intField(t, r, "offset"))
	c.beat("me", "g", 1, map[string]string{"U": "*"})
	require.Equal(t, []string{"U"}, clone("online"))
	require.Equal(t, []string{"T", "U"}, clone("offline", "offline", "true"))
	require.Equal(t, remoting.RespInvalidParameter, c.ask(remoting.ReqCloneGroupOffset, fields{"srcGroup": "g", "destGroup": "no good"}, nil).Code)
}

// The interval of the offsets is five seconds; who waits for his change must not wait for it.
func TestOffsetChangesOfToolsAreSavedAtOnce(t *testing.T) {
	b, c, _, _ := consumed(t)
	require.GreaterOrEqual(t, b.cfg.Load().FlushConsumerOffsetInterval, 5000)
	begin := time.Now()
	c.must(remoting.ReqDeleteTopicInBroker, fields{"topic": "T"}, nil)
	require.Less(t, time.Since(begin), 4*time.Second)
	text, err := b.fsys.ReadFile(b.offsets.saver.file.Name())
	require.NoError(t, err)
	require.NotContains(t, string(text), "T@g")
	require.Contains(t, string(text), "U@g")
}

func TestTablesThatASlaveCopies(t *testing.T) {
	_, c, _, _ := consumed(t)
	c.pull("g", "T", 1, 2)
	r := c.ask(remoting.ReqGetAllConsumerOffset, nil, nil)
	offsets := decoded[remoting.ConsumerOffsetTable](t, r)
	require.Equal(t, map[int32]int64{1: 2}, offsets.OffsetTable["T@g"])
	require.Equal(t, map[int32]int64{0: 0}, offsets.OffsetTable["U@g"])
	require.Equal(t, []string{"T", "U"}, offsets.GroupTopicMap["g"])
	require.Contains(t, string(r.Body), `"T@g":{"1":2},"T@reader":{"1":2}`, "raw keys in a member that Java's slave does not know")

	c.send("U", 0, "later", "properties", properties("DELAY", "3"))
	eventually(t, "the first delayed message has its queue", func() bool {
		r := c.must(remoting.ReqGetMaxOffset, fields{"topic": message.ScheduleTopic, "queueId": "2"}, nil)
		return r.Fields["offset"] == "1"
	})
	delays := c.must(remoting.ReqGetAllDelayOffset, nil, nil)
	require.True(t, strings.HasPrefix(string(delays.Body), `{"dataVersion":{`), "%s", delays.Body)
	decoded[remoting.DelayOffsetTable](t, delays)
}
