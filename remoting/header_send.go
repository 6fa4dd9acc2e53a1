package remoting

import (
	"encoding/binary"
	"strconv"
)

// SendHeader is the header of SEND_MESSAGE, SEND_MESSAGE_V2, SEND_BATCH_MESSAGE and the two reply codes: one struct for the long
// names and the letters (SendMessageRequestHeader, SendMessageRequestHeaderV2). Slices are views into the frame.
type SendHeader struct {
	ProducerGroup         []byte // a
	Topic                 []byte // b
	DefaultTopic          []byte // c
	DefaultTopicQueueNums int32  // d
	QueueID               int32  // e; negative: any
	SysFlag               int32  // f
	BornTimestamp         int64  // g, ms
	Flag                  int32  // h
	Properties            []byte // i
	ReconsumeTimes        int32  // j
	UnitMode              bool   // k
	MaxReconsumeTimes     int32  // l; -1 when absent
	Batch                 bool   // m
}

// Decode fills h from the fields of c. The error is a *FieldError that names the first field that is missing or no number.
func (h *SendHeader) Decode(c *Command) error {
	*h = SendHeader{MaxReconsumeTimes: -1}
	var seen uint
	for i := range c.Fields {
		f := &c.Fields[i]
		letter, ok := sendLetter(f.Key), true
		switch letter {
		case 'a':
			h.ProducerGroup = f.Value
		case 'b':
			h.Topic = f.Value
		case 'c':
			h.DefaultTopic = f.Value
		case 'd':
			ok = parseInt32(f.Value, &h.DefaultTopicQueueNums)
		case 'e':
			ok = parseInt32(f.Value, &h.QueueID)
		case 'f':
			ok = parseInt32(f.Value, &h.SysFlag)
		case 'g':
			h.BornTimestamp, ok = ParseInt(f.Value)
		case 'h':
			ok = parseInt32(f.Value, &h.Flag)
		case 'i':
			h.Properties = f.Value
		case 'j':
			ok = parseInt32(f.Value, &h.ReconsumeTimes)
		case 'k':
			h.UnitMode = isTrue(f.Value)
		case 'l':
			ok = parseInt32(f.Value, &h.MaxReconsumeTimes)
		case 'm':
			h.Batch = isTrue(f.Value)
		}
		if !ok {
			return fieldError(string(f.Key), f.Value)
		}
		seen |= 1 << (letter - 'a')
	}
	if seen&requiredSend != requiredSend {
		for bit, name := range sendFieldNames {
			if requiredSend&^seen&(1<<bit) != 0 {
				return missing(name)
			}
		}
	}
	return nil
}

// requiredSend are the letters a to h.
const requiredSend = 1<<8 - 1

var sendFieldNames = [...]string{
	"producerGroup", "topic", "defaultTopic", "defaultTopicQueueNums", "queueId", "sysFlag", "bornTimestamp", "flag",
}

// sendLetter is a name of one letter, as SEND_MESSAGE_V2 has it, or the letter for a name of SEND_MESSAGE; otherLetter for any other name.
func sendLetter(name []byte) byte {
	if len(name) == 1 && name[0]-'a' < 'z'-'a' {
		return name[0]
	}
	return letterOf(name)
}

const otherLetter = 'z'

func letterOf(name []byte) byte {
	switch string(name) {
	case "producerGroup":
		return 'a'
	case "topic":
		return 'b'
	case "defaultTopic":
		return 'c'
	case "defaultTopicQueueNums":
		return 'd'
	case "queueId":
		return 'e'
	case "sysFlag":
		return 'f'
	case "bornTimestamp":
		return 'g'
	case "flag":
		return 'h'
	case "properties":
		return 'i'
	case "reconsumeTimes":
		return 'j'
	case "unitMode":
		return 'k'
	case "maxReconsumeTimes":
		return 'l'
	case "batch":
		return 'm'
	}
	return otherLetter
}

// SendResponse is the header of the answer to a stored send (SendMessageResponseHeader). One is written for every message, so it has a
// writer of its own: fewer and longer pieces than Writer's.
type SendResponse struct {
	MsgID         []byte // hex digits and commas
	QueueID       int32
	QueueOffset   int64
	TransactionID []byte   // the unique key; left out when empty
	Rest          *Encoded // at least one field
}

