package remoting

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
		bit, ok := h.field(&c.Fields[i])
		if !ok {
			return fieldError(string(c.Fields[i].Key), c.Fields[i].Value)
		}
		seen |= bit
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

const requiredSend = 1<<8 - 1

var sendFieldNames = [...]string{
	"producerGroup", "topic", "defaultTopic", "defaultTopicQueueNums", "queueId", "sysFlag", "bornTimestamp", "flag",
}

func (h *SendHeader) field(f *Field) (bit uint, ok bool) {
	switch string(f.Key) {
	case "a", "producerGroup":
		h.ProducerGroup = f.Value
		return 1 << 0, true
	case "b", "topic":
		h.Topic = f.Value
		return 1 << 1, true
	case "c", "defaultTopic":
		h.DefaultTopic = f.Value
		return 1 << 2, true
	case "d", "defaultTopicQueueNums":
		return 1 << 3, parseInt32(f.Value, &h.DefaultTopicQueueNums)
	case "e", "queueId":
		return 1 << 4, parseInt32(f.Value, &h.QueueID)
	case "f", "sysFlag":
		return 1 << 5, parseInt32(f.Value, &h.SysFlag)
	case "g", "bornTimestamp":
		h.BornTimestamp, ok = ParseInt(f.Value)
		return 1 << 6, ok
	case "h", "flag":
		return 1 << 7, parseInt32(f.Value, &h.Flag)
	case "i", "properties":
		h.Properties = f.Value
	case "j", "reconsumeTimes":
		return 0, parseInt32(f.Value, &h.ReconsumeTimes)
	case "k", "unitMode":
		h.UnitMode = isTrue(f.Value)
	case "l", "maxReconsumeTimes":
		return 0, parseInt32(f.Value, &h.MaxReconsumeTimes)
	case "m", "batch":
		h.Batch = isTrue(f.Value)
	}
	return 0, true
}

func parseInt32(v []byte, dst *int32) bool {
	n, ok := ParseInt(v)
	*dst = int32(n)
	return ok && n == int64(int32(n))
}
