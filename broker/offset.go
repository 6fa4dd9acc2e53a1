package broker

import (
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
	"github.com/ringmq/ringmq/store"
)

// Offset requests: the ones that clients send all the time run on the reactor. Does the work of ConsumerManageProcessor and of a part of
// AdminBrokerProcessor.

// onUpdateOffset handles UPDATE_CONSUMER_OFFSET.
func (h *handler) onUpdateOffset(c *netpath.Conn) {
	q := &h.queue
	if err := q.Decode(&h.cmd, remoting.NeedGroup|remoting.NeedCommitOffset); err != nil {
		h.replyError(c, err)
		return
	}
	if h.b.topics.lookup(q.Topic) == nil {
		h.reply(c, remoting.RespTopicNotExist, "topic "+string(q.Topic)+" not exist")
		return
	}
	if h.b.groups.lookup(q.ConsumerGroup) == nil {
		if !h.b.cfg.Load().AutoCreateSubscriptionGroup || message.CheckGroup(q.ConsumerGroup) != "" {
			h.reply(c, remoting.RespSubscriptionGroupNotExist, "subscription group "+string(q.ConsumerGroup)+" not exist")
			return
		}
		h.b.groups.lookupOrCreate(h.b.cfg.Load(), q.ConsumerGroup)
	}
	switch h.b.offsets.commit(q.Topic, q.ConsumerGroup, q.QueueID, q.CommitOffset) {
	case commitPending:
		h.reply(c, remoting.RespSuccess, resetRemark)
	case commitRefused:
		h.reply(c, remoting.RespSystemError, "the broker keeps no more consumer offsets, or the queue number is out of range")
	default:
		h.reply(c, remoting.RespSuccess, "")
	}
}

// onQueryOffset handles QUERY_CONSUMER_OFFSET.
func (h *handler) onQueryOffset(c *netpath.Conn) {
	q := &h.queue
	if err := q.Decode(&h.cmd, remoting.NeedGroup); err != nil {
		h.replyError(c, err)
		return
	}
	if offset, ok := h.b.offsets.query(q.Topic, q.ConsumerGroup, q.QueueID); ok {
		h.replyOffset(c, offset)
		return
	}
	// A group that is new to a young queue starts at its first message, even when the consumer asks for the last.
	if cq := h.b.store.Queue(q.Topic, q.QueueID); q.SetZero && (cq == nil || cq.Min() <= 0 && h.b.inMemory(cq)) {
		h.replyOffset(c, 0)
		return
	}
	h.reply(c, remoting.RespQueryNotFound, "Not found, maybe this group consumer boot first")
}

// inMemory tells whether a queue's first message is within accessMessageInMemoryMaxRatio of memory behind the log's end.
func (b *Broker) inMemory(q *store.ConsumeQueue) bool {
	var e [1]store.Entry
	if n, err := q.Read(q.Min(), e[:]); err != nil || n == 0 {
		return err == nil
	}
	return b.store.Log().Published()-e[0].PhysicalOffset <= b.memoryBytes/100*int64(b.cfg.Load().AccessMessageInMemoryMaxRatio)
}

func (h *handler) replyOffset(c *netpath.Conn, offset int64) {
	if h.cmd.IsOneway() {
		return
	}
	w := remoting.Respond(c.Begin(), &h.cmd, remoting.RespSuccess, "")
	w.Int("offset", offset)
	c.End(w.Finish(nil))
}

// onMaxOffset handles GET_MAX_OFFSET: the next offset to be written.
func (h *handler) onMaxOffset(c *netpath.Conn) {
	if err := h.queue.Decode(&h.cmd, 0); err != nil {
		h.replyError(c, err)
		return
	}
	var offset int64
	if q := h.b.store.Queue(h.queue.Topic, h.queue.QueueID); q != nil {
		offset = q.Max()
	}
	h.replyOffset(c, offset)
}

// onMinOffset handles GET_MIN_OFFSET.
func (h *handler) onMinOffset(c *netpath.Conn) {
	if err := h.queue.Decode(&h.cmd, 0); err != nil {
		h.replyError(c, err)
		return
	}
	var offset int64
	if q := h.b.store.Queue(h.queue.Topic, h.queue.QueueID); q != nil {
		offset = q.Min()
	}
	h.replyOffset(c, offset)
}

// searchOffset handles SEARCH_OFFSET_BY_TIMESTAMP.
func searchOffset(r *request) *answer {
	var hdr remoting.QueueHeader
	if err := hdr.Decode(&r.cmd, remoting.NeedTimestamp); err != nil {
		return failed(err)
	}
	q := r.b.store.Queue(hdr.Topic, hdr.QueueID)
	if q == nil {
		return succeeded().with("offset", 0)
	}
	offset, err := q.OffsetByTime(hdr.Timestamp, hdr.Upper, r.b.store.StoreTime)
	if err != nil {
		return failed(err)
	}
	return succeeded().with("offset", offset)
}

// earliestStoreTime handles GET_EARLIEST_MSG_STORETIME: -1 for an empty queue.
func earliestStoreTime(r *request) *answer {
	var hdr remoting.QueueHeader
	if err := hdr.Decode(&r.cmd, 0); err != nil {
		return failed(err)
	}
	return succeeded().with("timestamp", r.b.storeTimeAt(r.b.store.Queue(hdr.Topic, hdr.QueueID), -1))
}

// storeTimeAt is the store time of the message at a queue offset, of the first one for -1; -1 where there is none.
func (b *Broker) storeTimeAt(q *store.ConsumeQueue, offset int64) int64 {
	if q == nil {
		return -1
	}
	if offset < 0 {
		offset = q.Min()
	}
	var e [1]store.Entry
	if n, err := q.ReadWait(offset, e[:]); err != nil || n == 0 || e[0].Size == 0 {
		return -1
	}
	at, err := b.store.StoreTime(e[0])
	if err != nil {
		return -1
	}
	return at
}
