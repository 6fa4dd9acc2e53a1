package broker

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
)

// Requests by which clients make themselves known and share queues. Does the work of ClientManageProcessor and of the lock requests of
// AdminBrokerProcessor.

// heartbeat handles HEART_BEAT.
func heartbeat(r *request) *answer {
	var data remoting.HeartbeatData
	if err := remoting.DecodeBody(r.cmd.Body, &data); err != nil {
		return failed(err)
	}
	b := r.b
	ch := clientChannel{connID: r.conn.ID, conn: r.conn, clientID: data.ClientID, language: r.cmd.Language, version: r.cmd.Version,
		addr: r.conn.Remote, seen: steadyNow(), seenAt: b.nowMillis()}
	defer func() {
		if r.conn.Closed() { // it may have been forgotten before it was registered
			b.connectionClosed(r.conn)
		}
	}()
	subChanged := data.HeartbeatFingerprint == 0
	for i := range data.ConsumerDataSet {
		c := &data.ConsumerDataSet[i]
		changed, err := b.registerConsumer(ch, c, &data)
		if err != nil {
			return failed(err)
		}
		subChanged = subChanged || changed
	}
	for _, p := range data.ProducerDataSet {
		if err := b.clients.registerProducer(ch, p.GroupName); err != nil {
			return failed(err)
		}
	}
	return succeeded().with("IS_SUPPORT_HEART_BEAT_V2", true).with("IS_SUB_CHANGE", subChanged)
}

// registerConsumer registers one group of a heartbeat, with its retry topic, and tells the group's members when it changed.
func (b *Broker) registerConsumer(ch clientChannel, c *remoting.ConsumerData, data *remoting.HeartbeatData) (subChanged bool, err error) {
	group, err := b.ensureGroup([]byte(c.GroupName))
	if err != nil {
		return false, err
	}
	gc := group.config.Load()
	if gc.RetryQueueNums > 0 {
		if _, err := b.retryTopic(gc); err != nil {
			return false, err
		}
	}
	result, err := b.clients.registerConsumer(ch, registration{data: c, fingerprint: data.HeartbeatFingerprint, withoutSub: data.WithoutSub,
		notify: gc.NotifyConsumerIDsChangedEnable && b.cfg.Load().NotifyConsumerIdsChangedEnable})
	if err != nil {
		return false, err
	}
	if result.notify {
		b.notifyGroup(c.GroupName)
	}
	return result.subChanged, nil
}

// ensureGroup finds a group, or makes it where autoCreateSubscriptionGroup allows.
func (b *Broker) ensureGroup(name []byte) (*Group, error) {
	if g := b.groups.lookup(name); g != nil {
		return g, nil
	}
	if remark := message.CheckGroup(name); remark != "" {
		return nil, refuse(remoting.RespInvalidParameter, "%s", remark)
	}
	g, generation := b.groups.lookupOrCreate(b.cfg.Load(), name)
	if g == nil {
		return nil, refuse(remoting.RespSubscriptionGroupNotExist, "subscription group [%s] does not exist, %s", name, faq)
	}
	return g, b.groups.waitSaved(generation, saveTimeout)
}

// saveTimeout is how long a request waits for a change of the tables to be on disk.
const saveTimeout = 5 * time.Second

// notifyGroup tells each member of a group that members came or went.
func (b *Broker) notifyGroup(group string) {
	for _, ch := range b.clients.consumerChannels(group) {
		b.calls.tell(ch.conn, remoting.ReqNotifyConsumerIDsChanged, nil, field{"consumerGroup", group})
	}
}

// unregisterClient handles UNREGISTER_CLIENT.
func unregisterClient(r *request) *answer {
	if group := r.cmd.String("producerGroup"); group != "" {
		r.b.clients.unregisterProducer(r.conn.ID, group)
	}
	if group := r.cmd.String("consumerGroup"); group != "" && r.b.clients.unregisterConsumer(r.conn.ID, group) {
		r.b.notifyGroup(group)
	}
	return succeeded()
}

// connectionClosed forgets a connection's clients. It is called on a reactor, so the telling of others is left to a goroutine.
func (b *Broker) connectionClosed(c *netpath.Conn) {
	b.calls.connClosed(c.ID)
	groups := b.clients.closeConn(c.ID)
	if len(groups) == 0 {
		return
	}
	b.spawn(func() {
		for _, g := range groups {
			b.notifyGroup(g)
		}
	})
}

// expireClients drops the clients that have not been heard of for channelExpiredTimeout.
func (b *Broker) expireClients() {
	life := time.Duration(b.cfg.Load().ChannelExpiredTimeout) * time.Millisecond
	groups, closing := b.clients.expire(steadyNow(), life)
	for _, c := range closing {
		c.Close(errClientExpired)
	}
	for _, g := range groups {
		b.notifyGroup(g)
	}
}

// consumerList handles GET_CONSUMER_LIST_BY_GROUP.
func consumerList(r *request) *answer {
	group := r.cmd.String("consumerGroup")
	ids := r.b.clients.clientIDs(group)
	if len(ids) == 0 {
		return refused(remoting.RespSystemError, "no consumer for this group, %s", group)
	}
	slices.Sort(ids)
	body, err := json.Marshal(struct {
		ConsumerIDList []string `json:"consumerIdList"`
	}{ids})
	if err != nil {
		return failed(err)
	}
	return &answer{body: body}
}

// checkClient handles CHECK_CLIENT_CONFIG: whether this broker can run the subscription's filter.
func checkClient(r *request) *answer {
	var body remoting.CheckClientBody
	if err := remoting.DecodeBody(r.cmd.Body, &body); err != nil {
		return failed(err)
	}
	if kind := body.SubscriptionData.ExpressionType; kind != "" && kind != remoting.ExpressionTag {
		v := sqlRefused()
		return refused(v.code, "%s", v.remark)
	}
	return succeeded()
}

// lockBatch handles LOCK_BATCH_MQ: queues for ordered consumption.
func lockBatch(r *request) *answer {
	var body remoting.LockBatchBody
	if err := remoting.DecodeBody(r.cmd.Body, &body); err != nil {
		return failed(err)
	}
	locked := r.b.locks.lockBatch(body.ConsumerGroup, body.ClientID, body.MqSet, steadyNow())
	return withBody(remoting.LockBatchResult{LockOKMQSet: locked})
}

// unlockBatch handles UNLOCK_BATCH_MQ.
func unlockBatch(r *request) *answer {
	var body remoting.LockBatchBody
	if err := remoting.DecodeBody(r.cmd.Body, &body); err != nil {
		return failed(err)
	}
	r.b.locks.unlockBatch(body.ConsumerGroup, body.ClientID, body.MqSet)
	return succeeded()
}
