package message

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// Separators of the properties text: name 0x01 value 0x02, the last 0x02 optional.
const (
	NameValueSeparator = 0x01
	PropertySeparator  = 0x02
)

// Property names that the system reads or writes (MessageConst).
const (
	PropertyKeys                 = "KEYS"
	PropertyTags                 = "TAGS"
	PropertyWait                 = "WAIT"
	PropertyDelay                = "DELAY"
	PropertyRetryTopic           = "RETRY_TOPIC"
	PropertyRealTopic            = "REAL_TOPIC"
	PropertyRealQueueID          = "REAL_QID"
	PropertyTransactionPrepared  = "TRAN_MSG"
	PropertyProducerGroup        = "PGROUP"
	PropertyMinOffset            = "MIN_OFFSET"
	PropertyMaxOffset            = "MAX_OFFSET"
	PropertyOriginMessageID      = "ORIGIN_MESSAGE_ID"
	PropertyReconsumeTime        = "RECONSUME_TIME"
	PropertyMsgRegion            = "MSG_REGION"
	PropertyTraceOn              = "TRACE_ON"
	PropertyUniqKey              = "UNIQ_KEY"
	PropertyMaxReconsumeTimes    = "MAX_RECONSUME_TIMES"
	PropertyPopCk                = "POP_CK"
	PropertyCluster              = "CLUSTER"
	PropertyTimerDelaySec        = "TIMER_DELAY_SEC"
	PropertyTimerDelayMs         = "TIMER_DELAY_MS"
	PropertyTimerDeliverMs       = "TIMER_DELIVER_MS"
	PropertyDLQOriginTopic       = "DLQ_ORIGIN_TOPIC"
	PropertyDLQOriginMessageID   = "DLQ_ORIGIN_MESSAGE_ID"
	PropertyShardingKey          = "__SHARDINGKEY"
	PropertyCRC32                = "__CRC32#"
	PropertyInnerMultiDispatch   = "INNER_MULTI_DISPATCH"
	PropertyInnerNum             = "INNER_NUM"
	PropertyLiteTopic            = "__LITE_TOPIC"
	PropertyPriority             = "_SYS_MSG_PRIORITY_"
	PropertyCheckImmunitySeconds = "CHECK_IMMUNITY_TIME_IN_SECONDS"
	PropertyConsumeStartTime     = "CONSUME_START_TIME"
)

// NextProperty cuts the first property from text. ok is false at the end. Entries without a name or without a value are skipped, as
// the original does. The slices are views into text.
func NextProperty(text []byte) (name, value, rest []byte, ok bool) {
	for len(text) > 0 {
		entry := text
		if end := bytes.IndexByte(text, PropertySeparator); end >= 0 {
			entry, text = text[:end:end], text[end+1:]
		} else {
			text = nil
		}
		if at := bytes.IndexByte(entry, NameValueSeparator); at > 0 && at < len(entry)-1 {
			return entry[:at:at], entry[at+1:], text, true
		}
	}
	return nil, nil, nil, false
}

// Property looks name up in the properties text; the last entry of that name wins, as in the original's map.
func Property(text []byte, name string) (value []byte, ok bool) {
	for {
		n, v, rest, more := NextProperty(text)
		if !more {
			return value, ok
		}
		if string(n) == name {
			value, ok = v, true
		}
		text = rest
	}
}

// AppendProperty adds one property to dst.
func AppendProperty(dst []byte, name string, value []byte) []byte {
	dst = append(dst, name...)
	dst = append(dst, NameValueSeparator)
	dst = append(dst, value...)
	return append(dst, PropertySeparator)
}

// AppendWithout adds the properties of text to dst, leaving out those that drop names.
func AppendWithout(dst, text []byte, drop func(name []byte) bool) []byte {
	for {
		name, value, rest, ok := NextProperty(text)
		if !ok {
			return dst
		}
		if !drop(name) {
			dst = append(dst, name...)
			dst = append(dst, NameValueSeparator)
			dst = append(dst, value...)
			dst = append(dst, PropertySeparator)
		}
		text = rest
	}
}

// Hot is what the broker looks at in every message, gathered in one pass over the properties.
type Hot struct {
	Tags, Keys, UniqKey []byte
	Delay               []byte
	Wait                []byte
	Special             bool // one of the names that need the slow look (transaction, timer, retry, multi dispatch, POP_CK)
}

// ScanHot gathers Hot from a properties text: what NextProperty finds, without a call for each of its separators. It looks for them in eight
// bytes at a time.
func ScanHot(text []byte) (h Hot) {
	from, equals := 0, -1 // where the entry began, and the separator behind its name
	for base := 0; base < len(text); base += 8 {
		var w uint64
		if left := len(text) - base; left >= 8 {
			w = binary.LittleEndian.Uint64(text[base:])
		} else {
			w = lastBytes(text, uint(left))
		}
		for marks := separatorsIn(w); marks != 0; marks &= marks - 1 {
			at := base + bits.TrailingZeros64(marks)>>3
			switch text[at] {
			case NameValueSeparator:
				if equals < 0 {
					equals = at
				}
			case PropertySeparator:
				if equals > from && equals < at-1 {
					h.take(text[from:equals], text[equals+1:at:at])
				}
				from, equals = at+1, -1
			}
		}
	}
	if equals > from && equals < len(text)-1 {
		h.take(text[from:equals], text[equals+1:])
	}
	return h
}

// separatorsIn marks, by their top bits, those of eight bytes that are 0, 1 or 2.
func separatorsIn(w uint64) uint64 {
	const each uint64 = 0x0101010101010101
	return ^((w&(each*0x7F) + each*(0x80-3)) | w) & (each * 0x80)
}

// lastBytes is the last n bytes of text, 1 to 7, and behind them some that are no separators.
func lastBytes(text []byte, n uint) (w uint64) {
	if len(text) >= 8 {
		return binary.LittleEndian.Uint64(text[len(text)-8:])>>(64-8*n) | ^uint64(0)<<(8*n)
	}
	w = ^uint64(0)
	for i := len(text) - 1; i >= 0; i-- {
		w = w<<8 | uint64(text[i])
	}
	return w
}

func (h *Hot) take(name, value []byte) {
	switch string(name) {
	case PropertyTags:
		h.Tags = value
	case PropertyKeys:
		h.Keys = value
	case PropertyUniqKey:
		h.UniqKey = value
	case PropertyWait:
		h.Wait = value
	case PropertyDelay:
		h.Delay = value
	case PropertyTransactionPrepared, PropertyTimerDelayMs, PropertyTimerDelaySec, PropertyTimerDeliverMs,
		PropertyRetryTopic, PropertyInnerMultiDispatch, PropertyInnerNum, PropertyPopCk, PropertyLiteTopic, PropertyPriority,
		PropertyMsgRegion, PropertyTraceOn, PropertyCluster, PropertyCRC32:
		h.Special = true
	}
}
