package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/remoting"
)

// decoded is the body of an answer.
func decoded[T any](t testing.TB, r *client.Response) (v T) {
	t.Helper()
	require.NoError(t, r.Err())
	require.NoError(t, remoting.DecodeBody(r.Body, &v))
	return v
}

func TestTopicListIsSetWholeOrNotAtAll(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	list := func(names ...string) []byte {
		var body remoting.TopicConfigList
		for _, name := range names {
			topic := remoting.NewTopicConfig(name)
			topic.ReadQueueNums, topic.WriteQueueNums, topic.Attributes = 3, 3, map[string]string{"+message.type": "FIFO"}
			body.TopicConfigList = append(body.TopicConfigList, topic)
		}
		return remoting.EncodeBody(body)
	}
	r := c.ask(remoting.ReqUpdateAndCreateTopicList, nil, list("one", "TBW102"))
	require.Equal(t, remoting.RespInvalidParameter, r.Code)
	require.Equal(t, "The topic[TBW102] is conflict with system topic.", r.Remark)
	require.Equal(t, remoting.RespTopicNotExist, c.ask(remoting.ReqGetTopicConfig, fields{"topic": "one"}, nil).Code)

	c.must(remoting.ReqUpdateAndCreateTopicList, nil, list("one", "two"))
	for _, name := range []string{"one", "two"} {
		got := decoded[remoting.TopicConfig](t, c.ask(remoting.ReqGetTopicConfig, fields{"topic": name}, nil))
		require.Equal(t, int32(3), got.ReadQueueNums)
		require.Equal(t, map[string]string{"message.type": "FIFO"}, got.Attributes)
	}
	require.Equal(t, remoting.RespSystemError, c.ask(remoting.ReqUpdateAndCreateTopicList, nil, []byte("{")).Code)
}

func TestTopicNumbersMustFit(t *testing.T) {
	c := newTestBroker(t, brokerOptions{}).client()
	for _, queues := range []string{"-1", "65537", "4294967300", "x"} {
		f := fields{"topic": "T", "defaultTopic": "TBW102", "readQueueNums": queues, "writeQueueNums": "4", "perm": "6"}
		require.NotEqual(t, remoting.RespSuccess, c.ask(remoting.ReqUpdateAndCreateTopic, f, nil).Code, queues)
	}
	require.Equal(t, remoting.RespTopicNotExist, c.ask(remoting.ReqGetTopicConfig, fields{"topic": "T"}, nil).Code)
}

func TestTopicsByPage(t *testing.T) {
	c := newTestBroker(t, brokerOptions{}).client()
	for i := range 10 {
		c.createTopic(fmt.Sprintf("paged%d", i))
	}
	whole := c.ask(remoting.ReqGetAllTopicConfig, nil, nil)
	all := decoded[remoting.TopicConfigAndMappings](t, whole)
	require.Contains(t, all.TopicConfigTable, "paged7")
	require.Equal(t, int64(len(all.TopicConfigTable)), intField(t, whole, "totalTopicNum"))

	version := string(remoting.EncodeBody(all.DataVersion))
	seen := map[string]remoting.TopicConfig{}
	for len(seen) < len(all.TopicConfigTable) {
		r := c.ask(remoting.ReqGetAllTopicConfig, fields{"dataVersion": version, "topicSeq": strconv.Itoa(len(seen)), "maxTopicNum": "4"}, nil)
		page := decoded[remoting.TopicConfigAndMappings](t, r)
		require.NotEmpty(t, page.TopicConfigTable)
		require.LessOrEqual(t, len(page.TopicConfigTable), 4)
		require.Equal(t, all.DataVersion, page.DataVersion)
		maps.Copy(seen, page.TopicConfigTable)
	}
	require.Equal(t, all.TopicConfigTable, seen)

	stale := c.ask(remoting.ReqGetAllTopicConfig, fields{"dataVersion": "{}", "topicSeq": "4", "maxTopicNum": "2"}, nil)
	first := slices.Sorted(maps.Keys(all.TopicConfigTable))[:2]
	require.Equal(t, first, slices.Sorted(maps.Keys(decoded[remoting.TopicConfigAndMappings](t, stale).TopicConfigTable)), "another version begins anew")
}

func TestAnswersThatNoClientTakesAreRefused(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.FrameMaxLength, c.MaxMessageSize = 64<<10, 32<<10 }})
	c := b.client()
	for i := range 8 {
		var body remoting.TopicConfigList
		for j := range 100 {
			body.TopicConfigList = append(body.TopicConfigList, remoting.NewTopicConfig(fmt.Sprintf("many-%d-%d", i, j)))
		}
		c.must(remoting.ReqUpdateAndCreateTopicList, nil, remoting.EncodeBody(body))
	}
	r := c.ask(remoting.ReqGetAllTopicConfig, nil, nil)
	require.Equal(t, remoting.RespSystemError, r.Code)
	require.Contains(t, r.Remark, askForLess)
	c.must(remoting.ReqGetAllTopicConfig, fields{"topicSeq": "0", "maxTopicNum": "100"}, nil)
}

