package broker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
	"github.com/ringmq/ringmq/store"
)

func TestPullIsRefused(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.AutoCreateSubscriptionGroup = false }})
	c := b.client()
	c.createTopic("T", "readQueueNums", "2", "writeQueueNums", "3")
	c.createTopic("W", "perm", "2")
	c.createGroup("G", nil)
	c.createGroup("off", func(g *remoting.SubscriptionGroupConfig) { g.ConsumeEnable = false })
	c.createGroup("narrow", func(g *remoting.SubscriptionGroupConfig) { g.ConsumeBroadcastEnable = false })
	c.send("T", 0, "x")
	c.beat("me", "G", 10, map[string]string{"other": "*", "T": "*"})
	heartbeat := func(group, model, kind string) {
		c.must(remoting.ReqHeartBeat, nil, []byte(`{"clientID":"me","consumerDataSet":[{"groupName":"`+group+`","consumeType":"CONSUME_PASSIVELY","messageModel":"`+
			model+`","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[{"topic":"T","subString":"a > 1","subVersion":3,"expressionType":"`+kind+`"}]}]}`))
	}
	heartbeat("narrow", "BROADCASTING", "TAG")
	c.createGroup("sql", nil)
	heartbeat("sql", "CLUSTERING", "SQL92")
	own := []string{"sysFlag", "0"} // the subscription is that of the heartbeat
	for _, tt := range []struct {
		rule      string
		fields    fields
		code      int32
		remark    string
		forbidden string
	}{
		{"unknown group", toPull("nobody", "T", 0, 0), 26, "subscription group [nobody] does not exist, ", ""},
		{"group that may not consume", toPull("off", "T", 0, 0), 16, "subscription group no permission, off", "2"},
		{"unknown topic", toPull("G", "none", 0, 0), 17, "topic[none] not exist, apply first please! ", ""},
		{"topic that may not be read", toPull("G", "W", 0, 0), 16, "the topic[W] pulling message is forbidden", "3"},
		{"negative queue", toPull("G", "T", -1, 0), 29, "queueId[-1] is illegal, topic:[T] topicConfig.readQueueNums:[2] consumer:[", ""},
		{"queue that is only written", toPull("G", "T", 2, 0), 29, "queueId[2] is illegal, topic:[T] topicConfig.readQueueNums:[2] consumer:[", ""},
		{"no member told a subscription", toPull("narrow", "other", 0, 0).with(own...), 17, "topic[other] not exist", ""},
		{"group that is not online", toPull("off2", "T", 0, 0).with(own...), 26, "subscription group [off2] does not exist", ""},
		{"newer subscription than the broker knows", toPull("G", "T", 0, 0).with(own...).with("subVersion", "11"), 25, "the consumer's subscription not latest", ""},
		{"broadcast that the group may not", toPull("narrow", "T", 0, 0).with(own...), 16, "the consumer group[narrow] can not consume by broadcast way", "4"},
		{"field that is missing", toPull("G", "T", 0, 0, "queueOffset", absent), 1, "queueOffset", ""},
		{"field that is no number", toPull("G", "T", 0, 0, "maxMsgNums", "many"), 1, "maxMsgNums", ""},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			for _, code := range []int32{remoting.ReqPullMessage, remoting.ReqLitePullMessage} {
				r := c.ask(code, tt.fields, nil)
				require.Equal(t, tt.code, r.Code, r.Remark)
				require.Contains(t, r.Remark, tt.remark)
				require.Equal(t, tt.forbidden, r.Fields["forbiddenType"])
				require.Empty(t, r.Body)
			}
		})
	}

	c.createTopic("unheard")
	c.createGroup("quiet", nil)
	r := c.ask(remoting.ReqPullMessage, toPull("quiet", "T", 0, 0, own...), nil)
	require.EqualValues(t, remoting.RespSubscriptionNotExist, r.Code)
	require.Contains(t, r.Remark, "the consumer's group info not exist")
	r = c.ask(remoting.ReqPullMessage, toPull("G", "unheard", 0, 0, own...), nil)
	require.EqualValues(t, remoting.RespSubscriptionNotExist, r.Code)
	require.Contains(t, r.Remark, "the consumer's subscription not exist")
	r = c.ask(remoting.ReqPullMessage, toPull("sql", "T", 0, 0, own...), nil)
	require.NotZero(t, r.Code, "what cannot be filtered is not delivered unfiltered")
	require.Empty(t, r.Body)

	b.set("litePullMessageEnable", "false")
	r = c.ask(remoting.ReqLitePullMessage, toPull("G", "T", 0, 0), nil)
	require.EqualValues(t, remoting.RespNoPermission, r.Code)
	require.Contains(t, r.Remark, "for lite pull consumer is forbidden")
	require.Equal(t, "1", r.Fields["forbiddenType"])
	require.Zero(t, c.ask(remoting.ReqPullMessage, toPull("G", "T", 0, 0), nil).Code)
	b.set("brokerPermission", "2")
	r = c.ask(remoting.ReqPullMessage, toPull("G", "T", 0, 0), nil)
	require.EqualValues(t, remoting.RespNoPermission, r.Code)
	require.Equal(t, "the broker[127.0.0.1] pulling message is forbidden", r.Remark)
	require.Equal(t, "1", r.Fields["forbiddenType"])
}

