package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// sendBack handles CONSUMER_SEND_MSG_BACK: a message that could not be consumed is stored again in the group's retry topic, later and later,
// and in the end in its dead letter topic. Does the work of AbstractSendMessageProcessor.consumerSendMsgBack.
func sendBack(r *request) *answer {
	group := r.cmd.String("group")
	offset, err := r.cmd.Int("offset", -1)
	if err != nil {
		return failed(err)
	}
	level, err := r.cmd.Int("delayLevel", 0)
	if err != nil {
		return failed(err)
	}
	g, err := r.b.ensureGroup([]byte(group))
	if err != nil {
		return refused(remoting.RespSubscriptionGroupNotExist, "subscription group not exist, %s %s", group, faq)
	}
	gc := g.config.Load()
	if r.b.cfg.Load().BrokerPermission&remoting.PermWrite == 0 {
		return refused(remoting.RespNoPermission, "the broker[%s] sending message is forbidden", r.b.cfg.Load().BrokerIP1)
	}
	if gc.RetryQueueNums <= 0 {
		return succeeded()
	}
	var rec message.Record
	if _, err := r.b.store.ReadMessage(offset, &rec); err != nil {
		return refused(remoting.RespSystemError, "look message by offset failed, %d", offset)
	}
	most := int64(gc.RetryMaxTimes)
	if r.cmd.Version >= maxReconsumeVersion {
		if most, err = r.cmd.Int("maxReconsumeTimes", most); err != nil {
			return failed(err)
		}
	}
	return r.storeBack(gc, &rec, level, most)
}

// maxReconsumeVersion is V3_4_9: clients from then on say how often a message may be consumed.
const maxReconsumeVersion = 121

func (r *request) storeBack(gc *remoting.SubscriptionGroupConfig, rec *message.Record, level, most int64) *answer {
	b := r.b
	dead := int64(rec.ReconsumeTimes) >= most || level < 0
	topic, err := b.dlqOrRetryTopic(gc, dead)
	if err != nil {
		return failed(err)
	}
	d := message.Draft{Topic: []byte(topic.Name), QueueID: rand.Int32N(max(topic.config.Load().WriteQueueNums, 1)), Body: rec.Body, Flag: rec.Flag,
		SysFlag: rec.SysFlag &^ message.SysTransactionMask, BornTimestamp: rec.BornTimestamp, BornHost: rec.BornHost, ReconsumeTimes: rec.ReconsumeTimes + 1,
		AppendCRC: b.cfg.Load().EnabledAppendPropCRC}
	props := message.AppendWithout(nil, rec.Properties, func(name []byte) bool {
		switch string(name) {
		case message.PropertyDelay, message.PropertyRealTopic, message.PropertyRealQueueID, message.PropertyCRC32:
			return true
		}
		return false
	})
	if _, again := message.Property(props, message.PropertyRetryTopic); !again {
		props = message.AppendProperty(props, message.PropertyRetryTopic, rec.Topic)
	}
	if _, known := message.Property(props, message.PropertyOriginMessageID); !known {
		props = message.AppendProperty(props, message.PropertyOriginMessageID, message.AppendOffsetID(nil, b.storeHost, rec.PhysicalOffset))
	}
	if dead {
		props = message.AppendProperty(props, message.PropertyDLQOriginTopic, rec.Topic)
		props = message.AppendProperty(props, message.PropertyDLQOriginMessageID, message.AppendOffsetID(nil, b.storeHost, rec.PhysicalOffset))
	} else {
		if level == 0 {
			level = 3 + int64(rec.ReconsumeTimes)
		}
		props = message.AppendProperty(props, message.PropertyDelay, strconv.AppendInt(nil, level, 10))
		if n := delayLevel(strconv.AppendInt(nil, level, 10), len(b.delayLevels)); n > 0 {
			props = appendReal(props, d.Topic, d.QueueID)
			d.Topic, d.QueueID = []byte(message.ScheduleTopic), int32(n-1)
		}
	}
	d.Properties = props
	if err := d.Check(b.cfg.Load().MaxMessageSize); err != nil {
		return refused(remoting.RespMessageIllegal, "%s", err)
	}
	a := r.storeAndWait(d, topic)
	if a.code == remoting.RespSuccess {
		origin, again := message.Property(rec.Properties, message.PropertyRetryTopic)
		if !again {
			origin = rec.Topic
		}
		b.stats.sentBack(string(origin), gc.GroupName)
	}
	return a
}

// storeAndWait stores a message on a lane's goroutine and waits for the device as the settings say.
func (r *request) storeAndWait(d message.Draft, topic *Topic) *answer {
	s := r.b.newSender()
	ctx, cancel := context.WithTimeout(context.Background(), r.b.syncFlushTimeout)
	defer cancel()
	if err := r.b.storeInternal(ctx, &s, d); err != nil {
		return failed(err)
	}
	s.topic = topic
	s.count()
	if wait, _ := r.b.mustWaitForFlush(&s, r.b.nowMillis()); wait {
		if err := r.b.store.Log().WaitFlushed(ctx, s.put.End); err != nil {
			return failed(fmt.Errorf("%w: %w", errFlushTimeout, err))
		}
	}
	return succeeded()
}

// dlqOrRetryTopic is where a message of the group goes next, made if it is not there.
func (b *Broker) dlqOrRetryTopic(gc *remoting.SubscriptionGroupConfig, dead bool) (*Topic, error) {
	if dead {
		return b.dlqTopic(gc.GroupName)
	}
	return b.retryTopic(gc)
}

func (b *Broker) dlqTopic(group string) (*Topic, error) {
	topic, generation, err := b.topics.createDLQ(group)
	if err != nil {
		return nil, err
	}
	return topic, b.topics.waitSaved(generation, saveTimeout)
}

func (b *Broker) retryTopic(gc *remoting.SubscriptionGroupConfig) (*Topic, error) {
	topic, generation, err := b.topics.createSendBack(message.RetryTopic(gc.GroupName), gc.RetryQueueNums, remoting.PermRead|remoting.PermWrite, false, 0)
	if err != nil {
		return nil, err
	}
	return topic, b.topics.waitSaved(generation, saveTimeout)
}

// createTopicInSend makes a topic for its first message: retry topics always, others after the default topic that the producer names.
func (b *Broker) createTopicInSend(hdr *remoting.SendHeader, from netip.AddrPort) (*Topic, error) {
	cfg := b.cfg.Load()
	if message.IsRetryTopic(hdr.Topic) {
		group := string(hdr.Topic[len(message.RetryTopicPrefix):])
		if g := b.groups.find(group); g != nil {
			return b.retryTopic(g.config.Load())
		}
		return b.retryTopic(&remoting.SubscriptionGroupConfig{GroupName: group, RetryQueueNums: 1})
	}
	sysFlag := int32(0)
	if hdr.UnitMode {
		sysFlag = remoting.TopicUnit
	}
	topic, generation, err := b.topics.createInSend(cfg, hdr.Topic, hdr.DefaultTopic, hdr.DefaultTopicQueueNums, sysFlag, from)
	if err != nil {
		return nil, err
	}
	if topic == nil {
		return nil, refuse(remoting.RespTopicNotExist, "topic[%s] not exist, apply first please!%s", hdr.Topic, faq)
	}
	return topic, b.topics.waitSaved(generation, saveTimeout)
}