// Append adds the whole frame of a success to dst.
func (r *SendResponse) Append(dst []byte, serialize byte, opaque int32) []byte {
	start := len(dst)
	if serialize == SerializeRocketMQ {
		dst = r.appendBinary(dst, opaque)
	} else {
		dst = r.appendJSON(dst, opaque)
	}
	headerLen := len(dst) - start - 8
	binary.BigEndian.PutUint32(dst[start:], uint32(4+headerLen))
	binary.BigEndian.PutUint32(dst[start+4:], uint32(serialize)<<24|uint32(headerLen))
	return dst
}

const noLengths = "\x00\x00\x00\x00\x00\x00\x00\x00" // of the frame and the header, set when they are known

func (r *SendResponse) appendJSON(dst []byte, opaque int32) []byte {
	dst = append(dst, noLengths+`{"code":0,"flag":1,"language":"GO","opaque":`...)
	dst = strconv.AppendInt(dst, int64(opaque), 10)
	dst = append(dst, `,"serializeTypeCurrentRPC":"JSON","version":513,"extFields":{"msgId":"`...)
	dst = append(dst, r.MsgID...)
	dst = append(dst, `","queueId":"`...)
	dst = strconv.AppendInt(dst, int64(r.QueueID), 10)
	dst = append(dst, `","queueOffset":"`...)
	dst = strconv.AppendInt(dst, r.QueueOffset, 10)
	if len(r.TransactionID) > 0 {
		dst = append(dst, `","transactionId":`...)
		dst = appendJSONString(dst, r.TransactionID)
		dst = append(dst, ',')
	} else {
		dst = append(dst, `",`...)
	}
	dst = append(dst, r.Rest.json...)
	return append(dst, '}', '}')
}

func (r *SendResponse) appendBinary(dst []byte, opaque int32) []byte {
	const (
		// code 0, LanguageGo, Version, opaque, FlagResponse, no remark, length of the fields, and the first of them
		head     = noLengths + "\x00\x00" + "\x09" + "\x02\x01" + noLength + "\x00\x00\x00\x01" + noLength + noLength + "\x00\x05msgId" + noLength
		opaqueAt = len(noLengths) + 5
		fieldsAt = opaqueAt + 16
	)
	be, start := binary.BigEndian, len(dst)
	dst = append(dst, head...)
	be.PutUint32(dst[start+opaqueAt:], uint32(opaque))
	dst = endBinaryValue(append(dst, r.MsgID...), start+len(head))
	dst = append(dst, "\x00\x07queueId"+noLength...)
	dst = endBinaryValue(strconv.AppendInt(dst, int64(r.QueueID), 10), len(dst))
	dst = append(dst, "\x00\x0bqueueOffset"+noLength...)
	dst = endBinaryValue(strconv.AppendInt(dst, r.QueueOffset, 10), len(dst))
	if len(r.TransactionID) > 0 {
		dst = append(dst, "\x00\x0dtransactionId"+noLength...)
		dst = endBinaryValue(append(dst, r.TransactionID...), len(dst))
	}
	dst = append(dst, r.Rest.binary...)
	be.PutUint32(dst[start+fieldsAt-4:], uint32(len(dst)-start-fieldsAt))
	return dst
}

const noLength = "\x00\x00\x00\x00"

// endBinaryValue sets the length, which stands before it, of the value that goes from at to the end of dst.
func endBinaryValue(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at-4:], uint32(len(dst)-at))
	return dst
}

// WriteTo adds the fields to any answer.
func (r *SendResponse) WriteTo(w *Writer) {
	w.Bytes("msgId", r.MsgID)
	w.Int("queueId", int64(r.QueueID))
	w.Int("queueOffset", r.QueueOffset)
	if len(r.TransactionID) > 0 {
		w.Bytes("transactionId", r.TransactionID)
	}
	w.Encoded(r.Rest)
}

func parseInt32(v []byte, dst *int32) bool {
	if len(v) == 1 && v[0]-'0' <= 9 { // nearly all of them
		*dst = int32(v[0] - '0')
		return true
	}
	n, ok := ParseInt(v)
	*dst = int32(n)
	return ok && n == int64(int32(n))
}
