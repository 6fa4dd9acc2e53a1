package broker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// Who is connected, and requests that are passed on to clients.

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

// allProducers handles GET_ALL_PRODUCER_INFO.
func allProducers(r *request) *answer { return r.bounded(r.b.clients.producerTable()) }

// groupsOfTopic handles QUERY_TOPIC_CONSUME_BY_WHO: the groups online that subscribe to a topic, and those that have offsets in it.
func groupsOfTopic(r *request) *answer {
	topic := r.cmd.String("topic")
	groups := append(r.b.clients.groupsOf(topic), r.b.offsets.groupsOf(topic)...)
	slices.Sort(groups)
	return r.bounded(remoting.GroupList{GroupList: slices.Compact(groups)})
}

// groupSubscription handles QUERY_SUBSCRIPTION_BY_CONSUMER.
func groupSubscription(r *request) *answer {
	group, topic := r.cmd.String("group"), r.cmd.String("topic")
	return withBody(remoting.QuerySubscriptionBody{Group: group, Topic: topic, SubscriptionData: r.b.clients.subscription(group, topic)})
}

const (
	// clientCallTimeout is how long a client may take to answer a request that the broker passes on.
	clientCallTimeout = 10 * time.Second
	// consumerStatusTimeout is how long all members of a group may take together.
	consumerStatusTimeout = 5 * time.Second
	// maxStatusMembers bounds the members that are asked for one answer.
	maxStatusMembers = 1024
)

// consumerRunningInfo handles GET_CONSUMER_RUNNING_INFO.
func consumerRunningInfo(r *request) *answer {
	return r.passOn(r.cmd.String("consumerGroup"), r.cmd.String("clientId"), nil, r.allFields())
}

// consumeDirectly handles CONSUME_MESSAGE_DIRECTLY: one client gets one message to consume now.
func consumeDirectly(r *request) *answer {
	b, group := r.b, r.cmd.String("consumerGroup")
	_, offset, err := message.ParseOffsetID(r.cmd.String("msgId"))
	if err != nil {
		return failed(err)
	}
	raw, err := b.store.Log().ReadRecord(offset)
	if err != nil {
		return refused(remoting.RespSystemError, "can not find message by the offset, %d", offset)
	}
	fields := append(r.allFields(), field{"brokerName", b.cfg.Load().BrokerName})
	if topic := b.topics.find(r.cmd.String("topic")); topic != nil {
		fields = append(fields, number32("topicSysFlag", topic.config.Load().TopicSysFlag))
	}
	if g := b.groups.find(group); g != nil {
		fields = append(fields, number32("groupSysFlag", g.config.Load().GroupSysFlag))
	}
	return r.passOn(group, r.cmd.String("clientId"), raw, fields)
}

// passOn asks a client what the broker was asked, and answers as the client does.
func (r *request) passOn(group, clientID string, body []byte, fields []field) *answer {
	ch := r.b.clients.consumerChannel(group, clientID)
	if ch == nil {
		return refused(remoting.RespSystemError, "The Consumer <%s> <%s> not online", group, clientID)
	}
	return r.later(func() *answer {
		ctx, cancel := context.WithTimeout(context.Background(), clientCallTimeout)
		defer cancel()
		a, err := r.b.calls.call(ctx, ch.connID, ch.conn, r.cmd.Code, body, fields...)
		if err != nil {
			code, remark := codeOf(err)
			return refused(code, "consumer <%s> <%s>: %s", group, clientID, remark)
		}
		return &answer{code: a.code, remark: a.remark, body: a.body}
	})
}

// allFields are the extension fields of the request.
func (r *request) allFields() []field {
	fields := make([]field, 0, len(r.cmd.Fields)+3)
	for _, f := range r.cmd.Fields {
		fields = append(fields, field{string(f.Key), string(f.Value)})
	}
	return fields
}

// consumerStatus handles INVOKE_BROKER_TO_GET_CONSUMER_STATUS: the offsets in the memory of each member of a group, or of one.
func consumerStatus(r *request) *answer {
	group, only := r.cmd.String("group"), r.cmd.String("clientAddr")
	members := r.b.clients.consumerChannels(group)
	if len(members) == 0 {
		return refused(remoting.RespSystemError, "No Any Consumer online in the consumer group: [%s]", group)
	}
	if only != "" {
		members = slices.DeleteFunc(members, func(m *clientChannel) bool { return m.clientID != only })
	}
	if len(members) > maxStatusMembers {
		return refused(remoting.RespSystemError, "group %s has %d members online, more than can be asked (%d): name one by its client id",
			group, len(members), maxStatusMembers)
	}
	topic := r.cmd.String("topic")
	return r.later(func() *answer { return r.bounded(r.b.askStatus(members, topic, group)) })
}

// askStatus asks all members at once. Those that do not answer in time are left out, as in the original.
func (b *Broker) askStatus(members []*clientChannel, topic, group string) remoting.ConsumerStatusBody {
	ctx, cancel := context.WithTimeout(context.Background(), consumerStatusTimeout)
	defer cancel()
	body := remoting.ConsumerStatusBody{ConsumerTable: map[string]map[remoting.MessageQueue]int64{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(func() {
			a, err := b.calls.call(ctx, m.connID, m.conn, remoting.ReqGetConsumerStatusFromClient, nil, field{"topic", topic}, field{"group", group})
			var status remoting.ConsumerStatusBody
			if err == nil && a.code == remoting.RespSuccess && len(a.body) > 0 {
				err = remoting.DecodeBody(a.body, &status)
			}
			if err != nil {
				b.log.Warn("client does not tell its offsets", "group", group, "client", m.String(), "err", err)
				return
			}
			if a.code == remoting.RespSuccess {
				mu.Lock()
				body.ConsumerTable[m.clientID] = status.MessageQueueTable
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return body
}