// Where a pull stands against its queue decides what it is told.
func TestPullAtEachBorder(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	const removed, end = 40, 100
	for range end {
		c.send("T", 0, strings.Repeat("x", 100))
	}
	q := b.store.Queue([]byte("T"), 0)
	var e [1]store.Entry
	_, err := q.ReadWait(removed, e[:])
	require.NoError(t, err)
	q.TrimBefore(e[0].PhysicalOffset) // as retention does
	require.EqualValues(t, removed, q.Min())
	for _, tt := range []struct {
		rule   string
		queue  int
		offset int64
		code   int32
		next   int64
		min    int64
		max    int64
		status string
	}{
		{"far before the start", 0, -100, 21, removed, removed, end, "OFFSET_TOO_SMALL"},
		{"-1", 0, -1, 21, removed, removed, end, "OFFSET_TOO_SMALL"},
		{"just before the start", 0, removed - 1, 21, removed, removed, end, "OFFSET_TOO_SMALL"},
		{"the start", 0, removed, 0, removed + 32, removed, end, ""},
		{"the last message", 0, end - 1, 0, end, removed, end, ""},
		{"the end", 0, end, 19, end, removed, end, "OFFSET_OVERFLOW_ONE"},
		{"just behind the end", 0, end + 1, 21, end, removed, end, "OFFSET_OVERFLOW_BADLY"},
		{"far behind the end", 0, 1<<62 + 1, 21, end, removed, end, "OFFSET_OVERFLOW_BADLY"},
		{"a queue without messages", 1, 0, 19, 0, 0, 0, "NO_M"},
		{"a queue without messages, beyond", 1, 7, 21, 0, 0, 0, "NO_M"},
		{"a queue without messages, -1", 1, -1, 21, 0, 0, 0, "NO_M"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			r, got := c.pull("G", "T", tt.queue, tt.offset)
			require.Equal(t, tt.code, r.Code, r.Remark)
			require.Equal(t, [3]int64{tt.next, tt.min, tt.max}, [3]int64{intField(t, r, "nextBeginOffset"), intField(t, r, "minOffset"), intField(t, r, "maxOffset")})
			require.Zero(t, intField(t, r, "suggestWhichBrokerId"))
			require.Contains(t, r.Remark, tt.status)
			if tt.code == 0 {
				require.EqualValues(t, tt.next-tt.offset, len(got))
				require.Equal(t, tt.offset, got[0].QueueOffset)
			} else {
				require.Empty(t, r.Body)
			}
		})
	}
}

