package broker

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

func TestQueryConsumeQueue(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	for _, tag := range []string{"a", "b", "c"} {
		c.send("T", 2, "x", "properties", properties("TAGS", tag))
	}
	ask := func(more ...string) remoting.QueryConsumeQueueBody {
		f := fields{"topic": "T", "queueId": "2", "index": "0", "count": "10"}
		return decoded[remoting.QueryConsumeQueueBody](t, c.ask(remoting.ReqQueryConsumeQueue, f.with(more...), nil))
	}
	body := ask()
	require.Equal(t, int64(3), body.MaxQueueIndex)
	require.Zero(t, body.MinQueueIndex)
	require.Len(t, body.QueueData, 3)
	require.Zero(t, body.QueueData[0].PhysicOffset)
	require.Equal(t, body.QueueData[1].PhysicOffset, int64(body.QueueData[0].PhysicSize), "the second lies behind the first")
	require.Equal(t, int64(message.HashCode([]byte("b"))), body.QueueData[1].TagsCode)

	require.Equal(t, body.QueueData[1:2], ask("index", "1", "count", "1").QueueData)
	for rule, more := range map[string][]string{
		"behind the end": {"index", "3"}, "far behind": {"index", "9223372036854775807"}, "before the start": {"index", "-1"},
		"none wanted": {"count", "0"}, "fewer than none": {"count", "-5"},
	} {
		require.Empty(t, ask(more...).QueueData, rule)
	}
	require.Len(t, ask("count", "2147483647").QueueData, 3)

	require.Equal(t, "g@T is not online!", ask("consumerGroup", "g").FilterData)
	c.beat("me", "g", 1, map[string]string{"T": "a || c"})
	filtered := ask("consumerGroup", "g")
	require.Equal(t, "a || c", filtered.SubscriptionData.SubString)
	for i, want := range []bool{true, false, true} {
		require.Equal(t, want, filtered.QueueData[i].Eval, i)
	}
	r := c.ask(remoting.ReqQueryConsumeQueue, fields{"topic": "T", "queueId": "9", "index": "0", "count": "1"}, nil)
	require.Equal(t, remoting.RespSystemError, r.Code)
	require.Equal(t, "9@T is not exist!", r.Remark)
}
