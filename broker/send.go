package broker

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
	"github.com/ringmq/ringmq/store"
)

// In the walk of one message: before this, dispatch.go found the handler; after this, store/put.go stores the draft; in the end, the
// answer goes into the connection's output here.
//
// A send is answered by the thread that read it. It never waits: an acknowledgement that has to wait for the device is a row in
// handler.acks, and a send that has to wait (its topic must be created and saved; the log's memory is not ready) goes to a goroutine of
// the put lane with a copy of its frame. Does the work of SendMessageProcessor.

// sender is the scratch for sends of one thread.
type sender struct {
	b      *Broker
	hdr    remoting.SendHeader
	put    store.Put
	hot    message.Hot
	topic  *Topic
	props  []byte // properties that had to be written anew
	extra  []byte // properties that the broker adds
	uniq   [32]byte
	ids    []byte // the message ids of an answer
	stats  statsLane
	turn   turnTally
	known  knownTopic
	host   message.Host // of the connection hostID
	hostID uint64
	// fields are on every answer to a send, as fieldsOf says.
	fields   remoting.Encoded
	fieldsOf *config.Broker
}

// knownTopic is the topic of the last send of one thread, and its queues: most sends go where the one before went, and are spared the
// tables of names. A topic that was deleted tells it; the store finds the queue that is there now where one was deleted.
type knownTopic struct {
	topic  *Topic // may be sent to
	queues [16]*store.ConsumeQueue
}

// find is nil for a topic that has to be looked up.
func (k *knownTopic) find(name []byte) *Topic {
	if t := k.topic; t != nil && t.Name == string(name) && !t.deleted.Load() {
		return t
	}
	return nil
}

// queue is nil for a queue that has to be looked up.
func (k *knownTopic) queue(topic *Topic, name []byte, queueID int32) *store.ConsumeQueue {
	// A delayed message goes to another topic than the one it names.
	if topic != k.topic || uint32(queueID) >= uint32(len(k.queues)) || topic.Name != string(name) {
		return nil
	}
	return k.queues[queueID]
}

func (k *knownTopic) keep(topic *Topic, name []byte, q *store.ConsumeQueue) {
	if topic == k.topic && uint32(q.QueueID) < uint32(len(k.queues)) && topic.Name == string(name) {
		k.queues[q.QueueID] = q
	}
}

// verdict is how a check of a send ended.
type verdict struct {
	code   int32
	remark string
}

// Verdicts that are no answers.
const (
	sendReady int32 = -1 // the draft can be stored
	sendWaits int32 = -2 // go on where waiting is allowed
)

// stored is what the answer to a stored send says.
type stored struct {
	opaque         int32
	serialize      byte
	oneway         bool
	queueID        int32
	queueOffset    int64
	physicalOffset int64
	uniqKey        []byte
	batch          []int64
}

// ack is an answer that waits for the device.
type ack struct {
	stored
	conn    *netpath.Conn
	began   int64    // ns, monotonic
	uniq    [64]byte // where a unique key that is no longer is kept; then stored.uniqKey is nil
	uniqLen int
	topic   *Topic
}

// onSend handles SEND_MESSAGE, SEND_MESSAGE_V2 and SEND_BATCH_MESSAGE on the reactor.
func (h *handler) onSend(c *netpath.Conn) {
	s := &h.send
	if err := s.hdr.Decode(&h.cmd); err != nil {
		h.replyError(c, err)
		return
	}
	now := h.reactor.Now()
	v := s.prepare(&h.cmd, c, now.UnixMilli, false)
	switch {
	case v.code == sendWaits || v.code == sendReady && waitingOf(c) > 0:
		// What waits must not be overtaken by what comes later on the same connection.
		h.toPutLane(c)
		return
	case v.code != sendReady:
		s.reply(h, c, v)
		return
	case h.acks.Full(): // it may have to wait for the device, and is not stored without a place to wait
		s.reply(h, c, verdict{remoting.RespSystemBusy, acksOverload})
		return
	}
	switch err := s.append(&h.cmd, now.UnixMilli); {
	case err == nil:
	case errors.Is(err, commitlog.ErrNotReady):
		h.toPutLane(c)
		return
	default:
		s.stats.putFailed()
		code, remark := codeOf(err)
		s.reply(h, c, verdict{code, remark})
		return
	}
	h.appended = true
	h.acknowledge(c, now)
}