func TestPullStopsAtItsLimits(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	for i := range 60 {
		c.send("small", 0, fmt.Sprint(i))
	}
	for i := range 6 {
		c.send("large", 0, strings.Repeat(strconv.Itoa(i), 100_000))
	}
	for _, tt := range []struct {
		rule   string
		topic  string
		offset int64
		most   string
		want   int
	}{
		{"as many as asked for", "small", 0, "5", 5},
		{"one", "small", 59, "1", 1},
		{"never more than 32", "small", 0, "1000", 32},
		{"what is left", "small", 55, "32", 5},
		{"256 KiB", "large", 0, "32", 2},
		{"one, however large", "large", 5, "32", 1},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			r, got := c.pull("G", tt.topic, 0, tt.offset, "maxMsgNums", tt.most, "maxMsgBytes", "1")
			require.Zero(t, r.Code, r.Remark)
			require.Len(t, got, tt.want)
			require.Equal(t, tt.offset+int64(tt.want), intField(t, r, "nextBeginOffset"))
			for i := range got {
				require.Equal(t, tt.offset+int64(i), got[i].QueueOffset)
			}
		})
	}
	b.set("maxTransferBytesOnMessageInMemory", "1024")
	_, got := c.pull("G", "large", 0, 0)
	require.Len(t, got, 1, "the first message is never too much")
	for _, most := range []string{"0", "-1"} {
		r, got := c.pull("G", "small", 0, 0, "maxMsgNums", most)
		require.NotZero(t, r.Code)
		require.Empty(t, got)
	}
}

// Records are the same bytes whether they are copied or sent from the file, near the end of the log or in a segment that was left.
func TestPullReadsEverythingBack(t *testing.T) {
	for _, engine := range []string{"auto", "portable"} {
		t.Run(engine, func(t *testing.T) {
			b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.IoEngine = engine }})
			for _, serialize := range []byte{remoting.SerializeJSON, remoting.SerializeRocketMQ} {
				c, topic := b.dial(client.Options{Serialize: serialize}), fmt.Sprintf("T%d", serialize)
				sizes := []int{1, 500, 4 << 10, 16 << 10, 40 << 10, 200 << 10}
				const n = 60
				for i := range n {
					c.send(topic, i%2, strings.Repeat(string(rune('a'+i%26)), sizes[i%len(sizes)]), "properties", properties("i", strconv.Itoa(i)))
				}
				require.Greater(t, b.store.Log().Published(), 2*b.store.Log().SegmentSize())
				for queue := range 2 {
					next := int64(0)
					for next < n/2 {
						r, got := c.pull("G", topic, queue, next)
						require.Zero(t, r.Code, r.Remark)
						for k := range got {
							i := int(next)*2 + queue
							require.Equal(t, next, got[k].QueueOffset)
							require.Equal(t, strings.Repeat(string(rune('a'+i%26)), sizes[i%len(sizes)]), string(got[k].Body))
							require.Equal(t, strconv.Itoa(i), property(&got[k], "i"))
							next++
						}
						require.Equal(t, next, intField(t, r, "nextBeginOffset"))
					}
				}
			}
		})
	}
}

func TestPullFiltersByTag(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	colours := []string{"red", "green", "blue", "none"}
	for i := range 40 {
		props := properties("TAGS", colours[i%4])
		if colours[i%4] == "none" {
			props = ""
		}
		c.send("T", 0, colours[i%4], "properties", props)
	}
	one := func(tags ...string) (want []string) {
		for i := range 40 {
			if slices.Contains(tags, colours[i%4]) {
				want = append(want, colours[i%4])
			}
		}
		return want
	}
	all := one(colours...)[:32]
	for _, tt := range []struct {
		expression string
		want       []string
	}{
		{"*", all}, {"", all}, {absent, all},
		{"red", one("red")}, {" red ", one("red")}, {"red||blue", one("red", "blue")}, {" red  || blue||", one("red", "blue")},
		{"red || red", one("red")}, {"Red", nil}, {"re", nil}, {"purple", nil}, {"green || purple", one("green")},
	} {
		t.Run("["+tt.expression+"]", func(t *testing.T) {
			r, got := c.pull("G", "T", 0, 0, "subscription", tt.expression, "expressionType", "TAG")
			require.Equal(t, tt.want, bodiesOf(got))
			if tt.want == nil {
				require.EqualValues(t, remoting.RespPullRetryImmediately, r.Code)
				require.Contains(t, r.Remark, "NO_MATCHED_MESSAGE")
				require.EqualValues(t, 40, intField(t, r, "nextBeginOffset"), "behind what was looked at")
			}
			if tt.expression == absent {
				return
			}
			// The same by heartbeat.
			group := "G" + strconv.Itoa(int(message.HashCode([]byte(tt.expression))&0xFFFF))
			c.beat("me", group, 1, map[string]string{"T": tt.expression})
			_, got = c.pull(group, "T", 0, 0, "sysFlag", "0", "subscription", "purple", "subVersion", "1")
			require.Equal(t, tt.want, bodiesOf(got))
		})
	}
}

