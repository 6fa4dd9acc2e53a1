package remoting

// QueueHeader is what the offset requests have in common: 14, 15, 29, 30, 31, 32 (QueryConsumerOffset-, UpdateConsumerOffset-,
// SearchOffset-, GetMaxOffset-, GetMinOffset-, GetEarliestMsgStoretimeRequestHeader). Slices are views into the frame.
type QueueHeader struct {
	ConsumerGroup []byte
	Topic         []byte
	QueueID       int32
	CommitOffset  int64
	Timestamp     int64
	Upper         bool // boundaryType is UPPER
	SetZero       bool // setZeroIfNotFound; true when absent
	has           uint
}

// Bits for Decode's need: the fields that the request cannot do without, besides topic and queueId.
const (
	NeedGroup = 1 << iota
	NeedCommitOffset
	NeedTimestamp
	gotTopic
	gotQueue
)

// Decode fills h from the fields of c. The error is a *FieldError that names what is missing or no number.
func (h *QueueHeader) Decode(c *Command, need uint) error {
	*h = QueueHeader{SetZero: true}
	for i := range c.Fields {
		f := &c.Fields[i]
		ok := true
		switch string(f.Key) {
		case "consumerGroup":
			h.ConsumerGroup, h.has = f.Value, h.has|NeedGroup
		case "topic":
			h.Topic, h.has = f.Value, h.has|gotTopic
		case "queueId":
			ok, h.has = parseInt32(f.Value, &h.QueueID), h.has|gotQueue
		case "commitOffset":
			h.CommitOffset, ok = ParseInt(f.Value)
			h.has |= NeedCommitOffset
		case "timestamp":
			h.Timestamp, ok = ParseInt(f.Value)
			h.has |= NeedTimestamp
		case "boundaryType":
			h.Upper = string(f.Value) == "UPPER"
		case "setZeroIfNotFound":
			h.SetZero = isTrue(f.Value)
		}
		if !ok {
			return fieldError(string(f.Key), f.Value)
		}
	}
	switch lacks := (need | gotTopic | gotQueue) &^ h.has; {
	case lacks&NeedGroup != 0:
		return missing("consumerGroup")
	case lacks&gotTopic != 0:
		return missing("topic")
	case lacks&gotQueue != 0:
		return missing("queueId")
	case lacks&NeedCommitOffset != 0:
		return missing("commitOffset")
	case lacks&NeedTimestamp != 0:
		return missing("timestamp")
	}
	return nil
}