// toPutLane hands the request over as it came.
func (h *handler) toPutLane(c *netpath.Conn) {
	waiting := &stateOf(c).waiting
	waiting.Add(1)
	if !h.b.putLane.Submit(c, h.cmd.Frame(), h.sendSlowly) {
		waiting.Add(-1)
		h.send.reply(h, c, verdict{remoting.RespSystemBusy, "[OVERLOAD]the broker is waiting for its disk, try again later"})
	}
}

// prepare checks a send in the original's order and fills the draft. With wait it may create topics.
func (s *sender) prepare(cmd *remoting.Command, c *netpath.Conn, now int64, wait bool) verdict {
	cfg := s.b.cfg.Load()
	hdr := &s.hdr
	if now < s.b.acceptFrom.Load() {
		return verdict{remoting.RespSystemError, fmt.Sprintf("broker unable to service, until %d", s.b.acceptFrom.Load())}
	}
	if s.topic = s.known.find(hdr.Topic); s.topic == nil {
		if message.IsSendForbidden(hdr.Topic) {
			return verdict{remoting.RespNoPermission, "Sending message to topic[" + string(hdr.Topic) + "] is forbidden."}
		}
		s.topic = s.b.topics.lookup(hdr.Topic)
		s.known = knownTopic{topic: s.topic}
	}
	if s.topic == nil {
		if remark := message.CheckTopic(hdr.Topic); remark != "" {
			return verdict{remoting.RespInvalidParameter, remark}
		}
		if !wait {
			return verdict{code: sendWaits}
		}
		if v := s.createTopic(c); v.code != sendReady {
			return v
		}
	}
	tc := s.topic.config.Load()
	if queues := max(tc.ReadQueueNums, tc.WriteQueueNums); hdr.QueueID >= queues {
		return verdict{remoting.RespInvalidParameter, fmt.Sprintf("request queueId[%d] is illegal, %s Producer: %s", hdr.QueueID, tc.TopicName, c.Remote)}
	}
	if cfg.BrokerPermission&remoting.PermWrite == 0 && tc.Order {
		return verdict{remoting.RespNoPermission, "the broker[" + cfg.BrokerIP1 + "] sending message is forbidden"}
	}
	if hdr.QueueID < 0 {
		hdr.QueueID = rand.Int32N(max(tc.WriteQueueNums, 1))
	}
	if err := s.b.store.Writable(); err != nil {
		code, remark := codeOf(err)
		return verdict{code, remark}
	}
	if len(cmd.Body) == 0 {
		return verdict{remoting.RespMessageIllegal, "message body is null"}
	}
	s.fill(cmd, c, cfg)
	if isBatch(cmd, hdr) {
		return s.checkBatch(cfg.MaxMessageSize)
	}
	return s.prepareSingle(cfg.MaxMessageSize, now, wait)
}

func isBatch(cmd *remoting.Command, hdr *remoting.SendHeader) bool {
	return cmd.Code == remoting.ReqSendBatchMessage || hdr.Batch
}

// fill sets what the draft has from the request as it stands.
func (s *sender) fill(cmd *remoting.Command, c *netpath.Conn, cfg *config.Broker) {
	hdr := &s.hdr
	s.put.Draft = message.Draft{Topic: hdr.Topic, Body: cmd.Body, Properties: hdr.Properties, Flag: hdr.Flag, QueueID: hdr.QueueID,
		SysFlag: hdr.SysFlag &^ message.SysTransactionMask, ReconsumeTimes: hdr.ReconsumeTimes, BornTimestamp: hdr.BornTimestamp,
		BornHost: s.hostOf(c), AppendCRC: cfg.EnabledAppendPropCRC}
}

// hostOf is the sender as a record has it. One reading of a socket brings several messages.
func (s *sender) hostOf(c *netpath.Conn) message.Host {
	if c.ID != s.hostID {
		s.hostID, s.host = c.ID, message.HostOf(c.Remote)
	}
	return s.host
}

func (s *sender) checkBatch(maxBody int) verdict {
	s.hot = message.ScanHot(s.put.Draft.Properties)
	switch {
	case message.IsRetryTopic(s.hdr.Topic):
		return verdict{remoting.RespMessageIllegal, "batch request does not support retry group " + string(s.hdr.Topic)}
	case len(s.hdr.Topic) > message.MaxTopicV1:
		return verdict{remoting.RespMessageIllegal, "message topic length too long " + strconv.Itoa(len(s.hdr.Topic))}
	case len(s.put.Draft.Body) > maxBody:
		return verdict{remoting.RespMessageIllegal, tooLarge(len(s.put.Draft.Body), maxBody)}
	}
	return verdict{code: sendReady}
}

