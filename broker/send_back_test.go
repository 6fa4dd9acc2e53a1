package broker

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// toSendBack is the header of CONSUMER_SEND_MSG_BACK.
func toSendBack(group string, m *message.Record, more ...string) fields {
	f := fields{"group": group, "offset": strconv.FormatInt(m.PhysicalOffset, 10), "delayLevel": "0", "originMsgId": "ID", "originTopic": string(m.Topic),
		"unitMode": "false", "maxReconsumeTimes": "16"}
	return f.with(more...)
}

// await1 waits for the message at an offset of a queue.
func (c *testClient) await1(topic string, queueID int, offset int64) *message.Record {
	c.t.Helper()
	_, got := c.pull("reader", topic, queueID, offset, "maxMsgNums", "1",
		"sysFlag", strconv.Itoa(remoting.PullSubscription|remoting.PullSuspend), "suspendTimeoutMillis", "15000")
	require.Len(c.t, got, 1, "%s/%d has a message at %d", topic, queueID, offset)
	return &got[0]
}

// scheduled is the newest message of a delay level.
func (b *testBroker) scheduled(level int) (*message.Record, int64) {
	b.t.Helper()
	q := b.store.Queue([]byte(message.ScheduleTopic), int32(level-1))
	require.NotNil(b.t, q, "level %d has messages", level)
	e := b.entry(q, q.Max()-1)
	r := new(message.Record)
	_, err := b.store.ReadMessage(e.PhysicalOffset, r)
	require.NoError(b.t, err)
	return r, e.TagsCode
}

// A message goes back, comes again later and later, and in the end goes to the dead letter topic.
func TestSendBackUntilItIsDead(t *testing.T) {
	clock := newTestClock()
	b := newTestBroker(t, brokerOptions{Now: clock.now})
	c := b.client()
	c.createGroup("G", func(g *remoting.SubscriptionGroupConfig) { g.RetryMaxTimes = 2 })
	c.send("T", 1, "body", "properties", properties("UNIQ_KEY", "U1", "TAGS", "t", "KEYS", "k"), "flag", "9")
	_, got := c.pull("G", "T", 1, 0)
	first := &got[0]
	originID := string(message.AppendOffsetID(nil, b.storeHost, first.PhysicalOffset))
	m := first
	for round := range 2 {
		c.must(remoting.ReqConsumerSendMsgBack, toSendBack("G", m, "maxReconsumeTimes", "2"), nil)
		clock.advance(time.Minute)
		m = c.await1("%RETRY%G", 0, int64(round))
		require.EqualValues(t, round+1, m.ReconsumeTimes)
		require.EqualValues(t, 1, b.store.Queue([]byte(message.ScheduleTopic), int32(2+round)).Max(), "the first level is 3")
		require.Empty(t, property(m, message.PropertyDelay), "it is over")
		require.Equal(t, "%RETRY%G", property(m, message.PropertyRealTopic))
		require.Equal(t, "T", property(m, message.PropertyRetryTopic), "where it first was")
		require.Equal(t, originID, property(m, message.PropertyOriginMessageID), "what it first was")
		require.Equal(t, "body", string(m.Body))
		require.Equal(t, "U1", property(m, message.PropertyUniqKey))
		require.Equal(t, "t", property(m, message.PropertyTags))
		require.Equal(t, "k", property(m, message.PropertyKeys))
		require.EqualValues(t, 9, m.Flag)
		require.Equal(t, first.BornTimestamp, m.BornTimestamp)
		require.Equal(t, first.BornHost, m.BornHost)
	}
	c.must(remoting.ReqConsumerSendMsgBack, toSendBack("G", m, "maxReconsumeTimes", "2"), nil)
	dead := c.await1("%DLQ%G", 0, 0)
	require.Equal(t, "body", string(dead.Body))
	require.EqualValues(t, 3, dead.ReconsumeTimes)
	require.Equal(t, "T", property(dead, message.PropertyRetryTopic))
	require.Equal(t, originID, property(dead, message.PropertyOriginMessageID))
	require.Empty(t, property(dead, message.PropertyRealTopic))
	tc := b.topics.find("%DLQ%G").config.Load()
	require.Equal(t, [3]int32{1, 1, 6}, [3]int32{tc.ReadQueueNums, tc.WriteQueueNums, tc.Perm})
	require.EqualValues(t, 2, b.store.Queue([]byte("%RETRY%G"), 0).Max(), "and not to the retry topic")
}

func TestSendBackChoosesTheDelay(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createGroup("G", nil)
	c.send("T", 0, "x")
	_, got := c.pull("G", "T", 0, 0)
	for level, want := range map[string]struct {
		level int
		delay time.Duration
	}{
		"0": {3, 10 * time.Second}, "1": {1, time.Second}, "5": {5, time.Minute}, "18": {18, 2 * time.Hour}, "19": {18, 2 * time.Hour}, "4000000000": {18, 2 * time.Hour},
	} {
		t.Run("level "+level, func(t *testing.T) {
			c.must(remoting.ReqConsumerSendMsgBack, toSendBack("G", &got[0], "delayLevel", level), nil)
			m, due := b.scheduled(want.level)
			require.Equal(t, "%RETRY%G", property(m, message.PropertyRealTopic))
			require.Equal(t, m.StoreTimestamp+want.delay.Milliseconds(), due)
			require.EqualValues(t, 1, m.ReconsumeTimes)
		})
	}
	t.Run("a negative level means the dead letter topic", func(t *testing.T) {
		c.must(remoting.ReqConsumerSendMsgBack, toSendBack("G", &got[0], "delayLevel", "-1"), nil)
		require.Equal(t, "x", string(c.await1("%DLQ%G", 0, 0).Body))
	})
}

