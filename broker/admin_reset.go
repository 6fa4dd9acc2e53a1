package broker

import (
	"fmt"
	"strconv"

	"github.com/ringmq/ringmq/remoting"
)

// languageCPP is the language code of the C++ clients (LanguageCode.CPP).
const languageCPP byte = 1

// resetOffset handles INVOKE_BROKER_TO_RESET_OFFSET: the next pull of the group goes to where a time, or an offset, says. Does the work of
// AdminBrokerProcessor.resetOffset and, with useServerSideResetOffset=false, of Broker2Client.resetOffset.
func resetOffset(r *request) *answer {
	b, group := r.b, r.cmd.String("group")
	topic := b.topics.find(r.cmd.String("topic"))
	if topic == nil {
		return refused(remoting.RespTopicNotExist, "Topic %s does not exist", r.cmd.String("topic"))
	}
	if b.groups.find(group) == nil {
		return refused(remoting.RespSubscriptionGroupNotExist, "Group %s does not exist", group)
	}
	at, err := r.cmd.Int("timestamp", -1)
	if err != nil {
		return failed(err)
	}
	if !b.cfg.Load().UseServerSideResetOffset {
		return b.resetInClients(topic, group, at, r.cmd.Bool("isForce", false))
	}
	queueID, err := r.int32("queueId", -1)
	if err != nil {
		return failed(err)
	}
	offset, err := r.cmd.Int("offset", -1)
	if err != nil {
		return failed(err)
	}
	targets, err := b.resetTargets(topic, queueID, offset, at)
	if err != nil {
		return failed(err)
	}
	return b.resetHere(topic.Name, group, targets)
}

// resetTargets is where each queue goes; queueID -1 means all.
func (b *Broker) resetTargets(topic *Topic, queueID int32, offset, at int64) (map[int32]int64, error) {
	first, last := queueID, queueID
	if queueID < 0 {
		first, last, offset = 0, topic.config.Load().ReadQueueNums-1, -1
	} else if queueID >= maxTopicQueues {
		return nil, refuse(remoting.RespInvalidParameter, "queueId %d is not in 0..%d", queueID, maxTopicQueues-1)
	}
	targets := map[int32]int64{}
	for id := first; id <= last; id++ {
		q := b.store.Queue([]byte(topic.Name), id)
		switch {
		case offset != -1:
			least, most := int64(0), int64(0)
			if q != nil {
				least, most = q.Min(), q.Max()
			}
			if offset < least || offset > most+1 {
				return nil, refuse(remoting.RespSystemError, "Target offset %d not in consume queue range [%d-%d]", offset, least, most)
			}
			targets[id] = offset
		default:
			found, err := b.offsetAt(topic.Name, id, at)
			if err != nil {
				return nil, fmt.Errorf("queue %d of topic %s: %w", id, topic.Name, err)
			}
			targets[id] = found
		}
	}
	if len(targets) == 0 {
		return nil, refuse(remoting.RespSystemError, "No queues to reset.")
	}
	return targets, nil
}

// offsetAt is the offset of a queue at a store time, its end for a negative one.
func (b *Broker) offsetAt(topic string, queueID int32, at int64) (int64, error) {
	q := b.store.Queue([]byte(topic), queueID)
	if q == nil {
		return 0, nil
	}
	if at < 0 {
		return q.Max(), nil
	}
	return q.OffsetByTime(at, false, b.store.StoreTime)
}

func (b *Broker) resetHere(topic, group string, targets map[int32]int64) *answer {
	body := remoting.ResetOffsetBody{OffsetTable: map[remoting.MessageQueue]int64{}}
	var latest uint64
	for id, offset := range targets {
		generation, result := b.offsets.assignReset(topic, group, id, offset)
		if result == commitRefused {
			return refused(remoting.RespSystemError, "the broker keeps no more consumer offsets")
		}
		latest = max(latest, generation)
		body.OffsetTable[b.messageQueue(topic, id)] = offset
	}
	if err := b.offsets.saver.waitSaved(latest, saveTimeout); err != nil {
		return failed(err)
	}
	return withBody(body)
}

// resetInClients tells the group's members where to go. Without force no queue goes forward.
func (b *Broker) resetInClients(topic *Topic, group string, at int64, force bool) *answer {
	body := remoting.ResetOffsetBody{OffsetTable: map[remoting.MessageQueue]int64{}}
	for id := range topic.config.Load().WriteQueueNums {
		committed, ok := b.offsets.query([]byte(topic.Name), []byte(group), id)
		if !ok {
			return refused(remoting.RespSystemError, "The consumer group <%s> has no offset in queue %d of topic %s", group, id, topic.Name)
		}
		target, err := b.offsetAt(topic.Name, id, at)
		if err != nil {
			return failed(err)
		}
		if !force && target > committed {
			target = committed
		}
		body.OffsetTable[b.messageQueue(topic.Name, id)] = target
	}
	members := b.clients.consumerChannels(group)
	if len(members) == 0 {
		return refused(remoting.RespConsumerNotOnline, "Consumer not online, so can not reset offset, Group: %s Topic: %s Timestamp: %d", group, topic.Name, at)
	}
	for _, m := range members {
		table := remoting.EncodeBody(body)
		if m.language == languageCPP {
			table = remoting.EncodeBody(offsetsForC(body.OffsetTable))
		}
		b.calls.tell(m.conn, remoting.ReqResetConsumerClientOffset, table, field{"topic", topic.Name}, field{"group", group},
			field{"timestamp", strconv.FormatInt(at, 10)}, field{"isForce", strconv.FormatBool(force)}, field{"queueId", "-1"})
		b.log.Info("offset reset in client", "topic", topic.Name, "group", group, "client", m.String())
	}
	return withBody(body)
}

// offsetsForC is the form that C++ clients read.
func offsetsForC(table map[remoting.MessageQueue]int64) (body remoting.ResetOffsetBodyForC) {
	for q, offset := range table {
		body.OffsetTable = append(body.OffsetTable, remoting.MessageQueueForC{BrokerName: q.BrokerName, Offset: offset, QueueID: q.QueueID, Topic: q.Topic})
	}
	return body
}