func tooLarge(size, limit int) string {
	return fmt.Sprintf("the message is illegal, maybe msg body or properties length not matched. msg body length limit %dB, it has %dB, msg properties length limit 32KB.", limit, size)
}

// prepareSingle looks at the properties of a single message and completes the draft.
func (s *sender) prepareSingle(maxBody int, now int64, wait bool) verdict {
	d := &s.put.Draft
	s.hot = message.ScanHot(d.Properties)
	s.extra, s.put.Hot = s.extra[:0], &s.hot
	if s.hot.Special || len(s.hot.Delay) > 0 || message.IsRetryTopic(s.hdr.Topic) {
		s.put.Hot = nil // the properties may become others
		if v := s.prepareSpecial(now, wait); v.code != sendReady {
			return v
		}
	}
	if len(s.hot.UniqKey) == 0 {
		s.hot.UniqKey = s.b.newUniqKey(&s.uniq, now)
		s.extra = message.AppendProperty(s.extra, message.PropertyUniqKey, s.hot.UniqKey)
	}
	s.extra = append(s.extra, s.b.addedProperties...)
	d.Extra = s.extra
	if err := d.Check(maxBody); err != nil {
		return verdict{remoting.RespMessageIllegal, tooLarge(len(d.Body), maxBody)}
	}
	return verdict{code: sendReady}
}

// append stores the prepared draft.
func (s *sender) append(cmd *remoting.Command, now int64) error {
	d := &s.put.Draft
	q := s.known.queue(s.topic, d.Topic, d.QueueID)
	if q == nil {
		if q = s.b.store.Queue(d.Topic, d.QueueID); q == nil {
			var err error
			if q, err = s.b.store.EnsureQueue(string(d.Topic), d.QueueID); err != nil {
				return err
			}
		}
		s.known.keep(s.topic, d.Topic, q)
	}
	if isBatch(cmd, &s.hdr) {
		return s.b.store.AppendBatch(&s.put, q, now)
	}
	return s.b.store.Append(&s.put, q, now)
}

// count adds the stored send to the statistics, on a goroutine; a reactor has turn.
func (s *sender) count() {
	n := max(1, len(s.put.BatchOffsets()))
	s.stats.stored(s.topic, n, s.put.End-s.put.PhysicalOffset)
}

// acknowledge answers a stored send, now or when its bytes are on the device.
func (h *handler) acknowledge(c *netpath.Conn, now netpath.Clock) {
	s := &h.send
	st := s.storedOf(&h.cmd)
	waits, timeout := h.b.mustWaitForFlush(s, now.UnixMilli)
	h.tallySend(!waits)
	if !waits {
		h.answerStored(c, &st, remoting.RespSuccess, "")
		return
	}
	a := st.own(c, s.topic, now.MonoNanos)
	h.awaitFlush(&a, s.put.End, now.MonoNanos+int64(timeout))
}

const acksOverload = "[OVERLOAD]too many messages are waiting for the disk, try again later"

// awaitFlush keeps an acknowledgement until the log is flushed up to end, or the deadline (ns, monotonic) is over.
func (h *handler) awaitFlush(a *ack, end, deadline int64) {
	if !h.acks.Add(end, deadline, *a) {
		h.sendAck(a, remoting.RespFlushDiskTimeout, acksOverload) // it is stored: not an answer that asks for it again
		return
	}
	h.asked = true
}

// mustWaitForFlush is rule R1: under SYNC_FLUSH unless the message says WAIT=false; under ASYNC_FLUSH while the device is behind.
func (b *Broker) mustWaitForFlush(s *sender, now int64) (bool, time.Duration) {
	wait := len(s.hot.Wait) != len(falseText) || !bytes.EqualFold(s.hot.Wait, falseText)
	return b.syncFlush && wait || b.store.Log().Behind(now), b.syncFlushTimeout
}

var falseText = []byte("false")

