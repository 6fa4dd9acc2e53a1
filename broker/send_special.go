package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
)

// What most sends do not need: delay, retry topics, topics that have to be created, sends that have to wait.

// rewritten tells the properties that a client may not set itself, or that the broker sets anew.
func rewritten(name []byte) bool {
	switch string(name) {
	case message.PropertyPopCk, message.PropertyMsgRegion, message.PropertyTraceOn, message.PropertyCluster, message.PropertyCRC32:
		return true
	}
	return false
}

// prepareSpecial looks at the properties that change what happens to a message.
func (s *sender) prepareSpecial(now int64, wait bool) verdict {
	d := &s.put.Draft
	s.props = message.AppendWithout(s.props[:0], d.Properties, rewritten)
	d.Properties = s.props
	if prepared, _ := message.Property(s.props, message.PropertyTransactionPrepared); bytes.EqualFold(prepared, []byte("true")) {
		return verdict{remoting.RespNoPermission, "the broker[" + s.b.cfg.Load().BrokerIP1 + "] sending transaction message is forbidden"}
	}
	if message.IsRetryTopic(s.hdr.Topic) {
		if v := s.prepareRetry(wait); v.code != sendReady {
			return v
		}
	}
	if v := s.prepareDelay(); v.code != sendReady {
		return v
	}
	return verdict{code: sendReady}
}

// prepareRetry sends a message that was consumed too often to the dead letter topic instead.
func (s *sender) prepareRetry(wait bool) verdict {
	d, hdr := &s.put.Draft, &s.hdr
	group := string(hdr.Topic[len(message.RetryTopicPrefix):])
	known := s.b.groups.find(group)
	if known == nil {
		if !wait {
			return verdict{code: sendWaits}
		}
		var err error
		if known, err = s.b.ensureGroup([]byte(group)); err != nil {
			return verdict{remoting.RespSubscriptionGroupNotExist, "subscription group not exist, " + group + " " + faq}
		}
	}
	most := known.config.Load().RetryMaxTimes
	if hdr.MaxReconsumeTimes >= 0 {
		most = hdr.MaxReconsumeTimes
	}
	if hdr.ReconsumeTimes <= most && !s.b.locks.groupLocked([]byte(group), steadyNow()) {
		return verdict{code: sendReady}
	}
	if !wait {
		return verdict{code: sendWaits}
	}
	topic, err := s.b.dlqTopic(group)
	if err != nil {
		code, remark := codeOf(err)
		return verdict{code, remark}
	}
	s.topic = topic
	d.Topic, d.QueueID = []byte(topic.Name), 0
	s.props = message.AppendWithout(nil, s.props, func(name []byte) bool { return string(name) == message.PropertyDelay })
	s.props = message.AppendProperty(s.props, message.PropertyDelay, []byte("-1"))
	d.Properties, s.hot.Delay = s.props, nil
	return verdict{code: sendReady}
}

// prepareDelay moves a message with a delay level to the schedule topic; it comes back when it is due (schedule.go).
func (s *sender) prepareDelay() verdict {
	d := &s.put.Draft
	if level := delayLevel(s.hot.Delay, len(s.b.delayLevels)); level > 0 {
		s.extra = appendReal(s.extra, d.Topic, d.QueueID)
		d.Topic, d.QueueID = []byte(message.ScheduleTopic), int32(level-1)
		return verdict{code: sendReady}
	}
	for _, name := range [...]string{message.PropertyTimerDelaySec, message.PropertyTimerDelayMs, message.PropertyTimerDeliverMs} {
		if _, timed := message.Property(d.Properties, name); timed {
			return verdict{remoting.RespSystemError, "accurate timer message is not enabled, timerWheelEnable is false"}
		}
	}
	return verdict{code: sendReady}
}

// appendReal notes where a message is to go in the end.
func appendReal(props, topic []byte, queueID int32) []byte {
	props = message.AppendProperty(props, message.PropertyRealTopic, topic)
	return message.AppendProperty(props, message.PropertyRealQueueID, strconv.AppendInt(nil, int64(queueID), 10))
}

// delayLevel reads the DELAY property: 0 for none, never more than the highest level.
func delayLevel(text []byte, levels int) int {
	n, ok := remoting.ParseInt(text)
	if !ok || n <= 0 {
		return 0
	}
	return int(min(n, int64(levels)))
}