// One look passes over at most 800 entries (16,000 bytes of them), so a filter that lets nothing through does not hold a thread.
func TestPullPassesOverSoManyAtMost(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	raw := b.raw()
	const n = 1000
	c := b.client()
	c.createTopic("T")
	var all []byte
	for i := range int32(n) {
		all = append(all, frame(remoting.SerializeRocketMQ, remoting.ReqSendMessageV2, i, 0, toSend("T", 0, "properties", properties("TAGS", "no")).short(), []byte("x"))...)
	}
	raw.write(all)
	for range n {
		require.Zero(t, raw.read().Code)
	}
	c.send("T", 0, "found", "properties", properties("TAGS", "yes"))
	r, got := c.pull("G", "T", 0, 0, "subscription", "yes")
	require.EqualValues(t, remoting.RespPullRetryImmediately, r.Code)
	require.Empty(t, got)
	require.EqualValues(t, 800, intField(t, r, "nextBeginOffset"))
	r, got = c.pull("G", "T", 0, 800, "subscription", "yes")
	require.Equal(t, []string{"found"}, bodiesOf(got))
	require.EqualValues(t, n+1, intField(t, r, "nextBeginOffset"))
}

// commitOffset goes with a pull whose flag says so, also when the pull makes its group or is held.
func TestPullCommitsAnOffset(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	for range 10 {
		c.send("T", 0, "x")
	}
	stored := func(group string) string {
		r := c.ask(remoting.ReqQueryConsumerOffset, fields{"consumerGroup": group, "topic": "T", "queueId": "0", "setZeroIfNotFound": "false"}, nil)
		if r.Code == remoting.RespQueryNotFound {
			return "none"
		}
		require.NoError(t, r.Err())
		return r.Fields["offset"]
	}
	flags := func(bits int) string { return strconv.Itoa(remoting.PullSubscription | bits) }
	c.pull("G", "T", 0, 0, "commitOffset", "5", "sysFlag", flags(0))
	require.Equal(t, "none", stored("G"), "the flag is not set")
	c.pull("G", "T", 0, 3, "commitOffset", "5", "sysFlag", flags(remoting.PullCommitOffset))
	require.Equal(t, "5", stored("G"))
	c.pull("G", "T", 0, 10, "commitOffset", "10", "sysFlag", flags(remoting.PullCommitOffset))
	require.Equal(t, "10", stored("G"), "also with nothing new")
	c.pull("new", "T", 0, 3, "commitOffset", "7", "sysFlag", flags(remoting.PullCommitOffset))
	require.Equal(t, "7", stored("new"), "also by the pull that makes the group")
	c.ask(remoting.ReqPullMessage, toPull("G", "none", 0, 3, "commitOffset", "99", "sysFlag", flags(remoting.PullCommitOffset)), nil)
	require.Equal(t, "10", stored("G"), "a refused pull commits nothing")
}

// A pending reset is told once, as an offset to go to.
func TestPullIsToldOfAReset(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	for range 10 {
		c.send("T", 0, "x")
	}
	c.pull("G", "T", 0, 9)
	b.offsets.assignReset("T", "G", 0, 4)
	r, got := c.pull("G", "T", 0, 9)
	require.EqualValues(t, remoting.RespPullOffsetMoved, r.Code, r.Remark)
	require.EqualValues(t, 4, intField(t, r, "nextBeginOffset"))
	require.Empty(t, got)
	_, got = c.pull("G", "T", 0, 4)
	require.Len(t, got, 6)
}

// What the answer says of its queue when the broker answers for a reason other than the store's.
func TestPullAnswersOfAResetNameTheRange(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	for range 10 {
		c.send("T", 0, "x")
		c.send("other", 0, "x")
		c.send("other", 0, "x")
	}
	c.pull("G", "other", 0, 0) // what the reactor looked at before must not show
	b.offsets.assignReset("T", "G", 0, 4)
	r, _ := c.pull("G", "T", 0, 9)
	require.EqualValues(t, 4, intField(t, r, "nextBeginOffset"))
	require.Equal(t, [2]int64{0, 10}, [2]int64{intField(t, r, "minOffset"), intField(t, r, "maxOffset")})
}
