package broker

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// letters are the short names of SEND_MESSAGE_V2.
var letters = map[string]string{
	"producerGroup": "a", "topic": "b", "defaultTopic": "c", "defaultTopicQueueNums": "d", "queueId": "e", "sysFlag": "f", "bornTimestamp": "g",
	"flag": "h", "properties": "i", "reconsumeTimes": "j", "unitMode": "k", "maxReconsumeTimes": "l", "batch": "m",
}

// short renames the fields as V2 does.
func (f fields) short() fields {
	g := fields{}
	for key, value := range f {
		g[letters[key]] = value
	}
	return g
}

func TestSendIsRefused(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.MaxMessageSize = 1000 }})
	c := b.client()
	c.createTopic("T", "readQueueNums", "2", "writeQueueNums", "3")
	c.createTopic("W", "readQueueNums", "5", "writeQueueNums", "3")
	const illegal = "contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
	long := func(prefix string, n int) string { return prefix + strings.Repeat("t", n-len(prefix)) }
	for _, tt := range []struct {
		rule   string
		fields fields
		body   string
		code   int32
		remark string // part of it
	}{
		{"blank topic", toSend(" ", 0), "x", 29, "The specified topic is blank."},
		{"empty topic", toSend("", 0), "x", 29, "The specified topic is blank."},
		{"illegal character in the topic", toSend("a.b", 0), "x", 29, "The specified topic: a.b, " + illegal},
		{"topic of 128 bytes", toSend(long("", 128), 0), "x", 29, "is longer than topic max length: 127"},
		{"retry topic of 256 bytes", toSend(long("%RETRY%", 256), 0), "x", 29, "longer than topic max length: 255"},
		{"system topic", toSend("SCHEDULE_TOPIC_XXXX", 0), "x", 16, "Sending message to topic[SCHEDULE_TOPIC_XXXX] is forbidden."},
		{"half topic", toSend("RMQ_SYS_TRANS_HALF_TOPIC", 0), "x", 16, "Sending message to topic[RMQ_SYS_TRANS_HALF_TOPIC] is forbidden."},
		{"event topic", toSend("OFFSET_MOVED_EVENT", 0), "x", 16, "is forbidden."},
		{"default topic that does not exist", toSend("New1", 0, "defaultTopic", "Nowhere"), "x", 17, "topic[New1] not exist, apply first please!"},
		{"default topic without the inherit bit", toSend("New2", 0, "defaultTopic", "T"), "x", 17, "topic[New2] not exist, apply first please!"},
		{"queue beyond read and write queues", toSend("T", 3), "x", 29, "request queueId[3] is illegal, "},
		{"queue beyond the larger number, which is that of read queues", toSend("W", 5), "x", 29, "request queueId[5] is illegal, "},
		{"queue of a topic made by this send", toSend("New3", 4), "x", 29, "request queueId[4] is illegal, "},
		{"empty body", toSend("T", 0), "", 13, ""},
		{"body above maxMessageSize", toSend("T", 0), long("", 1001), 13, "msg body length limit 1000B"},
		{"properties above 32767 bytes", toSend("T", 0, "properties", properties("K", long("", 32767))), "x", 13, "msg properties length limit"},
		{"half message", toSend("T", 0, "properties", properties("TRAN_MSG", "true", "PGROUP", "PG")), "x", 16, "sending transaction message is forbidden"},
		{"retry topic of an unknown group", toSend("%RETRY%nobody", 0), "x", 26, "subscription group not exist, nobody"},
		{"a field is missing", toSend("T", 0, "queueId", absent), "x", 1, "queueId"},
		{"a field is no number", toSend("T", 0, "queueId", "first"), "x", 1, "queueId"},
		{"a field is no 32-bit number", toSend("T", 0, "queueId", "4294967296"), "x", 1, "queueId"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			if tt.rule == "retry topic of an unknown group" {
				b.set("autoCreateSubscriptionGroup", "false")
			}
			for code, f := range map[int32]fields{remoting.ReqSendMessage: tt.fields, remoting.ReqSendMessageV2: tt.fields.short()} {
				r := c.ask(code, f, []byte(tt.body))
				require.Equal(t, tt.code, r.Code, r.Remark)
				if !strings.HasPrefix(tt.rule, "a field") {
					require.Contains(t, r.Remark, tt.remark)
					require.Equal(t, "DefaultRegion", r.Fields["MSG_REGION"], "on errors, too")
					require.Equal(t, "true", r.Fields["TRACE_ON"])
				}
				require.NotContains(t, r.Fields, "queueOffset")
			}
		})
	}
	for id := range int32(5) {
		for _, topic := range []string{"T", "W", "New3"} {
			q := b.store.Queue([]byte(topic), id)
			require.True(t, q == nil || q.Max() == 0, "nothing refused was stored")
		}
	}
}