// storedOf gathers the answer; its slices are still views into the request.
func (s *sender) storedOf(cmd *remoting.Command) stored {
	return stored{opaque: cmd.Opaque, serialize: cmd.Serialize, oneway: cmd.IsOneway(), queueID: s.hdr.QueueID,
		queueOffset: s.put.QueueOffset, physicalOffset: s.put.PhysicalOffset, uniqKey: s.hot.UniqKey, batch: s.put.BatchOffsets()}
}

// own copies what the answer needs of the request, which is gone when it waits.
func (st *stored) own(c *netpath.Conn, topic *Topic, began int64) ack {
	a := ack{stored: *st, conn: c, topic: topic, began: began}
	if len(st.uniqKey) <= len(a.uniq) {
		a.uniqLen = copy(a.uniq[:], st.uniqKey)
		a.uniqKey = nil
	} else {
		a.uniqKey = bytes.Clone(st.uniqKey)
	}
	if len(st.batch) > 0 {
		a.batch = slices.Clone(st.batch)
	}
	return a
}

// releaseAcks answers the sends whose bytes are on the device, or whose time is over.
func (h *handler) releaseAcks(now netpath.Clock) {
	if h.acks.Len() == 0 {
		return
	}
	log := h.b.store.Log()
	flushed, failure := log.Flushed(), log.Failed()
	deadline := now.MonoNanos
	if failure != nil {
		// Nobody will reach the device any more: all that wait are answered now, with the error.
		deadline = 1<<63 - 1
	}
	for {
		a, late, ok := h.acks.Next(flushed, deadline)
		switch {
		case !ok:
			h.waits.Store(h.acks.Len() > 0)
			return
		case !late:
			h.group.answered(now.MonoNanos)
			h.send.stats.putTook(a.topic, a.queueID, (now.MonoNanos-a.began)/int64(time.Millisecond))
			h.sendAck(&a, remoting.RespSuccess, "")
		case failure != nil:
			h.sendAck(&a, remoting.RespServiceNotAvailable, failure.Error())
		default:
			h.sendAck(&a, remoting.RespFlushDiskTimeout, "flush disk timeout")
		}
	}
}

func (h *handler) sendAck(a *ack, code int32, remark string) {
	st := a.stored // not in a: what points into itself is put on the heap
	if st.uniqKey == nil {
		st.uniqKey = a.uniq[:a.uniqLen]
	}
	h.answerStored(a.conn, &st, code, remark)
}

func (h *handler) answerStored(c *netpath.Conn, st *stored, code int32, remark string) {
	if st.oneway || c.Closed() {
		return
	}
	c.End(h.send.appendAnswer(c.Begin(), st, code, remark))
}

// appendAnswer writes the answer to a stored send.
func (s *sender) appendAnswer(dst []byte, st *stored, code int32, remark string) []byte {
	s.ids = s.ids[:0]
	if len(st.batch) == 0 {
		s.ids = message.AppendOffsetID(s.ids, s.b.storeHost, st.physicalOffset)
	}
	for i, off := range st.batch {
		if i > 0 {
			s.ids = append(s.ids, ',')
		}
		s.ids = message.AppendOffsetID(s.ids, s.b.storeHost, off)
	}
	r := remoting.SendResponse{
		MsgID: s.ids, QueueID: st.queueID, QueueOffset: st.queueOffset, TransactionID: st.uniqKey, Rest: s.encodedFields(),
	}
	if code == remoting.RespSuccess {
		return r.Append(dst, st.serialize, st.opaque)
	}
	w := remoting.RespondTo(dst, st.serialize, code, st.opaque, remark)
	r.WriteTo(&w)
	return w.Finish(nil)
}

// encodedFields are on every answer to a send, errors included.
func (s *sender) encodedFields() *remoting.Encoded {
	if cfg := s.b.cfg.Load(); cfg != s.fieldsOf {
		s.fieldsOf = cfg
		s.fields = remoting.EncodeFields(func(w *remoting.Writer) {
			w.Text("MSG_REGION", cfg.RegionID)
			w.Bool("TRACE_ON", cfg.TraceOn)
		})
	}
	return &s.fields
}

// reply answers a send that was not stored.
func (s *sender) reply(h *handler, c *netpath.Conn, v verdict) {
	if h.cmd.IsOneway() {
		return
	}
	w := remoting.Respond(c.Begin(), &h.cmd, v.code, v.remark)
	w.Encoded(s.encodedFields())
	c.End(w.Finish(nil))
}
