package broker

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// updateTopic handles UPDATE_AND_CREATE_TOPIC.
func updateTopic(r *request) *answer {
	c := remoting.NewTopicConfig(r.cmd.String("topic"))
	var err error
	for key, dst := range map[string]*int32{"readQueueNums": &c.ReadQueueNums, "writeQueueNums": &c.WriteQueueNums, "perm": &c.Perm,
		"topicSysFlag": &c.TopicSysFlag} {
		if *dst, err = r.int32(key, *dst); err != nil {
			return failed(err)
		}
	}
	if kind := r.cmd.String("topicFilterType"); kind != "" {
		c.TopicFilterType = kind
	}
	c.Order = r.cmd.Bool("order", false)
	if c.Attributes, err = parseAttributes(r.cmd.String("attributes")); err != nil {
		return failed(err)
	}
	return r.setTopics(c)
}

// updateTopicList handles UPDATE_AND_CREATE_TOPIC_LIST: all of them or none.
func updateTopicList(r *request) *answer {
	var body remoting.TopicConfigList
	if err := remoting.DecodeBody(r.cmd.Body, &body); err != nil {
		return failed(err)
	}
	return r.setTopics(body.TopicConfigList...)
}

func (r *request) setTopics(want ...remoting.TopicConfig) *answer {
	generation, err := r.b.topics.update(r.b.cfg.Load(), want...)
	if err == nil {
		err = r.b.topics.waitSaved(generation, saveTimeout)
	}
	if err != nil {
		return failed(err)
	}
	if generation != 0 {
		r.b.register.await(registerPatience)
	}
	return succeeded()
}

// registerPatience bounds how long the answer to a new topic waits for name servers that do not answer; the original waits
// registerBrokerTimeoutMills.
const registerPatience = 3 * time.Second

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
	topic, generation, queuesErr := b.topics.delete(name, b.store.DeleteTopic)
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
	b.modes.topicDeleted(name)
	b.register.topicChanged(topic)
	if queuesErr != nil {
		return fmt.Errorf("topic %s is deleted, its queue files are not: %w", name, queuesErr)
	}
	return b.store.Checkpoint()
}

// topicConfig handles GET_TOPIC_CONFIG.
func topicConfig(r *request) *answer {
	topic := r.b.topics.find(r.cmd.String("topic"))
	if topic == nil {
		return refused(remoting.RespTopicNotExist, "No topic in this broker. topic: %s", r.cmd.String("topic"))
	}
	return withBody(topic.config.Load())
}

// splitMetadataSize is the most topics or groups on one page (splitMetadataSize of the original).
const splitMetadataSize = 2000

// pageOf is the page that a request for a table asks for. Clients before 5.4 ask for everything.
func (r *request) pageOf(seqKey, mostKey string) (version string, seq, most int, err error) {
	version = r.cmd.String("dataVersion")
	from, err := r.int32(seqKey, 0)
	if err != nil {
		return version, 0, 0, err
	}
	n, err := r.int32(mostKey, splitMetadataSize)
	if err != nil {
		return version, 0, 0, err
	}
	for _, key := range []string{"dataVersion", seqKey, mostKey} {
		if _, paged := r.cmd.Value(key); paged {
			return version, int(from), min(int(n), splitMetadataSize), nil
		}
	}
	return version, 0, math.MaxInt, nil
}

// allTopics handles GET_ALL_TOPIC_CONFIG. There are no static topics, so the mappings are empty.
func allTopics(r *request) *answer {
	version, seq, most, err := r.pageOf("topicSeq", "maxTopicNum")
	if err != nil {
		return failed(err)
	}
	page, total := r.b.topics.page(version, seq, most)
	return r.bounded(remoting.TopicConfigAndMappings{DataVersion: page.DataVersion, TopicConfigTable: page.TopicConfigTable}).with("totalTopicNum", total)
}

// systemTopics handles GET_SYSTEM_TOPIC_LIST_FROM_BROKER: names that are reserved, whether the topic is here or not.
func systemTopics(r *request) *answer {
	names := message.SystemTopics()
	for _, topic := range r.b.topics.list() {
		if topic.system {
			names = append(names, topic.Name)
		}
	}
	slices.Sort(names)
	return withBody(remoting.TopicList{TopicList: slices.Compact(names)})
}

// cleanUnusedTopics handles CLEAN_UNUSED_TOPIC: queues whose topic is not in the table go.
func cleanUnusedTopics(r *request) *answer {
	b := r.b
	cleaned := 0
	for _, name := range b.store.Topics() {
		if b.topics.find(name) != nil || b.topics.isSystem(name) || strings.HasPrefix(name, message.LMQPrefix) {
			continue
		}
		if err := b.topics.whileAbsent(name, func() error { return b.store.DeleteTopic(name) }); err != nil {
			return failed(fmt.Errorf("topic %s: %w", name, err))
		}
		b.stats.topicDeleted(name)
		b.log.Info("queues of a topic that is not in the table deleted", "topic", name)
		cleaned++
	}
	if cleaned == 0 {
		return succeeded()
	}
	if err := b.store.Checkpoint(); err != nil {
		return failed(err)
	}
	return succeeded()
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
	return r.bounded(body)
}

func (b *Broker) messageQueue(topic string, id int32) remoting.MessageQueue {
	return remoting.MessageQueue{BrokerName: b.cfg.Load().BrokerName, QueueID: id, Topic: topic}
}