func TestSendAtItsLimits(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.MaxMessageSize = 1000 }})
	c := b.client()
	c.createTopic("W", "readQueueNums", "5", "writeQueueNums", "3")
	broker := len(properties("MSG_REGION", "DefaultRegion", "TRACE_ON", "true", "CLUSTER", "TestCluster"))
	room := 32767 - broker - len(properties("UNIQ_KEY", "U")) - len(properties("K", ""))
	for _, tt := range []struct {
		rule   string
		fields fields
		size   int
	}{
		{"topic of 127 bytes", toSend(strings.Repeat("t", 127), 0), 1},
		{"every legal kind of character", toSend("%|aZ09_-", 0), 1},
		{"body of maxMessageSize", toSend("T", 0), 1000},
		{"the last of the read queues", toSend("W", 4), 1},
		{"properties of 32767 bytes with the broker's", toSend("T", 0, "properties", properties("UNIQ_KEY", "U", "K", strings.Repeat("v", room))), 1},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			c.must(remoting.ReqSendMessageV2, tt.fields.short(), make([]byte, tt.size))
			id, err := strconv.Atoi(tt.fields["queueId"])
			require.NoError(t, err)
			_, got := c.pull("G", tt.fields["topic"], id, 0)
			require.NotEmpty(t, got)
			require.Len(t, got[len(got)-1].Body, tt.size)
		})
	}
	r := c.ask(remoting.ReqSendMessageV2, toSend("T", 0, "properties", properties("UNIQ_KEY", "U", "K", strings.Repeat("v", room+1))).short(), []byte("x"))
	require.EqualValues(t, remoting.RespMessageIllegal, r.Code, "one byte more")
}

// What is stored and what is answered, for both forms of the request and both serialisations of the header.
func TestSendIsStoredAndAnswered(t *testing.T) {
	began := time.Now().UnixMilli()
	b := newTestBroker(t, brokerOptions{})
	for _, serialize := range []byte{remoting.SerializeJSON, remoting.SerializeRocketMQ} {
		for _, code := range []int32{remoting.ReqSendMessage, remoting.ReqSendMessageV2} {
			t.Run(fmt.Sprintf("code %d serialisation %d", code, serialize), func(t *testing.T) {
				c := b.dial(client.Options{Serialize: serialize})
				topic := fmt.Sprintf("T%d-%d", code, serialize)
				for i := range int64(3) {
					props := properties("UNIQ_KEY", fmt.Sprintf("U%d", i), "TAGS", "red", "KEYS", "k 1", "own", "\"v\\ ü")
					f := toSend(topic, 2, "properties", props, "flag", "77", "sysFlag", "1", "reconsumeTimes", "3")
					if code == remoting.ReqSendMessageV2 {
						f = f.short()
					}
					r := c.must(code, f, []byte("body"))
					require.Equal(t, i, intField(t, r, "queueOffset"))
					require.EqualValues(t, 2, intField(t, r, "queueId"))
					require.Equal(t, fmt.Sprintf("U%d", i), r.Fields["transactionId"])
					require.Equal(t, "DefaultRegion", r.Fields["MSG_REGION"])
					require.Equal(t, "true", r.Fields["TRACE_ON"])
					host, physical, err := message.ParseOffsetID(r.Fields["msgId"])
					require.NoError(t, err)
					require.Equal(t, b.Addr(), host.String())

					view := recordsOf(t, c.must(remoting.ReqViewMessageByID, fields{"offset": strconv.FormatInt(physical, 10)}, nil).Body)
					require.Len(t, view, 1)
					m := &view[0]
					require.Equal(t, topic, string(m.Topic))
					require.Equal(t, "body", string(m.Body))
					require.EqualValues(t, 77, m.Flag)
					require.EqualValues(t, 3, m.ReconsumeTimes)
					require.EqualValues(t, 2, m.QueueID)
					require.Equal(t, i, m.QueueOffset)
					require.Equal(t, physical, m.PhysicalOffset)
					require.EqualValues(t, 1_700_000_000_000, m.BornTimestamp)
					require.GreaterOrEqual(t, m.StoreTimestamp, began)
					require.LessOrEqual(t, m.StoreTimestamp, time.Now().UnixMilli())
					require.Equal(t, c.LocalAddr().String(), m.BornHost.AddrPort().String())
					require.Equal(t, b.Addr(), m.StoreHost.AddrPort().String())
					for name, want := range map[string]string{"UNIQ_KEY": fmt.Sprintf("U%d", i), "TAGS": "red", "KEYS": "k 1", "own": "\"v\\ ü",
						"MSG_REGION": "DefaultRegion", "TRACE_ON": "true", "CLUSTER": "TestCluster"} {
						require.Equal(t, want, property(m, name), name)
					}
				}
			})
		}
	}
}