// createTopic makes the topic of a send, after the default topic that the client names (TBW102), and waits until it is saved.
func (s *sender) createTopic(c *netpath.Conn) verdict {
	hdr := &s.hdr
	topic, err := s.b.createTopicInSend(hdr, c.Remote)
	if err != nil {
		code, remark := codeOf(err)
		return verdict{code, remark}
	}
	s.topic = topic
	s.b.register.await(sendRegisterPatience)
	return verdict{code: sendReady}
}

// sendRegisterPatience is registerPatience for a topic that its first message makes: others wait behind it.
const sendRegisterPatience = 500 * time.Millisecond

// sendSlowly is onSend where waiting is allowed: on the goroutine of the put lane. It does not wait for the device: those behind it would
// wait for it one by one. The acknowledgement goes back to the reactor.
func (h *handler) sendSlowly(c *netpath.Conn, frame []byte) {
	defer stateOf(c).waiting.Add(-1)
	b, began := h.b, netpath.ReadClock().MonoNanos
	s := b.newSender()
	var cmd remoting.Command
	if err := cmd.Decode(frame); err != nil {
		c.Close(err)
		return
	}
	if err := s.hdr.Decode(&cmd); err != nil {
		b.answer(c, &cmd, failed(err))
		return
	}
	v := s.prepare(&cmd, c, b.nowMillis(), true)
	if v.code != sendReady {
		s.answerSlowly(c, &cmd, v)
		return
	}
	if err := b.appendSlowly(&s, &cmd); err != nil {
		s.stats.putFailed()
		code, remark := codeOf(err)
		s.answerSlowly(c, &cmd, verdict{code, remark})
		return
	}
	s.count()
	st := s.storedOf(&cmd)
	waits, timeout := b.mustWaitForFlush(&s, b.nowMillis())
	switch {
	case cmd.IsOneway():
	case !waits:
		c.Send(s.appendAnswer(nil, &st, remoting.RespSuccess, ""))
		s.stats.putTook(s.topic, st.queueID, millisSince(began))
	default:
		a := st.own(c, s.topic, began)
		end, deadline := s.put.End, netpath.ReadClock().MonoNanos+int64(timeout)
		if !h.reactor.Post(func() { h.awaitFlush(&a, end, deadline) }) {
			c.Send(s.appendAnswer(nil, &st, remoting.RespFlushDiskTimeout, acksOverload))
		}
	}
}

func (s *sender) answerSlowly(c *netpath.Conn, cmd *remoting.Command, v verdict) {
	if cmd.IsOneway() {
		return
	}
	w := remoting.Respond(nil, cmd, v.code, v.remark)
	w.Encoded(s.encodedFields())
	c.Send(w.Finish(nil))
}

// appendSlowly appends the prepared draft, waiting for the log's memory.
func (b *Broker) appendSlowly(s *sender, cmd *remoting.Command) error {
	ctx, cancel := context.WithTimeout(context.Background(), b.syncFlushTimeout)
	defer cancel()
	for {
		err := s.append(cmd, b.nowMillis())
		if err == nil {
			b.store.DispatchWait()
			return nil
		}
		if !errors.Is(err, commitlog.ErrNotReady) {
			return err
		}
		if err := b.store.Log().WaitReady(ctx); err != nil {
			return fmt.Errorf("[PC_SYNCHRONIZED]broker busy: %w", err)
		}
	}
}

var errFlushTimeout = errors.New("flush disk timeout")

// newUniqKey makes a unique key as clients do (MessageClientIDSetter): address 4, process 2, hash 4, ms since the month began 4,
// counter 2 bytes, as upper-case hex.
func (b *Broker) newUniqKey(dst *[32]byte, nowMillis int64) []byte {
	var raw [16]byte
	copy(raw[:4], b.storeHost.IP[:4])
	binary.BigEndian.PutUint16(raw[4:], uint16(os.Getpid()))
	binary.BigEndian.PutUint32(raw[6:], uint32(message.HashCode([]byte("ringmq"))))
	now := time.UnixMilli(nowMillis)
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, now.Location())
	binary.BigEndian.PutUint32(raw[10:], uint32(now.Sub(month).Milliseconds()))
	binary.BigEndian.PutUint16(raw[14:], uint16(b.uniqCounter.Add(1)))
	for i, c := range raw {
		dst[2*i], dst[2*i+1] = upperHex[c>>4], upperHex[c&15]
	}
	return dst[:]
}

const upperHex = "0123456789ABCDEF"
