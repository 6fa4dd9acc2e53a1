package broker

import (
	"math"
	"strings"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
	"github.com/ringmq/ringmq/store"
)

// How far groups are.

// maxProgressRows bounds the queues that one answer tells of; each takes some 150 bytes of a frame of 16 MiB.
const maxProgressRows = 100_000

var errProgressRows = refuse(remoting.RespSystemError, "the answer would tell of more than %d queues: %s", maxProgressRows, askForLess)

// consumeStats handles GET_CONSUME_STATS: how far a group is in the topics of a list, in one topic, or in all in which it has offsets.
func consumeStats(r *request) *answer {
	b, group := r.b, r.cmd.String("consumerGroup")
	topics := strings.FieldsFunc(r.cmd.String("topicList"), func(c rune) bool { return c == ';' })
	if len(topics) == 0 {
		for _, topic := range b.topicsOr(r.cmd.String("topic"), group) {
			if b.mayConsume(group, topic) {
				topics = append(topics, topic)
			}
		}
	}
	body := remoting.ConsumeStats{OffsetTable: map[remoting.MessageQueue]remoting.OffsetWrapper{}}
	for _, name := range topics {
		topic := b.topics.find(name)
		if topic == nil {
			continue
		}
		if len(body.OffsetTable)+int(topic.config.Load().ReadQueueNums) > maxProgressRows {
			return failed(errProgressRows)
		}
		b.addProgress(&body, group, topic)
	}
	return r.bounded(body)
}

// topicsOr is one topic, or, where it is empty, all topics in which the group has offsets.
func (b *Broker) topicsOr(topic, group string) []string {
	if strings.TrimSpace(topic) != "" {
		return []string{topic}
	}
	return b.offsets.topicsOf(group)
}

// mayConsume is false when the group is online and subscribes to other topics only: its offsets in this one are left over.
func (b *Broker) mayConsume(group, topic string) bool {
	online := b.clients.consumerGroup([]byte(group))
	return online == nil || len(online.subscriptions) == 0 || online.subscriptions[topic] != nil
}

// addProgress adds how far a group is in each queue of a topic.
func (b *Broker) addProgress(stats *remoting.ConsumeStats, group string, topic *Topic) {
	for id := range topic.config.Load().ReadQueueNums {
		stats.OffsetTable[b.messageQueue(topic.Name, id)] = b.progress(group, topic.Name, id, b.store.Queue([]byte(topic.Name), id))
	}
	if d, ok := b.stats.view(statGroupGetNums, topic.Name+"@"+group); ok {
		stats.ConsumeTps += d.StatsMinute.Tps
	}
}

// progress is how far a group is in one queue.
func (b *Broker) progress(group, topic string, id int32, q *store.ConsumeQueue) (w remoting.OffsetWrapper) {
	if q != nil {
		w.BrokerOffset = q.Max()
	}
	if at, ok := b.offsets.query([]byte(topic), []byte(group), id); ok {
		w.ConsumerOffset = at
	}
	w.PullOffset = w.ConsumerOffset
	if at, ok := b.offsets.queryPull([]byte(topic), []byte(group), id); ok {
		w.PullOffset = max(w.PullOffset, at)
	}
	if q != nil && w.ConsumerOffset > q.Min() {
		w.LastTimestamp = max(b.storeTimeAt(q, w.ConsumerOffset-1), 0)
	}
	return w
}

// allConsumeStats handles GET_BROKER_CONSUME_STATS: the progress of every group in every topic; with isOrder in ordered topics only.
func allConsumeStats(r *request) *answer {
	b, ordered := r.b, r.cmd.Bool("isOrder", false)
	topics := b.offsets.topicsByGroup()
	body := remoting.ConsumeStatsList{BrokerAddr: b.addr}
	rows := 0
	for _, g := range b.groups.list() {
		list := []remoting.ConsumeStats{}
		for _, name := range topics[g.Name] {
			topic := b.topics.find(name)
			if topic == nil || ordered && !topic.config.Load().Order || !b.mayConsume(g.Name, name) {
				continue
			}
			if rows += int(topic.config.Load().ReadQueueNums); rows > maxProgressRows {
				return failed(errProgressRows)
			}
			stats := remoting.ConsumeStats{OffsetTable: map[remoting.MessageQueue]remoting.OffsetWrapper{}}
			b.addProgress(&stats, g.Name, topic)
			body.TotalDiff += stats.TotalDiff()
			body.TotalInflightDiff += stats.InflightTotalDiff()
			list = append(list, stats)
		}
		body.ConsumeStatsList = append(body.ConsumeStatsList, map[string][]remoting.ConsumeStats{g.Name: list})
	}
	return r.bounded(body)
}