func TestSendWithoutUniqKey(t *testing.T) {
	c := newTestBroker(t, brokerOptions{}).client()
	seen := map[string]bool{}
	for i := range int64(50) {
		r := c.must(remoting.ReqSendMessage, toSend("T", 0), []byte("x"))
		key := r.Fields["transactionId"]
		require.Regexp(t, "^[0-9A-F]{32}$", key)
		require.False(t, seen[key], "made twice")
		seen[key] = true
		_, got := c.pull("G", "T", 0, i)
		require.Equal(t, key, property(&got[0], message.PropertyUniqKey))
	}
}

func TestSendToAnyQueue(t *testing.T) {
	c := newTestBroker(t, brokerOptions{}).client()
	c.createTopic("T", "readQueueNums", "8", "writeQueueNums", "3")
	used := map[int64]int{}
	for range 200 {
		used[intField(t, c.must(remoting.ReqSendMessage, toSend("T", -1), []byte("x")), "queueId")]++
	}
	require.Len(t, used, 3, "the write queues, each of them: %v", used)
}

func TestBrokersPropertiesAreTheBrokers(t *testing.T) {
	c := newTestBroker(t, brokerOptions{}).client()
	c.send("T", 0, "x", "properties", properties("POP_CK", "1 2", "MSG_REGION", "elsewhere", "TRACE_ON", "false", "CLUSTER", "other", "a", "b"))
	_, got := c.pull("G", "T", 0, 0)
	for name, want := range map[string]string{"POP_CK": "", "MSG_REGION": "DefaultRegion", "TRACE_ON": "true", "CLUSTER": "TestCluster", "a": "b"} {
		require.Equal(t, want, property(&got[0], name), name)
	}
	require.Equal(t, 1, strings.Count(string(got[0].Properties), "MSG_REGION\x01"))
}

func TestTopicIsMadeByItsFirstMessage(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	for _, tt := range []struct {
		rule       string
		topic      string
		more       []string
		queues     int32
		perm       int32
		sysFlag    int32
		autoCreate string
		code       int32
	}{
		{"as many queues as the client asks for", "A4", nil, 4, 6, 0, "true", 0},
		{"but not more than the default topic has", "A8", []string{"defaultTopicQueueNums", "100"}, 8, 6, 0, "true", 0},
		{"by the cluster's topic", "AC", []string{"defaultTopic", "TestCluster"}, 4, 6, 0, "true", 0},
		{"by the broker's topic", "AB", []string{"defaultTopic", "broker-a", "defaultTopicQueueNums", "1"}, 1, 6, 0, "true", 0},
		{"of a unit", "AU", []string{"unitMode", "true"}, 4, 6, remoting.TopicUnit, "true", 0},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			require.Zero(t, c.send(tt.topic, 0, "x", tt.more...))
			tc := b.topics.find(tt.topic).config.Load()
			require.Equal(t, [4]int32{tt.queues, tt.queues, tt.perm, tt.sysFlag}, [4]int32{tc.ReadQueueNums, tc.WriteQueueNums, tc.Perm, tc.TopicSysFlag})
		})
	}
}

func TestRetryTopicsAreAlwaysMade(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.AutoCreateTopicEnable = false }})
	c := b.client()
	r := c.ask(remoting.ReqSendMessage, toSend("T", 0), []byte("x"))
	require.EqualValues(t, remoting.RespTopicNotExist, r.Code, r.Remark)
	c.createGroup("G", nil)
	require.Zero(t, c.send("%RETRY%G", 0, "x"))
	tc := b.topics.find("%RETRY%G").config.Load()
	require.Equal(t, [3]int32{1, 1, 6}, [3]int32{tc.ReadQueueNums, tc.WriteQueueNums, tc.Perm})
}

