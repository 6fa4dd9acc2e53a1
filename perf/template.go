package perf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// Opaques of a sender are firstOpaque + n, n below opaqueCount: ten digits each, so that a JSON header can be patched in place.
const (
	firstOpaque = 1_000_000_000
	opaqueCount = 1 << 29
)

// Placeholders that are looked for in the encoded header; what replaces them is as long.
const (
	bornMark = 1_111_111_111_111 // milliseconds: 13 digits until the year 2286
	uniqMark = "0123456789ABCDEFFEDCBA9876543210"
	keyMark  = "00112233445566778899AABBCCDDEEFF"
)

// remotingTemplate is RocketMQ's send request to one queue: the header, and one message of its body.
type remotingTemplate struct {
	head     []byte // length, mark and header
	opaqueAt int
	binary   bool // opaque is four bytes, not ten digits
	bornAt   int
	uniqAt   int // in head, of a single message; -1 with a batch
	keyAt    int // -1 without
	item     item
	batch    int
}

// item is one message as the frame's body holds it: the body itself, or a record of a batch.
type item struct {
	bytes  []byte
	bodyAt int // where the message's body is in bytes
	size   int // of the message's body
	uniqAt int // -1 without: then the header has it
	keyAt  int
}

func newRemotingTemplate(c *Config, topic string, queue int, body []byte) (*remotingTemplate, error) {
	properties := properties(c)
	t := &remotingTemplate{batch: c.Batch, binary: c.Serialize == remoting.SerializeRocketMQ}
	code := remoting.ReqSendMessageV2
	head := properties
	t.item = item{bytes: body, size: len(body), uniqAt: -1, keyAt: -1}
	if c.Batch > 1 {
		code = remoting.ReqSendBatchMessage
		t.item = batchItem(body, properties)
		head = message.AppendProperty(nil, message.PropertyWait, []byte("true"))
	}
	w := remoting.Request(nil, c.Serialize, code, firstOpaque, 0)
	w.Text("a", Group)
	w.Text("b", topic)
	w.Text("c", message.AutoCreateTopic)
	w.Int("d", int64(c.Queues))
	w.Int("e", int64(queue))
	w.Int("f", 0)
	w.Int("g", bornMark)
	w.Int("h", 0)
	w.Bytes("i", head)
	w.Int("j", 0)
	w.Bool("k", false)
	w.Bool("m", c.Batch > 1)
	t.head = w.FinishHead(len(t.item.bytes) * c.Batch)
	return t, t.find()
}

func properties(c *Config) []byte {
	p := message.AppendProperty(nil, message.PropertyUniqKey, []byte(uniqMark))
	p = message.AppendProperty(p, message.PropertyWait, []byte("true"))
	if c.Tag != "" {
		p = message.AppendProperty(p, message.PropertyTags, []byte(c.Tag))
	}
	switch c.Keys {
	case "":
	case "unique":
		p = message.AppendProperty(p, message.PropertyKeys, []byte(keyMark))
	default:
		p = message.AppendProperty(p, message.PropertyKeys, []byte(c.Keys))
	}
	return p
}

// batchItem is one record of a batch body (MessageDecoder.encodeMessage): no topic, no queue, the checksum left to the broker.
func batchItem(body, properties []byte) item {
	be := binary.BigEndian
	size := 22 + len(body) + len(properties)
	b := be.AppendUint32(nil, uint32(size))
	b = append(b, make([]byte, 12)...) // magic, body CRC, flag
	b = be.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	b = be.AppendUint16(b, uint16(len(properties)))
	b = append(b, properties...)
	return item{
		bytes: b, bodyAt: 20, size: len(body),
		uniqAt: bytes.Index(b, []byte(uniqMark)), keyAt: bytes.Index(b, []byte(keyMark)),
	}
}

// find looks for the places to patch in the header. A topic or tag that looks like a placeholder is refused.
func (t *remotingTemplate) find() error {
	t.opaqueAt = 8 + 5
	if !t.binary {
		t.opaqueAt = bytes.Index(t.head, []byte(`"opaque":`)) + len(`"opaque":`)
	}
	t.bornAt = bytes.Index(t.head, []byte(strconv.Itoa(bornMark)))
	t.uniqAt = bytes.Index(t.head, []byte(uniqMark))
	t.keyAt = bytes.Index(t.head, []byte(keyMark))
	for _, mark := range []string{strconv.Itoa(bornMark), uniqMark, keyMark} {
		if bytes.Count(t.head, []byte(mark)) > 1 {
			return fmt.Errorf("topic, tag or keys contain %s, which the generator needs as a placeholder: choose another name", mark)
		}
	}
	return nil
}

// size of one whole frame.
func (t *remotingTemplate) size() int { return len(t.head) + len(t.item.bytes)*t.batch }

func (t *remotingTemplate) append(dst []byte, o *outgoing) []byte {
	putHex(o.uniq[20:], o.number)
	dst = t.appendHead(dst, o.opaque, o.born, &o.uniq)
	for range t.batch {
		o.advance()
		dst = t.item.append(dst, &o.stamp, &o.uniq)
	}
	return dst
}

// appendHead adds the patched header to dst.
func (t *remotingTemplate) appendHead(dst []byte, opaque uint32, born *[13]byte, uniq *[32]byte) []byte {
	at := len(dst)
	dst = append(dst, t.head...)
	head := dst[at:]
	if t.binary {
		binary.BigEndian.PutUint32(head[t.opaqueAt:], opaque)
	} else {
		putDigits(head[t.opaqueAt:t.opaqueAt+10], uint64(opaque))
	}
	copy(head[t.bornAt:], born[:])
	if t.uniqAt >= 0 {
		copy(head[t.uniqAt:], uniq[:])
	}
	if t.keyAt >= 0 {
		copy(head[t.keyAt:], uniq[:])
	}
	return dst
}

// append adds one message to dst, behind the header.
func (i *item) append(dst []byte, s *stamp, uniq *[32]byte) []byte {
	at := len(dst)
	dst = append(dst, i.bytes...)
	b := dst[at:]
	s.put(b[i.bodyAt : i.bodyAt+i.size])
	if i.uniqAt >= 0 {
		copy(b[i.uniqAt:], uniq[:])
	}
	if i.keyAt >= 0 {
		copy(b[i.keyAt:], uniq[:])
	}
	return dst
}

// putDigits writes n with as many digits as dst has.
func putDigits(dst []byte, n uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = '0' + byte(n%10)
		n /= 10
	}
}

// putHex writes the low digits of n.
func putHex(dst []byte, n uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = "0123456789ABCDEF"[n&15]
		n >>= 4
	}
}
