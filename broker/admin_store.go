package broker

import (
	"fmt"

	"github.com/ringmq/ringmq/remoting"
	"github.com/ringmq/ringmq/store"
)

// maxQueueEntries bounds the queue entries in one answer.
const maxQueueEntries = 10_000

// queryConsumeQueue handles QUERY_CONSUME_QUEUE: entries of a queue from an index on.
func queryConsumeQueue(r *request) *answer {
	b, topic := r.b, r.cmd.String("topic")
	queueID, err := r.int32("queueId", 0)
	if err != nil {
		return failed(err)
	}
	index, err := r.cmd.Int("index", 0)
	if err != nil {
		return failed(err)
	}
	count, err := r.int32("count", 0)
	if err != nil {
		return failed(err)
	}
	q := b.store.Queue([]byte(topic), queueID)
	if q == nil {
		return refused(remoting.RespSystemError, "%d@%s is not exist!", queueID, topic)
	}
	body := remoting.QueryConsumeQueueBody{MinQueueIndex: q.Min(), MaxQueueIndex: q.Max()}
	var sub *subscription
	if group := r.cmd.String("consumerGroup"); group != "" {
		if online := b.clients.consumerGroup([]byte(group)); online != nil {
			sub = online.subscription([]byte(topic))
		}
		if sub != nil {
			body.SubscriptionData = &sub.data
		} else {
			body.FilterData = fmt.Sprintf("%s@%s is not online!", group, topic)
		}
	}
	entries, err := readEntries(q, index, min(int(count), maxQueueEntries))
	if err != nil {
		return failed(err)
	}
	for _, e := range entries {
		body.QueueData = append(body.QueueData, remoting.ConsumeQueueData{PhysicOffset: e.PhysicalOffset, PhysicSize: e.Size, TagsCode: e.TagsCode,
			Eval: sub != nil && sub.isTag() && sub.matchTags(e.TagsCode)})
	}
	a := withBody(body)
	if len(entries) == 0 {
		a.remark = fmt.Sprintf("Index %d of %d@%s is not exist!", index, queueID, topic)
	}
	return a
}

// readEntries reads up to most entries of a queue, waiting for the disk if need be.
func readEntries(q *store.ConsumeQueue, from int64, most int) ([]store.Entry, error) {
	if from < q.Min() || from >= q.Max() || most <= 0 {
		return nil, nil
	}
	entries := make([]store.Entry, min(int64(most), q.Max()-from))
	got := 0
	for got < len(entries) {
		n, err := q.ReadWait(from+int64(got), entries[got:])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		got += n
	}
	return entries[:got], nil
}

// cleanExpiredQueues handles CLEAN_EXPIRED_CONSUMEQUEUE: queues and index let go of what the log has let go of. Unlike in the original a
// queue that has become empty keeps its offsets.
func cleanExpiredQueues(r *request) *answer {
	r.b.store.CleanExpired()
	return succeeded()
}

// deleteExpiredLog handles DELETE_EXPIRED_COMMITLOG: the next look of retention, within cleanResourceInterval, ignores deleteWhen.
func deleteExpiredLog(r *request) *answer {
	r.b.store.DeleteExpired()
	return succeeded()
}