// A broker without write permission still takes messages of plain topics: routes keep producers away. Ordered topics it refuses.
func TestBrokerThatMayNotWrite(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("plain")
	c.createTopic("ordered", "order", "true")
	c.send("ordered", 0, "x")
	b.set("brokerPermission", "4")
	c.send("plain", 0, "x")
	r := c.ask(remoting.ReqSendMessage, toSend("ordered", 0), []byte("x"))
	require.EqualValues(t, remoting.RespNoPermission, r.Code)
	require.Equal(t, "the broker[127.0.0.1] sending message is forbidden", r.Remark)
	b.set("brokerPermission", "6")
	require.EqualValues(t, 1, c.send("ordered", 0, "x"))
}

func TestSendBeforeTheBrokerAcceptsAny(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.send("T", 0, "x")
	b.acceptFrom.Store(time.Now().UnixMilli() + 3_600_000)
	r := c.ask(remoting.ReqSendMessage, toSend("T", 0), []byte("x"))
	require.EqualValues(t, remoting.RespSystemError, r.Code)
	require.Contains(t, r.Remark, "broker unable to service, until")
	b.acceptFrom.Store(0)
	require.EqualValues(t, 1, c.send("T", 0, "x"))
}

// A one-way send is stored and never answered, whether it is good or bad.
func TestSendOneway(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	for _, serialize := range []byte{remoting.SerializeJSON, remoting.SerializeRocketMQ} {
		raw, topic := b.raw(), fmt.Sprintf("T%d", serialize)
		send := func(f fields, body string) {
			raw.write(frame(serialize, remoting.ReqSendMessageV2, 7, remoting.FlagOneway, f.short(), []byte(body)))
		}
		send(toSend(topic, 0), "first, which makes the topic")
		send(toSend(topic, 0), "second")
		send(toSend(topic, 99), "no such queue")
		send(toSend("a.b", 0), "no such topic")
		send(toSend(topic, 0), "")
		send(fields{"topic": topic}, "fields are missing")
		raw.write(frame(serialize, remoting.ReqPullMessage, 8, remoting.FlagOneway, toPull("G", topic, 0, 0), nil))
		raw.write(frame(serialize, 9999, 8, remoting.FlagOneway, nil, nil))
		raw.write(frame(serialize, remoting.ReqSendMessageV2, 9, 0, toSend(topic, 0).short(), []byte("third")))
		answer := raw.read()
		require.EqualValues(t, 9, answer.Opaque, "the first answer is to the request that wants one")
		require.Zero(t, answer.Code, string(answer.Remark))
		require.Equal(t, "2", answer.String("queueOffset"))
	}
}

// Requests that one connection sends without waiting for answers keep their order, also over the making of their topic.
func TestPipelinedSendsKeepTheirOrder(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	for round := range 20 {
		raw, topic := b.raw(), fmt.Sprintf("T%d", round)
		const n = 100
		var all []byte
		for i := range int32(n) {
			all = append(all, frame(remoting.SerializeRocketMQ, remoting.ReqSendMessageV2, i, 0, toSend(topic, 0).short(), []byte("x"))...)
		}
		raw.write(all)
		for range n {
			answer := raw.read()
			require.Zero(t, answer.Code, string(answer.Remark))
			require.Equal(t, strconv.Itoa(int(answer.Opaque)), answer.String("queueOffset"), "round %d", round)
		}
	}
}

// inBatch encodes one message as batches hold them.
func inBatch(body, props string) []byte {
	be := binary.BigEndian
	b := be.AppendUint32(nil, uint32(4+4+4+4+4+len(body)+2+len(props)))
	b = be.AppendUint32(b, 0)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint32(b, 5)
	b = be.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	b = be.AppendUint16(b, uint16(len(props)))
	return append(b, props...)
}