func TestSystemTopicsAreListed(t *testing.T) {
	c := newTestBroker(t, brokerOptions{}).client()
	c.createTopic("mine")
	list := decoded[remoting.TopicList](t, c.ask(remoting.ReqGetSystemTopicListFromBroker, nil, nil)).TopicList
	require.Subset(t, list, []string{"TBW102", "SCHEDULE_TOPIC_XXXX", "TRANS_CHECK_MAX_TIME_TOPIC", "TestCluster", "broker-a", "rmq_sys_wheel_timer"})
	require.NotContains(t, list, "mine")
}

func TestCleanUnusedTopics(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	for _, name := range []string{"used", "unused"} {
		c.createTopic(name)
		c.send(name, 0, "x")
	}
	// As a stop between the two steps of a deletion leaves it.
	_, _, err := b.topics.delete("unused", func(string) error { return nil })
	require.NoError(t, err)
	require.NotNil(t, b.store.Queue([]byte("unused"), 0))
	c.must(remoting.ReqCleanUnusedTopic, nil, nil)
	require.Nil(t, b.store.Queue([]byte("unused"), 0))
	require.NotNil(t, b.store.Queue([]byte("used"), 0))
}

// Producers that send while their topic is deleted make it anew: what they begin to send after a deletion's answer is where its own answer says.
func TestDeleteTopicWhileProducersSend(t *testing.T) {
	const producers, deletions, after = 3, 12, 20
	type acked struct {
		deletions, offset int64
		body              string
	}
	b := newTestBroker(t, brokerOptions{})
	admin := b.client()
	var over, stored atomic.Int64
	told := make([][]acked, producers)
	var wg sync.WaitGroup
	for id := range producers {
		c := b.client()
		wg.Go(func() {
			for n, left := 0, after; left > 0; n++ {
				m := acked{deletions: over.Load(), body: fmt.Sprint(id, " ", n)}
				r, err := c.Invoke(context.Background(), client.Request{Code: remoting.ReqSendMessage, Fields: toSend("again", 0), Body: []byte(m.body)})
				if err == nil {
					err = r.Err()
				}
				if err == nil {
					m.offset, err = r.Int("queueOffset")
				}
				if err != nil {
					t.Error(err)
					return
				}
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
		eventually(t, "the producers go on", func() bool { return stored.Load() >= seen+10 || t.Failed() })
		admin.must(remoting.ReqDeleteTopicInBroker, fields{"topic": "again"}, nil)
		over.Add(1)
	}
	wg.Wait()
	require.False(t, t.Failed())

	var found []string
	for {
		_, list := admin.pull("G", "again", 0, int64(len(found)))
		if len(list) == 0 {
			break
		}
		require.EqualValues(t, len(found), list[0].QueueOffset, "from 0 on, and no offset is left out")
		found = append(found, bodiesOf(list)...)
	}
	require.EqualValues(t, len(found), b.store.Queue([]byte("again"), 0).Max())
	for _, list := range told {
		for _, m := range list {
			if m.deletions == deletions {
				require.Less(t, m.offset, int64(len(found)))
				require.Equal(t, m.body, found[m.offset])
			}
		}
	}
}

// A topic that is made anew while its deletion waits for the device has queues of its own: the rest of the deletion leaves them alone.
func TestTopicMadeAnewWithinItsDeletion(t *testing.T) {
	fsys := faultfs.New()
	b := newFaultBroker(t, fsys, nil)
	c := b.client()
	for range 3 {
		c.send("T", 0, "old")
	}
	require.NoError(t, b.store.Checkpoint(), "the queue has a file")
	gate := gateOf(t, fsys, faultfs.OpRename)
	code := make(chan int32, 2)
	ask := func(request client.Request) {
		require.NoError(t, b.client().Go(request, func(a *remoting.Command, err error) {
			if err != nil {
				code <- -1
				return
			}
			code <- a.Code
		}))
	}
	ask(client.Request{Code: remoting.ReqDeleteTopicInBroker, Fields: fields{"topic": "T"}})
	held := receive(t, gate.Arrived)
	for !strings.Contains(held.Op.Name, "topics.json") {
		held.Pass(nil)
		held = receive(t, gate.Arrived)
	}
	ask(client.Request{Code: remoting.ReqSendMessage, Fields: toSend("T", 0), Body: []byte("waits for the topic to be durable")})
	eventually(t, "the topic is there again", func() bool { return b.topics.find("T") != nil })
	require.Zero(t, c.send("T", 0, "new"))
	held.Pass(nil)
	gate.Open()
	for range 2 {
		require.Zero(t, receive(t, code))
	}
	_, list := c.pull("G", "T", 0, 0)
	require.Equal(t, []string{"new", "waits for the topic to be durable"}, bodiesOf(list))
}
