package broker

import (
	"fmt"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
	"github.com/ringmq/ringmq/store"
)

// updateTopic handles UPDATE_AND_CREATE_TOPIC.
func updateTopic(r *request) *answer {
	c := remoting.NewTopicConfig(r.cmd.String("topic"))
	for key, dst := range map[string]*int32{"readQueueNums": &c.ReadQueueNums, "writeQueueNums": &c.WriteQueueNums, "perm": &c.Perm,
		"topicSysFlag": &c.TopicSysFlag} {
		n, err := r.cmd.Int(key, int64(*dst))
		if err != nil || n != int64(int32(n)) {
			return refused(remoting.RespInvalidParameter, "%s is no 32-bit number", key)
		}
		*dst = int32(n)
	}
	if kind := r.cmd.String("topicFilterType"); kind != "" {
		c.TopicFilterType = kind
	}
	c.Order = r.cmd.Bool("order", false)
	var err error
	if c.Attributes, err = parseAttributes(r.cmd.String("attributes")); err != nil {
		return failed(err)
	}
	generation, err := r.b.topics.update(r.b.cfg.Load(), c)
	if err == nil {
		err = r.b.topics.waitSaved(generation, saveTimeout)
	}
	if err != nil {
		return failed(err)
	}
	return succeeded()
}

// deleteTopic handles DELETE_TOPIC_IN_BROKER: the topic, its offsets and its queues go; the log keeps the messages until retention takes them.
func deleteTopic(r *request) *answer {
	name := r.cmd.String("topic")
	b := r.b
	if err := b.topics.checkDelete(b.cfg.Load(), name); err != nil {
		return failed(err)
	}
	names := []string{name}
	if b.cfg.Load().ClearRetryTopicWhenDeleteTopic {
		names = append(names, b.topics.popRetryTopics(name, b.offsets.groupsOf(name))...)
	}
	for _, n := range names {
		if err := b.deleteOneTopic(n); err != nil {
			return failed(err)
		}
	}
	return succeeded()
}

func (b *Broker) deleteOneTopic(name string) error {
	topic, generation := b.topics.delete(name)
	if topic == nil {
		return nil
	}
	if err := b.topics.waitSaved(generation, saveTimeout); err != nil {
		return err
	}
	if err := b.offsets.saver.waitSaved(b.offsets.deleteTopic(name), saveTimeout); err != nil {
		return err
	}
	b.stats.topicDeleted(name)
	b.register.topicChanged(topic)
	if err := b.store.DeleteTopic(name); err != nil {
		return fmt.Errorf("topic %s is deleted, its queue files are not: %w", name, err)
	}
	return nil
}

// topicConfig handles GET_TOPIC_CONFIG.
func topicConfig(r *request) *answer {
	topic := r.b.topics.find(r.cmd.String("topic"))
	if topic == nil {
		return refused(remoting.RespTopicNotExist, "No topic in this broker. topic: %s", r.cmd.String("topic"))
	}
	return withBody(topic.config.Load())
}

// topicStatsInfo handles GET_TOPIC_STATS_INFO: the range of each queue.
func topicStatsInfo(r *request) *answer {
	b := r.b
	topic := b.topics.find(r.cmd.String("topic"))
	if topic == nil {
		return refused(remoting.RespTopicNotExist, "topic[%s] not exist", r.cmd.String("topic"))
	}
	c := topic.config.Load()
	body := remoting.TopicStatsTable{OffsetTable: map[remoting.MessageQueue]remoting.TopicOffset{}}
	for id := range max(c.ReadQueueNums, c.WriteQueueNums) {
		var o remoting.TopicOffset
		if q := b.store.Queue([]byte(topic.Name), id); q != nil {
			o.MinOffset, o.MaxOffset = q.Min(), q.Max()
			if o.MaxOffset > o.MinOffset {
				o.LastUpdateTimestamp = max(b.storeTimeAt(q, o.MaxOffset-1), 0)
			}
		}
		body.OffsetTable[b.messageQueue(topic.Name, id)] = o
	}
	if d, ok := b.stats.view(statTopicPutNums, topic.Name); ok {
		body.TopicPutTps = d.StatsMinute.Tps
	}
	return withBody(body)
}

func (b *Broker) messageQueue(topic string, id int32) remoting.MessageQueue {
	return remoting.MessageQueue{BrokerName: b.cfg.Load().BrokerName, QueueID: id, Topic: topic}
}