// consumeTimeSpan handles QUERY_CONSUME_TIME_SPAN: from when to when a topic's messages are, and from when the group's next one is.
func consumeTimeSpan(r *request) *answer {
	b, group := r.b, []byte(r.cmd.String("group"))
	topic := b.topics.find(r.cmd.String("topic"))
	if topic == nil {
		return refused(remoting.RespTopicNotExist, "topic[%s] not exist", r.cmd.String("topic"))
	}
	var body remoting.ConsumeTimeSpans
	for id := range topic.config.Load().WriteQueueNums {
		q := b.store.Queue([]byte(topic.Name), id)
		earliest, latest := b.storeTimeAt(q, -1), int64(-1)
		if q != nil {
			latest = b.storeTimeAt(q, max(q.Max()-1, 0))
		}
		consumed, delay := earliest, int64(0)
		at, _ := b.offsets.query([]byte(topic.Name), group, id)
		if at > 0 {
			consumed = b.storeTimeAt(q, at-1)
		}
		if q != nil && at < q.Max() {
			// What retention has taken cannot be consumed any more, so the oldest message is the next.
			if next := b.storeTimeAt(q, max(at, q.Min())); next >= 0 {
				delay = b.nowMillis() - next
			}
		}
		body.ConsumeTimeSpanSet = append(body.ConsumeTimeSpanSet,
			remoting.NewQueueTimeSpan(b.messageQueue(topic.Name, id), earliest, latest, consumed, delay))
	}
	return r.bounded(body)
}

// correctionOffsets handles QUERY_CORRECTION_OFFSET.
func correctionOffsets(r *request) *answer {
	b, topic := r.b, r.cmd.String("topic")
	var filtered []string
	if text := r.cmd.String("filterGroups"); text != "" {
		filtered = strings.Split(text, ",")
	}
	minInStore := func(id int32) int64 {
		if q := b.store.Queue([]byte(topic), id); q != nil {
			return q.Min()
		}
		return math.MinInt64
	}
	return withBody(remoting.CorrectionOffsets{CorrectionOffsets: b.offsets.corrections(topic, filtered, r.cmd.String("compareGroup"), minInStore)})
}

// cloneGroupOffset handles CLONE_GROUP_OFFSET, for one topic or all in which the source group has offsets.
func cloneGroupOffset(r *request) *answer {
	b, from, to := r.b, r.cmd.String("srcGroup"), r.cmd.String("destGroup")
	if remark := message.CheckGroup([]byte(to)); remark != "" {
		return refused(remoting.RespInvalidParameter, "%s", remark)
	}
	offline := r.cmd.Bool("offline", false)
	var latest uint64
	for _, topic := range b.topicsOr(r.cmd.String("topic"), from) {
		if b.topics.find(topic) == nil || !offline && !b.mayConsume(from, topic) {
			continue
		}
		latest = max(latest, b.offsets.clone(from, to, topic))
	}
	if err := b.offsets.saver.waitSaved(latest, saveTimeout); err != nil {
		return failed(err)
	}
	return succeeded()
}

// topicsOfGroup handles QUERY_TOPICS_BY_CONSUMER: topics in which a group has offsets.
func topicsOfGroup(r *request) *answer {
	return r.bounded(remoting.TopicList{BrokerAddr: r.b.addr, TopicList: r.b.offsets.topicsOf(r.cmd.String("group"))})
}

// maxOffsetTable bounds the pairs of topic and group in one answer; each takes at least 60 bytes of a frame of 16 MiB.
const maxOffsetTable = 250_000

// allConsumerOffsets handles GET_ALL_CONSUMER_OFFSET, by which a slave copies the table. The keys are quoted: Java's slave does not know the
// member pullOffsetTable, and passes over it only without raw keys. (It fails over its own master's.)
func allConsumerOffsets(r *request) *answer {
	if n := r.b.offsets.pairs.size(); n > maxOffsetTable {
		return refused(remoting.RespSystemError, "%d pairs of topic and group have offsets, more than fit into one answer (%d)", n, maxOffsetTable)
	}
	return r.boundedBody(remoting.EncodeStandardBody(r.b.offsets.snapshot()))
}

// allDelayOffsets handles GET_ALL_DELAY_OFFSET.
func allDelayOffsets(r *request) *answer { return withBody(r.b.schedule.offsets()) }