func TestSendBatch(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.MaxMessageSize = 2000 }})
	c := b.client()
	c.send("T", 1, "before")
	var body []byte
	for i := range 10 {
		body = append(body, inBatch(fmt.Sprintf("m%d", i), properties("UNIQ_KEY", fmt.Sprintf("U%d", i), "TAGS", "t"))...)
	}
	for round, request := range []struct {
		code   int32
		fields fields
	}{
		{remoting.ReqSendBatchMessage, toSend("T", 1, "batch", "true").short()},
		{remoting.ReqSendMessageV2, toSend("T", 1, "batch", "true").short()},
	} {
		r := c.must(request.code, request.fields, body)
		require.EqualValues(t, 1+10*round, intField(t, r, "queueOffset"), "of the first")
		ids := strings.Split(r.Fields["msgId"], ",")
		require.Len(t, ids, 10)
		_, got := c.pull("G", "T", 1, int64(1+10*round))
		require.Len(t, got, 10)
		for i := range got {
			require.Equal(t, fmt.Sprintf("m%d", i), string(got[i].Body))
			require.Equal(t, fmt.Sprintf("U%d", i), property(&got[i], message.PropertyUniqKey))
			require.EqualValues(t, 5, got[i].Flag)
			require.EqualValues(t, 1+10*round+i, got[i].QueueOffset)
			_, physical, err := message.ParseOffsetID(ids[i])
			require.NoError(t, err)
			require.Equal(t, got[i].PhysicalOffset, physical)
			if i > 0 {
				require.Equal(t, got[i-1].PhysicalOffset+int64(got[i-1].Size), physical, "back to back")
			}
		}
		if round == 1 {
			break
		}
	}
	c.createGroup("G", nil)
	end := b.store.Queue([]byte("T"), 1).Max()
	for _, tt := range []struct {
		rule   string
		fields fields
		body   []byte
		code   int32
		remark string
	}{
		{"to a retry topic", toSend("%RETRY%G", 0, "batch", "true"), body, 13, "batch request does not support retry group %RETRY%G"},
		{"larger than maxMessageSize in all", toSend("T", 1, "batch", "true"), append(body, inBatch(strings.Repeat("x", 2000), "")...), 13, "msg body length limit 2000B"},
		{"without a message", toSend("T", 1, "batch", "true"), nil, 13, ""},
		{"cut off", toSend("T", 1, "batch", "true"), body[:len(body)-1], 13, ""},
		{"with a body length beyond its end", toSend("T", 1, "batch", "true"), append(inBatch("a", "")[:16], 0x7f, 0xff, 0xff, 0xff, 'x', 0, 0), 13, ""},
		{"with a negative body length", toSend("T", 1, "batch", "true"), append(inBatch("a", "")[:16], 0xff, 0xff, 0xff, 0xff, 'x', 0, 0), 13, ""},
		{"with a bad message behind a good one", toSend("T", 1, "batch", "true"), append(inBatch("a", ""), 1, 2, 3), 13, ""},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			r := c.ask(remoting.ReqSendBatchMessage, tt.fields.short(), tt.body)
			require.Equal(t, tt.code, r.Code, r.Remark)
			require.Contains(t, r.Remark, tt.remark)
			require.Equal(t, end, b.store.Queue([]byte("T"), 1).Max(), "stored whole or not at all")
		})
	}
}

// A batch that no segment could hold is refused; it must not wait for room that never comes.
func TestSendLargerThanASegment(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.send("T", 0, "x")
	r := c.ask(remoting.ReqSendMessageV2, toSend("T", 0).short(), make([]byte, 2<<20))
	require.EqualValues(t, remoting.RespMessageIllegal, r.Code, r.Remark)
	require.EqualValues(t, 1, c.send("T", 0, "next"))
}

// A message that was retried too often, or whose group consumes in order, goes to the dead letter topic.
func TestSendToRetryTopicEndsInDLQ(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createGroup("G", func(g *remoting.SubscriptionGroupConfig) { g.RetryMaxTimes = 3 })
	for _, tt := range []struct {
		rule  string
		more  []string
		topic string
	}{
		{"as often as the group allows", []string{"reconsumeTimes", "3"}, "%RETRY%G"},
		{"once more", []string{"reconsumeTimes", "4"}, "%DLQ%G"},
		{"the client's limit counts more", []string{"reconsumeTimes", "4", "maxReconsumeTimes", "9"}, "%RETRY%G"},
		{"also when it is lower", []string{"reconsumeTimes", "1", "maxReconsumeTimes", "0"}, "%DLQ%G"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			r := c.must(remoting.ReqSendMessageV2, toSend("%RETRY%G", 0, tt.more...).short(), []byte(tt.rule))
			require.Zero(t, intField(t, r, "queueId"))
			_, got := c.pull("reader", tt.topic, 0, intField(t, r, "queueOffset"))
			require.Len(t, got, 1)
			require.Equal(t, tt.rule, string(got[0].Body))
		})
	}
	require.Equal(t, []remoting.MessageQueue{{BrokerName: "broker-a", Topic: "T"}}, b.locks.lockBatch("G", "me", []remoting.MessageQueue{{BrokerName: "broker-a", Topic: "T"}}, steadyNow()))
	r := c.must(remoting.ReqSendMessageV2, toSend("%RETRY%G", 0).short(), []byte("ordered"))
	_, got := c.pull("reader", "%DLQ%G", 0, intField(t, r, "queueOffset"))
	require.Equal(t, []string{"ordered"}, bodiesOf(got))
}
