package broker

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/remoting"
)

// Who has the answers to all his sends finds each of them counted, whatever the number of queues in one turn.
func TestSendsAreCountedBeforeTheyAreAnswered(t *testing.T) {
	for _, flush := range []string{config.AsyncFlush, config.SyncFlush} {
		t.Run(flush, func(t *testing.T) {
			b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.FlushDiskType = flush }})
			const queues, rounds = 3*tallyRows + 1, 5
			b.client().createTopic("T", "readQueueNums", strconv.Itoa(queues), "writeQueueNums", strconv.Itoa(queues))
			c := b.raw()
			var all []byte
			for range rounds {
				for q := range queues {
					all = append(all, frame(remoting.SerializeJSON, remoting.ReqSendMessageV2, 1, 0, toSend("T", q).short(), []byte("body"))...)
				}
			}
			c.write(all)
			for range queues * rounds {
				require.Equal(t, remoting.RespSuccess, c.read().Code)
			}
			ts := b.stats.ofTopic(b.topics.find("T"))
			require.EqualValues(t, queues*rounds, ts.putNums.value.Load(), "messages")
			require.EqualValues(t, queues*rounds, ts.putNums.times.Load(), "calls")
			require.EqualValues(t, b.store.Log().Published(), ts.putSize.value.Load(), "bytes")
			require.EqualValues(t, queues*rounds, ts.putSize.times.Load())
			require.EqualValues(t, queues*rounds, b.storeStats.totals().puts)
			for q := range int32(queues) {
				require.EqualValues(t, rounds, ts.latency.at(q).times.Load(), "queue %d", q)
			}
		})
	}
}

// A thread keeps the topic of its last send and its queues; a topic that is deleted and made again is not taken for it.
func TestSendAfterTheTopicWasMadeAgain(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	for range 3 {
		c.createTopic("T")
		for want := range int64(3) {
			require.Equal(t, want, c.send("T", 1, "body"))
		}
		_, records := c.pull("G", "T", 1, 0, "sysFlag", "4", "subscription", "*")
		require.Len(t, records, 3)
		c.must(remoting.ReqDeleteTopicInBroker, fields{"topic": "T"}, nil)
		b.set("autoCreateTopicEnable", "false")
		require.Equal(t, remoting.RespTopicNotExist, c.ask(remoting.ReqSendMessage, toSend("T", 1), []byte("body")).Code)
	}
}

// A delayed message is not put into the queue that has the same number in the topic that it names.
func TestDelayedSendBetweenOthers(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	require.EqualValues(t, 0, c.send("T", 1, "body"))
	c.send("T", 1, "body", "properties", properties("DELAY", "18"))
	require.EqualValues(t, 1, c.send("T", 1, "body"))
	require.EqualValues(t, 2, b.store.Queue([]byte("T"), 1).Max())
	require.EqualValues(t, 1, b.store.Queue([]byte("SCHEDULE_TOPIC_XXXX"), 17).Max())
}