func TestSendBackIsRefused(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.AutoCreateSubscriptionGroup = false }})
	c := b.client()
	c.createGroup("G", nil)
	c.createGroup("never", func(g *remoting.SubscriptionGroupConfig) { g.RetryQueueNums = 0 })
	c.send("T", 0, "x")
	_, got := c.pull("G", "T", 0, 0)
	m := &got[0]
	for _, tt := range []struct {
		rule   string
		fields fields
		code   int32
		remark string
	}{
		{"unknown group", toSendBack("nobody", m), 26, "subscription group not exist, nobody"},
		{"record that is not there", toSendBack("G", m, "offset", "999999999"), 1, "look message by offset failed, 999999999"},
		{"offset inside a record", toSendBack("G", m, "offset", strconv.FormatInt(m.PhysicalOffset+1, 10)), 1, "look message by offset failed"},
		{"negative offset", toSendBack("G", m, "offset", "-1"), 1, "look message by offset failed, -1"},
		{"offset that is no number", toSendBack("G", m, "offset", "x"), 1, "offset"},
		{"group without retry queues: nothing is kept, and that is fine", toSendBack("never", m), 0, ""},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			end := b.store.Log().Published()
			r := c.ask(remoting.ReqConsumerSendMsgBack, tt.fields, nil)
			require.Equal(t, tt.code, r.Code, r.Remark)
			require.Contains(t, r.Remark, tt.remark)
			require.Equal(t, end, b.store.Log().Published(), "nothing was stored")
		})
	}
	b.set("brokerPermission", "4")
	r := c.ask(remoting.ReqConsumerSendMsgBack, toSendBack("G", m), nil)
	require.EqualValues(t, remoting.RespNoPermission, r.Code)
	require.Equal(t, "the broker[127.0.0.1] sending message is forbidden", r.Remark)
}

// A delayed message is kept aside, and comes with what it was sent with, when its time is over and not before.
func TestDelayedMessage(t *testing.T) {
	clock := newTestClock()
	b := newTestBroker(t, brokerOptions{Now: clock.now, Change: func(c *config.Broker) { c.MessageDelayLevel = "10m 1h" }})
	c := b.client()
	c.createTopic("T")
	r := c.must(remoting.ReqSendMessageV2, toSend("T", 2, "properties", properties("UNIQ_KEY", "U", "TAGS", "t", "DELAY", "1")).short(), []byte("later"))
	require.Equal(t, "U", r.Fields["transactionId"])
	aside, due := b.scheduled(1)
	require.Equal(t, aside.StoreTimestamp+(10*time.Minute).Milliseconds(), due)
	require.Equal(t, "T", property(aside, message.PropertyRealTopic))
	require.Equal(t, "2", property(aside, message.PropertyRealQueueID))
	clock.advance(11 * time.Minute)
	m := c.await1("T", 2, 0)
	require.GreaterOrEqual(t, m.StoreTimestamp, due, "never early")
	require.Equal(t, "later", string(m.Body))
	require.Equal(t, "U", property(m, message.PropertyUniqKey))
	require.Empty(t, property(m, message.PropertyDelay), "it is over")
	require.Equal(t, aside.BornTimestamp, m.BornTimestamp)
	_, got := c.pull("G", "T", 2, 0, "subscription", "t")
	require.Len(t, got, 1, "its entry has the tag again")

	for _, tt := range []struct {
		rule  string
		delay string
		aside bool
	}{
		{"no level", "0", false}, {"negative", "-3", false}, {"no number", "soon", false}, {"clamped to the highest", "99", true},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			before := int64(0)
			if q := b.store.Queue([]byte("T"), 3); q != nil {
				before = q.Max()
			}
			c.send("T", 3, "x", "properties", properties("DELAY", tt.delay))
			if tt.aside {
				m, due := b.scheduled(2)
				require.Equal(t, m.StoreTimestamp+time.Hour.Milliseconds(), due)
				return
			}
			require.Equal(t, before+1, b.store.Queue([]byte("T"), 3).Max())
		})
	}
	for _, name := range []string{message.PropertyTimerDelaySec, message.PropertyTimerDelayMs, message.PropertyTimerDeliverMs} {
		r := c.ask(remoting.ReqSendMessage, toSend("T", 0, "properties", properties(name, "5")), []byte("x"))
		require.EqualValues(t, remoting.RespSystemError, r.Code, "%s is refused while there is no timer, not delivered at once", name)
		require.Contains(t, r.Remark, "accurate timer message is not enabled, timerWheelEnable is false")
	}
}
