package broker

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/remoting"
)

// Every queue has one member, and clients that share by themselves come to the same: the formulas of AllocateMessageQueueAveragely.
func TestSharesOfQueues(t *testing.T) {
	for queues := range 20 {
		all := make([]remoting.MessageQueue, queues)
		for i := range all {
			all[i].QueueID = int32(i)
		}
		for members := 1; members < 12; members++ {
			var averagely, byCircle []remoting.MessageQueue
			for m := range members {
				got := shareAveragely(all, m, members)
				averagely = append(averagely, got...)
				mod := queues % members
				size := queues / members
				if queues <= members {
					size = 1
				} else if m < mod {
					size++
				}
				from := m * size
				if !(mod > 0 && m < mod) {
					from += mod
				}
				require.Equal(t, max(0, min(size, queues-from)), len(got), "%d queues, member %d of %d", queues, m, members)
				if len(got) > 0 {
					require.Equal(t, int32(from), got[0].QueueID)
				}
				dealt := shareByCircle(all, m, members)
				for _, q := range dealt {
					require.Equal(t, m, int(q.QueueID)%members)
				}
				byCircle = append(byCircle, dealt...)
			}
			slices.SortFunc(byCircle, remoting.MessageQueue.Compare)
			require.True(t, slices.Equal(all, averagely), "%d queues, %d members", queues, members)
			require.True(t, slices.Equal(all, byCircle), "%d queues, %d members", queues, members)
		}
	}
}

func TestQueryAssignment(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c, d := b.client(), b.client()
	c.createTopic("T")
	c.beat("one", "g", 1, map[string]string{"T": "*"})
	d.beat("two", "g", 1, map[string]string{"T": "*"})
	ask := func(change func(*remoting.QueryAssignmentBody)) *client.Response {
		q := remoting.QueryAssignmentBody{ClientID: "one", ConsumerGroup: "g", MessageModel: remoting.Clustering, StrategyName: "AVG", Topic: "T"}
		if change != nil {
			change(&q)
		}
		return c.ask(remoting.ReqQueryAssignment, nil, remoting.EncodeBody(q))
	}
	ids := func(r *client.Response) (list []int32) {
		for _, a := range decoded[remoting.QueryAssignmentResult](t, r).MessageQueueAssignments {
			require.Equal(t, "PULL", a.Mode)
			require.Equal(t, "T", a.MessageQueue.Topic)
			list = append(list, a.MessageQueue.QueueID)
		}
		return list
	}
	require.Equal(t, []int32{0, 1}, ids(ask(nil)))
	require.Equal(t, []int32{2, 3}, ids(ask(func(q *remoting.QueryAssignmentBody) { q.ClientID = "two" })))
	require.Equal(t, []int32{0, 2}, ids(ask(func(q *remoting.QueryAssignmentBody) { q.StrategyName = "AVG_BY_CIRCLE" })))
	require.Equal(t, []int32{0, 1, 2, 3}, ids(ask(func(q *remoting.QueryAssignmentBody) { q.MessageModel = remoting.Broadcasting })))
	for rule, tc := range map[string]struct {
		change func(*remoting.QueryAssignmentBody)
		code   int32
	}{
		"an unknown topic":    {func(q *remoting.QueryAssignmentBody) { q.Topic = "none" }, remoting.RespTopicNotExist},
		"a stranger":          {func(q *remoting.QueryAssignmentBody) { q.ClientID = "three" }, remoting.RespConsumerNotOnline},
		"a group offline":     {func(q *remoting.QueryAssignmentBody) { q.ConsumerGroup = "none" }, remoting.RespConsumerNotOnline},
		"an unknown strategy": {func(q *remoting.QueryAssignmentBody) { q.StrategyName = "MINE" }, remoting.RespInvalidParameter},
	} {
		require.Equal(t, tc.code, ask(tc.change).Code, rule)
	}
	c.createTopic("T", "perm", "2")
	require.Empty(t, ids(ask(nil)), "a topic that nobody may read")
}