// consumeStats handles GET_CONSUME_STATS: how far a group is in its topics.
func consumeStats(r *request) *answer {
	b, group := r.b, r.cmd.String("consumerGroup")
	topics := []string{r.cmd.String("topic")}
	if topics[0] == "" {
		topics = b.offsets.topicsOf(group)
	}
	body := remoting.ConsumeStats{OffsetTable: map[remoting.MessageQueue]remoting.OffsetWrapper{}}
	for _, name := range topics {
		topic := b.topics.find(name)
		if topic == nil {
			continue
		}
		for id := range topic.config.Load().ReadQueueNums {
			body.OffsetTable[b.messageQueue(name, id)] = b.progress(group, name, id, b.store.Queue([]byte(name), id))
		}
		if d, ok := b.stats.view(statGroupGetNums, name+"@"+group); ok {
			body.ConsumeTps += d.StatsMinute.Tps
		}
	}
	return withBody(body)
}

// progress is how far a group is in one queue.
func (b *Broker) progress(group, topic string, id int32, q *store.ConsumeQueue) (w remoting.OffsetWrapper) {
	if q != nil {
		w.BrokerOffset = q.Max()
	}
	if at, ok := b.offsets.query([]byte(topic), []byte(group), id); ok {
		w.ConsumerOffset = at
	}
	if at, ok := b.offsets.queryPull([]byte(topic), []byte(group), id); ok {
		w.PullOffset = at
	}
	if q != nil && w.ConsumerOffset > q.Min() {
		w.LastTimestamp = max(b.storeTimeAt(q, w.ConsumerOffset-1), 0)
	}
	return w
}

// updateGroup handles UPDATE_AND_CREATE_SUBSCRIPTIONGROUP.
func updateGroup(r *request) *answer {
	var c remoting.SubscriptionGroupConfig
	if err := remoting.DecodeBody(r.cmd.Body, &c); err != nil {
		return failed(err)
	}
	generation, err := r.b.groups.update(c)
	if err == nil {
		err = r.b.groups.waitSaved(generation, saveTimeout)
	}
	if err != nil {
		return failed(err)
	}
	return succeeded()
}

// deleteGroup handles DELETE_SUBSCRIPTIONGROUP; cleanOffset takes the group's offsets with it.
func deleteGroup(r *request) *answer {
	name := r.cmd.String("groupName")
	if remark := message.CheckGroup([]byte(name)); remark != "" {
		return refused(remoting.RespInvalidParameter, "%s", remark)
	}
	_, generation := r.b.groups.delete(name)
	if err := r.b.groups.waitSaved(generation, saveTimeout); err != nil {
		return failed(err)
	}
	if r.cmd.Bool("cleanOffset", false) {
		if err := r.b.offsets.saver.waitSaved(r.b.offsets.deleteGroup(name), saveTimeout); err != nil {
			return failed(err)
		}
	}
	r.b.stats.groupDeleted(name)
	return succeeded()
}

// groupConfig handles GET_SUBSCRIPTIONGROUP_CONFIG.
func groupConfig(r *request) *answer {
	g := r.b.groups.find(r.cmd.String("group"))
	if g == nil {
		return refused(remoting.RespSubscriptionGroupNotExist, "No group in this broker. group: %s", r.cmd.String("group"))
	}
	return withBody(g.config.Load())
}

// consumerConnection handles GET_CONSUMER_CONNECTION_LIST.
func consumerConnection(r *request) *answer {
	group := r.cmd.String("consumerGroup")
	c, ok := r.b.clients.consumerConnection(group)
	if !ok {
		return refused(remoting.RespConsumerNotOnline, "the consumer group[%s] not online", group)
	}
	return withBody(c)
}

// producerConnection handles GET_PRODUCER_CONNECTION_LIST.
func producerConnection(r *request) *answer {
	group := r.cmd.String("producerGroup")
	c, ok := r.b.clients.producerConnection(group)
	if !ok {
		return refused(remoting.RespSystemError, "the producer group[%s] not exist", group)
	}
	return withBody(c)
}

// getBrokerConfig handles GET_BROKER_CONFIG.
func getBrokerConfig(r *request) *answer {
	counter, at := r.b.cfg.Version()
	version := remoting.EncodeBody(remoting.DataVersion{Counter: counter, Timestamp: at})
	return (&answer{body: []byte(r.b.cfg.Text())}).with("version", string(version))
}
