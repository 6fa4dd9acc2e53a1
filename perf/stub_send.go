package perf

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// What the generator's send requests with JSON headers begin with, and the keys of the fields that an answer needs.
var (
	plainSendHead  = []byte(`{"code":310,"flag":0,"language":"GO","opaque":`)
	plainTopicKey  = []byte(`"b":"`)
	plainQueueKey  = []byte(`"e":"`)
	plainBatchMark = []byte(`"m":"true"`)
)

const (
	plainOpaqueDigits = 10
	plainAnswerHead   = `{"code":0,"flag":1,"language":"GO","opaque":`
	plainAnswerMiddle = `,"serializeTypeCurrentRPC":"JSON","version":513,"extFields":{"msgId":"7F00000100002A9F0000000000000000","queueId":"`
	plainAnswerOffset = `","queueOffset":"`
	plainAnswerTail   = `"}}`
)

// plainSend answers a send request of this very generator: it looks for opaque, topic and queue in the header's text, and copies a
// ready answer. It is false for everything else. What is left of the cost is the network, which is what the control is for.
func (s *Stub) plainSend(c *stubConn, frame []byte) bool {
	if len(frame) < 4 || frame[0] != 0 {
		return false
	}
	size := int(binary.BigEndian.Uint32(frame) & 0xffffff)
	if size > len(frame)-4 {
		return false
	}
	rest, ok := bytes.CutPrefix(frame[4:4+size], plainSendHead)
	if !ok || len(rest) < plainOpaqueDigits || rest[plainOpaqueDigits] != ',' {
		return false
	}
	opaque := rest[:plainOpaqueDigits]
	at := bytes.Index(rest, plainTopicKey)
	if at < 0 {
		return false
	}
	topic, rest, ok := bytes.Cut(rest[at+len(plainTopicKey):], []byte{'"'})
	if !ok {
		return false
	}
	if at = bytes.Index(rest, plainQueueKey); at < 0 {
		return false
	}
	queue, rest, ok := bytes.Cut(rest[at+len(plainQueueKey):], []byte{'"'})
	if !ok || bytes.Contains(rest, plainBatchMark) {
		return false
	}
	id, ok := number(queue)
	t := s.topicOf(c, topic)
	if !ok || t == nil || id >= int64(len(t.next)) {
		return false
	}
	offset := t.next[id]
	t.next[id]++
	c.answerSend(opaque, queue, offset)
	return true
}

func (s *Stub) topicOf(c *stubConn, topic []byte) *stubTopic {
	if c.last == nil || !bytes.Equal(topic, c.lastTopic) {
		c.last = s.topics[string(topic)]
		c.lastTopic = append(c.lastTopic[:0], topic...)
	}
	return c.last
}

func (c *stubConn) answerSend(opaque, queue []byte, offset int64) {
	at := len(c.out)
	b := append(c.out, 0, 0, 0, 0, 0, 0, 0, 0)
	b = append(append(b, plainAnswerHead...), opaque...)
	b = append(append(b, plainAnswerMiddle...), queue...)
	b = strconv.AppendInt(append(b, plainAnswerOffset...), offset, 10)
	b = append(b, plainAnswerTail...)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	binary.BigEndian.PutUint32(b[at+4:], uint32(len(b)-at-8))
	c.out = b
}
